"""Boxes by hand: what is written reads back, here and in libavformat; what is patched stays whole."""

from __future__ import annotations

import io
import struct

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereospot.media import boxes, signalling
from stereospot.media.boxes import Sample
from stereospot.media.film import Edit, Filled, Film, Track, header, media_of
from stereospot.media.model import Colour
from stereospot.options import Layout
from tests.media import films, sources

SIZES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5000), st.booleans()), min_size=1, max_size=30)


@given(start=st.integers(0, 1 << 40), offset=st.integers(-(1 << 31), 0), rows=SIZES)
def test_fragments_read_back(start: int, offset: int, rows: list[tuple[int, int, bool]]) -> None:
    samples: list[Sample] = []
    time = start
    for size, duration, key in rows:
        samples.append(Sample(time, offset, duration, size, key))
        time += duration
    payload = [bytes([index]) * size for index, (size, _, _) in enumerate(rows)]
    media = boxes.write_fragment(samples, payload)
    found = boxes.read_fragment(media)
    assert [(s.time, s.offset, s.duration, s.size, s.key) for s in found] == [
        (s.time, s.offset, s.duration, s.size, s.key) for s in samples
    ]
    assert [media[s.position : s.position + s.size] for s in found] == payload


@given(data=st.binary(max_size=200))
def test_walking_garbage_ends(data: bytes) -> None:
    end = 0
    for box in boxes.walk(data):
        assert end == box.start < box.body <= box.end <= len(data)
        end = box.end


def test_fragments_of_libavformat_read_too() -> None:
    """Its flags are others than ours: defaults in tfhd, first-sample-flags, composition offsets."""
    path = sources.path_of("fragmented_cmaf_mp4")
    data = path.read_bytes()
    init, media = boxes.split(data)
    assert init + media in data
    assert [box.kind for box in boxes.walk(init)] == [b"ftyp", b"moov"]
    assert next(boxes.walk(media)).kind == b"moof"
    with av.open(str(path), "r") as container:
        wanted = [packet.size for packet in container.demux(container.streams.video[0]) if packet.size]
    assert [sample.size for sample in boxes.read_fragment(media)] == wanted


def test_a_fragment_of_several_runs_with_defaults() -> None:
    """ISO/IEC 14496-12, 8.8.7, 8.8.8 and 8.8.12: what a sample does not say its track fragment does."""
    header = boxes.full_box(b"tfhd", 0, 0x3B, struct.pack(">IQIIII", 1, 77, 1, 40, 9, boxes.NOT_SYNC))
    traf = boxes.box(
        b"traf",
        header,
        boxes.full_box(b"tfdt", 0, 0, struct.pack(">I", 1000)),
        boxes.full_box(b"trun", 0, 0x5, struct.pack(">IiI", 2, 500, boxes.SYNC)),
        boxes.box(b"none"),
        boxes.full_box(b"trun", 1, 0xB00, struct.pack(">I", 2), struct.pack(">IIiIIi", 20, 5, -20, 30, 6, 10)),
    )
    assert boxes.read_fragment(boxes.box(b"free") + boxes.box(b"moof", traf)) == [
        Sample(1000, 0, 40, 9, True, 508),
        Sample(1040, 0, 40, 9, False, 517),
        Sample(1080, -20, 20, 5, False, 8),
        Sample(1100, 10, 30, 6, False, 13),
    ]


def test_a_patched_header_is_whole() -> None:
    init = films.job(sources.path_of("vfr_mkv"), layout=Layout.LEFT).init
    extra = signalling.stereo_boxes(Layout.FULL_TB) + signalling.hdr_boxes(Colour(content_light=(1000, 400)))
    patched = boxes.extend_sample_entry(init, extra)
    assert len(patched) == len(init) + len(extra)
    found = boxes.sample_entry(patched)
    assert found is not None
    parents, entry = found
    assert patched[entry.end - len(extra) : entry.end] == extra
    assert all(outer.end >= inner.end for outer, inner in zip(parents, [*parents[1:], entry], strict=True))
    assert sum(box.end - box.start for box in boxes.walk(patched)) == len(patched)


def test_stereo_boxes_are_what_the_notes_measured() -> None:
    """90 bytes: st3d, then vexu with eyes, packing and projection."""
    found = signalling.stereo_boxes(Layout.HALF_SBS)
    assert len(found) == 90
    assert [box.kind for box in boxes.walk(found)] == [b"st3d", b"vexu"]
    vexu = next(box for box in boxes.walk(found) if box.kind == b"vexu")
    assert [box.kind for box in boxes.children(found, vexu)] == [b"eyes", b"pack", b"proj"]


@pytest.mark.parametrize("layout", [item for item in Layout if signalling.packing(item) is None])
def test_flat_layouts_have_no_boxes(layout: Layout) -> None:
    assert signalling.stereo_boxes(layout) == b""


def test_mastering_units() -> None:
    colour = Colour(
        mastering="G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)", content_light=(1000, 400)
    )
    mdcv, clli = list(boxes.walk(signalling.hdr_boxes(colour)))
    body = signalling.hdr_boxes(colour)
    assert struct.unpack(">8HII", body[mdcv.body : mdcv.end]) == (
        13250, 34500, 7500, 3000, 34000, 16000, 15635, 16450, 10000000, 1,
    )  # fmt: skip
    assert struct.unpack(">HH", body[clli.body : clli.end]) == (1000, 400)
    assert signalling.hdr_boxes(Colour(mastering="nonsense")) == b""


# ---- tables ----------------------------------------------------------------------------------------------
def skeleton() -> bytes:
    """A small film of libavformat's with one video track."""
    return sources.path_of("h264_mp4_silent").read_bytes()


@settings(deadline=None)  # the first call makes the source
@given(rows=SIZES, gap=st.booleans())
def test_tables_find_every_sample(rows: list[tuple[int, int, bool]], gap: bool) -> None:
    """Whatever the sizes, durations and chunks: the tables lead to the very bytes."""
    file = io.BytesIO()
    track, other = Track(1000, sync=False), Track(1000)
    film = Film(file, boxes.box(b"ftyp", b"isom", bytes(4)), Track.room(100, 100, runs=100) + 2000)
    wanted: list[tuple[bytes, int]] = []
    for number, (size, duration, key) in enumerate(rows):
        data = bytes([number + 1]) * size
        wanted.append((data, duration))
        track.add(size, duration, key=key)
        film.append(track, data, 1)
        if gap and number % 3 == 0:
            other.add(1, 1)
            film.append(other, b"\xff", 1)
    moov = header(skeleton(), [Filled(track, Edit(0, 0, track.duration))], 1000)
    assert film.finish(moov)
    data = file.getvalue()
    assert [box.kind for box in boxes.walk(data)][:2] == [b"ftyp", b"moov"]
    assert list(media_of(data, 0)) == wanted


def test_an_index_without_room_goes_to_the_end() -> None:
    file = io.BytesIO()
    track = Track(1000)
    film = Film(file, boxes.box(b"ftyp", b"isom", bytes(4)), 64)
    track.add(3, 10)
    film.append(track, b"abc", 1)
    assert not film.finish(header(skeleton(), [Filled(track, Edit(0, 0, 10))], 1000))
    assert [box.kind for box in boxes.walk(file.getvalue())] == [b"ftyp", b"free", b"mdat", b"moov"]
    assert list(media_of(file.getvalue(), 0)) == [(b"abc", 10)]


def test_long_films_get_wide_fields() -> None:
    """A duration beyond 32 bits, an offset beyond 4 GiB: version 1 boxes and co64."""
    track = Track(1_000_000)
    track.add(1, 1 << 31)
    track.add(1, 1 << 31)
    track.placed(16, 1, joined=False)
    track.placed(1 << 33, 1, joined=False)
    moov = header(skeleton(), [Filled(track, Edit(1 << 31, 0, track.duration))], 1_000_000)
    found = boxes.sample_entry(moov)
    assert found is not None
    stbl = found[0][4]
    assert b"co64" in [box.kind for box in boxes.children(moov, stbl)]
    for path in ("mvhd", "trak/tkhd", "trak/mdia/mdhd", "trak/edts/elst"):
        box = boxes.find(moov, f"moov/{path}")
        assert box is not None
        assert moov[box.body] == 1
