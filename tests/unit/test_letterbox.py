"""Where bars are looked for: a film may change its format, and the plan fixes its bars for good."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from inference import letterbox
from stereospot import errors
from stereospot.media import keyframes, probe
from stereospot.media import plan as planning
from stereospot.media.limits import Limits
from stereospot.media.model import Bars
from stereospot.media.source import FileSource
from tests.unit import clips

WIDTH, HEIGHT, BAR, SECONDS, RATE = 160, 90, 12, 120, 2
LIMITS = Limits(sandbox="off")


def film(path: Path, *scenes: tuple[float, float]) -> Path:
    """Two minutes with bars but in `scenes`, given in seconds; a keyframe each second."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": str(RATE)}
        for number in range(SECONDS * RATE):
            luma = 120 + 60 * np.sin((x + 2 * number) / 15) + 30 * np.sin(y / 11)
            if not any(start <= number / RATE < end for start, end in scenes):
                luma[:BAR] = luma[HEIGHT - BAR :] = 16
            chroma = np.full((HEIGHT // 2, WIDTH), 128)
            picture = np.concatenate([np.clip(luma, 16, 235), chroma]).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def find(path: Path) -> Bars:
    source = FileSource(path)
    try:
        info = probe.probe(source, limits=LIMITS)
        return letterbox.find(source, info, planning.decode_spec(info), limits=LIMITS, again=True)
    finally:
        source.close()


def test_an_open_scene_takes_the_bars_away(tmp_path: Path) -> None:
    """None of the first places lies in it; a bar that is kept would tear it."""
    assert find(film(tmp_path / "open.mp4", (53, 59))) == Bars()
    assert find(film(tmp_path / "scope.mp4")) == Bars(top=BAR, bottom=BAR)


def test_logos_and_credits_take_nothing_away(tmp_path: Path) -> None:
    assert find(film(tmp_path / "film.mp4", (0, 4), (112, 120))) == Bars(top=BAR, bottom=BAR)


def test_no_part_between_them_is_left_out() -> None:
    places = sorted({*letterbox.PLACES, *letterbox.FURTHER})
    assert len(places) >= 24
    assert max(b - a for a, b in itertools.pairwise(places)) <= Fraction(1, 30)


@pytest.mark.parametrize(("bar", "looked"), [(0, 2), (BAR, 32)])
def test_a_film_without_bars_costs_two_pictures(bar: int, looked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, found = look(monkeypatch, bar)
    assert (len(asked), found) == (looked, Bars(top=bar, bottom=bar))


@pytest.mark.parametrize("fails", [3, 20])
@pytest.mark.parametrize("again", [False, True])
def test_what_was_seen_before_the_further_places_failed_counts(
    fails: int, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage so slow that time is up among them is no reason for a film to lose its bars."""
    if fails < len(letterbox.PLACES) and not again:
        with pytest.raises(errors.Permanent, match="no progress"):
            look(monkeypatch, BAR, fails=fails, again=again)
        return
    _, found = look(monkeypatch, BAR, fails=fails, again=again)
    assert found == (Bars(top=BAR, bottom=BAR) if fails == 20 else Bars())


def look(
    monkeypatch: pytest.MonkeyPatch, bar: int, *, fails: int | None = None, again: bool = True
) -> tuple[list[int], Bars]:
    """The places that were asked for, and what was found, of a long film with bars of this size all through."""
    luma = np.full((HEIGHT, WIDTH), 120, np.uint8)
    luma[:bar] = luma[HEIGHT - bar :] = 16
    asked: list[int] = []

    def lumas(source: Any, info: Any, spec: Any, targets: Sequence[int], **_: Any) -> Iterator[np.ndarray]:
        for target in targets:
            if len(asked) == fails:
                raise errors.error("DECODE_STALLED")
            asked.append(target)
            yield luma

    monkeypatch.setattr(keyframes, "lumas", lumas)
    plan = clips.plan(WIDTH, HEIGHT)
    info = plan.source.model_copy(update={"duration_seconds": 7200.0})
    source: Any = None
    return asked, letterbox.find(source, info, plan.decode, limits=LIMITS, again=again)
