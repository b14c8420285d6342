"""The audio service: sound and subtitles for playback while the pictures are still being converted.

    work.audio.<job>.<gen> ─> per track, cut at the boundaries of the plan's parts as they come
          job's playhead   ─> a second cut from there, where the first one is far from it
                           ─> init, fragments, WebVTT stored
                           ─> done.<job>.<gen>.audio with how far every track has come, from either beginning

What it makes is for players only; the film takes its sound from the source. So sound that cannot be cut is a warning on
the job, never its end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Sequence
from typing import Self

from services import plans, sources
from services.context import Context
from services.soundtrack import Soundtrack
from services.watch import Threads, beside, is_wanted, watching
from stereospot import crash, errors, keys, log, records
from stereospot.bus import Delivery
from stereospot.jobs import Job, Phase
from stereospot.media import audio as cutting
from stereospot.media import clocks, subtitles
from stereospot.media.limits import Limits
from stereospot.media.model import ClockReset, Plan, PlanPart
from stereospot.media.source import Source
from stereospot.messages import AudioWork, Failure
from stereospot.outcome import Ack, Outcome, Retry

_log = log.get("audio")

crash.declare("audio.begun", "audio.subtitles_stored")

PLAYED = frozenset({Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING, Phase.COMPLETED})
"""A film whose pictures were done first keeps its stream, and whoever watches that wants to hear its end."""

NEAR = 2
"""Segments that a cut is soon done with: nobody needs another one for them."""

PLAYHEAD_SECONDS = 0.1
"""How often a job's record is looked at for where somebody watches; who jumps waits for it, and a look is cheap."""

PAUSE_SECONDS = 0.5
"""Before another try where a cut from the playhead could not be."""

LONGEST_PAUSE = 1.0
"""Seconds between two looks for the next part of a plan whose scan is still going on."""


class Audio:
    """Handles `work.audio`; one job a slot."""

    def __init__(self, context: Context, *, slots: int = 2) -> None:
        self.slots = slots
        self._context = context
        self._bus = context.bus
        self._store = context.store
        self._plans = plans.Plans(context.store)
        self._threads = Threads(2 * slots, "audio")
        self._limits = Limits.of(context.settings)

    def close(self) -> None:
        self._threads.close()

    async def handle(self, delivery: Delivery) -> Outcome:
        """Cut all sound of one generation; begins anew when repeated, and keeps what is stored."""
        work = delivery.parse(AudioWork)
        found = await records.get_job(self._bus, work.job_id)
        if found is None or not is_wanted(found[0], work.generation, PLAYED):
            return Ack("stale")
        head = await self._plans.head(work.job_id, work.generation)
        if head is None:
            return Retry(reason="the plan is not readable yet")
        crash.point("audio.begun")
        async with watching(self._bus, work.job_id, work.generation, PLAYED) as stop:
            try:
                source = await sources.open_source(self._store, found[0].source)
                try:
                    await self._cut(found[0], head, source, stop)
                    await self._subtitles(head, source, stop)
                finally:
                    await asyncio.to_thread(source.close)
            except errors.StereoSpotError as error:
                if error.code == "CANCELLED" or stop.is_set():
                    return Ack("not wanted any more")
                raise
        return Ack()

    async def reject(self, delivery: Delivery, failure: Failure) -> None:
        """Say on the job that its stream has no sound, or not all of it; the film has it."""
        try:
            work = delivery.parse(AudioWork)
        except errors.Permanent:
            return
        text = f"The stream lacks sound that the film will have: {failure.sentence} {failure.detail}".strip()

        def warn(job: Job) -> Job | None:
            return job.with_warning(failure.code, text) if is_wanted(job, work.generation, PLAYED) else None

        if await records.get_job(self._bus, work.job_id) is not None:
            await records.change_job(self._bus, work.job_id, warn)

    async def _cut(self, job: Job, head: Plan, source: Source, stop: threading.Event) -> None:
        """Store every track's fragments and report how far all of them are."""
        if not head.source.audio:
            return  # it came for its subtitles
        track = Soundtrack(self._context, job, len(head.source.audio))
        async with beside(self._follow(job, head, track)):
            await self._lane(job, head, source, track, stop)

    async def _lane(
        self, job: Job, head: Plan, source: Source, track: Soundtrack, stop: threading.Event, first: int = 0
    ) -> None:
        """Cut from segment `first` on; if that is not the film's first, until there is sound or nobody is there.

        A cancelled lane sets `stop`: its thread must come to an end before anyone closes what it reads.
        """
        origin = None
        if first:
            begin = await self._plans.part(job.job_id, job.generation, 0)
            if begin is None:
                return
            origin = begin.segments[0].start
        parts = self._parts(job, stop, asyncio.get_running_loop(), first)
        cut = cutting.cut(source, head.source, head, parts, origin=origin, limits=self._limits, stop=stop)
        async with Chunks(self._threads, cut, stop) as chunks:
            while (chunk := await chunks.next()) is not None:
                if first and (
                    (chunk.index is not None and track.is_whole(chunk.index))
                    or not first <= track.end(await self._playhead(job)) <= track.end(first) + NEAR
                ):
                    break
                await track.keep(chunk)
                await track.tell(first)
        await track.tell(first, last=True)

    # ---- where somebody watches -------------------------------------------------------------------------
    async def _follow(self, job: Job, head: Plan, track: Soundtrack) -> None:
        """Cut from the job's playhead on, while the cut from the beginning is far from it; until cancelled."""
        tried = 0
        while True:
            try:
                await track.recall()
                first = track.end(await self._playhead(job))
                is_near = first == tried or first <= track.end(0) + NEAR
                if is_near or await self._is_behind(job, first):
                    await asyncio.sleep(PLAYHEAD_SECONDS)
                    continue
                tried = first
                _log.info("cut from the playhead", action="start", job_id=job.job_id, segment_index=first)
                source = await sources.open_source(self._store, job.source)
                try:
                    await self._lane(job, head, source, track, threading.Event(), first)
                finally:
                    await asyncio.to_thread(source.close)
            except errors.StereoSpotError as error:
                # The cut from the beginning comes here too, only later; what is wrong with the film it will tell.
                _log.info("no cut from the playhead", action="ignore", job_id=job.job_id, code=error.code)
                tried = 0 if isinstance(error, errors.Transient) else tried
                await asyncio.sleep(PAUSE_SECONDS)
            except Exception:
                # This cut is a favour: what breaks in it must not cost the one from the beginning.
                _log.exception("the cut from the playhead broke", action="ignore", job_id=job.job_id)
                return

    async def _playhead(self, job: Job) -> int:
        """The segment where somebody watches; 0 where nobody does."""
        found = await records.get_job(self._bus, job.job_id)
        return (found[0].playhead or 0) if found is not None else 0

    async def _is_behind(self, job: Job, index: int) -> bool:
        """Whether the film is known to end before this segment."""
        total = await self._plans.total(job.job_id, job.generation)
        return total is not None and index >= total.segments

    def _parts(
        self, job: Job, stop: threading.Event, loop: asyncio.AbstractEventLoop, first: int
    ) -> Generator[PlanPart]:
        """The plan's parts as the scan stores them, from segment `first` on, for a thread that waits for each."""
        at = 0
        while part := asyncio.run_coroutine_threadsafe(self._part(job, at, stop), loop).result():
            at += len(part.segments)
            if wanted := tuple(segment for segment in part.segments if segment.index >= first):
                yield part.model_copy(update={"segments": wanted})

    async def _part(self, job: Job, first: int, stop: threading.Event) -> PlanPart | None:
        """The part that begins with segment `first`, once it is stored; None behind the last."""
        pause = 0.05
        while not stop.is_set():
            total = await self._plans.total(job.job_id, job.generation)
            part = await self._plans.part(job.job_id, job.generation, first)
            if part is not None:
                return part
            if total is not None:
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise errors.error("CANCELLED")

    async def _resets(self, head: Plan, stop: threading.Event) -> Sequence[ClockReset]:
        """Where the source's clock is set anew: known when the scan is over, unless its times are good anyway."""
        if not head.decode.repaired:
            return ()
        while not stop.is_set():
            total = await self._plans.total(head.job_id, head.generation)
            if total is not None:
                return total.resets
            await asyncio.sleep(LONGEST_PAUSE)
        raise errors.error("CANCELLED")

    async def _subtitles(self, head: Plan, source: Source, stop: threading.Event) -> None:
        """Store each text track as WebVTT for the page's player, and as ASS with every cue once for each eye."""
        if all(track.bitmap for track in head.source.subtitles):
            return
        origin = clocks.origin_seconds(head)
        resets = await self._resets(head, stop)
        found = await self._threads.run(
            subtitles.read, source, head.source, origin=origin, resets=resets, limits=self._limits, stop=stop
        )
        width, height = head.encode.width, head.encode.height
        for track, cues in found.items():
            sidecars = {
                "vtt": subtitles.webvtt(cues),
                "ass": subtitles.ass(cues, head.encode.layout, width, height),
            }
            for extension, text in sidecars.items():
                key = keys.subtitles(head.job_id, head.generation, track, extension)
                await self._store.put(key, text.encode())
        crash.point("audio.subtitles_stored")


class Chunks:
    """A cut whose chunks are made in threads, one after the other; the end of the block is the end of its child.

    A chunk that is being made when the block is cancelled is given up by `stop`, and waited for.
    """

    def __init__(self, threads: Threads, cut: Generator[cutting.AudioChunk], stop: threading.Event) -> None:
        self._threads = threads
        self._cut = cut
        self._stop = stop
        self._turn = threading.Lock()

    async def next(self) -> cutting.AudioChunk | None:
        """The next chunk; None behind the last."""
        return await self._threads.run(self._next)

    def _next(self) -> cutting.AudioChunk | None:
        with self._turn:
            return next(self._cut, None)

    def _close(self) -> None:
        with self._turn:
            self._cut.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is asyncio.CancelledError:
            self._stop.set()
        await self._threads.run(self._close)
