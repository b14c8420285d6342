"""B2 and B2a: whole conversions beside iw3's, in turn, on the same film: `python bench/vs_iw3.py PATH_TO_CHECKOUT`.

A round is one conversion by iw3 and one by each of ours; ratios are taken within a round.

Both sides run the same network, Depth Anything V2 Small with seeded random weights, at 448 x 252, and write half
side-by-side by x264 veryfast, crf 20. Import, loading and compilation are left out on both sides: each is warmed up on
other frames first. iw3 runs from its checkout in a process of its own (`--python` names its interpreter), through
`iw3_main`, so its loop is the one that its users run. Core-milliseconds, which a busy machine disturbs less than the
clock, leave out our jailed decoder (about 3 a frame at 1080p). Where a GPU answers, both sides run on it too; where
none does, that is said.

    --seconds 3   --pairs 2   --python PYTHON   --width 1920 --height 1080   --only NAME…   --define-nms
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

# In place of the script's own folder, whose modules have names that the standard library has too.
sys.path[0] = str(Path(__file__).resolve().parents[1])

SIZE = (448, 252)
SEED = 20260418
BATCH = 2


# ---- iw3, in its own process --------------------------------------------------------------------------------
def iw3_child(checkout: str, weights: str, device: str, define_nms: bool) -> None:
    """Convert what stdin asks for, one JSON line each, and answer with seconds; runs under iw3's interpreter."""
    sys.path.insert(0, checkout)
    os.environ["NUNIF_HOME"] = checkout
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch: Any = importlib.import_module("torch")
    if define_nms:
        # A torchvision whose extension does not fit this torch: its operators need only exist to be imported.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    utils: Any = importlib.import_module("iw3.utils")
    networks: dict[bool, Any] = {}
    print(json.dumps({"ready": torch.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        arguments = [
            "-i", asked["source"], "-o", asked["target"], "--yes", "--half-sbs", "--method", "backward",
            "--video-codec", "libx264", "--preset", "veryfast", "--crf", "20", "--max-fps", "1000",
            "--batch-size", str(asked["batch"]), "--max-workers", str(asked["workers"]),
            "--gpu", "-1" if device == "cpu" else "0", "--resolution", str(SIZE[1]),
        ]  # fmt: skip
        if not asked["network"]:
            arguments += ["--depth-model", "NULL"]
        args = utils.create_parser(required_true=False).parse_args(arguments)
        if asked["network"] not in networks:
            networks[asked["network"]] = _network(weights) if asked["network"] else None
        utils.set_state_args(args, depth_model=networks[asked["network"]], tqdm_fn=_quiet)
        began, spent = time.perf_counter(), time.process_time()
        utils.iw3_main(args)
        told = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - spent}
        print(json.dumps(told), file=answers, flush=True)


def _quiet(*_: Any, **__: Any) -> Any:
    class Bar:
        def update(self, *_: Any) -> None: ...

        def close(self) -> None: ...

    return Bar()


def _network(weights: str) -> Any:
    """The same network as a depth model of iw3."""
    torch: Any = importlib.import_module("torch")
    base: Any = importlib.import_module("iw3.base_depth_model").BaseDepthModel
    preprocess: Any = importlib.import_module("iw3.depth_anything_model").batch_preprocess
    autocast: Any = importlib.import_module("nunif.device").autocast

    class Same(base):  # type: ignore[misc]
        def load_model(self, model_type: str, resolution: Any = None, device: Any = None) -> Any:
            return _built(weights)

        def infer(self, x: Any, enable_amp: bool = True, **_: Any) -> Any:
            with torch.inference_mode(), autocast(device=x.device, enabled=enable_amp):
                out = self.model(preprocess(x if x.ndim == 4 else x[None], SIZE[1])).predicted_depth
            out = out.float()[:, None]
            return out if x.ndim == 4 else out[0]

        @classmethod
        def get_name(cls) -> str:
            return "Same"

        @classmethod
        def supported(cls, model_type: str) -> bool:
            return True

        has_checkpoint_file = multi_gpu_supported = supported

        @classmethod
        def get_model_path(cls, model_type: str) -> str:
            return ""

        def is_metric(self) -> bool:
            return False

        @classmethod
        def force_update(cls) -> None: ...

    return Same("Same")


def _built(weights: str) -> Any:
    """The network of a folder, by transformers alone."""
    transformers: Any = importlib.import_module("transformers")
    config = transformers.DepthAnythingConfig.from_dict(json.loads((Path(weights) / "config.json").read_text()))
    network = transformers.DepthAnythingForDepthEstimation(config)
    load: Any = importlib.import_module("safetensors.torch").load_file
    network.load_state_dict(load(str(Path(weights) / "model.safetensors")))
    return network.eval()


class Iw3:
    """The child, and the way to ask it for a conversion."""

    def __init__(self, python: str, checkout: Path, weights: Path, device: str, define_nms: bool) -> None:
        command = [python, __file__, "--child", str(checkout), str(weights), device] + ["--define-nms"] * define_nms
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the child)
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self.version = self._answer()["ready"]
        self.cpu = 0.0

    def convert(self, source: Path, target: Path, *, network: bool, workers: int, batch: int = BATCH) -> float:
        """Seconds of one conversion."""
        assert self._child.stdin is not None
        asked = {
            "source": str(source), "target": str(target), "network": network, "workers": workers, "batch": batch,
        }  # fmt: skip
        self._child.stdin.write(json.dumps(asked) + "\n")
        self._child.stdin.flush()
        told = self._answer()
        self.cpu = told["cpu"]
        return told["seconds"]

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(f"iw3 ended:\n{self._log.read()[-2000:]}")
        return json.loads(line)

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self._log.close()


# ---- ours ---------------------------------------------------------------------------------------------------
def write_network(folder: Path) -> Path:
    """Depth Anything V2 Small with seeded weights, as the two files that a real model has."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    backbone = transformers.Dinov2Config(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=518, patch_size=14,
        out_features=["stage3", "stage6", "stage9", "stage12"], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=384, neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64, head_hidden_size=32,
    )  # fmt: skip
    torch.manual_seed(SEED)
    network = transformers.DepthAnythingForDepthEstimation(config)
    place = folder / "small"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(config.to_dict()))
    save: Any = importlib.import_module("safetensors.torch").save_file
    save({name: value.contiguous() for name, value in network.state_dict().items()}, str(place / "model.safetensors"))
    return folder


class Ours:
    """One engine of ours, loaded and warm; converts a film segment after segment, decoding in the jail."""

    def __init__(self, engine: str, **arguments: Any) -> None:
        from inference import backends, curves, depth
        from inference.gpu import backend
        from stereospot.options import Options

        every = arguments.pop("every", 1)
        self.engine = engine
        self.options = Options(engine=engine)  # type: ignore[arg-type]
        self.divergence = depth.DEFAULT_DIVERGENCE[engine]
        if engine in curves.ENGINES:
            self.backend: Any = backend.load(engine=engine, every=every, **arguments)
        else:
            self.backend = backends.load("local", engine=engine)
        self.stages: dict[str, float] = {}
        self.cpu = 0.0

    def convert(self, source: Path, target: Path) -> float:
        """Seconds from opening the source to the written film; stage times of the last run are kept."""
        from inference import geometry
        from stereospot.media import frames, probe
        from stereospot.media import plan as planning
        from stereospot.media.limits import Limits
        from stereospot.media.source import FileSource

        began, spent = time.perf_counter(), time.process_time()
        limits, opened = Limits(), FileSource(source)
        info = probe.probe(opened, limits=limits)
        head = planning.head(
            info, self.options, job_id=f"bench-{began}", generation=1, source_key="film", engine=self.engine,
            divergence=self.divergence, output=geometry.output_size(info, self.options.layout), created_at=0.0,
            threads=os.cpu_count() or 2,
        )  # fmt: skip
        cutter = planning.Cutter(info, 30.0)
        segments = [s for batch in planning.scan(opened, info, limits=limits) for s in cutter.feed(batch)]
        segments += cutter.finish()[0]
        self.stages = {}
        with frames.Decoder(opened, head.decode, info, limits=limits) as decoder, target.open("wb") as out:
            for number, segment in enumerate(segments):
                made = self.backend.convert(decoder=decoder, plan=head, segment=segment)
                out.write((made.fragment.init if number == 0 else b"") + made.fragment.media)
                for name, seconds in made.report.stages.items():
                    self.stages[name] = self.stages.get(name, 0.0) + seconds
        opened.close()
        self.cpu = time.process_time() - spent
        return time.perf_counter() - began

    def close(self) -> None:
        self.backend.close()


# ---- depth errors -------------------------------------------------------------------------------------------
def depth_errors(source: Path, models: Path, kinds: list[dict[str, Any]], count: int = 24) -> dict[str, float]:
    """Mean difference from float32 on every frame, in percent of near to far, over the first frames of the film."""
    import av
    import numpy as np

    from inference import depth
    from inference.depth import motion

    with av.open(str(source), "r") as container:
        shown = [
            f.reformat(*SIZE, "rgb24").to_ndarray()
            for f, _ in zip(container.decode(video=0), range(count), strict=False)
        ]
    rgb = np.stack(shown).astype(np.uint8)
    lumas = [np.ascontiguousarray(picture.mean(2).astype(np.uint8)) for picture in rgb]

    def raw(dtype: str) -> Any:
        engine = depth.load("depth-anything", folder=models, device="cpu", dtype=dtype, size=SIZE, download=False)
        found = engine.infer(rgb)
        engine.close()
        return found

    exact = raw("float32")
    low, high = np.percentile(exact, (1, 99))
    coarse: dict[str, Any] = {"float32": exact}
    found: dict[str, float] = {}
    for kind in kinds:
        dtype, every = kind["dtype"], kind.get("every", 1)
        if dtype not in coarse:
            coarse[dtype] = raw(dtype)
        depths = coarse[dtype]
        if every > 1:
            keyed = [depths[i] if i % every == 0 else None for i in range(count)]
            depths = np.stack(motion.fill(lumas, keyed, [i == 0 for i in range(count)]))  # type: ignore[arg-type]
        found[_label(kind)] = 100 * float(np.abs(depths - exact).mean() / (high - low))
    return found


# ---- the table ----------------------------------------------------------------------------------------------
def main() -> None:
    arguments = _arguments()
    if arguments.child:
        checkout, weights, device = arguments.child
        iw3_child(checkout, weights, device, arguments.define_nms)
        return
    from bench import clips, measure
    from inference.depth import iw3

    if arguments.checkout is None:
        raise SystemExit(__doc__)
    checkout = iw3.find(arguments.checkout)
    film = clips.film(arguments.seconds, arguments.width, arguments.height)
    warm = clips.film(1, arguments.width, arguments.height)
    torch: Any = importlib.import_module("torch")
    cuda = bool(torch.cuda.is_available())
    print(f"{measure.machine()}, torch {torch.__version__}, nunif {iw3.COMMIT[:12]}")
    print(f"GPU: {torch.cuda.get_device_name(0)}" if cuda else "GPU: none answers; the rows for a GPU are left out.")
    with _scratch() as folder:
        models = write_network(folder / "models")
        for device in ("cpu", "cuda") if cuda else ("cpu",):
            print(_device(arguments, checkout, models, folder, film, warm, device), flush=True)


def _device(
    arguments: argparse.Namespace, checkout: Path, models: Path, folder: Path, film: Path, warm: Path, device: str
) -> str:
    """Both tables of one device."""
    from bench import measure

    theirs = Iw3(arguments.python, checkout, models / "small", device, arguments.define_nms)
    frames = _count(film)
    target = folder / "out.mp4"
    batch = BATCH if device == "cpu" else 16
    common: dict[str, Any] = {"folder": models, "device": device, "size": SIZE, "download": False}
    kinds: list[dict[str, Any]] = [{"dtype": "float32"}, {"dtype": "bfloat16"}]
    kinds += [{"dtype": "int8"}] if device == "cpu" else []
    kinds += [{"dtype": kinds[-1]["dtype"], "every": 4}]
    rows: list[list[object]] = []
    stages: list[list[object]] = []
    try:
        settings = [
            (n, batch) for n in ([0, os.cpu_count() or 2] if arguments.workers is None else [arguments.workers])
        ]

        def best(network: bool) -> tuple[int, int]:
            """iw3's better number of workers, found on the warm-up film."""
            timed = {
                pair: theirs.convert(warm, target, network=network, workers=pair[0], batch=pair[1]) for pair in settings
            }
            return min(timed, key=lambda pair: timed[pair])

        def against(ours: dict[str, Ours], network: bool, workers: tuple[int, int], errors: dict[str, str]) -> None:
            """Rounds of iw3 and then each of ours: every round's ratio is taken within that round."""
            for engine in ours.values():
                engine.convert(warm, target)
            taken: list[float] = []
            spent: dict[str, list[float]] = {name: [] for name in ours}
            for _ in range(arguments.pairs):
                taken.append(theirs.convert(film, target, network=network, workers=workers[0], batch=workers[1]))
                for name, engine in ours.items():
                    spent[name].append(engine.convert(film, target))
            for name, engine in ours.items():
                pairs = measure.Pairs(taken, spent[name])
                fps = [frames / statistics.median(seconds) for seconds in (pairs.b, pairs.a)]
                cores = [1000 * cpu / frames for cpu in (engine.cpu, theirs.cpu)]
                beside = f"{fps[1]:.2f} (workers {workers[0]})"
                ratio = cores[1] / cores[0]
                rows.append([name, fps[0], beside, pairs.describe(), *cores, ratio, errors.get(name, "")])
                stages.append([name, *(f"{1000 * engine.stages.get(s, 0) / frames:.1f}" for s in STAGES)])
                engine.close()

        wanted = [k for k in kinds if not arguments.only or _label(k) in arguments.only]
        if wanted:
            differences = depth_errors(film, models, wanted)
            against(
                {_label(kind): Ours("depth-anything", **common, **kind) for kind in wanted},
                True,
                best(True),
                {name: f"{value:.2f} %" for name, value in differences.items()},
            )
        if device == "cpu" and (not arguments.only or "relief" in arguments.only):
            shipped, better = (0, batch), best(False)
            against({"relief, iw3 NULL as shipped": Ours("relief")}, False, shipped, {})
            if better != shipped:
                against({"relief, iw3 NULL best": Ours("relief")}, False, better, {})
    finally:
        theirs.close()
    head = [
        "ours", "ours fps", "iw3 fps", "iw3 time / ours", "ours core-ms a frame", "iw3 core-ms", "iw3 / ours",
        "depth against float32 on every frame",
    ]  # fmt: skip
    title = f"{device}: {frames} frames of {film.name}, half-SBS, x264 veryfast"
    found = measure.table(title, head, rows)
    return (
        found
        + "\n"
        + measure.table("Stages, ms a frame (CPU of a thread; depth and encode: wall)", ["ours", *STAGES], stages)
    )


STAGES = ("decode", "prepare", "sample", "depth", "carry", "smooth", "warp", "encode")


def _label(kind: dict[str, Any]) -> str:
    return f"{kind['dtype']}, every {kind['every']}th" if "every" in kind else kind["dtype"]


def _count(path: Path) -> int:
    import av

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
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
