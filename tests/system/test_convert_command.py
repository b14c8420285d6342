"""`stereospot convert`, whole: every frame with its time, every sample, every track, on the twelve kinds of sources.

The command runs in this process (its services, broker, jail and threads are the real ones), so that a dozen films take
seconds. What must survive a kill runs as a process of its own in `test_convert_resume.py`.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest

from services.cli import main
from tests import support
from tests.media import sources


@dataclass
class Film:
    """What a file decodes to."""

    times: list[Any]
    hashes: list[int]
    sound: list[bytes]
    languages: list[str | None]
    subtitles: int
    chapters: list[tuple[float, float]]
    size: tuple[int, int]


def read(path: Path) -> Film:
    """Decode everything, the plain way: FFmpeg's own order, edit lists honoured."""
    film: Any
    with av.open(str(path)) as film:
        video = film.streams.video[0]
        times: list[Any] = []
        hashes: list[int] = []
        size = (0, 0)
        for frame in film.decode(video):
            times.append(frame.pts * frame.time_base if frame.pts is not None else None)
            picture = frame.to_ndarray()
            size = (frame.width, frame.height)
            hashes.append(hash(picture.tobytes()))
        languages = [None if stream.language == "und" else stream.language for stream in film.streams.audio]
        chapters = [
            (float(item["start"] * item["time_base"]), float(item["end"] * item["time_base"]))
            for item in film.chapters()
        ]
        subtitles = len(film.streams.subtitles)
    sound: list[bytes] = []
    for index in range(len(languages)):
        with av.open(str(path)) as film:
            pcm = [frame.to_ndarray().tobytes() for frame in film.decode(film.streams.audio[index])]
            sound.append(b"".join(pcm))
    return Film(times, hashes, sound, languages, subtitles, chapters, size)


def convert(capsys: pytest.CaptureFixture[str], source: Path, out: Path, *words: str) -> dict[str, Any]:
    data = out.parent / "data"
    code = main(["convert", str(source), "-o", str(out), "--json", "--data", str(data), *words])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert not any((data / "convert").iterdir()), "success leaves nothing behind"
    return json.loads(said.out)


def container_of(name: str) -> str:
    """The output that can hold the source's clock exactly: Matroska for sources in milliseconds."""
    return ".mkv" if name in ("vfr_mkv", "h264_open_gop_mkv", "av1_mkv", "vp9_webm") else ".mp4"


@pytest.mark.parametrize("name", sorted(sources.TWELVE))
def test_identity_at_crf_0_gives_back_every_frame_time_sample_and_track(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = sources.path(name)
    out = tmp_path / f"out{container_of(name)}"
    codec = ["--codec", "x265"] if "hdr" in name else []
    said = convert(
        capsys,
        source,
        out,
        "--engine",
        "identity",
        "--crf",
        "0",
        "--preset",
        "ultrafast",
        "--segment-seconds",
        "0.7",
        *codec,
    )
    before, after = read(source), read(out)
    assert said["frames"] == len(before.times) == len(after.times)
    if name == "mpeg4_avi":
        first = before.times[0]
        assert [time - after.times[0] for time in after.times] == [time - first for time in before.times]
    else:
        assert after.times == before.times
    if name == "rotated_mov":
        assert after.size == before.size[::-1], "rotation is applied to the pixels"
    else:
        assert after.hashes == before.hashes
    assert after.sound == before.sound
    assert after.languages == before.languages
    assert after.subtitles == before.subtitles
    assert [time for span in after.chapters for time in span] == pytest.approx(
        [time for span in before.chapters for time in span]
    )


def test_pictures_do_not_depend_on_segment_length_or_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films: list[Film] = []
    for number, words in enumerate(
        [["--segment-seconds", "0.5", "--workers", "1"], ["--segment-seconds", "3", "--workers", "2"]]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        convert(capsys, sources.path("h264_mp4"), folder / "out.mp4", "--crf", "0", "--preset", "ultrafast", *words)
        films.append(read(folder / "out.mp4"))
    assert films[0].hashes == films[1].hashes
    assert films[0].times == films[1].times


def test_text_subtitles_lie_beside_the_film_once_for_each_eye(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--engine", "flat", "--preset", "ultrafast"]
    said = convert(capsys, sources.path("h264_mp4"), tmp_path / "Film.3D.HSBS.LR.mp4", *words)
    beside = tmp_path / "Film.3D.HSBS.LR.ass"
    assert said["subtitles"] == [str(beside)]
    lines = [line for line in beside.read_text().splitlines() if line.startswith("Dialogue:")]
    places = [line.split("\\pos(")[1].split(",")[0] for line in lines]
    assert len(lines) == 2 * len({line.split("}")[1] + line.split(",")[1] for line in lines}) > 0
    assert len(set(places)) == 2, "in the middle of the left eye's half and of the right eye's"
    assert said["warnings"] == []

    beside.write_text("mine")
    said = convert(capsys, sources.path("h264_mp4"), tmp_path / "Film.3D.HSBS.LR.mkv", *words)
    assert (said["subtitles"], beside.read_text()) == ([], "mine"), "what is there stays"
    said = convert(capsys, sources.path("h264_mp4"), tmp_path / "left.mp4", "--layout", "left", *words)
    assert said["subtitles"] == [], "one picture needs none"


@pytest.mark.parametrize(("clip", "frames"), [("big-buck-bunny-480p-30s.mp4", 720), ("car-detection.mp4", 377)])
@pytest.mark.slow
def test_real_clips_come_out_whole(clip: str, frames: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = support.MEDIA / clip
    if not source.exists():
        pytest.skip("the real clips do not lie beside this checkout")
    said = convert(capsys, source, tmp_path / "out.mp4")
    before, after = read(source), read(tmp_path / "out.mp4")
    assert said["frames"] == len(after.times) == frames
    assert after.times == before.times
    assert after.sound == before.sound


REFUSED = {
    "empty": "EMPTY_INPUT",
    "text_named_mp4": "UNSUPPORTED_CONTAINER",
    "playlist_m3u8": "UNSUPPORTED_CONTAINER",
    "playlist_named_mp4": "UNSUPPORTED_CONTAINER",
    "concat_named_mp4": "UNSUPPORTED_CONTAINER",
    "audio_only": "NO_VIDEO_STREAM",
    "cover_only": "NO_VIDEO_STREAM",
    "encrypted": "ENCRYPTED_INPUT",
    "encrypted_mkv": "ENCRYPTED_INPUT",
    "moov_missing": "TRUNCATED_INPUT",
    "moov_cut": "TRUNCATED_INPUT",
    "no_frames": "NO_FRAMES",
    "forbidden_codec": "UNSUPPORTED_CODEC",
}


@pytest.mark.parametrize("what", ["no server", "no engine"])
def test_what_is_missing_on_this_machine_leaves_nothing_behind(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "no server":
        monkeypatch.setenv("NATS_SERVER_BIN", str(tmp_path / "none"))
    else:
        monkeypatch.setenv("NUNIF_HOME", str(tmp_path / "none"))
    data = tmp_path / "data"
    words = ["convert", str(sources.path("h264_mp4")), "-o", str(tmp_path / "o.mp4"), "--json", "--data", str(data)]
    assert main([*words, "--engine", "iw3"]) != 0
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] in ("BROKER_MISSING", "ENGINE_UNAVAILABLE")
    assert not (data / "convert").exists() or not any((data / "convert").iterdir()), "no folder is left"


@pytest.mark.parametrize(("name", "code"), sorted(REFUSED.items()))
def test_bad_input_is_refused_with_its_code_and_leaves_nothing(
    name: str, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert main(["convert", str(sources.path(name)), "-o", str(tmp_path / "o.mp4"), "--json", "--data", str(data)]) == 1
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert error["code"] == code
    assert error["advice"]
    assert f"error {code}" in said.err
    assert not (tmp_path / "o.mp4").exists()
    assert not (data / "convert").exists() or not any((data / "convert").iterdir()), "no scratch files are left"


def test_what_is_set_for_a_fleet_does_not_stop_a_broker_of_one_s_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as worker:
        fleet = {"REPLICAS": "3", "NATS_URL": "tls://u:p@127.0.0.1:1", "METRICS_PORT": str(worker.getsockname()[1])}
        fleet |= {name: str(tmp_path / "none") for name in ("NATS_CREDS", "NATS_NKEY_SEED", "NATS_TLS_CA")}
        for name, value in fleet.items():
            monkeypatch.setenv(f"STEREOSPOT_{name}", value)
        convert(capsys, sources.path("h264_mp4"), tmp_path / "o.mp4", "--backend", "stub")
