"""Open decoders of a converter, kept between segments: consecutive ranges go on without a seek, bit-identical.

A decoder is a jailed child that owns a position in the source. A segment that starts where one of its job's decoders
stopped takes that one; else the one that was idle longest makes room.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from inference.contract import Frames
from inference.depth import user
from services.context import Context
from stereospot.jobs import Job
from stereospot.media.frames import Decoder
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.media.source import Source

DEPTH_SLOTS = 4
"""Pictures of given depth that are decoded ahead; they are copied as they are taken."""

IDLE_SECONDS = 20.0
"""A decoder without work is closed after so long."""


@dataclass(slots=True, eq=False)
class Lease:
    """A decoder on loan to one segment, and the event that stops it."""

    owner: tuple[str, int]
    decoder: Decoder
    source: Source
    stop: threading.Event = field(default_factory=threading.Event)
    depth: Decoder | None = None
    depth_source: Source | None = None
    at: int | None = None
    idle_since: float = 0.0

    def frames(self, segment: Segment) -> Frames:
        """What a conversion of `segment` reads from: the film, with the depth that was given for it."""
        return self.decoder if self.depth is None else user.Paired(self.decoder, self.depth, segment)


class Decoders:
    """The decoders of one process; used from the event loop only."""

    def __init__(self, context: Context, *, capacity: int) -> None:
        self._limits = Limits.of(context.settings)
        self._capacity = capacity
        self._idle: list[Lease] = []
        self._leased = 0
        self.opened = 0

    async def lease(
        self,
        job: Job,
        head: Plan,
        segment: Segment,
        open_source: Callable[[], Awaitable[Source]],
        open_depth: Callable[[], Awaitable[Source]] | None = None,
    ) -> Lease:
        """A decoder of this job, at the segment's start if one is there; opens the source for a new one.

        open_depth: of a plan with given depth, which gets a decoder of its own beside the film's.
        """
        owner = (job.job_id, job.generation)
        # Counted before anything is awaited: other segments ask while this one opens or closes.
        self._leased += 1
        try:
            await self.expire()
            own = [item for item in self._idle if item.owner == owner]
            chosen = next((item for item in own if item.at == segment.start), None)
            if chosen is None and own and len(self._idle) + self._leased > self._capacity:
                chosen = min(own, key=lambda item: item.idle_since)
            if chosen is not None:
                self._idle.remove(chosen)
            else:
                while self._idle and len(self._idle) + self._leased > self._capacity:
                    await self._close(self._idle.pop(0))
                chosen = await self._open(owner, head, open_source, open_depth)
        except BaseException:
            self._leased -= 1
            raise
        chosen.at = segment.end
        return chosen

    async def _open(
        self,
        owner: tuple[str, int],
        head: Plan,
        open_source: Callable[[], Awaitable[Source]],
        open_depth: Callable[[], Awaitable[Source]] | None,
    ) -> Lease:
        source = await open_source()
        stop = threading.Event()
        decoder = Decoder(source, head.decode, head.source, limits=self._limits, stop=stop)
        try:
            await asyncio.to_thread(decoder.__enter__)
        except BaseException:
            await asyncio.to_thread(source.close)
            raise
        opened = Lease(owner, decoder, source, stop)
        self.opened += 1
        if head.depth is not None and open_depth is not None:
            try:
                opened.depth_source = await open_depth()
                depth = Decoder(
                    opened.depth_source, head.depth.decode, head.depth.source, limits=self._limits,
                    slots=DEPTH_SLOTS, stop=stop,
                )  # fmt: skip
                await asyncio.to_thread(depth.__enter__)
                opened.depth = depth
            except BaseException:
                await self._close(opened)
                raise
        return opened

    async def give_back(self, lease: Lease) -> None:
        """The segment ended well: keep the decoder where it stands."""
        self._leased -= 1
        if lease.stop.is_set() or lease.at is None:
            await self._close(lease)
            return
        lease.idle_since = time.monotonic()
        self._idle.append(lease)

    async def discard(self, lease: Lease) -> None:
        """The segment ended badly: nothing is known of the decoder's state."""
        self._leased -= 1
        lease.stop.set()
        await self._close(lease)

    async def close(self) -> None:
        while self._idle:
            await self._close(self._idle.pop())

    async def expire(self) -> None:
        """Close decoders that nobody has used for IDLE_SECONDS."""
        now = time.monotonic()
        due = [item for item in self._idle if item.idle_since + IDLE_SECONDS < now]
        # Taken out before the first is closed: several segments may ask at once.
        self._idle = [item for item in self._idle if item not in due]
        await asyncio.gather(*(self._close(item) for item in due))

    async def _close(self, lease: Lease) -> None:
        lease.stop.set()
        for decoder in (lease.decoder, lease.depth):
            if decoder is not None:
                await asyncio.to_thread(decoder.__exit__, None, None, None)
        for source in (lease.source, lease.depth_source):
            if source is not None:
                await asyncio.to_thread(source.close)
