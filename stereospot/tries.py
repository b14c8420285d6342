"""Which deliveries of a message were tries: the server counts them all, also those that were given back untried.

A worker that stops, or that finds that it cannot do this work at all, adds one to the message's number of excused
deliveries before it gives it back: `tries.<stream>.<sequence>`. Whoever gets the message again subtracts. A first
delivery, which nearly all are, costs nothing.
"""

from __future__ import annotations

import dataclasses

from stereospot import errors, log, subjects
from stereospot.bus import Bus, Conflict, Delivery, Entry

_log = log.get("tries")

_TURNS = 8
"""Two who give the same message back at one moment are rare, more than a few are not possible."""


class Tries:
    """The excused deliveries of one connection's messages, in the bucket `tries`."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = bus.bucket(subjects.TRIES)

    async def counted(self, delivery: Delivery) -> Delivery:
        """The delivery with `attempt` counting real tries; raises Transient while the broker is away."""
        if delivery.attempt <= 1:
            return delivery
        try:
            entry = await self._bucket.get(subjects.tries_key(delivery.stream, delivery.stream_sequence))
        except errors.Misconfigured as problem:
            # Rights of an older version: count as it did.
            _log.warning("not read", action="retry", code=problem.code, detail=problem.detail)
            return delivery
        excused = min(_number(entry), delivery.attempt - 1)
        return dataclasses.replace(delivery, attempt=delivery.attempt - excused, excused=excused)

    async def excuse(self, delivery: Delivery) -> bool:
        """This delivery was no try; False where the broker forbids to note that. Raises Transient when it is away."""
        key = subjects.tries_key(delivery.stream, delivery.stream_sequence)
        try:
            for _ in range(_TURNS):
                entry = await self._bucket.get(key)
                value = str(_number(entry) + 1).encode()
                try:
                    if entry is None:
                        await self._bucket.create(key, value)
                    else:
                        await self._bucket.update(key, value, entry.revision)
                except Conflict:
                    continue
                return True
        except errors.Misconfigured as problem:
            _log.warning("not excused", action="retry", code=problem.code, detail=problem.detail)
        return False

    async def excused(self, stream: str, sequence: int) -> int:
        """How many deliveries of a message were no tries."""
        return _number(await self._bucket.get(subjects.tries_key(stream, sequence)))


def _number(entry: Entry | None) -> int:
    return int(entry.value) if entry is not None and entry.value.isdigit() else 0
