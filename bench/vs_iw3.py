"""B2 and B2a: whole conversions beside iw3's, in turn, on the same film: `python bench/vs_iw3.py PATH_TO_CHECKOUT`.

A round is one conversion by iw3 and one by each of ours; ratios are taken within a round.

Both sides run the same network, Depth Anything V2 Small with seeded random weights, at 448 x 252, and write half
side-by-side by x264 veryfast, crf 20. Import, loading and compilation are left out on both sides: each is warmed up on
other frames first. iw3 runs from its checkout in a process of its own (`--python` names its interpreter), through
`iw3_main`, so its loop is the one that its users run. Core-milliseconds, which a busy machine disturbs less than the
clock, leave out our jailed decoder (about 3 a frame at 1080p). Where a GPU answers, both sides run on it too, ours with
two segments in flight; where none does, that is said.

    --seconds 3   --pairs 2   --python PYTHON   --width 1920   --height 1080   --only NAME…   --device cpu|cuda
    --workers N   --define-nms
"""

# ruff: noqa: E402 (the path of imports is put right first)

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import statistics
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# In place of the script's own folder, whose modules have names that the standard library has too.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import av

from bench import clips, measure
from bench.iw3_peer import BATCH, Iw3
from bench.learned import SIZE, Ours, depth_errors, label, write_network
from inference.depth import iw3

GPU_BATCH = 16
GPU_FLIGHTS = 2

STAGES = ("decode", "prepare", "sample", "depth", "carry", "smooth", "warp", "encode")


def main() -> None:
    arguments = _arguments()
    if arguments.checkout is None:
        raise SystemExit(__doc__)
    checkout = iw3.find(arguments.checkout)
    film = clips.film(arguments.seconds, arguments.width, arguments.height)
    warm = clips.film(1, arguments.width, arguments.height)
    torch: Any = importlib.import_module("torch")
    cuda = bool(torch.cuda.is_available())
    print(f"{measure.machine()}, torch {torch.__version__}, nunif {iw3.COMMIT[:12]}")
    print(f"GPU: {torch.cuda.get_device_name(0)}" if cuda else "GPU: none answers; the rows for a GPU are left out.")
    devices = [name for name in ("cpu", "cuda") if arguments.device in (None, name) and (cuda or name == "cpu")]
    with _scratch() as folder:
        models = write_network(folder / "models")
        for device in devices:
            print(_device(arguments, checkout, models, folder, film, warm, device), flush=True)


@dataclass(frozen=True, slots=True)
class Match:
    """iw3 on one device, the films of both sides, and the rows of the two tables so far."""

    theirs: Iw3
    film: Path
    warm: Path
    target: Path
    pairs: int
    frames: int
    rows: list[list[object]] = field(default_factory=list[list[object]])
    stages: list[list[object]] = field(default_factory=list[list[object]])


def _device(
    arguments: argparse.Namespace, checkout: Path, models: Path, folder: Path, film: Path, warm: Path, device: str
) -> str:
    """Both tables of one device."""
    theirs = Iw3(arguments.python, checkout, models / "small", device, arguments.define_nms)
    match = Match(theirs, film, warm, folder / "out.mp4", arguments.pairs, _count(film))
    batch = BATCH if device == "cpu" else GPU_BATCH
    common: dict[str, Any] = {"folder": models, "device": device, "size": SIZE, "download": False}
    common["flights"] = 1 if device == "cpu" else GPU_FLIGHTS
    kinds: list[dict[str, Any]] = [{"dtype": "float32"}, {"dtype": "bfloat16"}]
    kinds += [{"dtype": "int8"}] if device == "cpu" else []
    kinds += [{"dtype": kinds[-1]["dtype"], "every": 4}]
    try:
        workers = [0, os.cpu_count() or 2] if arguments.workers is None else [arguments.workers]
        settings = [(number, batch) for number in workers]
        wanted = [k for k in kinds if not arguments.only or label(k) in arguments.only]
        if wanted:
            differences = depth_errors(film, models, wanted)
            _against(
                match,
                {label(kind): Ours("depth-anything", **common, **kind) for kind in wanted},
                True,
                _best(match, settings, True),
                {name: f"{value:.2f} %" for name, value in differences.items()},
            )
        if device == "cpu" and (not arguments.only or "relief" in arguments.only):
            shipped, better = (0, batch), _best(match, settings, False)
            _against(match, {"relief, iw3 NULL as shipped": Ours("relief")}, False, shipped, {})
            if better != shipped:
                _against(match, {"relief, iw3 NULL best": Ours("relief")}, False, better, {})
    finally:
        theirs.close()
    head = [
        "ours", "ours fps", "iw3 fps", "iw3 time / ours", "ours core-ms a frame", "iw3 core-ms", "iw3 / ours",
        "depth against float32 on every frame",
    ]  # fmt: skip
    title = f"{device}: {match.frames} frames of {film.name}, half-SBS, x264 veryfast"
    spent = "Stages, ms a frame (CPU of a thread; depth and encode: wall)"
    return measure.table(title, head, match.rows) + "\n" + measure.table(spent, ["ours", *STAGES], match.stages)


def _best(match: Match, settings: Sequence[tuple[int, int]], network: bool) -> tuple[int, int]:
    """The pair of workers and batch with which iw3 is quicker, found on the warm-up film."""
    timed = {
        pair: match.theirs.convert(match.warm, match.target, network=network, workers=pair[0], batch=pair[1])
        for pair in settings
    }
    return min(timed, key=lambda pair: timed[pair])


def _against(
    match: Match, ours: dict[str, Ours], network: bool, workers: tuple[int, int], errors: dict[str, str]
) -> None:
    """Rounds of iw3 and then each of ours: every round's ratio is taken within that round."""
    theirs, frames = match.theirs, match.frames
    for engine in ours.values():
        engine.convert(match.warm, match.target)
    taken: list[float] = []
    spent: dict[str, list[float]] = {name: [] for name in ours}
    for _ in range(match.pairs):
        taken.append(theirs.convert(match.film, match.target, network=network, workers=workers[0], batch=workers[1]))
        for name, engine in ours.items():
            spent[name].append(engine.convert(match.film, match.target))
    for name, engine in ours.items():
        pairs = measure.Pairs(taken, spent[name])
        fps = [frames / statistics.median(seconds) for seconds in (pairs.b, pairs.a)]
        cores = [1000 * cpu / frames for cpu in (engine.cpu, theirs.cpu)]
        beside = f"{fps[1]:.2f} (workers {workers[0]})"
        ratio = cores[1] / cores[0]
        match.rows.append([name, fps[0], beside, pairs.describe(), *cores, ratio, errors.get(name, "")])
        match.stages.append([name, *(f"{1000 * engine.stages.get(s, 0) / frames:.1f}" for s in STAGES)])
        engine.close()


def _count(path: Path) -> int:
    with av.open(str(path), "r") as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


@contextlib.contextmanager
def _scratch() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="stereospot-vs-iw3-") as folder:
        yield Path(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--python", default=os.environ.get("STEREOSPOT_IW3_PYTHON") or sys.executable)
    parser.add_argument("--workers", type=int, help="of iw3; else the better of 0 and the number of cores is found")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--define-nms", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="this one only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
