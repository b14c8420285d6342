"""Fragments: frames and times as they were put in, and one init segment whoever encodes."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from stereospot import errors
from stereospot.media import boxes, cmaf, encoders, levels
from stereospot.media.model import Colour, EncodeSpec
from stereospot.options import Codec, Layout

WIDTH, HEIGHT = 162, 98
CODECS = (Codec.X264, Codec.X265, Codec.SVTAV1)
Planes = tuple[NDArray[Any], ...]


def spec(codec: Codec = Codec.X264, **changes: Any) -> EncodeSpec:
    values: dict[str, Any] = {
        "codec": codec, "pixel_format": "yuv420p", "width": WIDTH, "height": HEIGHT, "time_base": Fraction(1, 90000),
        "rate": Fraction(24000, 1001), "crf": 0, "preset": "ultrafast", "key_seconds": 0.2,
    }  # fmt: skip
    return EncodeSpec(**(values | changes))


def picture(of: EncodeSpec, number: int, *, strided: bool = False) -> Planes:
    """A picture that differs from its neighbours everywhere; `strided` planes are views into something larger."""
    deep = of.pixel_format.endswith("10le")
    across = of.width if "444" in of.pixel_format else -(-of.width // 2)
    down = -(-of.height // 2) if "420" in of.pixel_format else of.height
    planes: list[NDArray[Any]] = []
    for index, (height, width) in enumerate(((of.height, of.width), (down, across), (down, across))):
        ramp = np.add.outer(np.arange(height) * (index + 1), np.arange(width) * 3) + number * (11 + index)
        plane = (ramp % (1023 if deep else 251)).astype(np.uint16 if deep else np.uint8)
        if strided:
            wide = np.zeros((height, width * 2 + 5), plane.dtype)
            wide[:, 1 : 1 + 2 * width : 2] = plane
            plane = wide[:, 1 : 1 + 2 * width : 2]
        planes.append(plane)
    return tuple(planes)


def encode(of: EncodeSpec, pts: Sequence[int], end: int, *, strided: bool = False) -> cmaf.Fragment:
    encoder = cmaf.FragmentEncoder(of)
    for time in pts:
        encoder.write(picture(of, time % 977, strided=strided), time)
    return encoder.finish(end)


def decode(data: bytes) -> list[av.VideoFrame]:
    with av.open(io.BytesIO(data), "r") as container:
        return list(container.decode(video=0))


def side_data(frame: av.VideoFrame) -> set[str]:
    return {str(cast(Any, item).type) for item in frame.side_data}


def planes_of(frame: av.VideoFrame, of: EncodeSpec) -> Planes:
    """The planes of a decoded frame without padding."""
    kind = np.dtype(np.uint16 if of.pixel_format.endswith("10le") else np.uint8)
    return tuple(
        np.frombuffer(bytes(plane), kind).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes
    )


VFR = [0, 3003, 6006, 20000, 20001, 90000, 93753, 180000]


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [(codec, item) for codec in CODECS for item in sorted(encoders.PIXEL_FORMATS[codec])],
)
def test_crf_0_gives_back_every_sample(codec: Codec, pixel_format: str) -> None:
    of = spec(codec, pixel_format=pixel_format, key_seconds=0.5)
    pts = [3753 * index for index in range(12)]
    fragment = encode(of, pts, 12 * 3753)
    frames = decode(fragment.init + fragment.media)
    assert [frame.pts for frame in frames] == pts == fragment.pts
    assert frames[0].format.name == pixel_format
    for frame in frames:
        for found, wanted in zip(planes_of(frame, of), picture(of, (frame.pts or 0) % 977), strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("width", [320, 326])
def test_what_is_drawn_on_a_canvas_is_what_is_copied(codec: Codec, width: int) -> None:
    """326: the lines of libavcodec's frames are longer than the picture's, so that the canvas is memory of its own."""
    of = spec(codec, width=width)
    pts = [3753 * index for index in range(12)]
    encoder = cmaf.FragmentEncoder(of)
    canvases = [encoder.canvas() for _ in range(2)]
    for index, time in enumerate(pts):
        drawn = canvases[index % 2]
        assert all(plane.flags.c_contiguous for plane in drawn)
        for target, plane in zip(drawn, picture(of, time % 977), strict=True):
            target[...] = plane
        encoder.write(drawn, time)
    assert encoder.finish(12 * 3753).media == encode(of, pts, 12 * 3753).media


@pytest.mark.parametrize("codec", CODECS)
def test_one_init_for_all(codec: Codec) -> None:
    """CFR, VFR, one frame, a late start, another thread: the header does not know the pictures."""
    of = spec(codec, crf=30)
    found: list[cmaf.Fragment] = []
    thread = threading.Thread(target=lambda: found.append(encode(of, [0, 3753], 7506)))
    thread.start()
    found += [
        encode(of, VFR, 200000),
        encode(of, [7], 8),
        encode(of, [10**10 + 3753 * index for index in range(5)], 10**10 + 20000),
    ]
    thread.join()
    assert len({item.init for item in found}) == 1
    assert {item.init_sha256 for item in found} == {hashlib.sha256(found[0].init).hexdigest()}
    assert encode(spec(codec, crf=30, width=160), [0], 1).init != found[0].init


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("pts", "end"), [(VFR, 190001), ([5], 6), ([2**40, 2**40 + 1], 2**40 + 9), ([-4000, -100, 30], 77)]
)
def test_boxes_hold_the_times_of_the_source(codec: Codec, pts: list[int], end: int) -> None:
    fragment = encode(spec(codec, crf=40), pts, end)
    samples = boxes.read_fragment(fragment.media)
    assert [sample.time + sample.offset for sample in samples] == pts
    assert [sample.duration for sample in samples] == [b - a for a, b in zip(pts, [*pts[1:], end], strict=True)]
    assert samples[0].key
    assert [box.kind for box in boxes.walk(fragment.media)] == [b"moof", b"mdat"]
    assert samples[-1].position + samples[-1].size == len(fragment.media)


def test_time_bases_that_are_not_one_over_something() -> None:
    """AVI: the track's timescale is the denominator, its times are multiples of the numerator."""
    fragment = encode(spec(time_base=Fraction(1001, 24000)), [1, 2, 3], 4)
    assert boxes.timescale(fragment.init) == 24000
    assert [sample.time for sample in boxes.read_fragment(fragment.media)] == [1001, 2002, 3003]


def test_keyframes_lie_where_the_times_say() -> None:
    pts = [3753 * index for index in range(40)]
    first = [sample.key for sample in boxes.read_fragment(encode(spec(), pts, 40 * 3753).media)]
    assert [index for index, key in enumerate(first) if key] == [0, 5, 10, 15, 20, 25, 30, 35]
    assert first == [sample.key for sample in boxes.read_fragment(encode(spec(crf=23), pts, 40 * 3753).media)]


@pytest.mark.parametrize("codec", CODECS)
def test_fragments_follow_each_other_without_a_seam(codec: Codec) -> None:
    of = spec(codec)
    whole = [3753 * index for index in range(9)]
    parts = [encode(of, whole[:4], whole[4]), encode(of, whole[4:5], whole[5]), encode(of, whole[5:], 9 * 3753)]
    frames = decode(parts[0].init + b"".join(part.media for part in parts))
    assert [frame.pts for frame in frames] == whole
    for frame in frames:
        np.testing.assert_array_equal(planes_of(frame, of)[0], picture(of, (frame.pts or 0) % 977)[0])


def test_any_strides() -> None:
    assert encode(spec(), [0, 9], 18, strided=True).media == encode(spec(), [0, 9], 18).media


@pytest.mark.parametrize(
    ("layout", "swapped", "stereo", "sei"),
    [
        (Layout.HALF_SBS, False, b"side", 1),
        (Layout.FULL_TB, False, b"over", 2),
        (Layout.HALF_SBS, True, b"side", 0),  # x264 and Google's box can only say that the left eye comes first
        (Layout.ANAGLYPH, False, None, 0),
        (Layout.CROSS_EYED, False, None, 0),
    ],
)
def test_signals(layout: Layout, swapped: bool, stereo: bytes | None, sei: int) -> None:
    fragment = encode(spec(layout=layout, swapped=swapped, crf=30), [0], 1)
    assert (b"vexu" in fragment.init) == (stereo is not None)
    assert (b"st3d" in fragment.init) == (stereo is not None and not swapped)
    if stereo is not None:
        assert b"pkin\0\0\0\0" + stereo in fragment.init
        assert b"stri\0\0\0\0" + (b"\x0b" if swapped else b"\x03") in fragment.init
    found = boxes.sample_entry(fragment.init)
    assert found is not None
    assert sum(box.end - box.start for box in boxes.walk(fragment.init)) == len(fragment.init)
    # The SEI alone: the same packets under a header without our boxes.
    bare = encode(spec(layout=Layout.LEFT, crf=30), [0], 1).init
    assert ("Type.STEREO3D" in side_data(decode(bare + fragment.media)[0])) == bool(sei)


def test_the_boxes_change_no_pixel() -> None:
    with_boxes, without = (encode(spec(layout=layout), [0, 1, 2], 3) for layout in (Layout.HALF_SBS, Layout.LEFT))
    pictures = [
        [bytes(plane) for frame in decode(item.init + item.media) for plane in frame.planes]
        for item in (with_boxes, without)
    ]
    assert pictures[0] == pictures[1]


def test_colour_and_hdr_metadata_arrive() -> None:
    colour = Colour(
        primaries=9, transfer=16, matrix=9, content_light=(1000, 400),
        mastering="G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)",
    )  # fmt: skip
    for codec in CODECS:
        of = spec(codec, pixel_format="yuv420p10le", colour=colour, crf=30)
        fragment = encode(of, [0, 1], 2)
        frame = decode(fragment.init + fragment.media)[0]
        assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (9, 16, 9, 1)
        assert {"Type.MASTERING_DISPLAY_METADATA", "Type.CONTENT_LIGHT_LEVEL"} <= side_data(frame)
        assert b"mdcv" in fragment.init
        assert b"clli" in fragment.init


def test_sample_aspect_and_codec_strings() -> None:
    texts: list[str] = []
    for codec in CODECS:
        of = spec(codec, sample_aspect=Fraction(2, 1), crf=30, width=1920, height=1080)
        init = cmaf.FragmentEncoder(of).init
        with av.open(io.BytesIO(init + encode(of, [0], 1).media), "r") as container:
            assert container.streams.video[0].sample_aspect_ratio == 2
        texts.append(boxes.codec_string(init))
    assert texts == ["avc1.42C028", "hvc1.1.6.L120.90", "av01.0.08M.08"]


@pytest.mark.parametrize(
    ("size", "rate", "h264", "hevc"),
    [
        ((1920, 1080), Fraction(24), "4.0", "4.0"), ((1920, 1080), Fraction(60), "4.2", "4.1"),
        ((3840, 1080), Fraction(30), "5.0", "5.0"), ((3840, 2160), Fraction(60), "5.2", "5.1"),
        ((7680, 2160), Fraction(24), "6.0", "6.0"), ((176, 144), Fraction(15), "1.0", "1.0"),
    ],
)  # fmt: skip
def test_levels(size: tuple[int, int], rate: Fraction, h264: str, hevc: str) -> None:
    assert levels.h264_level(*size, rate) == h264
    assert levels.hevc_level(*size, rate) == hevc


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(errors.Permanent) as refused:
        cmaf.FragmentEncoder(spec(Codec.SVTAV1, pixel_format="yuv444p"))
    assert refused.value.code == "INVALID_OPTIONS"
    with pytest.raises(errors.Permanent):
        cmaf.FragmentEncoder(spec(preset="sideways"))
    encoder = cmaf.FragmentEncoder(spec())
    with pytest.raises(ValueError, match="at least one frame"):
        encoder.finish(1)
    encoder.write(picture(spec(), 0), 10)
    with pytest.raises(ValueError, match="must increase"):
        encoder.write(picture(spec(), 0), 10)
    with pytest.raises(ValueError, match="a plane is"):
        encoder.write(picture(spec(width=164), 0), 11)
    with pytest.raises(ValueError, match="before its last frame"):
        encoder.finish(10)


@pytest.mark.parametrize("codec", [*CODECS, Codec.NVENC_H264])
def test_presets_are_checked_before_an_encoder_opens(codec: Codec) -> None:
    encoders.check(spec(codec, preset="slow"), here=False)
    with pytest.raises(errors.Permanent, match="preset 'sideways'") as refused:
        encoders.check(spec(codec, preset="sideways"), here=False)
    assert refused.value.code == "INVALID_OPTIONS"


def test_a_telephone_that_is_a_little_faster_than_it_says() -> None:
    """SVT-AV1 takes no more than 240 frames a second."""
    made = encode(spec(Codec.SVTAV1, rate=Fraction(24003, 100), crf=30), [0, 375], 750)
    assert [frame.pts for frame in decode(made.init + made.media)] == [0, 375]


def test_a_usable_encoder_really_encodes() -> None:
    assert encoders.usable(Codec.X264)


@pytest.mark.parametrize("codec", sorted(encoders.HARDWARE))
def test_a_hardware_encoder_is_taken_where_it_encodes_and_refused_elsewhere(codec: Codec) -> None:
    encoders.check(spec(codec), here=False)
    if encoders.usable(codec):
        encoders.check(spec(codec), here=True)
        return
    with pytest.raises(errors.Misconfigured) as refused:
        encoders.check(spec(codec), here=True)
    assert refused.value.code == "ENCODER_UNAVAILABLE"
    with pytest.raises(errors.Misconfigured) as late:
        cmaf.FragmentEncoder(spec(codec))
    assert late.value.code == "ENCODER_UNAVAILABLE"


_WORKER = """
import hashlib, sys
from tests.media.test_cmaf import encode, spec
found = encode(spec(sys.argv[1], crf=24, preset="veryfast", threads=2), [3753 * index for index in range(9)], 9 * 3753)
print(found.init_sha256, hashlib.sha256(found.media).hexdigest())
"""


@pytest.mark.parametrize("codec", [*CODECS, *filter(encoders.usable, sorted(encoders.HARDWARE))])
def test_two_workers_write_the_same_header(codec: Codec) -> None:
    """Two processes, as two workers are; the same library makes the same pictures of it, too."""
    said = [
        subprocess.run([sys.executable, "-c", _WORKER, codec], check=True, capture_output=True, text=True, timeout=60)
        for _ in range(2)
    ]
    one, other = (worker.stdout.split() for worker in said)
    assert len(one) == 2
    assert one[0] == other[0], "the init segment"
    if codec not in encoders.HARDWARE:
        assert one[1] == other[1]


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_segment_twice_is_the_same_bytes(codec: Codec) -> None:
    """A worker that repeats a segment, or an other that takes it over, changes nothing for those who have read it."""
    of = spec(codec, crf=24, preset="veryfast", threads=2)
    pts = [3753 * index for index in range(30)]
    first = encode(of, pts, 30 * 3753)
    assert encode(of, pts, 30 * 3753).media == first.media


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling policies here")
@pytest.mark.parametrize("codec", CODECS)
def test_an_encoder_makes_no_real_time_threads(codec: Codec) -> None:
    """SVT-AV1 does where root runs it: nothing else gets a core then, and what the thread starts is one, too."""
    encoder = cmaf.FragmentEncoder(spec(codec))
    encoder.write(picture(encoder.spec, 0), 0)
    policies = {os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task")}
    encoder.finish(3750)
    assert policies == {os.SCHED_OTHER}
