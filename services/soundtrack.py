"""How far the sound of one job is cut, and telling it: chunks come from the film's beginning and from where people are.

A chunk that is there stays, also when the work begins anew: players may hold it already, and the same chunk out of
another cut is the same sound; byte for byte where the film's own times are exact, within their rounding where they
drift.
"""

from __future__ import annotations

from services.context import Context
from stereospot import crash, keys, subjects
from stereospot.jobs import Job
from stereospot.media.audio import AudioChunk
from stereospot.messages import AudioDone

crash.declare("audio.chunk_stored", "audio.done_published")

REPORT_EVERY = 4
"""Segments between two reports; the first one is reported by itself, since somebody may be waiting to hear it."""


class Soundtrack:
    """The stored chunks of every track (at least one) of a generation; one task each may cut from another place."""

    def __init__(self, context: Context, job: Job, tracks: int) -> None:
        self._store = context.store
        self._bus = context.bus
        self._job = job
        self._stored: list[set[int]] = [set() for _ in range(tracks)]
        self._ends: dict[int, int] = {}
        self._recalled = False
        self._told: dict[int, int] = {}

    async def recall(self) -> None:
        """Find what an earlier run stored; no-op once that is known.

        Beside the cut, not before it: until then the store itself keeps what is there.
        """
        if self._recalled:
            return
        prefix = keys.audio_prefix(self._job.job_id, self._job.generation)
        async for item in self._store.list(prefix):
            found = keys.parse_audio_segment(item.key)
            if found is not None and found.track < len(self._stored):
                self._stored[found.track].add(found.index)
        self._recalled = True

    def is_whole(self, index: int) -> bool:
        """Whether every track has its chunk of a segment."""
        return all(index in track for track in self._stored)

    def end(self, start: int) -> int:
        """The first segment from `start` on that lacks sound; asked again it goes on from its last answer."""
        end = self._ends.get(start, start)
        while self.is_whole(end):
            end += 1
        self._ends[start] = end
        return end

    async def keep(self, chunk: AudioChunk) -> None:
        """Store a chunk, unless it is there already."""
        job_id, generation = self._job.job_id, self._job.generation
        if chunk.index is None:
            await self._store.put(keys.audio_init(job_id, generation, chunk.track), chunk.data, if_absent=True)
        elif chunk.index not in self._stored[chunk.track]:
            key = keys.audio_segment(job_id, generation, chunk.track, chunk.index)
            await self._store.put(key, chunk.data, if_absent=True)
            self._stored[chunk.track].add(chunk.index)
        crash.point("audio.chunk_stored")

    async def tell(self, first: int, *, last: bool = False) -> None:
        """Report what hangs together from `first` on, if it is worth a message; the last time whatever it is."""
        end, told = self.end(first), self._told.get(first, first)
        if end > told and (last or told == first or end - told >= REPORT_EVERY):
            self._told[first] = end
            job_id, generation = self._job.job_id, self._job.generation
            done = AudioDone(job_id=job_id, generation=generation, first=first, until=end, ready=0 if first else end)
            await self._bus.publish(
                subjects.done_plan(job_id, generation, "audio"),
                done,
                msg_id=f"audio.{job_id}.{generation}.{f'{first}-' if first else ''}{end}",
            )
            crash.point("audio.done_published")
