"""Parallel equals serial: every layout in every codec, lossless, so that pictures can be compared sample by sample."""

from __future__ import annotations

import io
import itertools
from typing import Any

import av
import numpy as np
import pytest

from inference import convert, depth
from stereospot.media import encoders
from stereospot.media.model import Plan
from stereospot.options import Codec, Layout
from tests.unit import clips

COUNT, WIDTH, HEIGHT = 26, 96, 54
PLACES = (0, 5, 6, 17, COUNT)
CODECS = (Codec.X264, Codec.X265, Codec.SVTAV1, *filter(encoders.usable, sorted(encoders.HARDWARE)))
QUICK = {(layout, Codec.X264) for layout in Layout} | {(Layout.HALF_SBS, codec) for codec in CODECS}
CASES = [
    pytest.param(layout, codec, marks=[] if (layout, codec) in QUICK else [pytest.mark.slow])
    for layout, codec in itertools.product(Layout, CODECS)
]


def pictures(plan: Plan, first: int, last: int) -> list[np.ndarray]:
    """What the fragment of frames `first … last - 1` decodes to: all planes of each picture in a row."""
    clip = clips.Clip(clips.pictures(COUNT, WIDTH, HEIGHT, plan.decode.pixel_format, cuts=(9, 10)))
    found = convert.convert_segment(
        decoder=clip, plan=plan, segment=clips.segment(0, first, last), engine=depth.load(plan.stereo.engine)
    )
    with av.open(io.BytesIO(found.fragment.init + found.fragment.media), "r") as container:
        frames: list[Any] = list(container.decode(video=0))
    assert [frame.pts for frame in frames] == [index * clips.TICKS for index in range(first, last)]
    return [np.concatenate([_samples(plane, frame.format) for plane in frame.planes]) for frame in frames]


def _samples(plane: Any, form: av.VideoFormat) -> np.ndarray:
    """A plane's bytes without the padding of its lines, which holds anything."""
    wide = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return wide[:, : plane.width * (2 if form.components[0].bits > 8 else 1)].ravel()


@pytest.mark.parametrize(("layout", "codec"), CASES)
def test_segments_equal_the_serial_run(layout: Layout, codec: Codec) -> None:
    made = clips.plan(WIDTH, HEIGHT, layout=layout)
    plan = made.model_copy(update={"encode": made.encode.model_copy(update={"codec": codec})})
    serial = pictures(plan, 0, COUNT)
    parallel = [picture for pair in itertools.pairwise(PLACES) for picture in pictures(plan, *pair)]
    assert len(serial) == len(parallel) == COUNT
    assert all(np.array_equal(one, other) for one, other in zip(serial, parallel, strict=True))
    assert not np.array_equal(serial[0], serial[12]), "a film that stands still proves nothing"


@pytest.mark.slow
@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.ANAGLYPH])
@pytest.mark.parametrize(
    ("codec", "pixel_format"), [(Codec.X264, "yuv422p10le"), (Codec.X265, "yuv444p10le"), (Codec.SVTAV1, "yuv420p10le")]
)
def test_ten_bits_too(layout: Layout, codec: Codec, pixel_format: str) -> None:
    made = clips.plan(WIDTH, HEIGHT, pixel_format, layout=layout)
    plan = made.model_copy(update={"encode": made.encode.model_copy(update={"codec": codec})})
    serial = pictures(plan, 0, COUNT)
    parallel = [picture for pair in itertools.pairwise(PLACES) for picture in pictures(plan, *pair)]
    assert all(np.array_equal(one, other) for one, other in zip(serial, parallel, strict=True))
