"""Depth pictures in every form that is taken: the same ramp, whatever film it comes in; through the jail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stereospot import errors
from stereospot.media.frames import Decoder
from stereospot.media.model import DecodeSpec
from stereospot.media.probe import probe
from stereospot.media.source import FileSource

RAMP = np.linspace(0, 65535, 64 * 48).round().astype(np.uint16).reshape(48, 64)


def film(path: Path, codec: str, form: str, picture: np.ndarray, **options: str) -> Path:
    """Three frames of `picture`, the second one upside down."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], form
        for turn in (1, -1, 1):
            shown = np.ascontiguousarray(picture[::turn])
            frame = av.VideoFrame(picture.shape[1], picture.shape[0], form)
            for number, plane in enumerate(frame.planes):
                kind = np.dtype(picture.dtype)
                rows = np.frombuffer(plane, kind).reshape(plane.height, -1)  # type: ignore[arg-type]
                samples = shown.shape[1] if number == 0 else plane.width
                rows[:, :samples] = shown if number == 0 else 1 << (8 * kind.itemsize - 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> list[np.ndarray]:
    source = FileSource(path)
    info = probe(source)
    spec = DecodeSpec(stream_index=info.video.stream_index, pixel_format="gray16le")
    found: list[np.ndarray] = []
    with Decoder(source, spec, info) as decoder:
        for frame in decoder.frames(None, None):
            assert len(frame.planes) == 1
            found.append(frame.planes[0].copy())
            frame.release()
    source.close()
    return found


@pytest.mark.parametrize(
    ("codec", "form", "suffix"), [("ffv1", "gray16le", "mkv"), ("png", "gray16be", "mov"), ("png", "gray16be", "avi")]
)
def test_sixteen_bits_come_through_exactly(codec: str, form: str, suffix: str, tmp_path: Path) -> None:
    picture = RAMP if form.endswith("le") else RAMP.astype(">u2")
    found = read(film(tmp_path / f"depth.{suffix}", codec, form, picture))
    assert len(found) == 3
    for picture, turn in zip(found, (1, -1, 1), strict=True):
        assert picture.dtype == np.uint16
        assert np.array_equal(picture, RAMP[::turn])


@pytest.mark.parametrize(("bits", "form"), [(8, "gray"), (10, "gray10le"), (12, "gray12le")])
def test_fewer_bits_are_scaled_to_the_whole_range(bits: int, form: str, tmp_path: Path) -> None:
    largest = (1 << bits) - 1
    picture = (RAMP.astype(np.int64) * largest // 65535).astype(np.uint8 if bits == 8 else np.uint16)
    found = read(film(tmp_path / "depth.mkv", "ffv1", form, picture))[0]
    assert (found.min(), found.max()) == (0, 65535)
    assert np.array_equal(found, np.round(picture * (65535 / largest)).astype(np.uint16))


def test_luma_of_limited_range_reaches_from_black_to_white(tmp_path: Path) -> None:
    picture = np.full((48, 64), 16, np.uint8)
    picture[:, 16:32], picture[:, 32:] = 125, 235
    found = read(film(tmp_path / "depth.mp4", "libx264", "yuv420p", picture, qp="0"))[0]
    assert [int(found[20, x]) for x in (4, 20, 50)] == [0, round(109 * 65535 / 219), 65535]


def test_a_picture_that_is_no_grey_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "depth.mkv", "rawvideo", "uyvy422", np.zeros((48, 128), np.uint8)[:, :64])
    with pytest.raises(errors.Permanent) as caught:
        read(path)
    assert caught.value.code == "DEPTH_UNREADABLE"
