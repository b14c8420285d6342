"""Whole conversions by our learned engine, and how far its cheaper settings are from the exact ones: for `vs_iw3`."""

from __future__ import annotations

import concurrent.futures
import importlib
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from inference import backends, curves, depth, geometry
from inference.contract import Converted
from inference.depth import motion
from inference.gpu import backend
from stereospot.media import frames, probe
from stereospot.media import plan as planning
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.media.source import FileSource
from stereospot.options import Options

SIZE = (448, 252)
SEED = 20260418


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
    """One engine of ours, loaded and warm; converts a film segment after segment, decoding in the jail.

    flights: segments at work at a time, as a worker of so many slots has them; each with a decoder of its own.
    """

    def __init__(self, engine: str, *, flights: int = 1, every: int = 1, **arguments: Any) -> None:
        self.engine = engine
        self.options = Options(engine=engine)  # type: ignore[arg-type]
        self.divergence = depth.DEFAULT_DIVERGENCE[engine]
        self.backends: list[Any] = [
            backend.load(engine=engine, every=every, **arguments)
            if engine in curves.ENGINES
            else backends.load("local", engine=engine)
            for _ in range(flights)
        ]
        self.stages: dict[str, float] = {}
        self.cpu = 0.0

    def convert(self, source: Path, target: Path) -> float:
        """Seconds from opening the source to the written film; stage times of the last run are kept."""
        began, spent = time.perf_counter(), time.process_time()
        limits, opened = Limits(), FileSource(source)
        info = probe.probe(opened, limits=limits)
        head = planning.head(
            info, self.options, job_id=f"bench-{began}", generation=1, source_key="film", engine=self.engine,
            divergence=self.divergence, output=geometry.output_size(info, self.options.layout), created_at=0.0,
            threads=max(1, (os.cpu_count() or 2) // len(self.backends)),
        )  # fmt: skip
        seconds = 30.0 if len(self.backends) == 1 else 4.0
        cutter = planning.Cutter(info, seconds, curves.support(self.engine, info))
        segments = [s for batch in planning.scan(opened, info, limits=limits) for s in cutter.feed(batch)]
        segments += cutter.finish()[0]
        opened.close()
        self.stages = {}
        with target.open("wb") as out, concurrent.futures.ThreadPoolExecutor(len(self.backends)) as pool:
            # Thread i has segments i, i + n, …: what it decodes lies ahead of it.
            parts = [
                pool.submit(self._some, made, source, head, segments[number :: len(self.backends)])
                for number, made in enumerate(self.backends)
            ]
            fragments = [part.result() for part in parts]
            order = [found for row in itertools.zip_longest(*fragments) for found in row if found is not None]
            for number, made in enumerate(order):
                out.write((made.fragment.init if number == 0 else b"") + made.fragment.media)
                for name, seconds in made.report.stages.items():
                    self.stages[name] = self.stages.get(name, 0.0) + seconds
        self.cpu = time.process_time() - spent
        return time.perf_counter() - began

    def _some(self, made: Any, source: Path, head: Plan, segments: list[Segment]) -> list[Converted]:
        limits, opened = Limits(), FileSource(source)
        try:
            with frames.Decoder(opened, head.decode, head.source, limits=limits) as decoder:
                return [made.convert(decoder=decoder, plan=head, segment=segment) for segment in segments]
        finally:
            opened.close()

    def close(self) -> None:
        for made in self.backends:
            made.close()


def depth_errors(source: Path, models: Path, kinds: list[dict[str, Any]], count: int = 24) -> dict[str, float]:
    """Mean difference from float32 on every frame, in percent of near to far, over the first frames of the film."""
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
        found[label(kind)] = 100 * float(np.abs(depths - exact).mean() / (high - low))
    return found


def label(kind: dict[str, Any]) -> str:
    """What a kind of conversion is called in the tables."""
    return f"{kind['dtype']}, every {kind['every']}th" if "every" in kind else kind["dtype"]
