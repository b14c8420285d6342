"""Contact sheets to judge relief by eye: `python -m bench.relief_sheets --out FOLDER [--prototype FILE] [CLIP …]`.

One sheet a clip: a row a frame; the picture, each engine's relief on the fixed 0 to 1 scale (black far, white near),
and a red-cyan view of relief's, made at the network's size (a sketch of the product's warp). Without a clip: the ones
beside the checkout, and a sheet of rendered scenes with their truth.
"""

# pyright: reportMissingImports=false
# (Pillow belongs to the training tools, not to the application)
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bench.relief import MEDIA, SEED, Method, Pictures, Reliefs, clip_frames, methods
from inference.training import scenes
from inference.training.render import HEIGHT, WIDTH, still
from inference.training.textures import make_atlas

DIVERGENCE = 0.016
"""Largest disparity as a share of the width: the engine's default, enlarged twice for a picture this small."""
_ENLARGED = 2.0
_HEAD = 14


def grey(relief: NDArray[np.float32]) -> Pictures:
    return np.repeat((np.clip(relief, 0, 1) * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=-1)


def red_cyan(rgb: Pictures, relief: NDArray[np.float32]) -> Pictures:
    """Left eye in red, right eye in green and blue; each samples the picture half the disparity away."""
    columns = np.arange(WIDTH, dtype=np.float32)[None]
    shift = (relief - 0.5) * DIVERGENCE * _ENLARGED * WIDTH / 2
    rows = np.arange(HEIGHT)[:, None]

    def eye(sign: float) -> Pictures:
        place = np.clip(np.rint(columns - sign * shift), 0, WIDTH - 1).astype(int)
        return rgb[rows, place]

    left, right = eye(1.0), eye(-1.0)
    return np.concatenate([left[..., :1], right[..., 1:]], axis=-1)


def sheet(rows: list[list[Pictures]], titles: list[str]) -> Image.Image:
    """Pictures in a grid under a line of titles."""
    grid = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    page = Image.new("RGB", (grid.shape[1], grid.shape[0] + _HEAD), "white")
    page.paste(Image.fromarray(grid), (0, _HEAD))
    pen = ImageDraw.Draw(page)
    for index, title in enumerate(titles):
        pen.text((index * WIDTH + 3, 1), title, fill="black")
    return page


def clip_sheet(found: dict[str, Method], frames: Pictures) -> Image.Image:
    names = [name for name in found if name != "ramp"]
    reliefs: dict[str, Reliefs] = {name: found[name](frames) for name in names}
    rows = [
        [frame, *(grey(reliefs[name][i]) for name in names), red_cyan(frame, reliefs["relief"][i])]
        for i, frame in enumerate(frames)
    ]
    return sheet(rows, ["picture", *names, "red-cyan (sketch)"])


def scene_sheet(found: dict[str, Method]) -> Image.Image:
    atlas, rng = make_atlas(SEED, 160), np.random.default_rng(SEED + 5)
    frames = [still(rng, atlas, kind) for kind in (*scenes.names(), *scenes.names(held_out=True))]
    names = [name for name in found if name != "ramp"]
    reliefs = {name: found[name](np.stack([f.rgb for f in frames])) for name in names}
    rows = [
        [f.rgb, grey(f.inverse.astype(np.float32)), *(grey(reliefs[name][i]) for name in names)]
        for i, f in enumerate(frames)
    ]
    return sheet(rows, ["rendered", "inverse depth", *names])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draw contact sheets of the relief engine.")
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prototype", type=Path)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--suffix", choices=("png", "jpg"), default="jpg")
    given = parser.parse_args(arguments)
    found = methods(given.prototype)
    given.out.mkdir(parents=True, exist_ok=True)
    clips: list[Path] = given.clips or sorted(MEDIA.glob("*.mp4"))
    for path in clips:
        frames = clip_frames(path)
        picked = frames[np.linspace(0, len(frames) - 1, given.frames + 2).astype(int)[1:-1]]
        clip_sheet(found, picked).save(given.out / f"relief-{path.stem}.{given.suffix}", quality=82)
    if not given.clips:
        scene_sheet(found).save(given.out / f"relief-scenes.{given.suffix}", quality=82)
    return 0


if __name__ == "__main__":
    sys.exit(main())
