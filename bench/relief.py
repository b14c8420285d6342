"""How good the relief engine is: `python -m bench.relief [--prototype FILE]`; in pictures: `bench.relief_sheets`.

In turn: rendered scenes of kinds that were never trained on, and of kinds that were (scores against exact truth, for a
ramp, the cues, a prototype and relief); moving objects before a fixed camera, in a real clip and in rendered ones;
flicker on static pixels, raw and after the shared temporal filter; title cards; seams, shots and the stereo views of
`bench.quality`; time, bytes, import.

The scenes come from `inference/training` (numba and Pillow, no torch); the real clips lie beside the checkout.
"""

# pyright: reportMissingImports=false
# (Pillow belongs to the training tools, not to the application)
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib import resources
from itertools import cycle
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bench import quality, stereo_set
from bench.measure import machine
from inference import depth, prepare, temporal
from inference.training import metrics, scenes
from inference.training.render import HEIGHT, WIDTH, Frame, still, walk
from inference.training.textures import Atlas, make_atlas
from stereospot.errors import StereoSpotError
from stereospot.media.model import Bars, Colour

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"
Pictures = NDArray[np.uint8]
Reliefs = NDArray[np.float32]
Method = Callable[[Pictures], Reliefs]
"""rgb [n, 112, 192, 3] to relief [n, 112, 192], 0 far to 1 near."""

SEED = 31_337
LUMA = np.array((0.299, 0.587, 0.114), np.float32)


def _resized(values: Reliefs) -> Reliefs:
    """To the bench's size, for engines that work at another."""
    if values.shape[1:] == (HEIGHT, WIDTH):
        return values
    scaled = [np.asarray(Image.fromarray(v).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)) for v in values]
    return np.stack(scaled)


def _engine(name: str) -> Method:
    engine = depth.load(name)

    def run(rgb: Pictures) -> Reliefs:
        info = engine.info
        if (info.height, info.width) != (HEIGHT, WIDTH):
            rgb = np.stack([np.asarray(Image.fromarray(p).resize((info.width, info.height))) for p in rgb])
        return _resized(engine.infer(rgb))

    return run


def _prototype(path: Path) -> Method:
    """The first prototype's file: float32 [1, 3, 112, 192] in 0..1 to [1, 112, 192]."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(rgb: Pictures) -> Reliefs:
        scaled = rgb.transpose(0, 3, 1, 2).astype(np.float32) / 255
        return np.stack([np.asarray(session.run(None, {name: p[None]})[0])[0] for p in scaled])

    return run


def _ramp(rgb: Pictures) -> Reliefs:
    column = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None]
    return np.broadcast_to(column, (len(rgb), HEIGHT, WIDTH)).copy()


def methods(prototype: Path | None) -> dict[str, Method]:
    found: dict[str, Method] = {"ramp": _ramp}
    try:
        found["cues"] = _engine("cues")
    except StereoSpotError as error:
        print(f"cues: left out ({error})")
    if prototype:
        found["prototype"] = _prototype(prototype)
    found["relief"] = _engine("relief")
    return found


def synthetic(found: dict[str, Method], atlas: Atlas, count: int) -> dict[str, object]:
    """Scores on rendered scenes; held-out kinds first."""
    result: dict[str, object] = {}
    for title, held_out in (("held-out kinds", True), ("kinds trained on", False)):
        rng = np.random.default_rng(SEED)
        kinds = [k for k in scenes.names(held_out=held_out) if not k.endswith("_card")]
        frames = [still(rng, atlas, kinds[i % len(kinds)]) for i in range(count)]
        print(f"\n{title}: {count} rendered scenes    L1 inv   AbsRel   delta1   pair order")
        orders: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for name, run in found.items():
            scores = _scores(run, frames)
            for frame, score in zip(frames, scores, strict=True):
                orders[frame.kind][name].append(score.order)
            mean = metrics.mean(scores)
            result[f"{title}/{name}"] = mean._asdict()
            print(f"  {name:28s} {mean.error:8.4f} {mean.abs_rel:8.4f} {mean.delta1:8.4f} {mean.order:8.4f}")
        for kind, by_name in orders.items():
            row = "  ".join(f"{name} {np.nanmean(values):.3f}" for name, values in by_name.items())
            print(f"    order, {kind:14s} {row}")
    return result


def _scores(run: Method, frames: list[Frame]) -> list[metrics.Score]:
    relief = run(np.stack([f.rgb for f in frames]))
    return [
        metrics.score(r, f.inverse, np.random.default_rng(i))
        for i, (r, f) in enumerate(zip(relief, frames, strict=True))
    ]


def clip_frames(path: Path, every: int = 1) -> Pictures:
    """A clip's frames at the network's size, area-averaged."""
    frames: list[Pictures] = []
    with av.open(str(path)) as file:
        for number, frame in enumerate(file.decode(video=0)):
            if number % every == 0:
                small = frame.reformat(WIDTH, HEIGHT, "rgb24", interpolation="AREA")
                frames.append(small.to_ndarray().astype(np.uint8, copy=False))
    return np.stack(frames)


def clip_rate(path: Path) -> Fraction:
    """A clip's frames a second."""
    with av.open(str(path)) as file:
        return file.streams.video[0].average_rate or stereo_set.RATE


def _grow(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    picture = Image.fromarray((mask * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.MaxFilter(2 * pixels + 1))) > 127


def _shrink(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    return ~_grow(~mask, pixels)


def moving_masks(frames: Pictures) -> Iterator[NDArray[np.bool_]]:
    """What differs from the median background and also moves (so no ghost of what stood there for long).

    Each frame is first brought to the background's exposure: a camera's automatic exposure follows the objects.
    """
    grey = frames.astype(np.float32).mean(-1) + 1
    background = np.median(grey[:: max(1, len(grey) // 80)], axis=0)
    grey *= np.median(background / grey, axis=(1, 2))[:, None, None]
    for t, picture in enumerate(grey):
        away = np.abs(picture - background) > 16
        moves = np.abs(picture - grey[max(0, t - 5)]) + np.abs(picture - grey[min(len(grey) - 1, t + 5)]) > 22
        mask = away & _grow(_shrink(moves, 1), 9)
        yield _grow(_shrink(mask, 3), 3)


def _judged(mask: NDArray[np.bool_]) -> bool:
    return 0.02 < mask.mean() < 0.35


def margin(relief: Reliefs, mask: NDArray[np.bool_]) -> float | None:
    """Mean relief inside the mask less that of a ring around it, in units of the frame's 2..98 % range."""
    ring = _grow(mask, 8) & ~_grow(mask, 2)
    if not _judged(mask) or ring.sum() < 40:
        return None
    low, high = np.percentile(relief, (2, 98))
    return float((relief[mask].mean() - relief[ring].mean()) / max(high - low, 1e-3))


def moving_objects(reliefs: dict[str, Reliefs], masks: list[NDArray[np.bool_]], title: str) -> dict[str, object]:
    """The share of frames in which the mover is nearer than its surroundings, and by how much."""
    result: dict[str, object] = {}
    print(f"\nmoving object, {title}:    nearer   margin   10 % of margins    frames")
    for name, relief in reliefs.items():
        values = [m for r, mask in zip(relief, masks, strict=True) if (m := margin(r, mask)) is not None]
        _tell(result, f"{title}/{name}", values)
    return result


def _tell(result: dict[str, object], key: str, margins: list[float]) -> None:
    if not margins:
        return
    right, mean = float(np.mean(np.array(margins) > 0)), float(np.mean(margins))
    low = float(np.percentile(margins, 10))
    result[key] = {"nearer": right, "margin": mean, "p10": low, "frames": len(margins)}
    print(f"  {key.rpartition('/')[2]:28s} {right:8.3f} {mean:8.3f} {low:8.3f} {len(margins):8d}")


def over_the_ground(reliefs: dict[str, Reliefs], masks: list[NDArray[np.bool_]], title: str) -> dict[str, object]:
    """The same against what the mover covers, as it is in the frames in which nothing moves: a ring lies lower in the
    picture than a car that leaves at its top, where the road is nearer."""
    result: dict[str, object] = {}
    empty = np.array([mask.mean() <= 0.01 for mask in masks])
    if not empty.any():
        return result
    print(f"\nmoving object before what it covers, {title}:    nearer   margin   10 % of margins    frames")
    for name, relief in reliefs.items():
        ground, values = relief[empty].mean(0), list[float]()
        for picture, mask in zip(relief, masks, strict=True):
            if _judged(mask):
                low, high = np.percentile(picture, (2, 98))
                values.append(float((picture - ground)[mask].mean() / max(high - low, 1e-3)))
        _tell(result, f"{title}, over the ground/{name}", values)
    return result


def smoothed(relief: Reliefs, lumas: list[NDArray[np.float32]], estimated: list[bool]) -> Reliefs:
    """What the product's temporal filter makes of a shot's reliefs, of which it has those that are `estimated`."""
    out = np.empty_like(relief)
    known = [deep if key else None for deep, key in zip(relief, estimated, strict=True)]
    for t in range(len(relief)):
        low, high = max(0, t - temporal.RADIUS), min(len(relief), t + temporal.RADIUS + 1)
        out[t] = temporal.smooth(known[low:high], lumas[low:high], t - low)
    return out


def steadiness(
    reliefs: dict[str, Reliefs], frames: Pictures, masks: list[NDArray[np.bool_]], title: str, rate: Fraction
) -> dict[str, object]:
    """Flicker of static pixels (mean change from frame to frame, x 100), raw (every frame estimated) and after the
    temporal filter (those that a conversion estimates at this rate), and how far the background moves when an object is
    there (mean over background pixels, frames with against frames without)."""
    result: dict[str, object] = {}
    static = np.abs(np.diff(frames.astype(np.float32).mean(-1), axis=0)) < 2.5
    occupied = np.array([m.mean() > 0.01 for m in masks])
    print(f"\nsteadiness, {title}:    flicker x100   filtered   ground moves with an object x100")
    lumas = [temporal.soften(np.ascontiguousarray(f @ LUMA).astype(np.uint8)) for f in frames]
    for name, relief in reliefs.items():
        estimated = quality.keys(name, len(relief), rate)
        flicker = float(np.abs(np.diff(relief, axis=0))[static].mean() * 100)
        filtered = float(np.abs(np.diff(smoothed(relief, lumas, estimated), axis=0))[static].mean() * 100)
        jump = float("nan")
        if occupied.any() and (~occupied).any():
            empty = relief[~occupied].mean(0)
            moves = [np.abs(relief[i] - empty)[~_grow(masks[i], 6)].mean() for i in np.flatnonzero(occupied)]
            still_there = np.abs(relief[~occupied] - empty).mean()
            jump = float((np.mean(moves) - still_there) * 100)
        result[f"{title}/{name}"] = {"flicker_x100": flicker, "filtered_x100": filtered, "jump_x100": jump}
        print(f"  {name:28s} {flicker:8.3f} {filtered:8.3f} {jump:8.2f}")
    return result


CARDS = {
    "cards": ("caption_card", "title_card"),
    "slides and screens": ("slide_card", "screen_card"),
    "patterns": ("graphic_card",),
}


def cards(found: dict[str, Method], atlas: Atlas, count: int = 30) -> dict[str, object]:
    """Range of relief (2..98 %) on title cards and captions, slides and screens, where none is right; and on patterns
    with a logo at most, some of which nobody could tell from a wall."""
    result: dict[str, object] = {}
    for title, kinds in CARDS.items():
        rng = np.random.default_rng(SEED + 1)
        frames = np.stack([still(rng, atlas, kind).rgb for kind in kinds * count])
        print(f"\n{title}, {len(frames)}: range of relief, mean / worst, within 0.10")
        for name, run in found.items():
            low, high = np.percentile(run(frames), (2, 98), axis=(1, 2))
            spread = high - low
            result[f"{title}/{name}"] = {
                "mean": float(spread.mean()),
                "worst": float(spread.max()),
                "within": float((spread <= 0.1).mean()),
            }
            print(f"  {name:28s} {spread.mean():8.3f} {spread.max():8.3f} {(spread <= 0.1).mean():8.2f}")
    return result


def cost(atlas: Atlas) -> dict[str, object]:
    """Milliseconds of one core a frame, bytes of the model, seconds to import and load."""
    engine = depth.load("relief")
    rng = np.random.default_rng(SEED)
    pictures = cycle([still(rng, atlas).rgb[None] for _ in range(20)])  # attention's time depends on what is seen
    planes = tuple(np.full(size, 128, np.uint8) for size in ((1080, 1920), (540, 960), (540, 960)))
    preparer = prepare.Preparer(1920, 1080, "yuv420p", Colour(), Bars(), WIDTH, HEIGHT)
    times: dict[str, float] = {}

    def network() -> object:
        return engine.infer(next(pictures))

    def small() -> object:
        return preparer.prepare(planes)

    for name, work in (("network, bytes to relief", network), ("1080p to 192 x 112 and RGB", small)):
        taken: list[float] = []
        for _ in range(220):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        times[name] = float(np.median(taken[20:]) * 1e3)
        print(f"  {name:34s} {times[name]:8.2f} ms (best {min(taken) * 1e3:.2f})")
    code = (
        "import time; start = time.perf_counter(); from inference import depth; depth.load('relief'); "
        "print(time.perf_counter() - start)"
    )
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    size = len(resources.files("inference.depth").joinpath("relief.onnx").read_bytes())
    print(f"  model {size / 1e6:.2f} MB; import and load {float(started.stdout):.2f} s; {machine()}")
    return {"milliseconds": times, "model_bytes": size, "load_seconds": float(started.stdout)}


WALKS = {
    "96 rendered clips": ("room", "wall", "plain_ground", "street", "table_top", "stairs") * 16,
    "96 rendered clips from above": ("traffic", "above") * 48,
}
"""Scene kinds of the rendered clips; the second set says what exact depth scores where the car clip's camera stands.
With 18 and 16 of them a few frames decided which of two networks was better."""


def rendered_walks(found: dict[str, Method], atlas: Atlas, title: str) -> dict[str, object]:
    frames: list[Pictures] = []
    masks: list[NDArray[np.bool_]] = []
    truth: list[Reliefs] = []
    for number, kind in enumerate(WALKS[title]):
        for frame, mask in walk(np.random.default_rng(SEED + number), atlas, kind, 9):
            frames.append(frame.rgb)
            truth.append(frame.inverse.astype(np.float32))
            masks.append(mask)
    pictures = np.stack(frames)
    reliefs = {name: run(pictures) for name, run in found.items()}
    return moving_objects({"truth": np.stack(truth)} | reliefs, masks, title)


def stereo() -> dict[str, object]:
    """The product's own stages on the exact stereo set: views, depth over time, segment seams, shots."""
    truth, engines = list(stereo_set.views(stereo_set.FRAMES)), ["relief", "cues", "flat"]
    tables = {
        "views": quality.view_table(truth, engines, None),
        "depth": quality.depth_table(truth, engines),
        "seams": quality.seam_table(truth, "relief"),
        "shots": quality.cuts_found(truth),
    }
    for title, table in tables.items():
        print(f"\nstereo set, {title}:\n{table}")
    return {f"stereo/{title}": table for title, table in tables.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the relief engine.")
    parser.add_argument("--prototype", type=Path, help="ONNX file of the first prototype, to compare with")
    parser.add_argument("--scenes", type=int, default=300, help="rendered scenes in each set")
    parser.add_argument("--media", type=Path, nargs="*", help="clips of a fixed camera (default: the car clip)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args(arguments)
    found, atlas = methods(given.prototype), make_atlas(SEED, 160)
    figures: dict[str, object] = {"machine": machine()}
    figures.update(synthetic(found, atlas, given.scenes))
    for title in WALKS:
        figures.update(rendered_walks(found, atlas, title))
    for path in given.media if given.media is not None else [MEDIA / "car-detection.mp4"]:
        if not path.exists():
            print(f"\n{path.name}: not there, left out")
            continue
        frames = clip_frames(path)
        masks = list(moving_masks(frames))
        reliefs = {name: run(frames) for name, run in found.items()}
        figures.update(moving_objects(reliefs, masks, path.stem))
        figures.update(over_the_ground(reliefs, masks, path.stem))
        figures.update(steadiness(reliefs, frames, masks, path.stem, clip_rate(path)))
    figures.update(cards(found, atlas))
    figures.update(stereo())
    print("\ncost, one core:")
    figures["cost"] = cost(atlas)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
