"""What the tests of the read side share: a film opened and planned through the jail, and decoded beside it by PyAV."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from stereospot.media import plan
from stereospot.media.frames import Decoder, Frame
from stereospot.media.model import DecodeSpec, SourceInfo
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from tests.media import sources


@dataclass(frozen=True)
class Planned:
    """A film of `sources` as the planner sees it: `pts` in presentation order, and how they were found."""

    name: str
    info: SourceInfo
    spec: DecodeSpec
    pts: list[int]
    keys: list[bool]
    end_pts: int
    warnings: tuple[str, ...]


@contextmanager
def source_of(name: str) -> Generator[FileSource]:
    source = FileSource(sources.path(name))
    try:
        yield source
    finally:
        source.close()


@functools.cache
def planned(name: str) -> Planned:
    """Probe and scan a film; by counting where its times are no good."""
    with source_of(name) as source:
        info = probe(source)
        spec = plan.decode_spec(info)
        try:
            batches = list(plan.scan(source, info))
        except plan.Untrusted as reason:
            spec = spec.model_copy(
                update={
                    "synthesised": True,
                    "repaired": reason.repairable,
                    "reordered": reason.reordered,
                    "frame_seconds": 1 / info.video.average_rate,
                    "first_pts": info.video.first_pts,
                }
            )
            told = plan.decode_scan(source, info, repaired=reason.repairable, reordered=reason.reordered)
            batches = list(told)
    end_pts = batches[-1].end_pts
    assert end_pts is not None
    return Planned(
        name,
        info,
        spec,
        [pts for batch in batches for pts in batch.pts],
        [key for batch in batches for key in batch.keys],
        end_pts,
        tuple(text for batch in batches for text in batch.warnings),
    )


def digest(planes: Any) -> str:
    total = hashlib.md5()
    for plane in planes:
        total.update(np.ascontiguousarray(plane).tobytes())
    return total.hexdigest()


def collect(decoder: Decoder, start: int | None, end: int | None, **padding: int) -> list[tuple[int, str, int]]:
    """(pts, digest, pad) of a range."""
    found: list[tuple[int, str, int]] = []
    for frame in decoder.frames(start, end, **padding):
        found.append((frame.pts, digest(frame.planes), frame.pad))
        frame.release()
    return found


def check_ranges(decoder: Decoder, told: list[tuple[int, str, int]], cuts: tuple[int, ...]) -> None:
    """Ranges of ten frames that begin at `cuts`, with padding, are what a serial run told."""
    for cut in cuts:
        found = collect(decoder, told[cut][0], told[cut + 10][0], before=3, after=2)
        pads = [-1] * 3 + [0] * 10 + [1] * 2
        assert found == [(*frame[:2], pad) for frame, pad in zip(told[cut - 3 : cut + 12], pads, strict=True)]


@functools.cache
def serial(name: str) -> dict[int, str]:
    """The digest of every frame by its PTS, from one decoder that reads from the first to the last."""
    film = planned(name)
    with source_of(name) as source, Decoder(source, film.spec, film.info) as decoder:
        return {pts: value for pts, value, _ in collect(decoder, None, None)}


def full_decode(name: str, stream_index: int) -> Iterator[av.VideoFrame]:
    """Every frame that plain PyAV gives, bad packets skipped."""
    with av.open(str(sources.path(name))) as container:
        for packet in container.demux(container.streams[stream_index]):
            try:
                yield from packet.decode()  # type: ignore[misc]
            except av.error.InvalidDataError:
                continue


def plain_planes(frame: av.VideoFrame) -> list[NDArray[Any]]:
    """Y, U, V of a planar frame, without the padding of its lines."""
    deep = "10" in frame.format.name
    planes: list[NDArray[Any]] = []
    for component in range(3):
        plane = frame.planes[component]
        lines = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(plane.height, -1)  # type: ignore[call-overload]
        planes.append(lines[:, : plane.width])
    return planes


def copied(frame: Frame) -> tuple[NDArray[Any], ...]:
    """The planes of a frame, kept beyond its release."""
    kept = tuple(plane.copy() for plane in frame.planes)
    frame.release()
    return kept
