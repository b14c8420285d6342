"""Which deliveries of a message were tries: the server counts them all, also those that were given back untried.

A worker that stops, or that finds that it cannot do this work at all, adds one to the message's number of excused
deliveries before it gives it back: `tries.<stream>.<sequence>`. Whoever gets the message again subtracts. A first
delivery, which nearly all are, costs nothing. How long an attempt has waited for what is away goes along in a header,
which workers of an older version neither read nor keep.
"""

from __future__ import annotations

import dataclasses

from stereospot import errors, log, subjects
from stereospot.bus import Bus, Conflict, Delivery, Entry

_log = log.get("tries")

_WAITED = "Stereospot-Waited"
"""`<attempt> <milliseconds>`: counted by whoever waited, so that no clock has to agree with another."""

_TURNS = 8
"""Two who give the same message back at one moment are rare, more than a few are not possible."""


class Tries:
    """The excused deliveries of one connection's messages, in the bucket `tries`."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = bus.bucket(subjects.TRIES)

    async def counted(self, delivery: Delivery) -> Delivery:
        """The delivery with `attempt` counting real tries, and how long that has waited; raises Transient while the
        broker is away."""
        if delivery.attempt <= 1:
            return delivery
        try:
            entry = await self._bucket.get(subjects.tries_key(delivery.stream, delivery.stream_sequence))
        except errors.Misconfigured as problem:
            # Rights of an older version: count as it did.
            _log.warning("not read", action="retry", code=problem.code, detail=problem.detail)
            return delivery
        excused = min(_number(entry), delivery.attempt - 1)
        attempt = delivery.attempt - excused
        return dataclasses.replace(
            delivery, attempt=attempt, excused=excused, waited_seconds=_waited_seconds(entry, attempt)
        )

    async def excuse(self, delivery: Delivery, *, waited_seconds: float | None = None) -> bool:
        """This delivery was no try; False where the broker forbids to note that. Raises Transient when it is away.

        waited_seconds: how long its attempt has waited so far; None leaves what is noted of that.
        """
        key = subjects.tries_key(delivery.stream, delivery.stream_sequence)
        try:
            for _ in range(_TURNS):
                entry = await self._bucket.get(key)
                value = str(_number(entry) + 1).encode()
                said = _said(entry) if waited_seconds is None else f"{delivery.attempt} {int(waited_seconds * 1000)}"
                headers = {_WAITED: said} if said else {}
                try:
                    if entry is None:
                        await self._bucket.create(key, value, headers=headers)
                    else:
                        await self._bucket.update(key, value, entry.revision, headers=headers)
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


def _said(entry: Entry | None) -> str:
    return entry.headers.get(_WAITED, "") if entry is not None else ""


def _waited_seconds(entry: Entry | None, attempt: int) -> float:
    """How long this attempt has waited; what an earlier one waited was that one's."""
    tokens = _said(entry).split()
    if len(tokens) != 2 or tokens[0] != str(attempt) or not tokens[1].isdigit():
        return 0.0
    return int(tokens[1]) / 1000
