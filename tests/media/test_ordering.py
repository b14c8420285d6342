"""Films whose times stand in the order of decoding: AVI with reordered frames, and places that it left empty."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stereospot.media import plan
from stereospot.media.frames import Decoder
from stereospot.media.model import DecodeSpec
from stereospot.media.ordering import are_reordered
from stereospot.media.probe import probe
from stereospot.media.scan import REORDERED
from stereospot.media.source import FileSource
from stereospot.media.times import LONGEST_WAIT, Order, Times
from tests.media import reading
from tests.media.writing import Film, write

RATE = Fraction(30)
SLOW = [number + (number + 4) // 9 for number in range(120)]
"""A phone in dim light: every ninth frame stands for two ticks."""
STEADY = list(range(120))
FIXED = {"x264-params": "keyint=24:scenecut=0:bframes=3:b-adapt=0:b-pyramid=normal:ref=4"}


@dataclass
class Packet:
    pts: int | None
    size: int = 1


def pan(number: int, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """A coarse pattern that moves evenly: x264 takes to B-frames by itself."""
    coarse = np.random.default_rng(1).integers(30, 220, (height // 4, 100, 3), dtype=np.uint8)
    wide = np.kron(coarse, np.ones((4, 4, 1), np.uint8))
    shown = np.ascontiguousarray(wide[:, 2 * number : 2 * number + width])
    return av.VideoFrame.from_ndarray(shown, "rgb24").reformat(format=pixel_format)


def film(path: Path, pts: list[int], options: dict[str, str]) -> list[int]:
    """Writes an AVI, in which libavformat puts empty chunks where there is no frame; its frames' own times."""
    write(Film(".avi", frames=len(pts), pts=pts, rate=RATE, size=(64, 48), options=options, picture=pan), path)
    with av.open(str(path)) as container:
        return [frame.pts for frame in container.decode(video=0) if frame.pts is not None]


def packed(path: Path) -> list[int]:
    """DivX's way with B-frames: one lies in the chunk of the frame before it, and an empty frame takes its own place.

    Every sixth chunk is followed by a place without one. Returns the frames' own times.
    """
    start, packed_mark, empty = b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p\0", b"\0\0\1\xb6\x50\x00\x80"
    context: Any = av.CodecContext.create("mpeg4", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 64, 48, "yuv420p", 1 / RATE
    context.framerate, context.max_b_frames, context.options = RATE, 1, {"g": "20", "bf": "1", "b_strategy": "0"}
    made: list[bytes] = []
    for number in range(81):
        shown = pan(number, 64, 48, "yuv420p")
        shown.pts, shown.time_base = number, 1 / RATE
        made += [bytes(packet) for packet in context.encode(shown)]
    made += [bytes(packet) for packet in context.encode(None)]
    kinds = [data[data.index(start) + 4] >> 6 for data in made]  # 0 I, 1 P, 2 B
    chunks: list[tuple[bytes, bool]] = []
    for data, kind, following in zip(made, kinds, [*made[1:], b""], strict=True):
        if kind == 2:
            chunks.append((empty, False))
            continue
        at = data.index(start) if kind == 0 else 0
        whole = data[:at] + packed_mark + data[at:] if kind == 0 else data
        is_packed = bool(following) and following[following.index(start) + 4] >> 6 == 2
        chunks.append((whole + following if is_packed else whole, kind == 0))
    with av.open(str(path), "w") as output:
        stream: Any = output.add_mux_stream("mpeg4", width=64, height=48)
        stream.time_base = 1 / RATE
        output.start_encoding()
        for number, (data, key) in enumerate(chunks):
            packet = av.Packet(data)
            packet.time_base, packet.stream, packet.is_keyframe = 1 / RATE, stream, key
            packet.pts = packet.dts = number + number // 6
            output.mux_one(packet)
    with av.open(str(path)) as container:
        return [frame.pts for frame in container.decode(video=0) if frame.pts is not None]


def planned(source: FileSource) -> tuple[DecodeSpec, list[plan.FrameBatch]]:
    info = probe(source)
    with pytest.raises(plan.Untrusted, match=REORDERED) as caught:
        list(plan.scan(source, info))
    assert caught.value.repairable
    assert caught.value.reordered
    spec = plan.decode_spec(info).model_copy(
        update={
            "synthesised": True, "repaired": True, "reordered": True, "first_pts": info.video.first_pts,
            "frame_seconds": 1 / info.video.average_rate,
        }
    )  # fmt: skip
    return spec, list(plan.decode_scan(source, info, repaired=True, reordered=True))


@pytest.mark.parametrize(
    ("pts", "options"),
    [(SLOW, {}), (SLOW, FIXED), (STEADY, FIXED)],
    ids=["gaps by x264's defaults", "gaps", "no gaps"],
)
def test_frames_take_the_times_of_their_file_in_order(tmp_path: Path, pts: list[int], options: dict[str, str]) -> None:
    own = film(tmp_path / "film.avi", pts, options)
    found = compared(tmp_path / "film.avi", own)
    # An empty chunk lies where the muxer met it: in the order of decoding, a few frames from where it belongs.
    assert max(abs(time - own[0] - place) for time, place in zip(found, pts, strict=True)) <= (2 if pts is SLOW else 0)


def test_so_do_those_of_a_packed_bitstream(tmp_path: Path) -> None:
    compared(tmp_path / "film.avi", packed(tmp_path / "film.avi"))


def compared(path: Path, own: list[int]) -> list[int]:
    """Holds the film's times against its frames' own, and ranges against a serial run; the film's times."""
    assert own != sorted(own)
    source = FileSource(path)
    try:
        info = probe(source)
        spec, batches = planned(source)
        found = [time for batch in batches for time in batch.pts]
        assert found == sorted(own)
        assert batches[-1].end_pts == found[-1] + 1
        with Decoder(source, spec, info) as decoder:
            serial = reading.collect(decoder, None, None)
            assert [time for time, _, _ in serial] == found
            assert len({digest for _, digest, _ in serial}) == len(own)
            reading.check_ranges(decoder, serial, (65, 15, 41, 40))  # back and forth, so that each begins anew
    finally:
        source.close()
    return found


def test_a_film_is_in_step_again_behind_packets_that_do_not_decode(tmp_path: Path) -> None:
    own = film(tmp_path / "film.avi", SLOW, FIXED)
    data = bytearray((tmp_path / "film.avi").read_bytes())
    at = data.index(b"movi")
    for number in range(60):
        at = data.index(b"00dc", at + 4)
        size = struct.unpack("<I", data[at + 4 : at + 8])[0]
        if number in (30, 31, 44):
            data[at + 8 : at + 8 + size] = bytes(size)
    (tmp_path / "film.avi").write_bytes(data)
    source = FileSource(tmp_path / "film.avi")
    try:
        info = probe(source)
        spec, batches = planned(source)
        found = [time for batch in batches for time in batch.pts]
        assert len(found) < len(own)
        assert found[-30:] == sorted(own)[-30:]
        with Decoder(source, spec, info) as decoder:
            serial = reading.collect(decoder, None, None)
            assert [time for time, _, _ in serial] == found
        with Decoder(source, spec, info) as decoder:
            assert reading.collect(decoder, found[50], found[60]) == serial[50:60]
    finally:
        source.close()


def told(packets: list[int], own: list[int | None], held: int) -> list[int]:
    """Times of frames that come out `held` packets behind their number."""
    times = Times(7, Fraction(1), Fraction(1, 25), repaired=True, reordered=True)
    found: list[int] = []
    for number, pts in enumerate([*packets, *[None] * held]):
        times.packet(Packet(pts, 0 if pts is None else 1))
        if number >= held:
            found.append(times.next(own[number - held]))
    return found


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ([1, 4, 3, 5, 2, 9, 8, 10, 6, 13], [1, 2, 3, 4, 5, 6, 8, 9, 10, 13]),
        ([1, 4, None, 5, 2, 9, 8, 10, 6, 13], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ([1, 4, 77, 5, 2, 9, 8, 10, 6, 13], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ],
    ids=["whole", "one without a time", "one of no packet"],
)
def test_times_are_dealt_out_in_order(own: list[int | None], found: list[int]) -> None:
    assert told([1, 2, 3, 4, 5, 6, 8, 9, 10, 13], own, held=3) == found


def test_the_time_of_a_lost_packet_is_passed_over() -> None:
    order = Order()
    found: list[int | None] = []
    for time in range(100):
        order.packet(Packet(time))
        if time != 10:
            found.append(order.next(time))
    late = 10 + LONGEST_WAIT
    assert found == [*range(late), *range(late + 1, 100)]


def test_films_are_put_in_order_only_where_that_makes_their_times_good() -> None:
    own = [1, 3, 2, 5, 4, 7, 6, 9, 8]
    ordered: list[int | None] = [*range(1, 10)]
    assert are_reordered(own, ordered, 100, is_whole=True)
    assert not are_reordered([*range(1, 10)], ordered, 100, is_whole=True)  # nothing is wrong with it
    assert not are_reordered([1, 3, 2, 3, 4, 7, 6, 9, 8], ordered, 100, is_whole=True)  # a time that two frames have
    assert not are_reordered(own, [time and 2 * time for time in ordered], 100, is_whole=True)  # two packets a frame
    assert not are_reordered([*own, 900], [*ordered, 900], 100, is_whole=True)  # another clock
    assert not are_reordered([*range(100), 98], [*range(101)], 100, is_whole=True)  # a slip
