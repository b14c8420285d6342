"""The scan: what it reads, what it trusts, and what it takes from a decode pass instead."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from stereospot.errors import StereoSpotError
from stereospot.media import plan, sniff
from stereospot.media.hidden import is_hidden
from stereospot.media.source import FileSource
from tests.media import reading, sources

INDEXED = ["h264_mp4", "h264_faststart_mp4", "edit_list_mp4", "fragmented_mp4", "rotated_mov", "hevc_mp4", "av1_mp4"]


class Recorder(FileSource):
    """Remembers which bytes were asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.ranges: list[tuple[int, int]] = []

    def read_at(self, offset: int, length: int) -> bytes:
        self.ranges.append((offset, offset + length))
        return super().read_at(offset, length)


def boxes_of(path: Path) -> list[sniff.Box]:
    data = path.read_bytes()
    return list(sniff.boxes(lambda offset, length: data[offset : offset + length], 0, len(data)))


def padded(name: str, folder: Path, mebibytes: int) -> Path:
    """The same film with that much junk at the end of its payload: its blocks hold nothing else."""
    origin = sources.path(name)
    data = origin.read_bytes()
    payload = next(box for box in boxes_of(origin) if box.kind == b"mdat")
    size = payload.end - payload.start + mebibytes * 2**20
    path = folder / origin.name
    junk = b"\xa5" * (mebibytes * 2**20)
    head = data[: payload.start] + size.to_bytes(4, "big") + data[payload.start + 4 : payload.end]
    path.write_bytes(head + junk + data[payload.end :])
    return path


def test_an_mp4_is_planned_from_its_index_without_its_payload(tmp_path: Path) -> None:
    """Index last: the blocks of 1 MiB that hold nothing but payload are never asked for."""
    path = padded("h264_mp4", tmp_path, 6)
    payload = next(box for box in boxes_of(path) if box.kind == b"mdat")
    info = reading.planned("h264_mp4").info.model_copy(update={"size_bytes": path.stat().st_size})
    source = Recorder(path)
    try:
        batches = list(plan.scan(source, info))
    finally:
        source.close()
    assert [pts for batch in batches for pts in batch.pts] == reading.planned("h264_mp4").pts
    inside = [begin for begin, end in source.ranges if begin >= payload.body and end <= payload.end]
    assert inside == []
    assert len({begin for begin, _ in source.ranges}) <= 2


@pytest.mark.parametrize("name", INDEXED)
def test_an_indexed_plan_trusts_the_index(name: str) -> None:
    """No decode pass, and the keyframes that the index marks."""
    film = reading.planned(name)
    assert film.warnings == ()
    decoded = list(reading.full_decode(name, film.info.video.stream_index))
    if name != "hevc_mp4":  # whose open GOPs begin at pictures that the decoder does not call keyframes alike
        marked = [frame.key_frame for frame in decoded]
        assert sum(film.keys) >= sum(marked) - 1 > 0


@pytest.mark.parametrize("name", ["h264_avi", "no_pts_mkv"])
def test_films_without_times_are_counted(name: str) -> None:
    info = reading.planned(name).info
    with reading.source_of(name) as source:
        with pytest.raises(plan.Untrusted):
            list(plan.scan(source, info))
        counted = [pts for batch in plan.decode_scan(source, info) for pts in batch.pts]
    step = 1 / info.video.average_rate / info.video.time_base
    assert counted == [info.video.first_pts + int(number * step) for number in range(len(counted))]


@pytest.mark.parametrize("name", ["h264_mp4", "vfr_mkv", "h264_ts", "vp8_webm"])
def test_a_decode_pass_finds_the_same_frames(name: str) -> None:
    film = reading.planned(name)
    with reading.source_of(name) as source:
        batches = list(plan.scan(source, film.info, from_frames=True))
    assert [pts for batch in batches for pts in batch.pts] == film.pts
    assert batches[-1].warnings == ("the frames were taken from a decode pass: the packets do not tell them",)


def test_a_stop_ends_a_scan() -> None:
    stop = threading.Event()
    stop.set()
    info = reading.planned("h264_ts").info
    with reading.source_of("h264_ts") as source, pytest.raises(StereoSpotError) as caught:
        list(plan.scan(source, info, stop=stop))
    assert caught.value.code == "CANCELLED"


class Packet(bytes):
    """The bytes of a packet."""


@pytest.mark.parametrize(
    ("codec", "data", "hidden"),
    [
        ("vp8", b"\x10\x00\x00", False),
        ("vp8", b"\x01\x00\x00", True),
        ("vp9", b"\x82\x00", False),  # marker 2, profile 0, shown
        ("vp9", b"\x84\x00", True),  # inter frame, not shown
        ("vp9", b"\x88\x00", False),  # show_existing_frame
        ("vp9", b"\x84\x00\xc1", False),  # a superframe shows one of its frames
        ("h264", b"\x00\x00", False),
    ],
)
def test_hidden_packets(codec: str, data: bytes, hidden: bool) -> None:
    assert is_hidden(codec, False, Packet(data)) is hidden


def test_boxes_of_every_size_are_walked() -> None:
    data = (
        (16).to_bytes(4, "big") + b"ftypisom0000"
        + (1).to_bytes(4, "big") + b"mdat" + (20).to_bytes(8, "big") + b"abcd"
        + (0).to_bytes(4, "big") + b"mdat" + b"rest of the file"
    )  # fmt: skip
    found = list(sniff.boxes(lambda offset, length: data[offset : offset + length], 0, len(data)))
    assert [(box.kind, box.start, box.body, box.end) for box in found] == [
        (b"ftyp", 0, 8, 16),
        (b"mdat", 16, 32, 36),
        (b"mdat", 36, 44, len(data)),
    ]
