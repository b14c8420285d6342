"""Playlists, read back by a strict little parser, and played: init and segments together give every frame."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

import pytest

from stereospot.media import boxes, hls
from stereospot.media.hls import Entry, Rendition
from tests.media import films, sources

ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s]+)(?:,|$)')


def attributes(line: str) -> dict[str, str]:
    """The attribute list of a tag; fails on what RFC 8216 4.2 does not allow."""
    text = line.split(":", 1)[1]
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = ATTRIBUTE.match(text, at)
        assert match is not None, text[at:]
        assert match[1] not in found
        found[match[1]] = match[2]
        at = match.end()
    return found


def tags(text: str) -> list[str]:
    assert text.startswith("#EXTM3U\n")
    assert text.endswith("\n")
    lines = text.splitlines()
    assert all(lines)
    return lines


def test_a_growing_playlist_only_grows() -> None:
    entries = [Entry(f"../video/{n:05d}.m4s", Fraction(1001, 240)) for n in range(5)]
    texts = [
        hls.media_playlist("../init.mp4", entries[:count], target_seconds=6, ended=count == 5) for count in range(1, 6)
    ]
    for before, after in itertools.pairwise(texts):
        assert after.startswith(before)
        assert "#EXT-X-ENDLIST" not in before
    lines = tags(texts[-1])
    assert lines[-1] == "#EXT-X-ENDLIST"
    assert "#EXT-X-PLAYLIST-TYPE:EVENT" in lines
    assert "#EXT-X-INDEPENDENT-SEGMENTS" in lines
    assert "#EXT-X-TARGETDURATION:6" in lines
    assert attributes(next(line for line in lines if "START" in line)) == {"TIME-OFFSET": "0", "PRECISE": "YES"}
    assert attributes(next(line for line in lines if "MAP" in line)) == {"URI": '"../init.mp4"'}
    assert [line for line in lines if not line.startswith("#")] == [entry.uri for entry in entries]
    durations = [float(line[8:-1]) for line in lines if line.startswith("#EXTINF:")]
    assert sum(durations) == pytest.approx(5 * 1001 / 240, abs=1e-5)


def test_no_segment_is_longer_than_the_target() -> None:
    text = hls.media_playlist("i", [Entry("a", 7.5)], target_seconds=6, ended=True, kind="VOD")
    assert "#EXT-X-TARGETDURATION:8" in tags(text)
    assert "#EXT-X-TARGETDURATION:1" in tags(hls.media_playlist(None, [], target_seconds=0.04, ended=False))


def test_master() -> None:
    text = hls.master_playlist(
        "video.m3u8", codecs=["avc1.640028", "mp4a.40.2", "mp4a.40.2"], peak_bits=5_000_000, average_bits=3_000_000,
        width=1920, height=1080, rate=Fraction(24000, 1001), layout="half-sbs",
        audio=[
            Rendition("audio/0.m3u8", 'The "best"\nsound', "eng", default=True, channels=2),
            Rendition("audio/1.m3u8", "The 'best' sound", "fra", default=True),
            Rendition("audio/2.m3u8", ""),
        ],
        subtitles=[Rendition("subtitles/0.m3u8", "Deutsch", "deu")],
    )  # fmt: skip
    lines = tags(text)
    media = [attributes(line) for line in lines if line.startswith("#EXT-X-MEDIA:")]
    assert [item["NAME"] for item in media] == [
        "\"The 'best' sound\"", "\"The 'best' sound 2\"", '"Track"', '"Deutsch"',
    ]  # fmt: skip
    assert [item["DEFAULT"] for item in media] == ["YES", "NO", "NO", "NO"]
    assert [item["TYPE"] for item in media] == ["AUDIO"] * 3 + ["SUBTITLES"]
    (stream,) = [attributes(line) for line in lines if line.startswith("#EXT-X-STREAM-INF:")]
    assert stream == {
        "BANDWIDTH": "5000000", "AVERAGE-BANDWIDTH": "3000000", "CODECS": '"avc1.640028,mp4a.40.2"',
        "RESOLUTION": "1920x1080", "FRAME-RATE": "23.976", "VIDEO-RANGE": "SDR", "AUDIO": '"sound"',
        "SUBTITLES": '"text"',
    }  # fmt: skip
    (data,) = [attributes(line) for line in lines if line.startswith("#EXT-X-SESSION-DATA:")]
    assert data == {"DATA-ID": '"dev.stereospot.layout"', "VALUE": '"half-sbs"'}
    assert "CH-STEREO" not in text
    assert lines[-1] == "video.m3u8"


def test_bandwidth() -> None:
    """RFC 8216 4.1: segments in a row that last for half to one and a half times the target."""
    rows = [(1_000_000, 1.0), (1_000_000, 1.0), (1_000_000, 1.0), (2_500_000, 5.0), (1_250_000, 5.0)]
    assert hls.bandwidth(rows, 4.4) == (8_000_000, round(6_750_000 * 8 / 13) + 1)
    assert hls.bandwidth(rows, 12) == (5_500_000, 4_153_847)
    assert hls.bandwidth(rows[:2], 6) == (8_000_000, 8_000_000), "a film that is shorter than half of that"
    assert hls.bandwidth([], 6) == (0, 0)


@pytest.mark.parametrize("kind", ["vfr_mkv", "h264_ts", "delayed_mp4"])
def test_what_a_playlist_names_plays_whole(kind: str) -> None:
    """EXTINF is exact, so segment n begins where the ones before it end; all of it decodes to every frame."""
    job = films.job(sources.path_of(kind))
    scale = boxes.timescale(job.init)
    spans: list[tuple[int, int]] = []
    for fragment in job.fragments:
        samples = boxes.read_fragment(fragment)
        spans.append((samples[0].time, samples[-1].time + samples[-1].duration))
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    entries = [Entry(str(n), Fraction(end - start, scale)) for n, (start, end) in enumerate(spans)]
    text = hls.media_playlist("init", entries, target_seconds=6, ended=True)
    stored = {str(n): fragment for n, fragment in enumerate(job.fragments)}
    played = job.init + b"".join(stored[line] for line in tags(text) if not line.startswith("#"))
    assert [pts for pts, _, _ in films.frames(played)] == job.pts
    assert [digest for _, _, digest in films.frames(played)] == [films.picture_hash(n) for n in range(len(job.pts))]
