"""Text subtitles: read in the jail, shown by the page, and twice in a picture with two eyes."""

from __future__ import annotations

import io
import re
from fractions import Fraction
from pathlib import Path

import av
import pytest

from stereospot.media import subtitles
from stereospot.media.source import FileSource
from stereospot.media.subtitles import Cue
from stereospot.options import Layout
from tests.media import films, sources


def read(path: Path) -> dict[int, list[Cue]]:
    job = films.job(path)
    source = FileSource(path)
    try:
        return subtitles.read(source, job.plan.source)
    finally:
        source.close()


@pytest.mark.parametrize("codec", ["mov_text", "subrip", "ass", "webvtt"])
def test_every_text_codec(codec: str, tmp_path: Path) -> None:
    path = tmp_path / ("source.mp4" if codec == "mov_text" else "source.mkv")
    sources.write(sources.Film(path.suffix, frames=72, subtitles=codec), path)
    assert read(path) == {0: [Cue(n * 1000 + 100, n * 1000 + 900, f"Cue {n}".encode()) for n in range(3)]}


OVERLAPPING = (
    (0, 800, "Before"),
    (1000, 6000, "A long line"),
    (2000, 3000, "{\\an8}SIGN"),
    (2000, 3000, "{\\blur3}SIGN"),
    (6500, 7500, "Both A"),
    (6500, 7500, "Both B"),
    (7500, 7900, "After"),
    (7600, 7800, "{\\p1}m 0 0 l 100 0 100 100{\\p0}"),
)
IN_TURN = [
    Cue(0, 800, b"Before"),
    Cue(1000, 2000, b"A long line"),
    Cue(2000, 3000, b"A long line\nSIGN"),
    Cue(3000, 6000, b"A long line"),
    Cue(6500, 7500, b"Both A\nBoth B"),
    Cue(7500, 7900, b"After"),
]


def test_cues_that_overlap_are_said_together(tmp_path: Path) -> None:
    """Each eye has one text at a time, and no shape's outline in words."""
    path = tmp_path / "source.mkv"
    sources.write(sources.Film(".mkv", frames=200, rate=Fraction(25), subtitles="ass", cues=OVERLAPPING), path)
    assert list(subtitles.in_turn(read(path)[0])) == IN_TURN
    text = subtitles.ass(read(path)[0], Layout.HALF_SBS, 640, 360)
    times = [line.split(",")[1:3] for line in text.splitlines() if line.startswith("Dialogue:")]
    assert len(times) == 2 * len(IN_TURN)
    assert times[::2] == times[1::2]
    assert "A long line\\NSIGN" in text
    assert "m 0 0" not in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{\\p1}m 0 0 l 9 9{\\p0}Said", "Said"),
        ("Said{\\an5\\p2\\bord0}m 0 0", "Said"),
        ("{\\pos(1,2)\\pbo3}Said", "Said"),
        ("{\\p0}Said{\\p1}m 0 0{\\b1}l 9 9{\\p0} on", "Said on"),
    ],
)
def test_what_is_drawn_is_not_said(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "source.mkv"
    sources.write(sources.Film(".mkv", frames=24, subtitles="ass", cues=((100, 900, text),)), path)
    assert read(path) == {0: [Cue(100, 900, said.encode())]}


def test_a_file_that_means_harm_says_no_more_at_once_than_can_be_read() -> None:
    cues = [Cue(number, 100_000, f"{number}".encode()) for number in range(3000)]
    assert max(cue.text.count("\n") for cue in subtitles.in_turn(cues)) < 100


def test_no_subtitles() -> None:
    assert read(sources.path_of("vfr_mkv")) == {}


AWKWARD = [
    Cue(0, 1500, b"<b>Bold</b> & {an8}brace"),
    Cue(61_001, 3_723_004, b"Zwei\nZeilen\n\nnach -->"),
]


def test_webvtt_reads_back() -> None:
    text = subtitles.webvtt(AWKWARD)
    assert text.startswith("WEBVTT\n\n")
    blocks = text.strip().split("\n\n")[1:]
    assert blocks[0] == "00:00:00.000 --> 00:00:01.500\n&lt;b&gt;Bold&lt;/b&gt; &amp; {an8}brace"
    assert blocks[1] == "00:01:01.001 --> 01:02:03.004\nZwei\nZeilen\nnach --&gt;"
    with av.open(io.BytesIO(text.encode()), "r", format="webvtt") as container:
        packets = [packet for packet in container.demux() if packet.size]
    assert [(packet.pts, packet.duration) for packet in packets] == [(0, 1500), (61_001, 3_662_003)]


PLACE = re.compile(r"\\pos\((\d+),(\d+)\)")


@pytest.mark.parametrize(
    ("layout", "eyes"),
    [
        (Layout.HALF_SBS, [(480, 1053), (1440, 1053)]),
        (Layout.FULL_SBS, [(480, 1026), (1440, 1026)]),
        (Layout.HALF_TB, [(960, 513), (960, 1053)]),
        (Layout.ANAGLYPH, [(960, 1026)]),
    ],
)
def test_ass_says_each_cue_once_per_eye(layout: Layout, eyes: list[tuple[int, int]]) -> None:
    """Both copies lie at the same place of their eye: zero parallax, the plane of the screen."""
    text = subtitles.ass(AWKWARD[:1], layout, 1920, 1080)
    lines = [line for line in text.splitlines() if line.startswith("Dialogue:")]
    found = [tuple(map(int, match.groups())) for line in lines if (match := PLACE.search(line))]
    if layout in (Layout.HALF_SBS, Layout.FULL_SBS):
        assert [x for x, _ in found] == [x for x, _ in eyes]
        assert found[0][1] == found[1][1]
        assert found[1][0] - found[0][0] == 960
    elif layout is Layout.HALF_TB:
        assert found[1][1] - found[0][1] == 540
        assert found[0][0] == found[1][0]
    else:
        assert len(found) == 1
    assert all(line.endswith("<b>Bold</b> & (an8)brace") for line in lines)
    with av.open(io.BytesIO(text.encode()), "r", format="ass") as container:
        packets = [packet for packet in container.demux() if packet.size]
        assert [packet.duration for packet in packets] == [150] * len(eyes)
