"""The audio service: sound and subtitles for playback while the pictures are still being converted.

    work.audio.<job>.<gen> ─> per track, cut at the boundaries of the plan's parts as they come
                           ─> init, fragments, WebVTT stored
                           ─> done.<job>.<gen>.audio with how far every track has come

What it makes is for players only; the film takes its sound from the source. So sound that cannot be cut is a warning on
the job, never its end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterator, Sequence

from pydantic import ValidationError

from services import plans, sources
from services.context import Context
from services.watch import Threads, is_wanted, watching
from stereospot import crash, errors, keys, log, records, subjects
from stereospot.bus import Delivery
from stereospot.jobs import Job, Phase
from stereospot.media import audio as cutting
from stereospot.media import subtitles
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.media.source import Source
from stereospot.messages import AudioDone, AudioWork, Failure
from stereospot.outcome import Ack, Outcome, Reject, Retry

_log = log.get("audio")

crash.declare("audio.begun", "audio.chunk_stored", "audio.done_published", "audio.subtitles_stored")

PHASES = frozenset({Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING})

REPORT_EVERY = 4
"""Segments between two reports; the first one is reported by itself, since somebody may be waiting to hear it."""


LONGEST_PAUSE = 1.0
"""Seconds between two looks for the next part of a plan whose scan is still going on."""


class Audio:
    """Handles `work.audio`; one job a slot."""

    def __init__(self, context: Context, *, slots: int = 2) -> None:
        self.slots = slots
        self._bus = context.bus
        self._store = context.store
        self._plans = plans.Plans(context.store)
        self._threads = Threads(slots, "audio")
        self._limits = Limits.of(context.settings)

    def close(self) -> None:
        self._threads.close()

    async def handle(self, delivery: Delivery) -> Outcome:
        """Cut all sound of one generation; begins anew when repeated, over equal objects."""
        try:
            work = delivery.parse(AudioWork)
        except ValidationError as error:
            return Reject(Failure.of(errors.error("INVALID_REQUEST", str(error))))
        found = await records.get_job(self._bus, work.job_id)
        if found is None or not is_wanted(found[0], work.generation, PHASES):
            return Ack("stale")
        head = await self._plans.head(work.job_id, work.generation)
        if head is None:
            return Retry(reason="the plan is not readable yet")
        crash.point("audio.begun")
        async with watching(self._bus, work.job_id, work.generation, PHASES) as stop:
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
        """The job goes on without sound while it converts; the film will have it."""
        try:
            work = delivery.parse(AudioWork)
        except ValidationError:
            return
        text = f"There is no sound while this job converts: {failure.sentence} {failure.detail}".strip()

        def warn(job: Job) -> Job | None:
            return job.with_warning(failure.code, text) if is_wanted(job, work.generation, PHASES) else None

        if await records.get_job(self._bus, work.job_id) is not None:
            await records.change_job(self._bus, work.job_id, warn)

    async def _cut(self, job: Job, head: Plan, source: Source, stop: threading.Event) -> None:
        """Store every track's fragments and report how far all of them are."""
        parts = self._parts(job, stop, asyncio.get_running_loop())
        chunks = cutting.cut(source, head.source, head, parts, limits=self._limits, stop=stop)
        ready = [0] * len(head.source.audio)
        told = 0
        while (chunk := await self._threads.run(_next, chunks)) is not None:
            key = (
                keys.audio_init(job.job_id, job.generation, chunk.track)
                if chunk.index is None
                else keys.audio_segment(job.job_id, job.generation, chunk.track, chunk.index)
            )
            await self._store.put(key, chunk.data)
            crash.point("audio.chunk_stored")
            if chunk.index is not None:
                ready[chunk.track] = chunk.index + 1
            least = min(ready)
            if least > told and (told == 0 or least - told >= REPORT_EVERY):
                told = least
                await self._tell(job, told)
        if ready and min(ready) > told:
            await self._tell(job, min(ready))

    def _parts(self, job: Job, stop: threading.Event, loop: asyncio.AbstractEventLoop) -> Generator[Sequence[Segment]]:
        """The plan's parts as the scan stores them, for a thread that waits for each."""
        first = 0
        while part := asyncio.run_coroutine_threadsafe(self._part(job, first, stop), loop).result():
            yield part
            first += len(part)

    async def _part(self, job: Job, first: int, stop: threading.Event) -> Sequence[Segment]:
        """The part that begins with segment `first`, once it is stored; nothing behind the last."""
        pause = 0.05
        while not stop.is_set():
            total = await self._plans.total(job.job_id, job.generation)
            part = await self._plans.part(job.job_id, job.generation, first)
            if part is not None:
                return part.segments
            if total is not None:
                return ()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise errors.error("CANCELLED")

    async def _subtitles(self, head: Plan, source: Source, stop: threading.Event) -> None:
        """Store each text track as WebVTT for the page's player, and as ASS with every cue once for each eye."""
        if all(track.bitmap for track in head.source.subtitles):
            return
        found = await self._threads.run(subtitles.read, source, head.source, limits=self._limits, stop=stop)
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

    async def _tell(self, job: Job, ready: int) -> None:
        done = AudioDone(job_id=job.job_id, generation=job.generation, ready=ready)
        await self._bus.publish(
            subjects.done_plan(job.job_id, job.generation, "audio"),
            done,
            msg_id=f"audio.{job.job_id}.{job.generation}.{ready}",
        )
        crash.point("audio.done_published")


def _next(chunks: Iterator[cutting.AudioChunk]) -> cutting.AudioChunk | None:
    return next(chunks, None)
