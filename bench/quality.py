"""How good the stereo is, on the synthetic set of `bench.stereo_set`: views, depth, time and seams.

    python -m bench.quality [--iw3 CHECKOUT] [--frames N]

Views: the right eye against the truth by PSNR, SSIM and SIoU, with the identity (left shown to both) always beside it,
since PSNR and SSIM reward doing nothing. SIoU follows Mono2Stereo (CVPR 2025): 0.75 x the overlap of the edges with the
truth's, plus 0.25 x the overlap of the places where right and left differ by more than 5 codes; our edge detector is a
Sobel threshold. 4 % at the left and right border are left out: nobody can know what enters there. With --iw3 and torch,
iw3's weightless methods get the same depth. Depth: after one scale and shift for each shot.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import stereo_set
from bench.stereo_set import HEIGHT, PARALLAX, WIDTH, Floats, View
from inference import cadence, depth, geometry, layouts, prepare, shots, temporal, upsample, window
from stereospot.media.model import Bars, Colour, StereoSpec
from stereospot.options import Layout

COARSE = (192, 112)
MARGIN = round(0.04 * WIDTH)
DIVERGENCE = 100 * PARALLAX / WIDTH
SEAM_EVERY = 7


@dataclass(frozen=True, slots=True)
class Score:
    """Means over the set; `temporal`: change of the luma error from frame to frame, codes."""

    psnr: float
    ssim: float
    siou: float
    temporal: float


# ---- measures -----------------------------------------------------------------------------------------------------
def score(rights: Sequence[NDArray[np.uint8]], truth: Sequence[View]) -> Score:
    """Right views against the truth."""
    crop = slice(MARGIN, WIDTH - MARGIN)
    wrong: list[float] = []
    alike: list[float] = []
    overlap: list[float] = []
    errors: list[Floats] = []
    for right, view in zip(rights, truth, strict=True):
        found, true, left = (picture[:, crop].astype(np.float64) for picture in (right, view.right, view.left))
        wrong.append(psnr(right, view.right))
        alike.append(_ssim(found, true))
        edges = _overlap(_edges(found), _edges(true))
        overlap.append(0.75 * edges + 0.25 * _overlap(np.abs(found - left) > 5, np.abs(true - left) > 5))
        errors.append(found - true)
    changes = [
        np.abs(b - a).mean()
        for (a, b), (one, other) in zip(itertools.pairwise(errors), itertools.pairwise(truth), strict=True)
        if one.shot == other.shot
    ]
    return Score(*(float(np.mean(values)) for values in (wrong, alike, overlap, changes)))


def psnr(found: NDArray[np.uint8], true: NDArray[np.uint8]) -> float:
    """Decibels of luma codes, without the left and right border."""
    crop = slice(MARGIN, WIDTH - MARGIN)
    wrong = found[:, crop].astype(np.float64) - true[:, crop]
    return float(10 * np.log10(255**2 / max((wrong**2).mean(), 1e-9)))


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def _edges(picture: Floats) -> NDArray[np.bool_]:
    wide = np.pad(picture, 1, mode="edge")
    down = wide[2:, :-2] + 2 * wide[2:, 1:-1] + wide[2:, 2:] - wide[:-2, :-2] - 2 * wide[:-2, 1:-1] - wide[:-2, 2:]
    across = wide[:-2, 2:] + 2 * wide[1:-1, 2:] + wide[2:, 2:] - wide[:-2, :-2] - 2 * wide[1:-1, :-2] - wide[2:, :-2]
    return np.hypot(down, across) > 100


def _ssim(a: Floats, b: Floats) -> float:
    """Wang et al. 2004 with 8 x 8 windows."""

    def mean(picture: Floats) -> Floats:
        total = np.pad(picture.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        return (total[8:, 8:] - total[:-8, 8:] - total[8:, :-8] + total[:-8, :-8]) / 64

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = 6.5025, 58.5225
    return float((((2 * ma * mb + c1) * (2 * both + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2))).mean())


def keys(engine: str, count: int, rate: Fraction = stereo_set.RATE, *, first: int = 0) -> list[bool]:
    """Which of `count` frames from `first` on a conversion estimates; the others' depth is their neighbours'."""
    cells = cadence.Cadence.of(engine, rate, 1 / rate)
    return [cells.is_key(number, number - 1) for number in range(first, first + count)]


# ---- ours -----------------------------------------------------------------------------------------------------------
class Ours:
    """The stages of a conversion on luma alone (chroma neutral): depth, window, upsampling, warp of the right eye."""

    def __init__(self, engine_width: int, engine_height: int, grid_step: int | None = None) -> None:
        stereo = StereoSpec(
            engine="bench", layout=Layout.FULL_SBS, divergence=DIVERGENCE, convergence=stereo_set.CONVERGENCE,
            synthesise="right", grid_step=grid_step,
        )  # fmt: skip
        self.compositor = layouts.Compositor(WIDTH, HEIGHT, "yuv420p", stereo, Colour())
        self.preparer = prepare.Preparer(WIDTH, HEIGHT, "yuv420p", Colour(), Bars(), engine_width, engine_height)
        self.upsampler = upsample.Upsampler(WIDTH, HEIGHT, Bars(), engine_width, engine_height)
        self._neutral = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)

    def small(self, view: View) -> prepare.Small:
        return self.preparer.prepare((view.left, self._neutral, self._neutral))

    def right(self, view: View, grid: NDArray[np.float32]) -> NDArray[np.uint8]:
        out = self.compositor.compose((view.left, self._neutral, self._neutral), grid)
        return out[0][:, WIDTH:].copy()

    def grids(
        self,
        truth: Sequence[View],
        estimate: Callable[[View, prepare.Small], NDArray[np.float32]],
        estimated: Sequence[bool] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Depth on the grid for every frame, through the same window that a conversion uses.

        estimated: which frames are, of `keys`; None: all.
        """
        found: list[NDArray[np.float32]] = []
        smalls = [self.small(view) for view in truth]
        passing: window.DepthWindow[int] = window.DepthWindow(
            self.upsampler, lambda small: estimate(truth[smalls.index(small)], small)
        )
        for index, (view, small) in enumerate(zip(truth, smalls, strict=True)):
            deep = estimate(view, small) if estimated is None or estimated[index] else None
            found += [item.depth for item in passing.push(small, deep, index)]
        return found + [item.depth for item in passing.finish()]


def oracle_grid(view: View) -> NDArray[np.float32]:
    """True depth on the disparity grid."""
    grid = geometry.grid(WIDTH, HEIGHT)
    return view.depth.reshape(grid.rows, grid.step, grid.columns, grid.step).max((1, 3)).astype(np.float32)


def small_oracle(view: View, width: int, height: int) -> NDArray[np.float32]:
    """True depth at an engine's size: nearest samples."""
    rows = ((np.arange(height) + 0.5) * HEIGHT / height).astype(int)
    columns = ((np.arange(width) + 0.5) * WIDTH / width).astype(int)
    return view.depth[np.ix_(rows, columns)].astype(np.float32)


# ---- theirs -----------------------------------------------------------------------------------------------------
def iw3_methods(checkout: str) -> dict[str, Callable[[View], NDArray[np.uint8]]]:
    """iw3's `backward` and `forward_fill` from a checkout of nunif, without the packages that its __init__ wants."""
    torch: Any = importlib.import_module("torch")
    for name, folder in (("nunif", "nunif"), ("nunif.modules", "nunif/modules"), ("iw3", "iw3")):
        package = types.ModuleType(name)
        package.__path__ = [f"{checkout}/{folder}"]
        sys.modules[name] = package
    backward: Any = importlib.import_module("iw3.backward_warp")
    forward: Any = importlib.import_module("iw3.forward_warp")

    def run(method: Callable[..., Any], view: View) -> NDArray[np.uint8]:
        picture = torch.from_numpy(view.left.astype(np.float32) / 255)[None, None].repeat(1, 3, 1, 1)
        deep = torch.from_numpy(view.depth.astype(np.float32))[None, None]
        # With one synthetic view iw3 doubles the shift of that eye: the total parallax is the same as ours.
        _, right = method(picture, deep, DIVERGENCE, stereo_set.CONVERGENCE, synthetic_view="right")
        return np.round(right[0, 0].numpy() * 255).clip(0, 255).astype(np.uint8)

    def fill(*given: Any, **named: Any) -> Any:
        return forward.apply_divergence_forward_warp(*given, method="forward_fill", **named)

    def coarse(view: View) -> View:
        """The same view with depth of an engine's size, enlarged as iw3 enlarges it."""
        small = torch.from_numpy(small_oracle(view, *COARSE))[None, None]
        large = torch.nn.functional.interpolate(small, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=True)
        return dataclasses.replace(view, depth=large[0, 0].numpy().astype(np.float64))

    size = f"{COARSE[0]}x{COARSE[1]}"
    return {
        f"iw3 `backward`, true depth at {size}": lambda view: run(backward.apply_divergence_grid_sample, coarse(view)),
        f"iw3 `forward_fill`, true depth at {size}": lambda view: run(fill, coarse(view)),
        "iw3 `backward`, true depth of every pixel": lambda view: run(backward.apply_divergence_grid_sample, view),
        "iw3 `forward_fill`, true depth of every pixel": lambda view: run(fill, view),
    }


# ---- tables -------------------------------------------------------------------------------------------------------
def view_table(truth: Sequence[View], engines: Sequence[str], checkout: str | None) -> str:
    rows: list[tuple[str, Score]] = [("identity (left for both)", score([view.left for view in truth], truth))]
    fine, full = Ours(*COARSE, grid_step=1), Ours(*COARSE)
    exact = [view.depth.astype(np.float32) for view in truth]
    coarse = full.grids(truth, lambda view, _: small_oracle(view, *COARSE))
    grids = [oracle_grid(view) for view in truth]
    for name, made, depths in (
        ("ours, true depth of every pixel", fine, exact),
        ("ours, true depth on the grid", full, grids),
        (f"ours, true depth at {COARSE[0]}x{COARSE[1]}", full, coarse),
    ):
        rights = [made.right(view, found) for view, found in zip(truth, depths, strict=True)]
        rows.append((name, score(rights, truth)))
    for name in engines:
        engine = depth.load(name)
        made = Ours(engine.info.width, engine.info.height)
        estimated = keys(name, len(truth))
        grids = made.grids(truth, lambda _, small, engine=engine: engine.infer(small.rgb[None])[0], estimated)
        rows.append((f"ours, `{name}`", score([made.right(v, g) for v, g in zip(truth, grids, strict=True)], truth)))
        engine.close()
    if checkout:
        for name, method in iw3_methods(checkout).items():
            rows.append((name, score([method(view) for view in truth], truth)))
    lines = ["| right view | PSNR dB | SSIM | SIoU | temporal error, codes |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {s.psnr:.2f} | {s.ssim:.4f} | {s.siou:.3f} | {s.temporal:.2f} |" for name, s in rows]
    return "\n".join(lines)


def depth_table(truth: Sequence[View], engines: Sequence[str]) -> str:
    """AbsRel and delta1 of distance after one fit for each shot; flicker: change of still pixels' depth, x 100.

    All but the raw flicker, for which every frame is estimated, are of depth as a conversion has it.
    """
    lines = ["| engine | AbsRel | delta1 | flicker raw | flicker smoothed |", "|---|---|---|---|---|"]
    for name in engines:
        engine = depth.load(name)
        size = (engine.info.width, engine.info.height)
        made = Ours(*size)
        smalls = [made.small(view) for view in truth]
        raw = [engine.infer(small.rgb[None])[0] for small in smalls]
        soft = [temporal.soften(small.luma) for small in smalls]
        known = [deep if key else None for deep, key in zip(raw, keys(name, len(raw)), strict=True)]
        smooth: list[NDArray[np.float32]] = []
        for index, view in enumerate(truth):
            near = [i for i in range(max(0, index - 8), min(len(truth), index + 9)) if truth[i].shot == view.shot]
            smooth.append(temporal.smooth([known[i] for i in near], [soft[i] for i in near], near.index(index)))
        relative: list[float] = []
        close: list[float] = []
        for shot in sorted({view.shot for view in truth}):
            chosen = [i for i, view in enumerate(truth) if view.shot == shot]
            true = np.concatenate([small_oracle(truth[i], *size).ravel() for i in chosen]).astype(np.float64)
            found = np.concatenate([smooth[i].ravel() for i in chosen]).astype(np.float64)
            basis = np.stack([found, np.ones_like(found)], 1)
            fitted = basis @ np.linalg.lstsq(basis, true, rcond=None)[0]
            # Distance 1 to 10: inverse depth 0 would be infinity.
            z, guess = 1 / (0.1 + 0.9 * true), 1 / np.clip(0.1 + 0.9 * fitted, 0.05, None)
            relative.append(float((np.abs(guess - z) / z).mean()))
            close.append(float((np.maximum(guess / z, z / guess) < 1.25).mean()))
        flicker = [_flicker(depths, soft, truth) for depths in (raw, smooth)]
        lines.append(
            f"| `{name}` | {np.mean(relative):.3f} | {np.mean(close):.3f} | {flicker[0]:.3f} | {flicker[1]:.3f} |"
        )
        engine.close()
    return "\n".join(lines)


def _flicker(
    depths: Sequence[NDArray[np.float32]], soft: Sequence[NDArray[np.float32]], truth: Sequence[View]
) -> float:
    found: list[float] = []
    for index in range(1, len(truth)):
        if truth[index].shot == truth[index - 1].shot:
            still = np.abs(soft[index] - soft[index - 1]) < 1
            if still.any():
                found.append(float(np.abs(depths[index] - depths[index - 1])[still].mean()))
    return 100 * float(np.mean(found))


def seam_table(truth: Sequence[View], engine_name: str) -> str:
    """Largest step of a still cell's disparity at segment edges, % of the width: with our padding, and without any."""
    engine = depth.load(engine_name)
    made = Ours(engine.info.width, engine.info.height)

    def run(first: int, last: int) -> list[NDArray[np.float32]]:
        estimated = keys(engine_name, last - first, first=first)
        return made.grids(truth[first:last], lambda _, small: engine.infer(small.rgb[None])[0], estimated)

    serial = run(0, len(truth))
    rows: list[tuple[str, float, bool]] = []
    for name, pad in (("padded as a conversion does", window.PADDING + 1), ("no padding", 0)):
        pieces: list[NDArray[np.float32]] = []
        for first in range(0, len(truth), SEAM_EVERY):
            last = min(first + SEAM_EVERY, len(truth))
            low = max(0, first - pad)
            pieces += run(low, min(len(truth), last + pad))[first - low :][: last - first]
        worst = max(float(np.abs(a - b).mean()) for a, b in zip(pieces, serial, strict=True)) * DIVERGENCE
        same = all(np.array_equal(a, b) for a, b in zip(pieces, serial, strict=True))
        rows.append((name, worst, same))
    engine.close()
    lines = ["| segments of 7 frames | worst mean difference from serial, % of width | identical |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {worst:.4f} | {'yes' if same else 'no'} |" for name, worst, same in rows)])


def cuts_found(truth: Sequence[View]) -> str:
    made = Ours(192, 112)
    pictures = [made.small(view).thumbnail for view in truth]
    found = [t for t in range(len(truth)) if shots.is_cut(pictures[max(0, t - 3) : t], pictures[t : t + 3])]
    true = [t for t in range(1, len(truth)) if truth[t].shot != truth[t - 1].shot]
    return f"Cuts at {true}, found at {found}."


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--iw3", help="a checkout of nunif, to compare with its weightless methods (needs torch)")
    parser.add_argument("--frames", type=int, default=stereo_set.FRAMES, help="frames of each scene")
    parser.add_argument("--held-out", type=int, default=4, help="scenes by lot; four say little of two networks")
    given = parser.parse_args()
    engines = ["relief", "cues", "flat"]
    held_out = stereo_set.held_out(given.held_out)
    for name, scenes in (("Scenes that were looked at", stereo_set.SCENES), ("Held out", held_out)):
        truth = list(stereo_set.views(given.frames, scenes))
        size = f"{len(scenes)} scenes of {given.frames} frames, {WIDTH}x{HEIGHT}"
        print(f"## {name}: {size}, parallax {DIVERGENCE:.1f} % of the width\n")
        print(view_table(truth, engines, given.iw3), end="\n\n")
        print(depth_table(truth, engines), end="\n\n")
        print(seam_table(truth, engines[0]), end="\n\n")
        print(cuts_found(truth), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
