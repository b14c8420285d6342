"""The decoder's behaviour round the frames: upright pixels, deinterlacing, slots, crashes, stalls, and what is read."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from stereospot.errors import StereoSpotError
from stereospot.media import limits as limits_module
from stereospot.media import plan
from stereospot.media.decoding import RangeDecoder
from stereospot.media.frames import Decoder, Frame
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from tests.media import reading, writing
from tests.media.zoo import interlaced
from tests.support import MEDIA, wait_until


def drain(flow: Iterator[Frame]) -> None:
    for frame in flow:
        frame.release()


def upright(name: str) -> list[tuple[NDArray[Any], ...]]:
    film = reading.planned(name)
    with reading.source_of(name) as source, Decoder(source, film.spec, film.info) as decoder:
        return [reading.copied(frame) for frame in decoder.frames(None, None)]


TURNS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "rotated_mov": lambda plane: np.rot90(plane, 1),  # the matrix turns to the left
    "rotated_270_mp4": lambda plane: np.rot90(plane, -1),
    "upside_down_mp4": lambda plane: plane[::-1, ::-1],
    "mirrored_mov": lambda plane: plane[:, ::-1],
}


@pytest.mark.parametrize("name", TURNS)
def test_pixels_are_turned_upright(name: str) -> None:
    decoded = list(reading.full_decode(name, 0))
    found = upright(name)
    assert len(found) == len(decoded)
    for planes, frame in zip(found, decoded, strict=True):
        for plane, plain in zip(planes, reading.plain_planes(frame), strict=True):
            np.testing.assert_array_equal(plane, TURNS[name](plain))


def test_grey_gets_neutral_chroma() -> None:
    first = upright("gray_mkv")[0]
    frame = next(iter(reading.full_decode("gray_mkv", 0)))
    np.testing.assert_array_equal(first[0], np.frombuffer(frame.planes[0], np.uint8).reshape(180, -1)[:, :320])  # type: ignore[call-overload]
    assert {int(value) for plane in first[1:] for value in np.unique(plane)} == {128}


def test_odd_sizes_stay_and_chroma_is_rounded_up() -> None:
    assert [plane.shape for plane in upright("odd_size_mkv")[0]] == [(181, 321), (91, 161), (91, 161)]


def test_ten_bits_come_as_sixteen() -> None:
    planes = upright("h264_10_mkv")[0]
    assert {plane.dtype for plane in planes} == {np.dtype(np.uint16)}
    assert planes[0].max() < 1024


def test_twelve_bits_become_ten() -> None:
    twelve = upright("yuv420p12_mp4")[0]
    plain = np.frombuffer(next(iter(reading.full_decode("yuv420p12_mp4", 0))).planes[0], np.uint16)  # type: ignore[call-overload]
    assert np.abs(twelve[0].astype(int) - plain.reshape(180, -1)[:, :320] / 4).max() <= 1


def test_rgb_becomes_limited_range_bt709() -> None:
    """Rec. ITU-R BT.709-6, item 3: luma and the scaled colour differences, 8 bit, 16 to 235 and 16 to 240."""
    found = upright("rgb_mkv")[0]
    frame = next(iter(reading.full_decode("rgb_mkv", 0)))
    rgb = frame.to_ndarray(format="rgb24").astype(float) / 255
    luma = rgb @ [0.2126, 0.7152, 0.0722]
    blue, red = (rgb[..., 2] - luma) / 1.8556, (rgb[..., 0] - luma) / 1.5748
    for plane, wanted in zip(found, (16 + 219 * luma, 128 + 224 * blue, 128 + 224 * red), strict=True):
        assert np.abs(plane - wanted).max() <= 2
    assert reading.planned("rgb_mkv").info.video.colour.matrix == 1


def comb(luma: NDArray[Any]) -> float:
    lines = luma.astype(int)
    return float(np.abs(2 * lines[1:-1] - lines[:-2] - lines[2:]).mean())


def test_interlaced_frames_lose_their_combs_and_none_is_lost() -> None:
    """One frame for one frame, without the comb that two moments in one picture make."""
    film = reading.planned("mpeg2_interlaced_ts")
    decoded = list(reading.full_decode("mpeg2_interlaced_ts", film.info.video.stream_index))
    found = upright("mpeg2_interlaced_ts")
    assert len(found) == len(decoded) == 96
    woven = np.mean([comb(reading.plain_planes(frame)[0]) for frame in decoded[10:20]])
    clean = np.mean([comb(planes[0]) for planes in found[10:20]])
    assert clean < 0.7 * woven


def hybrid(path: Path, parts: int, frames: int) -> None:
    """A broadcast that begins with a progressive programme and then changes to and fro."""
    for part in range(parts):
        woven = part % 2 == 1
        x264 = f"keyint={frames}:bframes=2:scenecut=0:" + ("tff=1" if woven else "fake-interlaced=1")
        film = writing.Film(
            ".ts", frames=frames, rate=Fraction(25), time_base=Fraction(1, 90_000), size=(176, 144),
            options={"preset": "ultrafast", "x264-params": x264}, picture=interlaced if woven else writing.frame,
            pts=[900_000 + 3600 * (part * frames + number) for number in range(frames)],
        )  # fmt: skip
        writing.write(film, path.with_suffix(f".{part}.ts"))
    path.write_bytes(b"".join(path.with_suffix(f".{part}.ts").read_bytes() for part in range(parts)))


def test_a_film_that_becomes_interlaced_on_the_way_loses_its_combs(tmp_path: Path) -> None:
    """Frames that are not flagged are left as they are, and every range is that of a serial run."""
    path = tmp_path / "hybrid.ts"
    hybrid(path, 4, 14)
    with av.open(str(path)) as container:
        decoded = [(frame.interlaced_frame, reading.plain_planes(frame)) for frame in container.decode(video=0)]
    flags = [flag for flag, _ in decoded]
    assert flags == ([False] * 14 + [True] * 14) * 2
    source = FileSource(path)
    try:
        info = probe(source)
        assert info.video.interlaced == "no"  # as its first frames are
        spec = plan.decode_spec(info)
        found: list[tuple[int, tuple[NDArray[Any], ...]]] = []
        with Decoder(source, spec, info) as decoder:
            found += [(frame.pts, reading.copied(frame)) for frame in decoder.frames(None, None)]
            assert len(found) == len(decoded)
            for (flag, plain), (_, planes) in zip(decoded, found, strict=True):
                if flag:
                    assert comb(planes[0]) < 0.7 * comb(plain[0])
                else:
                    assert reading.digest(planes) == reading.digest(plain)
            serial = [(pts, reading.digest(planes), 0) for pts, planes in found]
            for first in range(len(serial) - 3, 0, -1):  # backwards: each range needs a seek
                assert reading.collect(decoder, serial[first][0], serial[first + 2][0]) == serial[first : first + 2]
    finally:
        source.close()


def test_a_killed_child_fails_its_range_and_the_next_decoder_works() -> None:
    film = reading.planned("h264_mp4")
    with reading.source_of("h264_mp4") as source:
        with Decoder(source, film.spec, film.info, slots=2) as decoder:
            flow = decoder.frames(None, None)
            next(flow).release()
            os.kill(decoder.jail.wait_started(), signal.SIGKILL)
            with pytest.raises(StereoSpotError) as caught:
                drain(flow)
        assert caught.value.code == "DECODER_CRASHED"
        assert caught.value.details["signal"] == "SIGKILL"
        with Decoder(source, film.spec, film.info) as decoder:
            assert len(reading.collect(decoder, None, None)) == 96


def test_a_stopped_child_is_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "NO_PROGRESS_SECONDS", 0.4)
    film = reading.planned("h264_mp4")
    with reading.source_of("h264_mp4") as source, Decoder(source, film.spec, film.info, slots=2) as decoder:
        flow = decoder.frames(None, None)
        next(flow).release()
        pid = decoder.jail.wait_started()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(StereoSpotError) as caught:
            drain(flow)
    assert caught.value.code == "DECODE_STALLED"
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the stopped child is gone")


def test_a_stop_event_cancels() -> None:
    stop = threading.Event()
    film = reading.planned("h264_mp4")
    with reading.source_of("h264_mp4") as source, Decoder(source, film.spec, film.info, slots=2, stop=stop) as decoder:
        flow = decoder.frames(None, None)
        next(flow)
        stop.set()
        with pytest.raises(StereoSpotError) as caught:
            list(flow)
    assert caught.value.code == "CANCELLED"


def test_slots_bound_what_is_decoded_ahead_and_frames_outlive_the_decoder() -> None:
    film = reading.planned("h264_mp4")
    expected = reading.serial("h264_mp4")
    with reading.source_of("h264_mp4") as source, Decoder(source, film.spec, film.info, slots=4) as decoder:
        flow = decoder.frames(None, None)
        held = [next(flow) for _ in range(3)]
        for frame in held[:2]:
            assert reading.digest(frame.planes) == expected[frame.pts]
            frame.release()
            frame.release()
    assert reading.digest(held[2].planes) == expected[held[2].pts]
    assert not held[2].planes[0].flags.writeable
    held[2].release()


def test_a_range_left_half_way_does_not_disturb_the_next() -> None:
    film = reading.planned("h264_open_gop_mkv")
    expected = reading.serial("h264_open_gop_mkv")
    with reading.source_of("h264_open_gop_mkv") as source, Decoder(source, film.spec, film.info, slots=3) as decoder:
        for start in (10, 50, 30):
            flow = decoder.frames(film.pts[start], film.pts[start + 20], before=2)
            first = next(flow)
            assert (first.pts, first.pad) == (film.pts[start - 2], -1)
            first.release()
        found = reading.collect(decoder, film.pts[40], film.pts[60])
    assert found == [(pts, expected[pts], 0) for pts in film.pts[40:60]]


def test_consecutive_ranges_read_on_without_a_seek() -> None:
    film = reading.planned("mpeg2_ts")
    with reading.source_of("mpeg2_ts") as source, Decoder(source, film.spec, film.info) as decoder:
        for start in range(0, 96, 12):
            end = film.pts[start + 12] if start + 12 < 96 else None
            begin = film.pts[start] if start else None
            assert len(reading.collect(decoder, begin, end)) == 12
        assert decoder.bytes_read <= 2 * source.size


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_range_behind_the_last_frame_costs_the_films_end_and_not_the_film(suffix: str, tmp_path: Path) -> None:
    """The last windows of a curve are asked for by time, be there pictures or not."""
    path = tmp_path / f"film{suffix}"
    writing.write(writing.Film(suffix=suffix, frames=480, options={"g": "12", "preset": "ultrafast"}), path)
    source = FileSource(path)
    try:
        info = probe(source)
    finally:
        source.close()
    second, decoded = round(1 / info.video.time_base), [0]

    def count() -> None:
        decoded[0] += 1

    request = limits_module.Limits().request() | plan.decode_spec(info).model_dump(mode="json")
    with open(path, "rb") as file:
        decoder = RangeDecoder(file, request, count)  # type: ignore[arg-type]
        end = info.video.first_pts + 20 * second
        assert not [item for item in decoder.range(end + 5 * second, end + 9 * second, 3, 2) if item.pad == 0]
        assert 0 < decoded[0] < 100
        decoder.close()


@pytest.mark.parametrize("sequential", [False, True])
def test_a_range_that_goes_on_has_all_of_a_wider_padding(sequential: bool) -> None:
    """A decoder keeps few frames behind it as long as nobody asks for more."""
    film = reading.planned("h264_mp4")
    spec = film.spec.model_copy(update={"sequential": sequential})
    with reading.source_of("h264_mp4") as source, Decoder(source, spec, film.info) as decoder:
        reading.collect(decoder, film.pts[0], film.pts[40], before=3, after=2)
        found = reading.collect(decoder, film.pts[40], film.pts[45], before=30, after=2)
    assert [pts for pts, _, _ in found] == film.pts[10:47]


def test_the_memory_of_a_ring_is_not_the_jails_limit() -> None:
    """The frames' own memory comes on top of what a decoder may use."""
    film = reading.planned("h264_mp4")
    small = limits_module.Limits(memory_bytes=2**30)
    with reading.source_of("h264_mp4") as source, Decoder(source, film.spec, film.info, limits=small) as decoder:
        assert len(reading.collect(decoder, None, film.pts[5])) == 5


def test_many_decoders_at_once() -> None:
    film = reading.planned("vp9_webm")
    expected = reading.serial("vp9_webm")
    failures: list[BaseException] = []

    def run(start: int) -> None:
        try:
            with reading.source_of("vp9_webm") as source, Decoder(source, film.spec, film.info) as decoder:
                found = reading.collect(decoder, film.pts[start], film.pts[start + 20])
            assert found == [(pts, expected[pts], 0) for pts in film.pts[start : start + 20]]
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(start,)) for start in (5, 20, 40, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(("clip", "count"), [("big-buck-bunny-480p-30s.mp4", 720), ("car-detection.mp4", 377)])
def test_real_clips(clip: str, count: int) -> None:
    path = MEDIA / clip
    if not path.exists():
        pytest.skip("the real clips do not lie beside this checkout")
    source = FileSource(path)
    try:
        info = probe(source)
        pts = [value for batch in plan.scan(source, info) for value in batch.pts]
        assert len(pts) == count
        with Decoder(source, plan.decode_spec(info), info) as decoder:
            middle = reading.collect(decoder, pts[100], pts[120], before=3, after=3)
        assert [pts for pts, _, _ in middle] == pts[97:123]
    finally:
        source.close()
