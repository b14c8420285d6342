"""What bad input gets: its own code, soon, and nothing else touched."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from stereospot.errors import StereoSpotError
from stereospot.media import dolby, plan, sniff
from stereospot.media.limits import Limits
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from tests.media import bad_films, reading, sources

CODES = {
    "empty": "EMPTY_INPUT",
    "text_named_mp4": "UNSUPPORTED_CONTAINER",
    "playlist_m3u8": "UNSUPPORTED_CONTAINER",
    "playlist_named_mp4": "UNSUPPORTED_CONTAINER",
    "concat_named_mp4": "UNSUPPORTED_CONTAINER",
    "noise": "UNSUPPORTED_CONTAINER",
    "picture_named_mp4": "UNSUPPORTED_CONTAINER",
    "audio_only": "NO_VIDEO_STREAM",
    "sound_mp3": "NO_VIDEO_STREAM",
    "cover_only": "NO_VIDEO_STREAM",
    "encrypted": "ENCRYPTED_INPUT",
    "encrypted_mkv": "ENCRYPTED_INPUT",
    "dolby_vision_5_mp4": "DOLBY_VISION_ONLY",
    "dolby_vision_5_mkv": "DOLBY_VISION_ONLY",
    "moov_missing": "TRUNCATED_INPUT",
    "moov_cut": "TRUNCATED_INPUT",
    "header_cut_mkv": "TRUNCATED_INPUT",
    "header_cut_avi": "TRUNCATED_INPUT",
    "payload_missing_mp4": "TRUNCATED_INPUT",
    "no_frames": "NO_FRAMES",
    "forbidden_codec": "UNSUPPORTED_CODEC",
}


def failure_of(path: Path, limits: Limits | None = None) -> StereoSpotError:
    source = FileSource(path)
    try:
        with pytest.raises(StereoSpotError) as caught:
            probe(source, limits=limits)
    finally:
        source.close()
    return caught.value


@pytest.mark.parametrize("name", CODES)
def test_each_has_its_code(name: str) -> None:
    begun = time.monotonic()
    failure = failure_of(sources.path(name))
    assert failure.code == CODES[name], failure
    assert failure.advice
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(("profile", "compatibility"), [(8, 1), (8, 4), (7, 6), (10, 1)])
@pytest.mark.parametrize("make", [bad_films.dolby_mp4, bad_films.dolby_mkv])
def test_dolby_vision_with_a_base_layer_is_welcome(
    make: Callable[[Path, int, int], None], profile: int, compatibility: int, tmp_path: Path
) -> None:
    path = tmp_path / "film"
    make(path, profile, compatibility)
    source = FileSource(path)
    try:
        read = source.read_at
        assert not dolby.has_no_base_layer(read, source.size, sniff.family(read))
        make(path, 5, 0)
        assert dolby.has_no_base_layer(read, source.size, sniff.family(read))
    finally:
        source.close()


@pytest.mark.parametrize("content", ["text_named_mp4", "playlist_named_mp4", "concat_named_mp4"])
@pytest.mark.parametrize("suffix", ["", ".mp4", ".mkv", ".m3u8", ".ts", ".ffconcat", ".avi"])
def test_text_is_refused_under_any_name(content: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"film{suffix}"
    path.write_bytes(sources.path(content).read_bytes())
    assert failure_of(path).code == "UNSUPPORTED_CONTAINER"


PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{target}\n#EXT-X-ENDLIST\n"
TRAPS = {
    "hls": PLAYLIST,
    "hls_key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:4,\nx.ts\n#EXT-X-ENDLIST\n',
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "concat_sibling": "ffconcat version 1.0\nfile canary.mp4\n",
    "dash": '<?xml version="1.0"?><MPD type="static"><Period><AdaptationSet><Representation><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',  # noqa: E501
    "sdp": "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=control:{target}\n",
}


@pytest.mark.parametrize("suffix", [".m3u8", ".mp4", ".txt"])
@pytest.mark.parametrize("trap", TRAPS)
def test_no_text_makes_us_read_a_file_or_fetch_a_url(trap: str, suffix: str, tmp_path: Path) -> None:
    """A canary beside the file and a listener on loopback: neither is touched."""
    canary = tmp_path / "canary.mp4"
    canary.write_bytes(sources.path("one_frame_mp4").read_bytes())
    visitors: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def accept() -> None:
            while True:
                try:
                    connection, address = listener.accept()
                except OSError:
                    return
                visitors.append(address)
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        port = listener.getsockname()[1]
        for target in (f"http://127.0.0.1:{port}/canary.mp4", canary.as_uri(), str(canary)):
            path = tmp_path / f"trap{suffix}"
            path.write_text(TRAPS[trap].format(target=target))
            assert failure_of(path).code == "UNSUPPORTED_CONTAINER"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert visitors == []


def test_dimensions_over_the_limit() -> None:
    failure = failure_of(sources.path("h264_mp4"), Limits(max_pixels=320 * 180 - 1))
    assert (failure.code, failure.detail) == ("DIMENSIONS_EXCEEDED", "It is 320x180.")
    assert failure_of(sources.path("vfr_mkv"), Limits(max_pixels=1000)).code == "DIMENSIONS_EXCEEDED"
    assert failure_of(sources.path("h264_ts"), Limits(max_pixels=1000)).code == "DIMENSIONS_EXCEEDED"


def test_a_film_that_is_too_long() -> None:
    assert failure_of(sources.path("h264_mp4"), Limits(max_duration_seconds=3)).code == "TOO_LONG"


def test_too_many_tracks() -> None:
    assert failure_of(sources.path("h264_mp4"), Limits(max_streams=2)).code == "TOO_MANY_STREAMS"


def test_a_truncated_tail_is_converted_with_a_warning_that_names_the_counts() -> None:
    film = reading.planned("tail_cut_mp4")
    assert film.warnings == ("the file ends early: 60 of 96 frames are in it",)
    assert len(film.pts) == 60


@pytest.mark.parametrize(("name", "stated"), [("tail_cut_mkv", "about 73"), ("tail_cut_avi", "96")])
def test_so_is_one_without_an_index_up_front(name: str, stated: str) -> None:
    film = reading.planned(name)
    assert film.warnings == (f"the file ends early: {len(film.pts)} of {stated} frames are in it",)


@pytest.mark.parametrize("name", sources.TWELVE)
def test_a_whole_film_has_no_warning(name: str) -> None:
    assert reading.planned(name).warnings == ()


def test_a_recording_of_unknown_size_is_not_cut(tmp_path: Path) -> None:
    """A live Matroska file says `all ones` for the size of its Segment, a live AVI file nothing or all ones."""
    whole = sources.path("vfr_mkv").read_bytes()
    size = whole.index(b"\x18\x53\x80\x67") + 4
    film = sources.path("mpeg4_avi").read_bytes()
    live = {"mkv": whole[:size] + b"\x01" + b"\xff" * 7 + whole[size + 8 :]}
    live |= {f"{word[0]}.avi": film[:4] + word + film[8:] for word in (bytes(4), b"\xff" * 4)}
    for suffix, data in live.items():
        for content in (data, data[: len(data) * 6 // 10]):
            path = tmp_path / f"film.{suffix}"
            path.write_bytes(content)
            source = FileSource(path)
            try:
                assert sniff.is_cut(source.read_at, source.size) is False, suffix
            finally:
                source.close()


@pytest.mark.parametrize("name", ["mid_gop_ts", "mid_gop_mp4"])
def test_frames_before_the_first_keyframe_are_left_out_with_a_warning(name: str) -> None:
    film = reading.planned(name)
    (warning,) = film.warnings
    assert f"{len(film.pts)} of " in warning
    assert film.keys[0]


def test_a_hole_in_the_middle_is_planned_from_the_frames_that_decode() -> None:
    film = reading.planned("damaged_middle_ts")
    decoded = [frame.pts for frame in reading.full_decode("damaged_middle_ts", film.info.video.stream_index)]
    assert film.pts == decoded
    assert len(film.pts) < 96


@pytest.mark.parametrize("name", ["no_frames", "payload_missing_mp4"])
def test_the_scan_says_the_same_as_the_probe(name: str) -> None:
    info = reading.planned("h264_mp4").info
    with reading.source_of(name) as source, pytest.raises(StereoSpotError) as caught:
        list(plan.scan(source, info))
    assert caught.value.code in ("NO_FRAMES", "TRUNCATED_INPUT")


@pytest.mark.parametrize("name", ["h264_faststart_mp4", "vfr_mkv", "h264_ts", "mpeg4_avi", "flv1_flv", "wmv2_wmv"])
def test_cut_anywhere_it_is_planned_or_refused(name: str, tmp_path: Path) -> None:
    """At every tenth of its length a film either plans to what decodes, or gets one of the codes for damage."""
    data = sources.path(name).read_bytes()
    known = {"TRUNCATED_INPUT", "CORRUPT_INPUT", "NO_FRAMES", "EMPTY_INPUT", "UNSUPPORTED_CONTAINER", "NO_VIDEO_STREAM"}
    for tenth in range(10):
        path = tmp_path / f"{tenth}{sources.path(name).suffix}"
        path.write_bytes(data[: len(data) * tenth // 10])
        assert planned_or_code(path) in known | {"planned"}, tenth


def planned_or_code(path: Path) -> str:
    source = FileSource(path)
    try:
        batches = list(plan.scan(source, probe(source)))
    except StereoSpotError as failure:
        return failure.code
    except plan.Untrusted:
        return "untrusted"
    finally:
        source.close()
    return "planned" if batches[-1].final else "unfinished"


@pytest.mark.parametrize(
    "name", ["h264_mp4", "fragmented_mp4", "vfr_mkv", "h264_ts", "mpeg4_avi", "flv1_flv", "vp9_webm"]
)
def test_flipped_bits_never_surprise(name: str, tmp_path: Path) -> None:
    """Damage of every sort ends in a plan or in a code for damage; never in a crash, a hang or a nameless error."""
    known = {
        "TRUNCATED_INPUT", "CORRUPT_INPUT", "NO_FRAMES", "UNSUPPORTED_CONTAINER", "UNSUPPORTED_CODEC",
        "NO_VIDEO_STREAM", "DIMENSIONS_EXCEEDED", "TOO_LONG",
        "TOO_MANY_STREAMS", "ENCRYPTED_INPUT", "planned", "untrusted",
    }  # fmt: skip
    data = sources.path(name).read_bytes()
    found: list[str] = []
    for seed in range(6):
        random = Random(seed)
        damaged = bytearray(data)
        reach = 4000 if seed % 2 else len(data)
        for _ in range(random.randint(1, 60)):
            damaged[random.randrange(min(reach, len(data)))] ^= 1 << random.randrange(8)
        path = tmp_path / f"{seed}{sources.path(name).suffix}"
        path.write_bytes(damaged)
        found.append(planned_or_code(path))
        assert found[-1] in known, seed
    assert set(found) != {"untrusted"}
