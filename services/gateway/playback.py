"""Playback under a path token, while a job converts and after.

    /v/<token>/<generation>/master.m3u8                 the film from its beginning
    /v/<token>/<generation>/from/<k>/master.m3u8        from segment k on: an anchor for seeking
    …/from/<k>/video.m3u8, …/from/<k>/audio/<track>.m3u8
    …/video/<index>.m4s, …/audio/<track>/<index>.m4s, …/film, …/film/<its file name>, …/subtitles/<track>.vtt

A media playlist lists the run of segments from its anchor on whose pictures AND sound are stored, and nothing else, so
it names no object that is not there; the run only grows, and ends with ENDLIST when it reaches a known total. Where
nothing comes any more it ends as it is: of a job that failed or was cancelled, and of a film whose sound broke off.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from services.gateway import bandwidth, coming
from services.gateway.problems import problem
from services.gateway.shortcut import HEADERS, Shortcut
from services.gateway.state import Gateway
from services.gateway.table import Row
from stereospot import errors, keys, log
from stereospot.completion import Completion
from stereospot.jobs import Phase
from stereospot.media import boxes, hls
from stereospot.media.audio import chunk_channels
from stereospot.media.hls import Entry, Rendition
from stereospot.media.model import AudioTrack, Plan, Segment

_log = log.get("gateway")

NO_STORE = {"Cache-Control": "no-store"}
CACHED = 512
MAX_WAIT_SECONDS = 30

_RANGES: dict[int, Literal["PQ", "HLG"]] = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, slots=True)
class Showing:
    """What one request plays: a job's record, plan and completion set."""

    row: Row
    plan: Plan
    state: Completion
    over: bool = False
    """Whether it is known that nothing comes any more; `Player.stream` finds out."""

    @property
    def has_sound(self) -> bool:
        """Whether playlists wait for sound: the source says so, and what is stored once nothing comes any more.

        A film may be done before the first of its sound is cut.
        """
        return bool(self.plan.source.audio) and self.state.expects_sound(not self.over)

    @property
    def is_whole(self) -> bool:
        """Whether all pictures are there, and all sound that is waited for."""
        return self.state.is_complete and (not self.has_sound or self.state.sound_prefix(0) == self.state.total)

    @property
    def is_settled(self) -> bool:
        """Whether what it shows changes with the record and the completion set only."""
        return self.row.job.is_active or self.over or self.is_whole

    def sings(self, anchor: int) -> bool:
        """Whether what is played from `anchor` on has sound, or waits for it; behind sound that broke off it is silent.

        Beside each other, sound that ends and pictures that go on stop players that buffer both: so no run has that.
        """
        return self.has_sound and (not self.over or self.state.sound_prefix(anchor) > anchor)

    def run(self, anchor: int) -> int:
        """The first index from `anchor` on that cannot be played yet."""
        end = self.state.prefix(anchor)
        return min(end, self.state.sound_prefix(anchor)) if self.sings(anchor) else end


class NotYet(Exception):
    """Nothing to play at this place yet: 404 with Retry-After, on which players ask again (they give up on 403)."""


@dataclass(slots=True)
class Player:
    """Finds what a token and a path show; keeps the texts of playlists that many ask for."""

    gateway: Gateway
    shortcut: Shortcut
    _codecs: OrderedDict[str, str] = field(default_factory=OrderedDict[str, str])
    _texts: OrderedDict[tuple[Any, ...], bytes] = field(default_factory=OrderedDict[tuple[Any, ...], bytes])
    _targets: OrderedDict[tuple[Any, ...], float] = field(default_factory=OrderedDict[tuple[Any, ...], float])
    _rates: OrderedDict[tuple[Any, ...], tuple[int, int]] = field(
        default_factory=OrderedDict[tuple[Any, ...], tuple[int, int]]
    )
    _measuring: asyncio.Lock = field(default_factory=asyncio.Lock)

    def remember(self, request: Request[Any, Any, Any], token: str, shown: Showing, body: bytes) -> None:
        """Have the next one who asks this sent the same, while it is true."""
        if shown.is_settled and not request.url.query:
            route = str(request.scope.get("path_template", ""))
            self.shortcut.keep(request.url.path, body, route=route, token=token, row=shown.row, state=shown.state)

    async def row(self, token: str, generation: int) -> Row:
        """The job of a token, if it still has this generation; else NOT_FOUND, whatever the reason."""
        row = await self.handed(token, generation)
        if row.job.generation != generation:
            raise nothing("an earlier try", row.job.job_id)
        return row

    async def handed(self, token: str, generation: int) -> Row:
        """The same for an address that is opened for the film, not for one try at it: it may be of an earlier try."""
        job_id = self.gateway.tokens.check(token)
        if job_id is None:
            raise nothing("forged or expired")
        row = await self.gateway.index.row(job_id)
        if row is None or row.job.phase is Phase.DELETED:
            raise nothing("no such job", job_id)
        if row.job.generation < generation:
            raise nothing("a try to come", job_id)
        return row

    async def showing(self, token: str, generation: int) -> Showing:
        row = await self.row(token, generation)
        if not row.job.has_stream:
            raise errors.error("STREAM_EXPIRED")
        plan = await self.gateway.plans.head(row.job.job_id, generation)
        state = await self.gateway.index.completion(row.job.job_id, generation)
        if plan is None or state is None or state.init is None:
            raise NotYet
        return Showing(row, plan, state)

    async def stream(self, token: str, generation: int) -> Showing:
        """The same, and whether more of it will come: asked of the broker where the job is at rest and lacks some."""
        shown = await self.showing(token, generation)
        if shown.is_settled:
            return shown
        return replace(shown, over=await coming.nothing(self.gateway.context.bus, shown.row, shown.state))

    async def segments(self, shown: Showing, start: int, end: int) -> list[Segment]:
        """Segments `start … end-1` of the plan, from the parts that hold them."""
        job = shown.row.job
        found: list[Segment] = []
        for first in shown.state.parts:
            if first >= end:
                break
            part = await self.gateway.plans.part(job.job_id, job.generation, first)
            if part is None or first + len(part.segments) <= start:
                continue
            found += [item for item in part.segments if start <= item.index < end]
        if [item.index for item in found] != list(range(start, end)):
            raise NotYet
        return found

    async def target(self, shown: Showing) -> float:
        """TARGETDURATION in seconds: no segment of the film is longer, be it listed yet or not.

        A picture that stands makes a segment longer than the cuts would have it. RFC 8216 6.2.1 lets no playlist change
        this as it grows: so it is taken from all that is planned, which is the whole film long before it is converted.
        Only a still that the scan finds after the first playlist was asked for can raise it.
        """
        job, plan, parts = shown.row.job, shown.plan, shown.state.parts
        key = (job.job_id, job.generation, parts)
        known = self._targets.get(key)
        if known is not None:
            return known
        found = [await self.gateway.plans.part(job.job_id, job.generation, first) for first in parts]
        ticks = max((item.duration for part in found if part is not None for item in part.segments), default=0)
        target = max(plan.target_seconds, float(ticks * plan.source.video.time_base))
        if None not in found:
            _keep(self._targets, key, target)
        return target

    async def media(self, shown: Showing, anchor: int, track: int | None) -> bytes:
        """The media playlist of the pictures, or of one audio track."""
        end = shown.run(anchor)
        job = shown.row.job
        over = shown.over or end == shown.state.total  # from here on nothing is added behind this anchor
        if end == anchor:
            raise NotYet
        target = await self.target(shown)
        key = (job.job_id, job.generation, anchor, track, end, over, target)
        text = self._texts.get(key)
        if text is None:
            segments = await self.segments(shown, anchor, end)
            text = _text(shown, segments, track, target, over).encode()
            _keep(self._texts, key, text)
        return text

    async def master(self, shown: Showing, anchor: int, prefix: str) -> str:
        if shown.run(anchor) == anchor:
            raise NotYet
        job, plan, state = shown.row.job, shown.plan, shown.state
        codecs = [await self._codec(keys.init(job.job_id, job.generation, state.init or ""))]
        renditions: list[Rendition] = []
        if shown.sings(anchor):
            for number, track in enumerate(plan.source.audio):
                codecs.append(await self._codec(keys.audio_init(job.job_id, job.generation, number)))
                name = sound_name(number, track)
                first = not any(item.default for item in plan.source.audio) and number == 0
                uri = f"{prefix}audio/{number}.m3u8"
                renditions.append(Rendition(uri, name, track.language, track.default or first, chunk_channels(track)))
        spec = plan.encode
        peak, average = await self._bandwidth(shown, anchor, len(renditions))
        return hls.master_playlist(
            f"{prefix}video.m3u8",
            codecs=codecs,
            peak_bits=peak,
            average_bits=average,
            width=spec.width,
            height=spec.height,
            rate=spec.rate,
            layout=spec.layout,
            audio=renditions,
            hdr=_RANGES.get(spec.colour.transfer, "SDR"),
        )

    async def _bandwidth(self, shown: Showing, anchor: int, sounds: int) -> tuple[int, int]:
        """(peak, average) bits a second, measured once for what is shown; `bandwidth` has how."""
        place = (shown.row.job.job_id, shown.row.job.generation)
        ended = shown.is_whole or shown.over
        start = 0 if shown.is_whole else anchor
        end = shown.run(start) if ended else anchor + 1
        key = (*place, sounds, *((start, end) if ended else ()))
        if (known := self._rates.get(key)) is not None:
            return known
        async with self._measuring:
            known = self._rates.get(key)
            if known is None:
                store, target = self.gateway.context.store, await self.target(shown)
                tick = shown.plan.source.video.time_base
                lasting = {item.index: item.duration * tick for item in await self.segments(shown, start, end)}
                if ended:
                    known = await bandwidth.whole(store, place, lasting, sounds, target)
                else:
                    known = await bandwidth.guessed(store, place, lasting, sounds, target, shown.plan.encode)
                _keep(self._rates, key, known)
        return known

    async def _codec(self, key: str) -> str:
        """The codec string of a stored init segment."""
        known = self._codecs.get(key)
        if known is None:
            init = await self.gateway.context.store.get(key)
            if init is None:
                raise NotYet
            known = boxes.codec_string(init)
            _keep(self._codecs, key, known)
        return known


def nothing(reason: str, job_id: str | None = None) -> errors.StereoSpotError:
    """NOT_FOUND whatever the reason: who guesses addresses learns nothing. The log tells it, at level debug."""
    _log.debug("nothing to play", action="refuse", job_id=job_id, reason=reason)
    return errors.error("NOT_FOUND", "There is nothing to play under this address.")


def _text(shown: Showing, segments: Sequence[Segment], track: int | None, target: float, over: bool) -> str:
    """URIs are relative: to `from/<k>/` for pictures, to `from/<k>/audio/` for sound."""
    tick = shown.plan.source.video.time_base
    folder = "../../video/" if track is None else f"../../../audio/{track}/"
    init = f"{folder}init-{(shown.state.init or '')[:16]}.mp4" if track is None else f"{folder}init.mp4"
    ends = [segments[0].start, *(item.start + item.duration for item in segments)]
    entries = [
        Entry(f"{folder}{item.index:05d}.m4s", item.duration * tick, jumps=item.start != end)  # samples lie apart
        for item, end in zip(segments, ends, strict=False)
    ]
    return hls.media_playlist(init, entries, target_seconds=target, ended=over)


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    cache[key] = value
    while len(cache) > CACHED:
        cache.popitem(last=False)


GivenPlayer = NamedDependency[Player]


# ---- playlists -------------------------------------------------------------------------------------------
@get("/v/{token:str}/{generation:int}/master.m3u8", include_in_schema=False)
async def master(
    request: Request[Any, Any, Any], player: GivenPlayer, token: FromPath[str], generation: FromPath[int]
) -> Response[Any]:
    shown = await player.stream(token, generation)
    body = (await player.master(shown, 0, "from/0/")).encode()
    player.remember(request, token, shown, body)
    return _playlist(body)


@get("/v/{token:str}/{generation:int}/from/{anchor:int}/master.m3u8", include_in_schema=False)
async def anchored_master(
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
    anchor: FromPath[int],
    wait: FromQuery[int] = 0,
) -> Response[Any]:
    """From segment `anchor` on. With `wait` (seconds, at most 30) the answer waits until that segment is there.

    To have waited in vain is no error: 204, after which the page asks again. Players do not wait; they get 404.
    """
    row = await player.row(token, generation)
    deadline = time.monotonic() + min(wait, MAX_WAIT_SECONDS)
    with player.gateway.index.watch(row.job.job_id) as watch:
        while True:
            try:
                shown = await player.stream(token, generation)
                return _playlist((await player.master(shown, _index(anchor), "")).encode())
            except NotYet:
                left = deadline - time.monotonic()
                if left <= 0 or player.gateway.stopping.is_set():
                    if wait <= 0:
                        raise
                    return Response(None, status_code=204, headers=NO_STORE | {"Retry-After": "1"})
            await watch.wait(left)


@get("/v/{token:str}/{generation:int}/from/{anchor:int}/video.m3u8", include_in_schema=False)
async def video(
    request: Request[Any, Any, Any],
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
    anchor: FromPath[int],
) -> Response[Any]:
    shown = await player.stream(token, generation)
    body = await player.media(shown, _index(anchor), None)
    player.remember(request, token, shown, body)
    return _playlist(body)


@get("/v/{token:str}/{generation:int}/from/{anchor:int}/audio/{name:str}", include_in_schema=False)
async def audio(
    request: Request[Any, Any, Any],
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
    anchor: FromPath[int],
    name: FromPath[str],
) -> Response[Any]:
    shown = await player.stream(token, generation)
    track = number_in(name, ".m3u8")
    if track >= len(shown.plan.source.audio) or not shown.sings(_index(anchor)):
        raise errors.error("NOT_FOUND", f"There is no audio track {track}.")
    body = await player.media(shown, _index(anchor), track)
    player.remember(request, token, shown, body)
    return _playlist(body)


def _playlist(text: bytes) -> Response[bytes]:
    return Response(text, headers=HEADERS)


def _index(number: int) -> int:
    if not 0 <= number < 10**9:
        raise errors.error("NOT_FOUND", "There is no such segment.")
    return number


def number_in(name: str, suffix: str) -> int:
    """The number in `<number><suffix>`; raises NOT_FOUND."""
    text = name.removesuffix(suffix)
    if text == name or not text.isascii() or not text.isdigit() or len(text) > 9:
        raise errors.error("NOT_FOUND", f"There is no {name[:80]}.")
    return int(text)


def sound_name(number: int, track: AudioTrack) -> str:
    """What a choice of sound calls a track."""
    return track.title or track.language or f"Track {number + 1}"


def not_yet(request: Request[Any, Any, Any], _: NotYet) -> Response[Any]:
    answer = problem(request, errors.error("NOT_FOUND", "This part is not converted yet."))
    answer.headers["Retry-After"] = "1"
    return answer


HANDLERS = (master, anchored_master, video, audio)
