"""Sound cut from the middle of a film on: the same bytes as in a cut from its beginning."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stereospot.media import aac_blocks, audio
from stereospot.media.source import FileSource
from tests.media import films, sources
from tests.media.test_audio import cut, segments

SECONDS = 12


@pytest.mark.parametrize(
    ("codec", "rate", "suffix"),
    [
        ("flac", 48000, ".mkv"),
        ("flac", 44100, ".mkv"),  # resampled, and its times are rounded to milliseconds
        ("flac", 48000, ".mp4"),
        ("pcm_s16le", 44100, ".mov"),
        ("ac3", 48000, ".ts"),
        ("eac3", 48000, ".mkv"),
        ("libmp3lame", 44100, ".avi"),
        ("libopus", 48000, ".mkv"),
        ("aac", 48000, ".ts"),
        ("aac", 44100, ".mkv"),
    ],
)
def test_the_bytes_are_those_of_a_cut_from_the_beginning(codec: str, rate: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"source{suffix}"
    more = {"codec": "mpeg4", "options": {"g": "31"}} if suffix == ".avi" else {}
    track = sources.Audio(codec, rate=rate)
    sources.write(sources.Film(suffix=suffix, frames=24 * SECONDS, audio=(track,), **more), path)  # type: ignore[arg-type]
    job = films.job(path)
    wanted = segments(job)
    whole = {chunk.index: chunk.data for chunk in cut(job, wanted)}
    for anchor in (5, 9):
        parts = films.parts(wanted[anchor : anchor + 1]) + films.parts(wanted[anchor + 1 :])
        with contextlib.closing(FileSource(job.path)) as source:
            late = list(audio.cut(source, job.plan.source, job.plan, parts, origin=wanted[0].start))
        assert [chunk.index for chunk in late] == list(range(anchor, len(wanted)))
        assert [chunk.index for chunk in late if chunk.data != whole[chunk.index]] == []


def test_without_a_packet_nobody_knows_where_frames_lie_and_nothing_comes(tmp_path: Path) -> None:
    path = tmp_path / "source.mkv"
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        output.add_stream("pcm_s16le", rate=48000)
        output.start_encoding()
        for number in range(96):
            frame = sources.frame(number, 64, 48)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    job = films.job(path)
    wanted = segments(job)
    with contextlib.closing(FileSource(job.path)) as source:
        assert list(audio.cut(source, job.plan.source, job.plan, films.parts(wanted[2:]), origin=wanted[0].start)) == []
    assert [chunk.index for chunk in cut(job, wanted)] == [None, 0, 1, 2, 3], "from the beginning on it is silence"


def test_a_seam_of_two_encoders_is_as_quiet_as_any_other_place() -> None:
    """A tone through four blocks: what the frames at each seam add to it is below -40 dB."""
    count = 4 * aac_blocks.BLOCK
    times = np.arange(count * aac_blocks.SIZE) / aac_blocks.RATE
    wave = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    blocks = aac_blocks.Blocks()
    frames: list[bytes] = []
    for block in wave.reshape(count, aac_blocks.SIZE):
        frames += blocks.encode(np.stack([block] * 2))
    frames += blocks.finish()
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = aac_blocks.encoder(aac_blocks.RATE, "stereo").extradata
    heard = np.concatenate([frame.to_ndarray()[0] for data in frames for frame in decoder.decode(av.Packet(data))])  # type: ignore[attr-defined]
    error = np.abs(heard[: len(wave)] - wave[: len(heard)]).reshape(-1, aac_blocks.SIZE).max(axis=1)
    seams = [place + near for place in range(aac_blocks.BLOCK, count, aac_blocks.BLOCK) for near in (-1, 0, 1)]
    assert max(error[seams]) < 0.03


def test_silence_runs_no_encoder_and_changes_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten blocks of nothing, then a tone: the frames of encoders that heard it all, by one that runs."""
    count = 10 * aac_blocks.BLOCK
    times = np.arange(100 * aac_blocks.SIZE) / aac_blocks.RATE
    tone = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32).reshape(100, aac_blocks.SIZE)
    sound = [aac_blocks.silent(aac_blocks.SIZE)] * count + [np.stack([block] * 2) for block in tone]

    def frames() -> list[bytes]:
        blocks = aac_blocks.Blocks()
        return [frame for block in sound for frame in blocks.encode(block)] + blocks.finish()

    made: list[int] = []
    encoder = aac_blocks.encoder

    def counted(rate: int, layout: str) -> Any:
        made.append(rate)
        return encoder(rate, layout)

    monkeypatch.setattr(aac_blocks, "encoder", counted)
    lazy, opened = frames(), len(made)
    monkeypatch.setattr(aac_blocks.BlockEncoder, "encode", eager)
    assert lazy == frames()
    assert len(lazy) == count + 100
    assert opened <= 3, "the model of silence, and the block of the tone"


def eager(self: Any, block: Any) -> list[tuple[int, bytes]]:
    """As `BlockEncoder.encode`, without its short cut."""
    return [(self._place + place, data) for place, data in self._awake().encode(block)]
