"""Depth in and out of whole conversions by the command line: the round trip, and what does not fit."""

from __future__ import annotations

import json
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from services.cli.app import main
from services.converter import Converter
from stereospot.bus import Delivery
from stereospot.outcome import Outcome

COUNT, WIDTH, HEIGHT = 30, 96, 64


def film(path: Path, count: int = COUNT) -> Path:
    """A short film with something that moves."""
    rng = np.random.default_rng(5)
    ground = rng.integers(40, 200, (HEIGHT, WIDTH)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=24, options={"qp": "0", "preset": "ultrafast", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(count):
            planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
            planes[:HEIGHT] = ground
            planes[20:40, 2 * index : 2 * index + 20] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def depth_pictures(folder: Path, count: int = COUNT, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """PNG files of 16 bits whose numbers are not padded: a near box on a slope."""
    folder.mkdir()
    for index in range(count):
        picture = np.linspace(0, 30000, height)[:, None].repeat(width, 1).astype(np.uint16)
        picture[height // 3 : 2 * height // 3, 2 * index : 2 * index + 20] = 60000
        encoder: Any = av.CodecContext.create("png", "w")
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "gray16be", Fraction(1, 25)
        frame = av.VideoFrame.from_ndarray(picture, format="gray16be")
        body = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
        (folder / f"d{index}.png").write_bytes(body)
    return folder


def convert(capsys: pytest.CaptureFixture[str], source: Path, out: Path, *words: str) -> tuple[int, Any]:
    fixed = ["--crf", "0", "--preset", "ultrafast", "--segment-seconds", "0.4", "--divergence", "5"]
    code = main(["convert", str(source), "-o", str(out), "--json", "--data", str(out.parent / "data"), *fixed, *words])
    said = capsys.readouterr()
    return code, json.loads(said.out) if code == 0 else said.err


def luma(path: Path) -> list[np.ndarray]:
    with av.open(str(path), "r") as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def test_exported_depth_makes_the_same_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, kept = film(tmp_path / "film.mp4"), tmp_path / "depth.mkv"
    code, said = convert(capsys, source, tmp_path / "one.mp4", "--engine", "cues", "--export-depth", str(kept))
    assert code == 0, said
    assert len(luma(kept)) == COUNT
    code, said = convert(capsys, source, tmp_path / "two.mp4", "--depth", str(kept))
    assert code == 0, said
    assert said["engine"] == "user"
    one, two = luma(tmp_path / "one.mp4"), luma(tmp_path / "two.mp4")
    assert len(one) == len(two) == COUNT
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one[0][:HEIGHT, : WIDTH // 2], one[0][:HEIGHT, WIDTH // 2 :]), "the eyes differ"
    assert not any((tmp_path / "data" / "convert").iterdir())


def test_folder_zip_and_pattern_are_the_same_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder = film(tmp_path / "film.mp4"), depth_pictures(tmp_path / "depth")
    with zipfile.ZipFile(tmp_path / "depth.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    films: list[list[np.ndarray]] = []
    for number, given in enumerate((folder, tmp_path / "depth.zip", folder / "d%d.png")):
        out = tmp_path / f"{number}.mp4"
        code, said = convert(
            capsys, source, out, "--layout", "full-sbs", "--synthesise", "right", "--depth", str(given)
        )
        assert code == 0, said
        films.append(luma(out))
        assert not any((tmp_path / "data" / "convert").iterdir())
    assert all(np.array_equal(a, b) and np.array_equal(a, c) for a, b, c in zip(*films, strict=True))
    # The box of picture 10 lies near, so the right eye has it further left; numbers count, not the alphabet.
    shown = films[0][10][30, WIDTH : 2 * WIDTH].astype(int)
    assert np.flatnonzero(shown > 220)[0] < 20


@pytest.mark.parametrize(
    ("count", "size", "text"),
    [
        (COUNT - 4, (WIDTH, HEIGHT), "26 pictures"),
        (COUNT + 3, (WIDTH, HEIGHT), "33 pictures"),
        (COUNT, (80, 64), "80x64"),
    ],
)
def test_depth_of_another_length_or_size_is_refused(
    count: int, size: tuple[int, int], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = film(tmp_path / "film.mp4"), depth_pictures(tmp_path / "depth", count, *size)
    code, said = convert(capsys, source, tmp_path / "out.mp4", "--depth", str(folder))
    assert code != 0
    assert "DEPTH_MISMATCH" in said
    assert text in said
    assert "near is white" in said, "the advice"
    assert not (tmp_path / "out.mp4").exists()


def test_pictures_that_another_conversion_reads_too_stay_until_both_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same depth for another layout: that one ends first, and clears away what it was made from."""
    source, folder = film(tmp_path / "film.mp4"), depth_pictures(tmp_path / "depth")
    handle, cleared = Converter.handle, list[Path]()

    async def beside(self: Converter, delivery: Delivery) -> Outcome:
        for path in (tmp_path / "data" / "convert").glob("depth-*.mov"):
            path.unlink()
            cleared.append(path)
        return await handle(self, delivery)

    monkeypatch.setattr(Converter, "handle", beside)
    code, said = convert(capsys, source, tmp_path / "out.mp4", "--depth", str(folder))
    assert code == 0, said
    assert len(cleared) == 1
    assert not any((tmp_path / "data" / "convert").iterdir())


def test_engine_user_without_depth_and_depth_with_another_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = film(tmp_path / "film.mp4", 3), depth_pictures(tmp_path / "depth", 3)
    code, said = convert(capsys, source, tmp_path / "out.mp4", "--engine", "user")
    assert (code != 0, "DEPTH_MISSING" in said) == (True, True), said
    code, said = convert(capsys, source, tmp_path / "out.mp4", "--engine", "cues", "--depth", str(folder))
    assert (code != 0, "INVALID_OPTIONS" in said) == (True, True), said
    (folder / "d1.png").write_bytes(b"no picture")
    code, said = convert(capsys, source, tmp_path / "out.mp4", "--depth", str(folder))
    assert (code != 0, "DEPTH_UNREADABLE" in said) == (True, True), said
