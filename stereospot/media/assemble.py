"""The film from its fragments and the source, in one pass.

    fragments (parent, checked) ─┬─ index ─> child: source demuxed, film laid out ─ descriptor ─> the finished file
                                 └─ payload, written by the parent at the place that the child says ─────^

The child reads the source once, without decoding: its sound, subtitles, chapters and tags go into the film, and the
video packets of each fragment between them as their time comes. What the parent can check itself it does not take the
child's word for: frame count and times of the fragments against the plan before they go in, and those of the finished
film after it was read back, in a second child, by libavformat.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import threading
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from stereospot import errors
from stereospot.jail import Jail
from stereospot.media import boxes, clocks, signalling
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, PlanTotal
from stereospot.media.source import FileSource, Source

_FILE_BYTES = 1 << 44
_KEPT_CODES = frozenset(
    ("CANCELLED", "SOURCE_CHANGED", "SOURCE_MISSING", "VERIFICATION_FAILED", "ASSEMBLY_FAILED", "KERNEL_UNSUPPORTED")
)
"""What is said as it is, beside all that is transient."""

_STALL_CODE = "WORKER_LOST"
"""A child that dies or stands still may be this machine's doing (memory, load, a pause): another try is worth it, and a
film that kills each of them ends with its tries."""


class FilmReport(BaseModel):
    """What the assembler records; `warnings` are sentences for people."""

    model_config = ConfigDict(frozen=True)

    frames: int
    duration_seconds: float
    sha256: str
    size_bytes: int
    warnings: tuple[str, ...] = ()
    index_in_front: bool = True


def assemble(
    plan: Plan,
    total: PlanTotal,
    fragments: Iterable[bytes],
    source: Source,
    out: Path,
    *,
    init: bytes,
    limits: Limits | None = None,
    stop: threading.Event | None = None,
) -> FilmReport:
    """Write the film to `out`; blocking.

    fragments: the media segments in order, each once; taken one at a time. init: the header they all share.
    The file is complete but not synced: that is for whoever stores it.
    Raises VERIFICATION_FAILED, ASSEMBLY_FAILED, STORAGE_FULL, CANCELLED, WORKER_LOST where a child died or stood still,
    and what the source and the fragments raise; `out` is gone then.
    """
    limits = limits or Limits()
    try:
        return _assemble(plan, total, fragments, source, out, init, limits, stop)
    except BaseException as failure:
        out.unlink(missing_ok=True)
        if isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.error("STORAGE_FULL", out.name) from failure
        if not isinstance(failure, errors.StereoSpotError) or _is_kept(failure):
            raise
        if failure.code == "DECODER_CRASHED":
            raise errors.error(_STALL_CODE, failure.detail, **failure.details) from failure
        raise errors.error("ASSEMBLY_FAILED", str(failure), **failure.details) from failure


def _is_kept(failure: errors.StereoSpotError) -> bool:
    return isinstance(failure, errors.Transient) or failure.code in _KEPT_CODES


def _assemble(
    plan: Plan,
    total: PlanTotal,
    fragments: Iterable[bytes],
    source: Source,
    out: Path,
    init: bytes,
    limits: Limits,
    stop: threading.Event | None,
) -> FilmReport:
    origin = _origin(plan, total)
    checked = Checked(plan, total, fragments)
    warnings = list(_warnings(plan, origin))
    with out.open("w+b") as file:
        request = _request(plan, total, origin, limits)
        answer: dict[str, Any] = {}
        jail_limits = limits.jail(file_bytes=_FILE_BYTES, stall_code=_STALL_CODE)
        with Jail(
            "stereospot.media.film_child:write",
            request,
            sources=[source],
            outputs=[file.fileno()],
            limits=jail_limits,
            stop=stop,
        ) as jail:
            jail.send({}, init)
            supply = _Supply(jail, checked, file.fileno(), whole=plan.container == "mkv")
            for message in jail.messages():
                if "want" in message.body or "at" in message.body:
                    supply.answer(message.body)
                elif "alive" in message.body:
                    continue
                else:
                    answer = message.body
        checked.finish()
        size = file.seek(0, os.SEEK_END)
        warnings += [str(item)[:300] for item in answer.get("warnings", [])]
        file.seek(0)
        with ThreadPoolExecutor(1, "hash") as pool:
            hashing = pool.submit(hashlib.file_digest, file, "sha256")
            _verify(plan, total, checked, origin, out, limits, stop)
            digest = hashing.result().hexdigest()
    return FilmReport(
        frames=checked.frames,
        duration_seconds=float((total.end_pts - total.first_pts) * plan.encode.time_base),
        sha256=digest,
        size_bytes=size,
        warnings=tuple(warnings),
        index_in_front=bool(answer.get("index_in_front", True)),
    )


def _origin(plan: Plan, total: PlanTotal) -> int:
    """The PTS that becomes 0 in the film; never one behind its first frame, should that be another than was probed."""
    origin = clocks.origin(plan)
    keeps = plan.container == "mkv" and not origin  # Matroska may begin before 0
    return origin if keeps else min(origin, total.first_pts)


def _warnings(plan: Plan, origin: int) -> Iterator[str]:
    time_base = plan.encode.time_base
    if origin:
        moved = float(-origin * time_base)
        why = "the container cannot hold the source's start"
        if clocks.runs(plan):
            why = "the source's clock ran before its first picture"
        yield f"All times were moved by {moved:.6f} s, since {why}."
    if plan.container == "mkv" and (1000 * time_base).denominator != 1:
        yield "Matroska counts milliseconds: frames were moved by up to 0.5 ms. Choose mp4 for exact times."
    if plan.container != "mkv":
        left = [track for track in plan.source.subtitles if track.bitmap]
        if left:
            yield f"{len(left)} bitmap subtitle tracks were left out: they need mkv."


def _request(plan: Plan, total: PlanTotal, origin: int, limits: Limits) -> dict[str, Any]:
    text = [track.stream_index for track in plan.source.subtitles if plan.container == "mkv" or not track.bitmap]
    packing = signalling.packing(plan.encode.layout, swapped=plan.encode.swapped)
    return limits.request() | {
        "container": {"mkv": "matroska"}.get(plan.container, plan.container),
        "video": plan.source.video.stream_index,
        "audio": [track.stream_index for track in plan.source.audio],
        "subtitles": text,
        "stereo_mode": None if packing is None else packing.stereo_mode,
        "sample_aspect": str(plan.encode.sample_aspect),
        "time_base": str(plan.encode.time_base),
        "origin": origin,
        "zero": plan.encode.origin,
        "first_pts": total.first_pts,
        "frames": total.frames,
        "segments": total.segments,
        "resets": [item.row() for item in total.resets],
        "seconds": float((total.end_pts - total.first_pts) * plan.encode.time_base),
    }


class _Supply:
    """Answers the child: the next fragment, or only its index while its payload, whose place the child says, is
    written from here: pictures then cross no socket."""

    def __init__(self, jail: Jail, checked: Checked, film: int, *, whole: bool) -> None:
        self._jail = jail
        self._checked = checked
        self._film = film
        self._whole = whole
        self._first = True
        self._payload = memoryview(b"")
        self._end = 0

    def answer(self, body: dict[str, Any]) -> None:
        if "at" in body:
            self._place(body["at"])
            return
        media = next(self._checked, None)
        if media is None:
            self._jail.send({"end": True})
            return
        mdat = boxes.find(media, "mdat")
        if mdat is None:
            raise errors.error("ASSEMBLY_FAILED", "A fragment is not whole. A retry makes it again.")
        self._payload = memoryview(media)[mdat.body : mdat.end]
        # The first one goes whole: libavformat makes a header from it.
        self._jail.send({"end": False}, media if self._whole or self._first else media[: mdat.body])
        self._first = False

    def _place(self, offset: Any) -> None:
        if not isinstance(offset, int) or not self._end <= offset < _FILE_BYTES:
            raise errors.error("ASSEMBLY_FAILED", "The child places a fragment outside of the film.")
        written = 0
        while written < len(self._payload):
            written += os.pwrite(self._film, self._payload[written:], offset + written)
        self._end = offset + written


class Checked(Iterator[bytes]):
    """The fragments, each looked at on the way: what the plan promised, frame by frame.

    Raises VERIFICATION_FAILED as soon as something differs. `times` are the PTS of every frame so far.
    """

    def __init__(self, plan: Plan, total: PlanTotal, fragments: Iterable[bytes]) -> None:
        self.times = array("q")
        self._fragments = iter(fragments)
        self._total = total
        self._numerator = plan.encode.time_base.numerator
        self._zero = plan.encode.origin
        self._end: int | None = None

    @property
    def frames(self) -> int:
        return len(self.times)

    def __next__(self) -> bytes:
        media = next(self._fragments)
        samples = boxes.read_fragment(media)
        if not samples:
            raise errors.error("VERIFICATION_FAILED", f"The fragment after frame {self.frames} holds no frame.")
        for sample in samples:
            time, rest = divmod(sample.time + sample.offset, self._numerator)
            pts = time + self._zero
            if rest or (self.times and pts <= self.times[-1]):
                raise errors.error("VERIFICATION_FAILED", f"Frame {self.frames} has the time {pts}, which is wrong.")
            self.times.append(pts)
        return media

    def finish(self) -> None:
        """Every frame came, with the times of the plan."""
        if self.frames != self._total.frames:
            raise errors.error(
                "VERIFICATION_FAILED", f"{self.frames} frames came, {self._total.frames} were planned.",
                frames=self.frames, planned=self._total.frames,
            )  # fmt: skip
        if _digest(self.times) != self._total.pts_sha256:
            raise errors.error("VERIFICATION_FAILED", "The frames have other times than the plan.")


def _digest(times: array[int]) -> str:
    if sys.byteorder == "big":
        times = array("q", times)
        times.byteswap()
    return hashlib.sha256(times.tobytes()).hexdigest()


def _verify(
    plan: Plan,
    total: PlanTotal,
    checked: Checked,
    origin: int,
    out: Path,
    limits: Limits,
    stop: threading.Event | None,
) -> None:
    """Read the finished film back: the frames' times as libavformat sees them, and that the first one decodes."""
    film = FileSource(out)
    answer: dict[str, Any] = {}
    size = plan.encode.width * plan.encode.height
    request = limits.request() | {"max_pixels": max(limits.max_pixels, size), "container": plan.container}
    try:
        with Jail(
            "stereospot.media.film_child:read_back",
            request,
            sources=[film],
            limits=limits.jail(stall_code=_STALL_CODE),
            stop=stop,
        ) as jail:
            for message in jail.messages():
                answer = message.body | {"times": message.blob}
    except errors.StereoSpotError as failure:
        if isinstance(failure, errors.Transient) or failure.code in ("CANCELLED", "DECODER_CRASHED"):
            raise
        raise errors.error("VERIFICATION_FAILED", f"The film does not read back: {failure}") from failure
    finally:
        film.close()
    found = array("q", answer.get("times", b""))
    time_base = plan.encode.time_base
    if plan.container == "mkv":
        expected = array("q", (_milliseconds((pts - origin) * time_base) for pts in checked.times))
    else:
        expected = array("q", ((pts - origin) * time_base.numerator for pts in checked.times))
    if found != expected:
        at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(found))
        raise errors.error(
            "VERIFICATION_FAILED", f"The film has {len(found)} of {total.frames} frames, or differs from {at} on.",
            frames=len(found), planned=total.frames, first_difference=at,
        )  # fmt: skip
    if (answer.get("width"), answer.get("height")) != (plan.encode.width, plan.encode.height):
        raise errors.error("VERIFICATION_FAILED", "The film's first frame does not decode to the planned size.")


def _milliseconds(seconds: Fraction) -> int:
    """As libavformat rounds: to the nearest, halves away from zero."""
    doubled = abs(seconds) * 2000
    rounded = (doubled.numerator // doubled.denominator + 1) // 2
    return rounded if seconds >= 0 else -rounded
