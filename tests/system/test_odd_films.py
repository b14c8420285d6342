"""Films at the edge of what there is, through the whole of `convert`: a film or a clear refusal, never a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from services.cli.app import main


def film(path: Path, width: int, height: int, count: int, luma: int | None = None, codec: str = "ffv1") -> Path:
    """`count` frames of noise, or of one grey where `luma` is given."""
    rng = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(count):
            frame = av.VideoFrame(width, height, "yuv420p")
            for plane in frame.planes:
                size = plane.buffer_size
                body = rng.integers(16, 235, size).astype(np.uint8) if luma is None else np.full(size, luma, np.uint8)
                plane.update(body.tobytes())
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def convert(capsys: pytest.CaptureFixture[str], source: Path, *words: str) -> tuple[int, Any, Path]:
    out = source.with_name("out.mp4")
    data = str(source.with_name("data"))
    code = main(["convert", str(source), "-o", str(out), "--json", "--data", data, *words])
    said = capsys.readouterr()
    return code, json.loads(said.out) if code == 0 else said.err, out


def size_and_count(path: Path) -> tuple[int, int, int]:
    with av.open(str(path), "r") as container:
        frames = list(container.decode(video=0))
    return frames[0].width, frames[0].height, len(frames)


@pytest.mark.parametrize("engine", ["relief", "cues"])
@pytest.mark.parametrize("luma", [16, 128])
def test_a_film_without_any_texture(engine: str, luma: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, out = convert(
        capsys, film(tmp_path / "in.mkv", 160, 90, 12, luma), "--engine", engine, "--preset", "ultrafast"
    )
    assert code == 0, said
    assert size_and_count(out) == (160, 90, 12)
    assert said["report"]["not_finite"] == 0


@pytest.mark.parametrize(
    ("size", "made"), [((2, 64), (4, 64)), ((2, 2), (4, 2)), ((33, 17), (36, 18)), ((161, 91), (164, 92))]
)
def test_tiny_and_odd_sizes(
    size: tuple[int, int], made: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, out = convert(
        capsys, film(tmp_path / "in.mkv", *size, 6, codec="libx264" if size[0] == 2 else "ffv1"), "--engine", "cues"
    )
    assert code == 0, said
    assert size_and_count(out) == (*made, 6)


def test_one_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, out = convert(capsys, film(tmp_path / "in.mkv", 160, 90, 1))
    assert code == 0, said
    assert size_and_count(out) == (160, 90, 1)


def test_what_cannot_be_encoded_is_said_before_anything_is_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = film(tmp_path / "in.mkv", 160, 90, 6)
    code, said, out = convert(capsys, source, "--preset", "sideways")
    assert code != 0
    assert "INVALID_OPTIONS" in said
    assert "ultrafast, superfast" in said
    assert not out.exists()


@pytest.mark.slow
def test_eight_thousand_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = film(tmp_path / "in.mp4", 7680, 4320, 4, 128, "libx264")
    code, said, out = convert(capsys, source, "--crf", "40")
    assert code == 0, said
    assert size_and_count(out) == (7680, 4320, 4)
