"""What a player may offer beside the picture: subtitles, chapters, and the choice of sound.

plan ──> which there are        store ──> which are stored        WORK, DONE ──> whether the rest still comes

…/tracks.json                   beside the playlists, under the same path token
"""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from services.gateway import coming
from services.gateway.playback import NO_STORE, GivenPlayer, NotYet, sound_name
from services.gateway.state import Gateway, Given
from stereospot import keys, records
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.media import clocks
from stereospot.media.model import Plan


@get("/v/{token:str}/{generation:int}/tracks.json", include_in_schema=False)
async def tracks(
    gateway: Given, player: GivenPlayer, token: FromPath[str], generation: FromPath[int]
) -> Response[dict[str, Any]]:
    """Text subtitles that are stored, chapters in film time, and sounds; `more` says whether to ask again.

    A film that starts late has its first picture at `late_seconds`, where its stream begins with it: cues and chapters
    come by so much earlier in that.
    `sounds` are the tracks of a whole film's stream: browsers offer no choice of a file's sound, the stream does.
    """
    job = (await player.row(token, generation)).job
    plan = await gateway.plans.head(job.job_id, generation)
    if plan is None:
        raise NotYet
    # Before the look at what is there: what comes in between is then seen, or said to be on its way.
    is_coming = job.is_active or (job.phase is Phase.COMPLETED and await coming.sound(gateway.context.bus, job))
    subtitles = await _subtitles(gateway, job, plan)
    sounds = await _sounds(gateway, job, plan)
    texts = sum(not track.bitmap for track in plan.source.subtitles)
    missing = len(subtitles) < texts or len(sounds) < len(plan.source.audio) > 1
    origin = float(clocks.origin_seconds(plan))
    chapters = [
        {"title": item.title, "start_seconds": max(0.0, item.start_seconds - origin)} for item in plan.source.chapters
    ]
    body = {
        "subtitles": subtitles,
        "chapters": chapters,
        "sounds": sounds,
        "late_seconds": await _late(gateway, plan),
        "more": missing and is_coming,
    }
    return Response(body, headers=NO_STORE)


async def _late(gateway: Gateway, plan: Plan) -> float:
    """Where the first picture lies in the film, in seconds."""
    part = await gateway.plans.part(plan.job_id, plan.generation, 0)
    first = part.segments[0].start if part is not None else plan.source.video.first_pts
    return float((first - clocks.origin(plan)) * plan.encode.time_base)


async def _subtitles(gateway: Gateway, job: Job, plan: Plan) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, track in enumerate(plan.source.subtitles):
        key = keys.subtitles(job.job_id, job.generation, number, "vtt")
        if track.bitmap or await gateway.context.store.head(key) is None:
            continue
        name = track.title or track.language or f"Subtitles {number + 1}"
        found.append({"name": name, "language": track.language, "uri": f"subtitles/{number}.vtt"})
    return found


async def _sounds(gateway: Gateway, job: Job, plan: Plan) -> list[str]:
    """The film's sound tracks, once its stream has all of every one; none when the stream is kept no more."""
    audio = plan.source.audio
    state = await _state(gateway, job) if audio and job.has_stream else None
    if state is None or not state.is_complete or state.sound_prefix(0) != state.total:
        return []
    last = keys.audio_segment(job.job_id, job.generation, len(audio) - 1, state.audio_ready - 1)
    if await gateway.context.store.head(last) is None:
        return []
    return [sound_name(number, track) for number, track in enumerate(audio)]


async def _state(gateway: Gateway, job: Job) -> Completion | None:
    """The completion set; of a film that is done the broker's own, since the index may be a moment behind the end."""
    if job.is_active:
        return await gateway.index.completion(job.job_id, job.generation)
    kept = await records.get_state(gateway.context.bus, job.job_id, job.generation)
    return None if kept is None else kept[0]


HANDLERS = (tracks,)
