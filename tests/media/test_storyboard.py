"""The scrubber's pictures: which frame shows which place, their size, and films that give none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from stereospot.errors import StereoSpotError
from stereospot.media import plan, storyboard
from stereospot.media.limits import Limits
from stereospot.media.model import DecodeSpec, SourceInfo
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from tests.media import reading


def film(path: Path, seconds: int, *, gop_seconds: int = 1, start: int = 0) -> Path:
    """`seconds` of 160x90 at 24 fps whose grey tells the second; B-frames, a keyframe every `gop_seconds`."""
    options = {"g": str(24 * gop_seconds), "keyint_min": str(24 * gop_seconds), "sc_threshold": "0", "bf": "2"}
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=24, options={"preset": "ultrafast", "crf": "10", **options})
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for number in range(seconds * 24):
            grey = np.full((90 * 3 // 2, 160), 128, np.uint8)
            grey[:90] = 30 + 10 * (number // 24)
            frame = av.VideoFrame.from_ndarray(grey, format="yuv420p")
            frame.pts, frame.time_base = number + start, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def opened(path: Path) -> tuple[FileSource, SourceInfo, DecodeSpec]:
    source = FileSource(path)
    info = probe(source, limits=Limits())
    return source, info, plan.decode_spec(info)


def drawn(path: Path, seconds: float) -> list[storyboard.Tile]:
    source, info, spec = opened(path)
    try:
        return storyboard.tiles(
            source, info, spec, first_pts=info.video.first_pts, duration_seconds=seconds, limits=Limits()
        )
    finally:
        source.close()


def second(tile: storyboard.Tile) -> int:
    """Which second of the film a tile shows, from its grey (limited range, so 255 / 219)."""
    return round((float(tile.pixels.mean()) * 219 / 255 + 16 - 30) / 10)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts"])
def test_each_tile_shows_the_keyframe_of_its_place(tmp_path: Path, name: str) -> None:
    tiles = drawn(film(tmp_path / name, 12), 12.0)
    assert [(tile.start, tile.end) for tile in tiles] == [(2.0 * n, 2.0 * n + 2) for n in range(6)]
    assert [second(tile) for tile in tiles] == [0, 2, 4, 6, 8, 10]
    assert tiles[0].pixels.shape == (108, 192, 3)


def test_a_place_between_keyframes_shows_the_one_before(tmp_path: Path) -> None:
    tiles = drawn(film(tmp_path / "film.mp4", 12, gop_seconds=5), 12.0)
    assert [second(tile) for tile in tiles] == [0, 0, 0, 5, 5, 10]


def test_a_still_is_the_most_telling_picture(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=24, options={"preset": "ultrafast", "g": "24"})
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for number in range(10 * 24):
            picture = np.full((90 * 3 // 2, 160), 128, np.uint8)
            picture[:90] = 16  # black, but for the second that has something in it
            if number // 24 == 4:
                picture[:90, 80:] = 200
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    source, info, spec = opened(path)
    found = storyboard.still(source, info, spec, first_pts=0, duration_seconds=10.0, limits=Limits())
    source.close()
    assert found is not None
    assert found.shape == (360, 640, 3)
    assert found[:, 340:].mean() > 180
    assert found[:, :300].mean() < 10


def test_tiles_stand_upright_like_the_film() -> None:
    with reading.source_of("rotated_mov") as source:
        info = reading.planned("rotated_mov").info
        spec = reading.planned("rotated_mov").spec
        [first, *_] = storyboard.tiles(source, info, spec, first_pts=0, duration_seconds=1.0, limits=Limits())
    high, wide = first.pixels.shape[:2]
    assert high > wide
    whole = next(iter(reading.full_decode("rotated_mov", 0))).to_ndarray(format="rgb24")
    turned = np.rot90(whole, 1).astype(float)
    # Quarters of the picture have the same mean colours.
    for part in (0.0, 0.5):
        means = [_quarter(picture, part).mean((0, 1)) for picture in (first.pixels.astype(float), turned)]
        np.testing.assert_allclose(means[0], means[1], atol=6)


def _quarter(picture: NDArray[Any], part: float) -> NDArray[Any]:
    high, wide = picture.shape[0] // 2, picture.shape[1] // 2
    return picture[int(part * 2 * high) :, int(part * 2 * wide) :][:high, :wide]


def test_sheets_and_cues_agree() -> None:
    pixels = [np.full((4, 6, 3), number, np.uint8) for number in range(27)]
    tiles = [storyboard.Tile(float(number), number + 1.0, item) for number, item in enumerate(pixels)]
    first, second_ = list(storyboard.sheets(tiles))
    assert first.shape == (20, 30, 3)
    assert second_.shape == (4, 30, 3)
    text = storyboard.cues(tiles)
    blocks = [block.splitlines() for block in text.split("\n\n")[1:]]
    assert len(blocks) == 27
    assert blocks[7] == ["00:00:07.000 --> 00:00:08.000", "storyboard/0.jpg#xywh=12,4,6,4"]
    assert blocks[26][1] == "storyboard/1.jpg#xywh=6,0,6,4"
    assert (first[4:8, 12:18] == 7).all()
    assert (second_[:, 6:12] == 26).all()


def test_many_hours_have_a_hundred_tiles_and_a_moment_has_one() -> None:
    assert len(storyboard.places(3 * 3600)) == 100
    assert storyboard.places(0.5) == [0.0]


def test_a_cut_film_repeats_its_last_picture(tmp_path: Path) -> None:
    whole = film(tmp_path / "film.mkv", 12)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    tiles = drawn(cut, 12.0)
    assert len(tiles) == 6
    assert second(tiles[0]) == 0


def test_bytes_that_are_no_film_are_refused(tmp_path: Path) -> None:
    good, info, spec = opened(film(tmp_path / "film.mp4", 2))
    good.close()
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no film" * 1000)
    source = FileSource(bad)
    with pytest.raises(StereoSpotError) as failure:
        storyboard.tiles(source, info, spec, first_pts=0, duration_seconds=2.0, limits=Limits())
    source.close()
    assert failure.value.code == "CORRUPT_INPUT"
