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


IN_WORDS = (
    ("Hello {world} {}", "Hello {world} {}"),
    ("{laughs}", "{laughs}"),
    ("C:\\new\\home", "C:\\new\\home"),
    ("{\\an8}Top\nbelow", "Top\nbelow"),
)
"""Said as they are written, styles aside, by every codec but ASS."""
TAGGED = '<i>it</i> <Font color="#ff0000">red</font> <Narrator> 5 <b 6> 7'
WRITTEN = {
    "subrip": (*IN_WORDS, (TAGGED, "it red <Narrator> 5 <b 6> 7"), ("{y:i}a<br>b <3 ", "a\nb <3")),
    "mov_text": (*IN_WORDS, (TAGGED, TAGGED)),
    "webvtt": (*IN_WORDS, ("{a} <i>it</i> &lt;b&gt;", "{a} it <b>")),
    "ass": (("{laughs}a\\Nb\\nc\\hd", "a\nb\nc d"), ("<i>it</i> <Narrator>", "it <Narrator>")),
}


@pytest.mark.parametrize("codec", WRITTEN)
def test_words_in_braces_and_brackets_are_words(codec: str, tmp_path: Path) -> None:
    path = tmp_path / ("source.mp4" if codec == "mov_text" else "source.mkv")
    cues = tuple((1000 * number, 1000 * number + 900, text) for number, (text, _) in enumerate(WRITTEN[codec]))
    sources.write(sources.Film(path.suffix, frames=24 * len(cues), subtitles=codec, cues=cues), path)
    assert [cue.text for cue in read(path)[0]] == [said for _, said in WRITTEN[codec]]


def test_a_backslash_begins_no_escape_beside_the_film() -> None:
    text = subtitles.ass([Cue(0, 900, b"C:\\new")], Layout.ANAGLYPH, 640, 360)
    with av.open(io.BytesIO(text.encode()), "r", format="ass") as container:
        (packet,) = [packet for packet in container.demux() if packet.size]
        assert subtitles.plain_text(packet).replace("\u2060", "") == "C:\\new"


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


CLIP = re.compile(r"\\clip\((\d+),(\d+),(\d+),(\d+)\)")
MARGINS = re.compile(r"^Style: .*,2,(\d+),(\d+),0,1$", re.MULTILINE)


@pytest.mark.parametrize(
    ("layout", "eyes"),
    [
        (Layout.HALF_SBS, [(480, 1026), (1440, 1026)]),
        (Layout.FULL_SBS, [(480, 1026), (1440, 1026)]),
        (Layout.CROSS_EYED, [(480, 1026), (1440, 1026)]),
        (Layout.HALF_TB, [(960, 513), (960, 1053)]),
        (Layout.DEPTH, [(480, 1026)]),
        (Layout.ANAGLYPH, [(960, 1026)]),
    ],
)
def test_ass_says_each_cue_once_per_eye(layout: Layout, eyes: list[tuple[int, int]]) -> None:
    """Both copies lie at the same place of their eye: zero parallax, the plane of the screen."""
    text = subtitles.ass(AWKWARD[:1], layout, 1920, 1080)
    lines = [line for line in text.splitlines() if line.startswith("Dialogue:")]
    assert [tuple(map(int, match.groups())) for line in lines if (match := PLACE.search(line))] == eyes
    for line, (x, y) in zip(lines, eyes, strict=True):
        match, margins = CLIP.search(line), MARGINS.search(text)
        assert match is not None
        assert margins is not None
        left, top, right, bottom = map(int, match.groups())
        assert left < x < right
        assert top < y < bottom
        assert x - left == right - x
        # What wraps a line is the room between the margins, wherever it is put: an eye must hold it.
        assert 0.8 * (right - left) < 1920 - int(margins[1]) - int(margins[2]) <= right - left
    assert all(line.endswith("<b>Bold</b> & (an8)brace") for line in lines)
    with av.open(io.BytesIO(text.encode()), "r", format="ass") as container:
        packets = [packet for packet in container.demux() if packet.size]
        assert [packet.duration for packet in packets] == [150] * len(eyes)


@pytest.mark.parametrize(("layout", "letters"), [(Layout.HALF_SBS, 30), (Layout.FULL_TB, 30)])
def test_letters_are_no_larger_than_a_narrow_eye_allows(layout: Layout, letters: int) -> None:
    """A telephone's upright picture: a line holds some words of it."""
    width, height = (1080, 1920) if layout is Layout.HALF_SBS else (1080, 3840)
    match = re.search(r"^Style: Eye,Arial,(\d+),", subtitles.ass(AWKWARD[:1], layout, width, height), re.MULTILINE)
    assert match is not None
    assert 1080 / (0.5 * int(match[1])) > letters
