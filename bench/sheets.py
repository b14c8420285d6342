"""Contact sheets to judge a conversion by eye: `python -m bench.sheets [--engine NAME] [--out FOLDER] [CLIP …]`.

One sheet a clip, a row a frame: the picture, its depth as the warp gets it (near is white), half side-by-side, the
red-cyan anaglyph, and the difference of the eyes (wide grey lines are parallax; ragged ones would be torn edges).
Without a clip: the ones beside the checkout, or the synthetic set.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from bench import stereo_set
from inference import depth, layouts, prepare, upsample, window
from inference.contract import Planes
from stereospot.media.model import Bars, Colour, StereoSpec
from stereospot.options import Layout

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"
ROWS = 5
CELL = 384


def frames(path: Path, rows: int) -> Iterator[tuple[int, list[Planes], int]]:
    """For `rows` places spread over the clip: the frame's number, the frames around it, and its place among them."""
    with av.open(str(path)) as container:
        pictures = [_planes(frame) for frame in container.decode(video=0)]
    for row in range(rows):
        number = (2 * row + 1) * len(pictures) // (2 * rows)
        first = max(0, number - window.PADDING)
        yield number, pictures[first : number + window.PADDING + 1], number - first


def synthetic(rows: int) -> Iterator[tuple[int, list[Planes], int]]:
    """The same from the synthetic set, one scene a row."""
    views = list(stereo_set.views(6))
    neutral = np.full((stereo_set.HEIGHT // 2, stereo_set.WIDTH // 2), 128, np.uint8)
    for shot in range(min(rows, len(stereo_set.SCENES))):
        chosen = [(view.left, neutral, neutral) for view in views if view.shot == shot]
        yield shot, list(chosen), 3


def sheet(found: Iterator[tuple[int, list[Planes], int]], engine_name: str) -> NDArray[np.uint8]:
    """[height, width, 3] uint8."""
    engine = depth.load(engine_name)
    rows: list[NDArray[np.uint8]] = []
    for _, around, own in found:
        height, width = around[0][0].shape
        size = (engine.info.width, engine.info.height)
        preparer = prepare.Preparer(width, height, "yuv420p", Colour(), Bars(), *size)
        upsampler = upsample.Upsampler(width, height, Bars(), *size)
        passing: window.DepthWindow[int] = window.DepthWindow(
            upsampler, lambda small, engine=engine: engine.infer(small.rgb[None])[0]
        )
        settled: list[window.Ready[int]] = []
        for index, planes in enumerate(around):
            small = preparer.prepare(planes)
            settled += passing.push(small, engine.infer(small.rgb[None])[0], index if index == own else None)
        grid = (settled + passing.finish())[0].depth
        made = {
            layout: _compositor(engine_name, layout, width, height).compose(around[own], grid)
            for layout in (Layout.HALF_SBS, Layout.FULL_SBS, Layout.ANAGLYPH)
        }
        both = _rgb(made[Layout.FULL_SBS]).astype(int)
        eyes = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
        cells = (
            _rgb(around[own]),
            np.repeat((grid * 255).astype(np.uint8)[..., None], 3, 2),
            _rgb(made[Layout.HALF_SBS]),
            _rgb(made[Layout.ANAGLYPH]),
            np.abs(eyes[0] - eyes[1]).clip(0, 255).astype(np.uint8),
        )
        rows.append(np.concatenate([_scaled(cell, CELL, round(CELL * height / width)) for cell in cells], 1))
    engine.close()
    return np.concatenate(rows)


def save(path: Path, picture: NDArray[np.uint8]) -> None:
    """As JPEG."""
    height, width = (size // 2 * 2 for size in picture.shape[:2])
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("mjpeg", rate=1, options={"qmin": "3", "qmax": "4"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode(None))


def _compositor(engine: str, layout: Layout, width: int, height: int) -> layouts.Compositor:
    stereo = StereoSpec(engine=engine, layout=layout, divergence=depth.DEFAULT_DIVERGENCE[engine], convergence=0.5)
    return layouts.Compositor(width, height, "yuv420p", stereo, Colour())


def _planes(frame: Any) -> Planes:
    found: list[NDArray[np.uint8]] = []
    for plane in frame.reformat(format="yuv420p").planes:
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
        found.append(np.ascontiguousarray(rows[:, : plane.width]))
    return tuple(found)


def _rgb(planes: Planes) -> NDArray[np.uint8]:
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, "yuv420p")
    targets: list[Any] = list(frame.planes)
    for target, plane in zip(targets, planes, strict=True):
        rows = np.frombuffer(target, np.uint8).reshape(target.height, target.line_size)
        rows[:, : target.width] = plane
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _scaled(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    small = frame.reformat(width=width, height=height, interpolation="AREA")
    return np.asarray(small.to_ndarray(format="rgb24"), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--engine", default="relief")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for clip in given.clips or sorted(MEDIA.glob("*.mp4")):
        path = given.out / f"stereo-{clip.stem}.jpg"
        save(path, sheet(frames(clip, ROWS), given.engine))
        print(path)
    path = given.out / "stereo-synthetic.jpg"
    save(path, sheet(synthetic(ROWS), given.engine))
    print(path)


if __name__ == "__main__":
    main()
