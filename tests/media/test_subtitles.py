"""Text subtitles: read in the jail, shown by the page, and twice in a picture with two eyes."""

from __future__ import annotations

import io
import re
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
