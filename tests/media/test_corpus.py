"""Every kind of film: planned without decoding it is exactly its frames, and any range of it decodes to them."""

from __future__ import annotations

import pytest

from stereospot.media.frames import Decoder
from stereospot.media.model import PixelFormat
from tests.media import reading, sources

COUNTED = {"h264_avi", "no_pts_mkv"}
"""Films whose own times are no list: AVI has none for B-frames, negative Matroska times are lost."""

TRUNCATED = (
    "tail_cut_mp4",
    "tail_cut_mkv",
    "tail_cut_ts",
    "tail_cut_avi",
    "mid_gop_ts",
    "mid_gop_mp4",
    "open_start_mp4",
)
NAMES = [*sources.TWELVE, *sources.ZOO, *TRUNCATED]
STEP = 25
COPIED: tuple[PixelFormat, ...] = (
    "yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_is_the_full_decode(name: str) -> None:
    film = reading.planned(name)
    decoded = list(reading.full_decode(name, film.info.video.stream_index))
    assert film.spec.synthesised == (name in COUNTED)
    if not film.spec.synthesised:
        assert film.pts == [frame.pts for frame in decoded]
    assert len(film.pts) == len(decoded)
    assert film.end_pts > film.pts[-1]
    assert film.info.video.first_pts == film.pts[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_frames_are_those_of_a_plain_decode(name: str) -> None:
    film = reading.planned(name)
    found = reading.serial(name)
    assert list(found) == film.pts
    video = film.info.video
    plain = video.source_pixel_format in (*COPIED, "yuvj420p") and video.interlaced == "no"
    if not plain or video.rotation or video.mirrored:
        return  # held by tests of their own
    decoded = reading.full_decode(name, video.stream_index)
    assert list(found.values()) == [reading.digest(reading.plain_planes(frame)) for frame in decoded]


@pytest.mark.parametrize("name", NAMES)
def test_any_range_decodes_to_the_frames_of_a_serial_run(name: str) -> None:
    """Backwards, so that each range needs a seek; then forwards with padding, on one open decoder."""
    film = reading.planned(name)
    expected = reading.serial(name)
    pts = film.pts
    cuts = list(range(0, len(pts), STEP))
    with reading.source_of(name) as source, Decoder(source, film.spec, film.info) as decoder:
        for before, after, order in ((0, 0, cuts[::-1]), (4, 3, cuts)):
            for cut in order:
                until = min(len(pts), cut + STEP)
                start = pts[cut] if cut else None
                end = pts[until] if until < len(pts) else None
                wanted = [
                    (pts[at], expected[pts[at]], -1 if at < cut else 1 if at >= until else 0)
                    for at in range(max(0, cut - before), min(len(pts), until + after))
                ]
                assert reading.collect(decoder, start, end, before=before, after=after) == wanted


def test_a_damaged_film_decodes_alike_in_every_range_when_nobody_seeks() -> None:
    film = reading.planned("damaged_middle_ts")
    expected = reading.serial("damaged_middle_ts")
    spec = film.spec.model_copy(update={"sequential": True})
    pts = film.pts
    with reading.source_of("damaged_middle_ts") as source, Decoder(source, spec, film.info) as decoder:
        for cut, until in ((50, 75), (20, 45), (45, 60), (70, 91)):
            end = pts[until] if until < len(pts) else None
            wanted = [(value, expected[value], -1) for value in pts[cut - 3 : cut]]
            wanted += [(value, expected[value], 0) for value in pts[cut:until]]
            assert reading.collect(decoder, pts[cut], end, before=3) == wanted
