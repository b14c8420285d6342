"""Tone mapping: known greys, hues, and that a plan with it gives 8-bit pictures."""

from __future__ import annotations

import numpy as np
import pytest

from inference import convert, depth, geometry, tonemap
from stereospot.media.model import Colour
from tests.unit import clips
from tests.unit.clips import decoded

PQ = Colour(primaries=9, transfer=16, matrix=9, content_light=(1000, 400))
HLG = Colour(primaries=9, transfer=18, matrix=9)


def mapped(
    colour: Colour, y: int, u: int = 512, v: int = 512, pixel_format: str = "yuv420p10le"
) -> tuple[int, int, int]:
    sizes = geometry.plane_sizes(6, 6, pixel_format)
    planes = tuple(np.full(size, code, np.uint16) for size, code in zip(sizes, (y, u, v), strict=True))
    found = tonemap.ToneMapper(6, 6, pixel_format, colour).map(planes)
    assert all((plane == plane[0, 0]).all() for plane in found)
    return int(found[0][0, 0]), int(found[1][0, 0]), int(found[2][0, 0])


@pytest.mark.parametrize("colour", [PQ, HLG])
def test_greys_stay_grey_and_in_order(colour: Colour) -> None:
    found = [mapped(colour, y) for y in range(64, 941, 16)]
    lumas = [y for y, _, _ in found]
    assert lumas == sorted(lumas)
    assert lumas[0] == 16
    assert lumas[-1] >= 230
    assert all(abs(u - 128) <= 1 and abs(v - 128) <= 1 for _, u, v in found)


def test_white_of_a_graphic_is_bright_and_the_peak_is_white() -> None:
    """203 cd/m2 is code 573 in PQ; the knee leaves it well above middle grey, and 1000 cd/m2 (723) becomes white."""
    assert 165 <= mapped(PQ, 573)[0] <= 225
    assert mapped(PQ, 723)[0] >= 233


def test_dark_things_keep_their_light() -> None:
    """Below the knee nothing is bent: 20 cd/m2 is (20 / 203) ** (1 / 2.4) of the SDR range."""
    code = 64 + 876 * float(tonemap._pq(np.array([20.0]))[0])  # pyright: ignore[reportPrivateUsage]
    expected = 16 + 219 * (20 / 203) ** (1 / 2.4)
    assert abs(mapped(PQ, round(code))[0] - expected) <= 3


def test_a_light_level_of_0_is_no_light_level() -> None:
    """Masters that were never measured say MaxCLL 0: the mastering display's peak holds then."""
    mastering = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(40000000,50)"
    plain = Colour(primaries=9, transfer=16, matrix=9, mastering=mastering)
    unmeasured = plain.model_copy(update={"content_light": (0, 0)})
    assert np.array_equal(tonemap.lattice(unmeasured, 1080), tonemap.lattice(plain, 1080))
    assert mapped(unmeasured, 723)[0] < mapped(PQ, 723)[0], "1000 cd/m2 is not the brightest of 4000"


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p10le", "yuv444p10le"])
def test_red_stays_red(pixel_format: str) -> None:
    y, u, v = mapped(PQ, 300, 440, 640, pixel_format)
    assert v > 150
    assert u < 128
    assert 16 <= y <= 235


def test_a_plan_with_tone_mapping_gives_eight_bits() -> None:
    made = clips.plan(64, 36, "yuv420p10le")
    video = made.source.video.model_copy(update={"colour": PQ})
    encode = made.encode.model_copy(
        update={"pixel_format": "yuv420p", "colour": Colour(primaries=1, transfer=1, matrix=1)}
    )
    made = made.model_copy(update={"source": made.source.model_copy(update={"video": video}), "encode": encode})
    found = convert.convert_segment(
        decoder=clips.Clip(clips.pictures(3, 64, 36, "yuv420p10le")), plan=made, segment=clips.segment(0, 0, 3),
        engine=depth.load("cues"),
    )  # fmt: skip
    pictures = decoded(found.fragment)
    assert len(pictures) == 3
    assert pictures[0].dtype == np.uint8
