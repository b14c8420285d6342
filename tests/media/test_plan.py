"""The plan's pure half: cuts at any frame, whatever the batches; and what the head settles."""

from __future__ import annotations

import hashlib
import struct
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereospot.errors import StereoSpotError
from stereospot.media import plan
from stereospot.media.model import Colour, Plan, PlanTotal, Segment, SourceInfo, Surroundings
from stereospot.media.surroundings import Support
from stereospot.options import Codec, Options
from tests.media import reading

TICKS = 1000


def info_of(**video: Any) -> SourceInfo:
    values: dict[str, Any] = {
        "stream_index": 0, "codec": "h264", "width": 1920, "height": 1080, "coded_width": 1920, "coded_height": 1080,
        "pixel_format": "yuv420p", "source_pixel_format": "yuv420p", "time_base": Fraction(1, TICKS),
        "average_rate": Fraction(25),
    }  # fmt: skip
    return SourceInfo.model_validate(
        {"container": "x", "size_bytes": 1, "duration_seconds": 10.0, "video": values | video}
    )


def cut(
    pts: list[int],
    keys: list[bool],
    end: int,
    batch: int,
    seconds: float | None,
    support: Support | None = None,
) -> tuple[list[Segment], PlanTotal]:
    cutter = plan.Cutter(info_of(), seconds, support)
    found: list[Segment] = []
    for start in range(0, len(pts), batch):
        final = start + batch >= len(pts)
        part = slice(start, start + batch)
        found += cutter.feed(plan.FrameBatch(pts[part], keys[part], final, end if final else None))
    rest, total = cutter.finish()
    return found + rest, total


@pytest.mark.parametrize(("first", "origin"), [(0, 0), (1400, 0), (50_000_000, 0), (-40, -1040), (-5000, -6000)])
def test_fragments_of_a_film_that_begins_before_0_have_times_of_0_and_more(first: int, origin: int) -> None:
    made = plan.head(
        info_of(first_pts=first), Options(), job_id="j", generation=1, source_key="k", engine="flat", divergence=1.0,
        output=(1920, 1080, Fraction(1)), created_at=0,
    )  # fmt: skip
    assert made.encode.origin == origin


@given(
    gaps=st.lists(st.integers(1, 3000), min_size=0, max_size=200),
    keyed=st.integers(1, 60),
    batch=st.integers(1, 50),
    seconds=st.one_of(st.none(), st.floats(0.2, 20)),
    first=st.integers(-5000, 5000),
)
@settings(max_examples=200, deadline=None)
def test_segments_partition_the_film(
    gaps: list[int], keyed: int, batch: int, seconds: float | None, first: int
) -> None:
    pts = [first]
    for gap in gaps:
        pts.append(pts[-1] + gap)
    keys = [index % keyed == 0 for index in range(len(pts))]
    end = pts[-1] + 40
    segments, total = cut(pts, keys, end, batch, seconds)
    assert segments == cut(pts, keys, end, len(pts), seconds)[0], "the cut depends on the batches"
    assert [segment.index for segment in segments] == list(range(len(segments)))
    assert all(segment.frames > 0 for segment in segments)
    assert sum(segment.frames for segment in segments) == len(pts) == total.frames
    assert (total.segments, total.first_pts, total.end_pts) == (len(segments), pts[0], end)
    assert total.pts_sha256 == hashlib.sha256(struct.pack(f"<{len(pts)}q", *pts)).hexdigest()
    at = 0
    for segment in segments:
        chosen = pts[at : at + segment.frames]
        at += segment.frames
        following = pts[at] if at < len(pts) else end
        assert (segment.start, segment.last) == (chosen[0], chosen[-1])
        assert segment.end == (pts[at] if at < len(pts) else None)
        assert segment.duration == following - chosen[0]


@given(
    gaps=st.lists(st.integers(1, 3000), min_size=0, max_size=120),
    batch=st.integers(1, 50),
    support=st.builds(Support, st.integers(1, 30), st.integers(1, 9000)),
)
@settings(max_examples=200, deadline=None)
def test_segments_say_what_lies_around_them(gaps: list[int], batch: int, support: Support) -> None:
    """As whoever knows all of the film counts it; and they are cut where they would be without."""
    pts = [-700]
    for gap in gaps:
        pts.append(pts[-1] + gap)
    keys, end = [index % 9 == 0 for index in range(len(pts))], pts[-1] + 40
    segments, total = cut(pts, keys, end, batch, 1.5, support)
    plain, plain_total = cut(pts, keys, end, batch, 1.5)
    assert [segment.model_copy(update={"around": None}) for segment in segments] == plain
    assert total == plain_total
    at = 0
    for segment in segments:
        after = at + segment.frames
        first, last = pts[max(0, at - support.frames)], pts[min(len(pts), after + support.frames) - 1]
        before = sum(value >= first - support.ticks for value in pts[:at])
        behind = sum(value < last + support.ticks for value in pts[after:])
        assert segment.around == Surroundings(first=first, last=last, before=before, after=behind)
        at = after


def test_samples_say_what_lies_around_them() -> None:
    pts = list(range(100, 20_100, 40))
    found = plan.sample_segments(info_of(), pts, (0.0, 5.0, 100.0), support=Support(3, 400))
    assert [segment.around for segment in found] == [
        Surroundings(first=100, last=100 + 52 * 40, before=0, after=12),
        Surroundings(first=5100 - 120, last=5100 + 52 * 40, before=13, after=12),
        Surroundings(first=found[2].start - 120, last=pts[-1], before=13, after=0),
    ]


def test_the_first_segments_are_short_and_the_rest_near_the_target() -> None:
    pts = list(range(0, 60 * TICKS, 40))
    segments, _ = cut(pts, [False] * len(pts), 60 * TICKS, 7, None)
    assert [segment.duration for segment in segments[:4]] == [1000, 1000, 2000, 5000]
    assert max(segment.duration for segment in segments) <= 6000


def test_a_near_keyframe_is_preferred_and_a_far_one_is_not() -> None:
    pts = list(range(0, 60 * TICKS, 40))
    near = [value % 4500 < 40 for value in pts]
    segments, _ = cut(pts, near, 60 * TICKS, 100, 5.0)
    starts = [segment.start for segment in segments[4:]]
    assert starts
    assert all(near[pts.index(start)] for start in starts)
    far = [value % 20_000 == 0 for value in pts]
    segments, _ = cut(pts, far, 60 * TICKS, 100, 5.0)
    assert max(segment.duration for segment in segments) <= 6000


def test_one_frame_is_a_film() -> None:
    segments, total = cut([7], [True], 47, 1, None)
    assert segments == [Segment(index=0, start=7, end=None, frames=1, last=7, duration=40)]
    assert (total.segments, total.frames) == (1, 1)


def test_no_frame_is_none() -> None:
    with pytest.raises(StereoSpotError) as caught:
        plan.Cutter(info_of()).finish()
    assert caught.value.code == "NO_FRAMES"


def head(info: SourceInfo, *, output: tuple[int, int, Fraction] = (1920, 1080, Fraction(1)), **options: Any) -> Plan:
    return plan.head(
        info, Options(**options), job_id="01J0000000000000000000000A", generation=1, source_key="input/x/source.mp4",
        engine="flat", divergence=1.0, output=output, created_at=0.0,
    )  # fmt: skip


HDR = Colour(primaries=9, transfer=16, matrix=9)


FORMS = ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le")


@pytest.mark.parametrize("form", FORMS)
def test_sdr_becomes_h264_that_plays_everywhere(form: str) -> None:
    made = head(info_of(pixel_format=form))
    assert made.encode.codec is Codec.X264
    assert made.encode.pixel_format == made.decode.pixel_format == "yuv420p"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{"codec": "x264"}, {"codec": "x265"}, {"crf": 0}])
def test_who_names_a_codec_or_wants_no_loss_keeps_the_source_s_format(form: str, options: dict[str, Any]) -> None:
    made = head(info_of(pixel_format=form), **options)
    assert made.encode.pixel_format == made.decode.pixel_format == form
    assert made.source.warnings == ()


@pytest.mark.parametrize(
    ("form", "options", "said"),
    [
        ("yuv420p", {}, None),
        (
            "yuv420p10le",
            {},
            "the film has 8 bits and 4:2:0, which its codec's players decode, where the source has 10 ",
        ),
        ("yuv422p", {}, "where the source has 8 bits and 4:2:2; name the codec x265"),
        ("yuv444p10le", {}, "where the source has 10 bits and 4:4:4; name the codec x265"),
        ("yuv420p10le", {"codec": "svtav1"}, None),
        ("yuv422p10le", {"codec": "svtav1"}, "the film has 10 bits and 4:2:0"),
        ("yuv420p10le", {"codec": "nvenc-h264"}, "the film has 8 bits and 4:2:0"),
    ],
)
def test_fewer_bits_or_less_chroma_than_the_source_s_is_said(
    form: str, options: dict[str, Any], said: str | None
) -> None:
    warnings = head(info_of(pixel_format=form), **options).source.warnings
    assert [text.partition(":")[0] for text in warnings] == ([plan.PICTURE_REDUCED] if said else [])
    assert said is None or said in warnings[0]


def test_hdr_becomes_av1_in_ten_bit() -> None:
    made = head(info_of(pixel_format="yuv422p10le", colour=HDR))
    assert (made.encode.codec, made.encode.pixel_format) == (Codec.SVTAV1, "yuv420p10le")
    assert made.decode.pixel_format == "yuv420p10le"
    assert made.encode.colour == HDR
    assert made.encode.level is None


def test_hdr_is_not_squeezed_into_x264() -> None:
    with pytest.raises(StereoSpotError) as caught:
        head(info_of(pixel_format="yuv420p10le", colour=HDR), codec="x264")
    assert caught.value.code == "HDR_NEEDS_10_BIT"


def test_tone_mapping_decodes_ten_bit_and_encodes_eight() -> None:
    made = head(info_of(pixel_format="yuv420p10le", colour=HDR), codec="x264", tone_map=True)
    assert (made.decode.pixel_format, made.encode.pixel_format) == ("yuv420p10le", "yuv420p")
    assert made.encode.colour.transfer == 1
    assert made.source.warnings == ()


@pytest.mark.parametrize("form", ["yuv420p", "yuv444p"])
def test_tone_mapping_decodes_ten_bit_of_eight_too(form: str) -> None:
    """HLG of 8 bits is mapped like any other: what is told to be BT.709 is."""
    made = head(info_of(pixel_format=form, colour=HDR.model_copy(update={"transfer": 18})), tone_map=True)
    assert (made.decode.pixel_format, made.encode.pixel_format) == ("yuv420p10le", "yuv420p")
    assert made.encode.colour.transfer == 1


@pytest.mark.parametrize(
    ("options", "decoded", "encoded"),
    [({}, "yuv420p10le", "yuv420p"), ({"codec": "x265"}, "yuv422p10le", "yuv422p")],
)
def test_tone_mapping_keeps_the_chroma_of_what_is_encoded(options: dict[str, Any], decoded: str, encoded: str) -> None:
    made = head(info_of(pixel_format="yuv422p10le", colour=HDR), tone_map=True, **options)
    assert (made.decode.pixel_format, made.encode.pixel_format) == (decoded, encoded)


@pytest.mark.parametrize(
    ("height", "colour", "matrix"),
    [(480, Colour(), 6), (576, Colour(), 6), (720, Colour(), 1), (480, Colour(matrix=1), 1), (480, HDR, 9)],
)
def test_a_film_says_by_what_its_untagged_source_was_read(height: int, colour: Colour, matrix: int) -> None:
    """Players go by a film's size, which is not its source's."""
    made = head(info_of(width=720, height=height, colour=colour), output=(1440, height, Fraction(1)))
    assert made.encode.colour == colour.model_copy(update={"matrix": matrix})
    assert made.source.video.colour == colour


@pytest.mark.parametrize(("codec", "level"), [("x264", "5.0"), ("x265", "5.0"), ("svtav1", None)])
def test_the_level_is_said_aloud(codec: str, level: str | None) -> None:
    assert head(info_of(average_rate=Fraction(30)), output=(3840, 1080, Fraction(1)), codec=codec).encode.level == level


def test_odd_sizes_are_rounded_up() -> None:
    made = head(info_of(), output=(321, 181, Fraction(1)))
    assert (made.encode.width, made.encode.height) == (322, 182)


def test_a_plan_survives_its_json() -> None:
    made = head(reading.planned("mpeg2_interlaced_ts").info)
    assert Plan.model_validate_json(made.model_dump_json()) == made
    older = made.model_dump_json().replace('"full_range":', '"chroma_location":1,"full_range":')
    assert Plan.model_validate_json(older).encode.colour.full_range == made.encode.colour.full_range


def test_a_counted_plan_says_so() -> None:
    made = plan.synthesised(head(info_of(first_pts=80)), plan.Untrusted("the packets have no times"))
    assert (made.decode.synthesised, made.decode.repaired) == (True, False)
    assert (made.decode.frame_seconds, made.decode.first_pts) == (Fraction(1, 25), 80)
    assert made.source.warnings == ("PTS_SYNTHESISED: the packets have no times",)


def test_a_plan_says_that_times_are_put_in_order_and_older_ones_do_not() -> None:
    reason = plan.Untrusted("the times are in disorder", repairable=True, reordered=True)
    made = plan.synthesised(head(info_of()), reason)
    assert (made.decode.synthesised, made.decode.repaired, made.decode.reordered) == (True, True, True)
    written = made.model_dump_json()
    assert Plan.model_validate_json(written) == made
    older = Plan.model_validate_json(written.replace('"reordered":true,', ""))
    assert (older.decode.repaired, older.decode.reordered) == (True, False)


def test_samples_are_ranges_of_real_frames() -> None:
    pts = list(range(100, 20_100, 40))
    found = plan.sample_segments(info_of(), pts, (0.0, 5.0, 100.0))
    assert [segment.index for segment in found] == [0, 1, 2]
    assert [segment.frames for segment in found] == [50, 50, 50]
    assert [segment.start for segment in found[:2]] == [100, 5100]
    assert found[-1].end is None
    assert found[-1].last == pts[-1]
