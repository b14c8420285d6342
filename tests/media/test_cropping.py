"""Edges that a file asks to be cropped: they are left out of every frame, wherever the file says it."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stereospot.media import boxes, ebml, plan, sniff, storyboard
from stereospot.media.cropping import apply, asked
from stereospot.media.frames import Decoder
from stereospot.media.limits import Limits
from stereospot.media.model import SourceInfo
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from tests.media import reading, sources

Planes = tuple[NDArray[Any], ...]

SIZE = (320, 180)
KEPT = "the file asks players to crop edges that its pictures have not; they are kept"
LEFT, TOP, RIGHT, BOTTOM = "54cc", "54bb", "54dd", "54aa"


def seen(path: Path, **changes: Any) -> tuple[SourceInfo, list[Planes]]:
    """What the probe says of a film, and all its pictures as converters get them."""
    source = FileSource(path)
    try:
        info = probe(source)
        spec = plan.decode_spec(info).model_copy(update=changes)
        with Decoder(source, spec, info) as decoder:
            return info, [reading.copied(frame) for frame in decoder.frames(None, None)]
    finally:
        source.close()


def cut(planes: Planes, crop: tuple[int, int, int, int]) -> Planes:
    """Planes of 4:2:0 without their edges; by slices of the whole picture's size."""
    left, top, right, bottom = crop
    height, width = planes[0].shape
    halves = [
        plane[top // 2 : (height - bottom + 1) // 2, left // 2 : (width - right + 1) // 2] for plane in planes[1:]
    ]
    return planes[0][top : height - bottom, left : width - right], *halves


def assert_cut(path: Path, whole: list[Planes], crop: tuple[int, int, int, int]) -> None:
    info, found = seen(path)
    assert info.video.crop == crop
    assert info.warnings == ()
    assert len(found) == len(whole)
    for planes, other in zip(found, whole, strict=True):
        for plane, wanted in zip(planes, cut(other, crop), strict=True):
            np.testing.assert_array_equal(plane, wanted)


# ---- Matroska -----------------------------------------------------------------------------------------------------


def matroska(
    path: Path, crop: dict[str, int] | None = None, *, late: bool = False, heads: int = 1, wrong: int = 0
) -> bytes:
    """A film with these PixelCrop elements, its tracks before or behind its pictures; the film's bytes.

    heads: how many SeekHeads lie on the way to tracks that lie behind; wrong: bytes by which the last one errs.
    """
    sources.write(sources.Film(".mkv", frames=24), path)
    data = path.read_bytes()
    segment = ebml.find(data, ebml.SEGMENT)
    assert segment is not None
    parts = {item.kind: data[item.start : item.end] for item in ebml.walk(data, segment.body, segment.end)}
    clusters = b"".join(
        data[item.start : item.end] for item in ebml.walk(data, segment.body, segment.end) if item.kind == ebml.CLUSTER
    )
    fields = b"".join(ebml.element(int(name, 16), bytes([size])) for name, size in (crop or {}).items())
    tracks = b""
    for item in ebml.walk(parts[ebml.TRACKS], ebml.walk(parts[ebml.TRACKS]).__next__().body):
        inside = parts[ebml.TRACKS][item.start : item.end]
        if item.kind == ebml.ENTRY:
            inside = b""
            for field in ebml.walk(parts[ebml.TRACKS], item.body, item.end):
                held = parts[ebml.TRACKS][field.start : field.end]
                if field.kind == ebml.VIDEO:
                    kept = [
                        parts[ebml.TRACKS][one.start : one.end]
                        for one in ebml.walk(parts[ebml.TRACKS], field.body, field.end)
                        if one.kind != 0x54B2
                    ]
                    held = ebml.element(ebml.VIDEO, b"".join(kept) + fields)
                inside += held
            inside = ebml.element(ebml.ENTRY, inside)
        if item.kind != ebml.CRC:
            tracks += inside
    tracks = ebml.element(ebml.TRACKS, tracks)
    info = parts[ebml.INFO]

    def seek(kind: int, place: int) -> bytes:
        entry = ebml.element(0x53AB, kind.to_bytes(4, "big")) + ebml.element(0x53AC, place.to_bytes(8, "big"))
        return ebml.element(0x114D9B74, ebml.element(0x4DBB, entry))

    length = len(seek(0, 0))
    if not late:
        content = info + tracks + clusters
    else:
        # The first SeekHead, the pictures, the other SeekHeads, and the tracks at the end of all.
        behind = length + len(info) + len(clusters)
        places = [behind + number * length for number in range(heads)]
        rows = [seek(0x114D9B74, place) for place in places[:-1]] + [seek(ebml.TRACKS, places[-1] + wrong)]
        content = rows[0] + info + clusters + b"".join(rows[1:]) + tracks
    made = data[: segment.start] + ebml.element(ebml.SEGMENT, content)
    path.write_bytes(made)
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Planes]:
    path = tmp_path_factory.mktemp("whole") / "film.mkv"
    matroska(path)
    info, found = seen(path)
    assert (info.video.crop, info.warnings) == ((0, 0, 0, 0), ())
    return found


@pytest.mark.parametrize(
    ("crop", "wanted"),
    [
        ({TOP: 24}, (0, 24, 0, 0)),
        ({LEFT: 8, RIGHT: 5, TOP: 2, BOTTOM: 3}, (8, 2, 5, 3)),
        ({LEFT: 7, TOP: 1, BOTTOM: 0}, (6, 0, 0, 0)),  # chroma lies on even columns and rows
    ],
)
def test_pixels_that_a_matroska_crops(
    crop: dict[str, int], wanted: tuple[int, int, int, int], whole: list[Planes], tmp_path: Path
) -> None:
    matroska(tmp_path / "film.mkv", crop)
    assert_cut(tmp_path / "film.mkv", whole, wanted)


def test_the_display_size_is_that_of_the_cropped_picture(tmp_path: Path) -> None:
    """RFC 9559 5.1.4.1.28.14: 320 x 120 pixels are shown as 240 x 120."""
    matroska(tmp_path / "film.mkv", {TOP: 60, "54b0": 240, "54ba": 120})
    video = seen(tmp_path / "film.mkv")[0].video
    assert (video.width, video.height, video.sample_aspect) == (320, 120, Fraction(3, 4))


def test_a_crop_of_nearly_everything_is_none(whole: list[Planes], tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    matroska(path, {TOP: 100, BOTTOM: 70})
    info, found = seen(path)
    assert info.warnings == (KEPT,)
    assert info.video.crop == (0, 0, 0, 0)
    assert found[0][0].shape == whole[0][0].shape


@pytest.mark.parametrize("heads", [1, 2])
def test_tracks_behind_the_pictures_are_found(heads: int, whole: list[Planes], tmp_path: Path) -> None:
    """By the SeekHead before the pictures, or by another that it names, and without reading the pictures."""
    path = tmp_path / "film.mkv"
    data = matroska(path, {TOP: 24}, late=True, heads=heads)
    read = 0

    def at(offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return data[offset : offset + length]

    assert sniff.matroska_has_tracks(at, len(data))
    assert read < 10_000 < len(data)
    assert_cut(path, whole, (0, 24, 0, 0))


def test_a_seek_head_that_errs_finds_nothing(tmp_path: Path) -> None:
    for heads, wrong in ((1, 3), (1, 1 << 40), (9, 0)):
        data = matroska(tmp_path / "film.mkv", late=True, heads=heads, wrong=wrong)
        assert not sniff.matroska_has_tracks(lambda at, length, data=data: data[at : at + length], len(data))


def test_a_seek_head_of_many_places_is_not_followed_to_all_of_them() -> None:
    """Each is a block of a source that may lie far away."""
    entry = ebml.element(0x53AB, ebml.TRACKS.to_bytes(4, "big"))
    seeks = b"".join(
        ebml.element(0x4DBB, entry + ebml.element(0x53AC, place.to_bytes(8, "big"))) for place in range(5000, 9000, 40)
    )
    content = ebml.element(0x114D9B74, seeks) + ebml.element(ebml.CLUSTER, bytes(9000))
    data = ebml.element(ebml.SEGMENT, content)
    reads: list[int] = []

    def at(offset: int, length: int) -> bytes:
        reads.append(offset)
        return data[offset : offset + length]

    assert not sniff.matroska_has_tracks(at, len(data))
    assert len(reads) < 20


def test_seek_heads_that_name_each_other_end(tmp_path: Path) -> None:
    data = matroska(tmp_path / "film.mkv", late=True, heads=2)
    place = data.index(ebml.element(0x53AB, ebml.TRACKS.to_bytes(4, "big")))
    looped = data[:place] + ebml.element(0x53AB, (0x114D9B74).to_bytes(4, "big")) + data[place + 14 :]
    back = looped.index(ebml.element(0x53AC, b"")[:2], place)
    looped = looped[: back + 10] + bytes(8) + looped[back + 18 :]  # the first one, at the Segment's beginning
    assert len(looped) == len(data)
    assert not sniff.matroska_has_tracks(lambda at, length: looped[at : at + length], len(looped))


# ---- mp4 and mov --------------------------------------------------------------------------------------------------


def aperture(*values: int) -> bytes:
    return boxes.box(b"clap", struct.pack(">4IiIiI", *values))


def with_aperture(name: str, clap: bytes, path: Path) -> None:
    """The film with a box at the end of its picture's sample entry."""
    data = sources.path(name).read_bytes()
    names = ["moov", "trak", "mdia", "minf", "stbl", "stsd", "avc1"]
    places = [boxes.find(data, "/".join(names[: number + 1])) for number in range(len(names))]
    for place in reversed(places):
        assert place is not None
        head = (place.end - place.start + len(clap)).to_bytes(4, "big") + data[place.start + 4 : place.body]
        data = data[: place.start] + head + data[place.body :]
    entry = places[-1]
    assert entry is not None
    path.write_bytes(data[: entry.end] + clap + data[entry.end :])


@pytest.mark.parametrize(
    ("clap", "wanted"),
    [
        ((320, 1, 160, 1, 0, 1, 0, 1), (0, 10, 0, 10)),
        ((300, 1, 170, 1, -4, 2, 3, 1), (8, 8, 12, 2)),
        ((638, 2, 180, 1, 1, 2, 0, 1), (0, 0, 0, 0)),  # without the first column, which holds chroma for the second
        ((638, 2, 180, 1, -1, 2, 0, 1), (0, 0, 1, 0)),
        ((3001, 10, 180, 1, 0, 1, 0, 1), (8, 0, 9, 0)),  # of each border pixel a part is seen
        ((320, 1, 180, 1, 0, 1, 0, 1), (0, 0, 0, 0)),
    ],
)
def test_a_clean_aperture(clap: tuple[int, ...], wanted: tuple[int, int, int, int], tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with_aperture("h264_mp4", aperture(*clap), path)
    _, whole = seen(sources.path("h264_mp4"))
    assert_cut(path, whole, wanted)


@pytest.mark.parametrize(
    "clap", [(320, 0, 160, 1, 0, 1, 0, 1), (400, 1, 160, 1, 0, 1, 0, 1), (300, 1, 160, 1, 60, 1, 0, 1)]
)
def test_an_aperture_that_makes_no_sense_is_told_of(clap: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with_aperture("h264_mp4", aperture(*clap), path)
    info, _ = seen(path)
    assert (info.video.width, info.video.height) == SIZE
    assert info.warnings == (KEPT,)


def test_the_decoded_picture_is_cropped_before_it_is_turned(tmp_path: Path) -> None:
    """And its tiles show the same part of it."""
    path = tmp_path / "film.mov"
    with_aperture("rotated_mov", aperture(200, 1, 180, 1, -60, 1, 0, 1), path)
    info, found = seen(path)
    assert (info.video.crop, info.video.rotation) == ((0, 0, 120, 0), 270)
    assert (info.video.width, info.video.height) == (180, 200)
    _, whole = seen(sources.path("rotated_mov"))
    for planes, other in zip(found, whole, strict=True):
        np.testing.assert_array_equal(planes[0], other[0][120:])  # what lay at the right is above now
    tiles: list[NDArray[np.uint8]] = []
    for film, side in ((path, 200), (sources.path("rotated_mov"), 320)):
        source = FileSource(film)
        try:
            info = probe(source)
            made = storyboard.tiles(
                source, info, plan.decode_spec(info), first_pts=info.video.first_pts, duration_seconds=1.0,
                limits=Limits(), wanted=[0.0], longer_side=side,
            )  # fmt: skip
        finally:
            source.close()
        tiles.append(made[0].pixels)
    np.testing.assert_array_equal(tiles[0], tiles[1][120:])


@pytest.mark.parametrize("name", ["h264_mp4", "rotated_mov"])
@pytest.mark.parametrize(("shown", "box", "wanted"), [
    ((300, 160), b"", Fraction(1)),  # the aperture's own size, from which libavformat has 135:128
    ((400, 160), b"", Fraction(45, 32)),
    ((300, 160), boxes.box(b"pasp", struct.pack(">II", 135, 128)), Fraction(135, 128)),
])  # fmt: skip
def test_the_shape_of_a_sample(name: str, shown: tuple[int, int], box: bytes, wanted: Fraction, tmp_path: Path) -> None:
    """Of a track's header, where no `pasp` tells it; writers put the size there that players show."""
    path = tmp_path / "film.mp4"
    with_aperture(name, aperture(300, 1, 160, 1, 0, 1, 0, 1) + box, path)
    data = path.read_bytes()
    header = boxes.find(data, "moov/trak/tkhd")
    assert header is not None
    path.write_bytes(data[: header.end - 8] + struct.pack(">II", *(side << 16 for side in shown)) + data[header.end :])
    video = seen(path)[0].video
    assert video.crop == (10, 10, 10, 10)
    assert video.sample_aspect == (1 / wanted if video.rotation in (90, 270) else wanted)


@pytest.mark.parametrize(("rotation", "mirrored", "wanted"), [
    (0, False, (4, 2, 3, 5)), (0, True, (4, 2, 2, 4)), (90, False, (4, 2, 2, 4)), (180, False, (4, 2, 2, 4)),
])  # fmt: skip
def test_colours_stay_where_they_are_when_the_picture_is_turned(
    rotation: int, mirrored: bool, wanted: tuple[int, int, int, int], tmp_path: Path
) -> None:
    """The right side of a picture may become its left one, where chroma begins."""
    path = tmp_path / "film.mkv"
    data = matroska(path, {LEFT: 5, TOP: 2, RIGHT: 3, BOTTOM: 5})
    shape = (180, 320) if rotation == 90 else SIZE
    video: dict[str, Any] = {
        "coded_width": 320, "coded_height": 180, "width": shape[0], "height": shape[1], "rotation": rotation,
        "mirrored": mirrored, "sample_aspect": "1",
    }  # fmt: skip
    assert apply(video, lambda at, length: data[at : at + length], len(data), "matroska")
    assert tuple(video["crop"]) == wanted
    left, top, right, bottom = wanted
    sides = 320 - left - right, 180 - top - bottom
    assert (video["width"], video["height"]) == (sides[::-1] if rotation == 90 else sides)


def test_a_tile_of_the_little_that_is_left_of_a_picture(tmp_path: Path) -> None:
    """It is made of those pixels alone: the whole picture, as much larger, would fit into no memory."""
    path = tmp_path / "film.mp4"
    with_aperture("h264_mp4", aperture(16, 1, 16, 1, -152, 1, -82, 1), path)
    source = FileSource(path)
    try:
        info = probe(source)
        tiles = storyboard.tiles(
            source, info, plan.decode_spec(info), first_pts=info.video.first_pts, duration_seconds=1.0,
            limits=Limits(memory_bytes=1 << 30), wanted=[0.0], longer_side=8192,
        )  # fmt: skip
    finally:
        source.close()
    assert tiles[0].pixels.shape == (8192, 8192, 3)


def test_edges_of_a_track_of_another_size_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    clap = aperture(160, 1, 90, 1, 0, 1, 0, 1)
    other = boxes.box(b"avc1", bytes(24) + struct.pack(">HH", 640, 360) + bytes(50) + clap)
    short = boxes.box(b"avc1", bytes(24) + struct.pack(">HH", 320, 180) + bytes(50) + clap[:-24])
    for entry in (other, short):
        inner = boxes.box(b"stsd", bytes(8) + entry)
        for kind in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
            inner = boxes.box(kind, inner)
        path.write_bytes(sources.path("h264_mp4").read_bytes() + inner)
        info, _ = seen(path)
        assert (info.video.crop, info.warnings) == ((0, 0, 0, 0), ())


def test_what_the_decoder_cropped_already_is_not_cropped_again() -> None:
    """H.264 of 1080 lines is stored in 1088, and some files say so by both."""
    data = ebml.element(ebml.ENTRY, ebml.element(ebml.VIDEO, b"\xb0\x82\x07\x80\xba\x82\x04\x40\x54\xaa\x81\x08"))
    data = ebml.element(ebml.SEGMENT, ebml.element(ebml.TRACKS, data))

    def read(at: int, length: int) -> bytes:
        return data[at : at + length]

    assert asked(read, len(data), "matroska", (1920, 1080)) == (0, 0, 0, 0)
    assert asked(read, len(data), "matroska", (1920, 1088)) == (0, 0, 0, 8)
    assert asked(read, len(data), "matroska", (1280, 720)) == (0, 0, 0, 0)
