"""One trainer: what a run of the depth network is made of, and a step of it.

Place in the flow: `train.py` starts as many as share a run. Batches from the
pool (`stream.py`) are augmented (`augment.py`), the network (`network.py`) is
fitted (`losses.py`, `optimisers.py`) under one cosine, an average of the
weights is kept, scored on held-out scene kinds, and saved.

The clock that drives the schedule counts working time: a process that was
stopped or starved for a while carries on where it was.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, multiprocessing

from inference.training import augment, losses, metrics, weights
from inference.training.network import HEIGHT, WIDTH, ReliefNet, parameters
from inference.training.optimisers import optimisers
from inference.training.render import Frame, still
from inference.training.stream import Pool, Stream
from inference.training.textures import make_atlas

STILLS, CLIPS = 8, 4
"""One batch: 8 stills and the 8 frames of 4 clips. Steps are what a run of hours is short of, not pictures."""
SMALL = (80, 144)
"""Picture size of the first phase: twice as fast, objects appear sooner."""
KEPT = 0.9992
"""Share of the average of the weights that each step leaves."""
VALIDATION_SEED = 9_000_001
LONGEST_STEP_SECONDS = 10.0
"""A step that seems to take longer was interrupted; the rest is not counted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides a run."""

    minutes: float
    seed: int = 1
    learning_rate: float = 1.2e-3
    warm_up_steps: int = 200
    weight_decay: float = 0.02
    small_until: float = 0.0
    """Share of the schedule at the small size (0.4 from scratch)."""
    edge_weight: float = 0.4
    edges_from: float = 0.0
    """Share of the schedule after which the edge term fades in (0.08 from scratch)."""
    reuse: float = 10.0
    """Most times a sample is drawn on average: beyond it the trainer waits for the renderers."""
    least_reuse: float = 6.0
    """Fewest times: below it the renderers wait, and leave their cores to the trainer."""
    first_frames: int = 4000
    """What is rendered before the renderers are held back."""
    renderers: int = 1
    threads: int = 1
    processes: int = 1
    """Trainers that share each step, one batch each: two threads of one trainer are hardly faster than one."""
    textures: int = 320
    validation: int = 96
    report_seconds: float = 60.0
    score_seconds: float = 420.0


def rate(plan: Plan, step: int, progress: float) -> float:
    """Learning rate: linear warm-up, then half a cosine down to 1 %."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return plan.learning_rate * min(1.0, (step + 1) / plan.warm_up_steps) * (0.99 * cosine + 0.01)


def half_precision(device: torch.device) -> bool:
    """Whether bfloat16 is worth it: a CPU without instructions for it takes seven times as long with it."""
    if device.type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))


@torch.no_grad()
def keep_average(average: torch.nn.Module, network: torch.nn.Module, keep: float) -> None:
    """Move the average of all weights and statistics a step towards the network's; counts are taken over."""
    for mine, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(new, 1 - keep)
        else:
            mine.copy_(new)


class Trainer:
    """One run: the network, its average, the optimisers, the clock. Its process is in a group, be it of one."""

    def __init__(self, plan: Plan, out: Path, rank: int = 0) -> None:
        """rank: of `plan.processes`; all but the first are silent and hand their gradients over."""
        self.plan, self.out, self.rank = plan, out, rank
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(plan.seed)
        torch.set_num_threads(plan.threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.half = half_precision(self.device)
        self.network = ReliefNet().to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval()
        self.optimisers = optimisers(self.network, plan.learning_rate, plan.weight_decay)
        self.step, self.progress, self.started_at = 0, 0.0, 0.0
        self.since_start, self.clock = 0, 0.0
        self.generator = torch.Generator().manual_seed(plan.seed + 7 * rank)
        self.rng = np.random.default_rng(plan.seed + 7 * rank)
        self.asked_to_stop = self.stopping = False

    def initialise(self, path: Path, pool: Pool) -> None:
        """Start from an exported model, or from the average of another run's checkpoint."""
        if path.suffix == ".onnx":
            filled = weights.load_onnx(self.network, path)
            rgb = self._pictures(pool.draw(np.random.default_rng(0), 192, 1)[0])
            self.log(action="cooled", score_ranges=weights.cool(self.network, rgb))
            weights.calibrate(self.network, rgb)
        else:
            filled = torch.load(path, weights_only=True, map_location="cpu")["average"]
            self.network.load_state_dict(filled, strict=False)  # parts that the run did not have stay new
        self.average.load_state_dict(self.network.state_dict())
        count = sum(value.numel() for name, value in self.network.named_parameters() if name in filled)
        self.log(action="initialised", source=path.name, parameters=count, of=parameters(self.network))

    def save(self, name: str = "checkpoint.pt") -> None:
        """Write atomically, so that a kill leaves the last good checkpoint."""
        state = {
            "network": self.network.state_dict(), "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step, "progress": self.progress, "plan": asdict(self.plan),
            "generator": self.generator.get_state(),
        }  # fmt: skip
        partial = self.out / (name + ".part")
        torch.save(state, partial)
        os.replace(partial, self.out / name)

    def resume(self) -> bool:
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True, map_location="cpu")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        if self.rank == 0:
            self.generator.set_state(state["generator"])
        else:
            self.generator.manual_seed(self.plan.seed + 7 * self.rank + state["step"])
        self.step, self.progress = state["step"], state["progress"]
        self.plan = replace(self.plan, edges_from=state["plan"]["edges_from"])
        self.started_at = self.clock = self.progress
        self.rng = np.random.default_rng(self.plan.seed + self.step + 7 * self.rank)
        self.log(action="resumed", step=self.step, progress=round(self.progress, 4))
        return True

    def log(self, **fields: object) -> None:
        if self.rank:
            return
        line = json.dumps(fields)
        print(line, flush=True)
        with open(self.out / "log.jsonl", "a") as file:
            file.write(line + "\n")

    def _pictures(self, rgb: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(rgb).to(self.device).permute(0, 3, 1, 2).float() / 255
        return tensor.contiguous(memory_format=torch.channels_last)

    def train_step(self, pool: Pool) -> losses.Parts:
        plan = self.plan
        rgb8, inverse16, back16, flow16 = pool.draw(self.rng, STILLS, CLIPS)
        size = SMALL if self.progress < plan.small_until else (HEIGHT, WIDTH)
        rgb = torch.from_numpy(rgb8).permute(0, 3, 1, 2).float() / 255
        inverse, back, flow = (torch.from_numpy(given).float() for given in (inverse16, back16, flow16))
        rgb, inverse, back, flow = augment.geometry(rgb, inverse, back, flow, CLIPS, size, self.generator)
        rgb = augment.colour(rgb, CLIPS, self.generator)
        rgb = rgb.to(self.device).contiguous(memory_format=torch.channels_last)
        inverse, back, flow = (values.to(self.device) for values in (inverse, back, flow))
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate(plan, self.step, self.progress)
        fade = 1.0 if plan.edges_from <= 0 else min(1.0, max(0.0, (self.progress - plan.edges_from) / 0.3))
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            relief, spread, card = self.network(rgb)
        parts = losses.total(relief, spread, card.float(), inverse, back, flow, CLIPS, plan.edge_weight * fade)
        self.network.zero_grad(set_to_none=True)
        parts.total.backward()
        self._share()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.since_start += 1
        keep_average(self.average, self.network, min(KEPT, (1 + self.step) / (10 + self.step)))
        return parts

    @torch.no_grad()
    def agree(self) -> None:
        """All processes begin with the first one's network: each was calibrated on pictures of its own."""
        for value in (*self.network.state_dict().values(), *self.average.state_dict().values()):
            told = value.cpu()
            distributed.broadcast(told, 0)
            value.copy_(told)

    @torch.no_grad()
    def _share(self) -> None:
        """Take the mean of all processes' gradients, and the first one's clock and wish to stop, in one exchange.

        What all learn at once they also obey at once: none waits for another that has left.
        """
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        told = torch.tensor([self.clock, float(self.asked_to_stop)]) * (self.rank == 0)
        flat = torch.cat([*(g.flatten().cpu() for g in gradients), told])
        distributed.all_reduce(flat)
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient) / self.plan.processes)
            at += gradient.numel()
        self.progress, self.stopping = float(flat[-2]), bool(flat[-1] > 0)

    def should_stop(self) -> bool:
        """Whether the first process was asked to stop; all ask at once."""
        told = torch.tensor([float(self.asked_to_stop and self.rank == 0)])
        distributed.all_reduce(told)
        return bool(told > 0)

    def gathered(self, pids: list[int]) -> list[int]:
        """The process ids of all trainers and their renderers."""
        everyone: list[list[int]] = [pids] * self.plan.processes
        distributed.all_gather_object(everyone, pids)
        return [pid for one in everyone for pid in one]

    @torch.inference_mode()
    def scores(self, sets: dict[str, list[Frame]]) -> dict[str, list[float]]:
        out = {}
        for name, frames in sets.items():
            results = []
            for start in range(0, len(frames), 32):
                part = frames[start : start + 32]
                relief = self.average(self._pictures(np.stack([f.rgb for f in part])))[0].cpu().numpy()
                results += [
                    metrics.score(r, f.inverse, np.random.default_rng(start + i))
                    for i, (r, f) in enumerate(zip(relief, part, strict=True))
                ]
            out[name] = [round(v, 4) for v in metrics.mean(results)]
        return out

    def _feed(self, pool: Pool, stream: Stream) -> None:
        """Take what was rendered, as far as it is needed, and wait where too little was."""
        drawn = self.since_start * (STILLS + 2 * CLIPS)
        if drawn > self.plan.reuse * pool.frames:
            pool.fill(stream, 5.0)
        elif pool.frames < self.plan.first_frames or drawn > self.plan.least_reuse * pool.frames:
            pool.fill(stream)

    def run(self, pool: Pool, stream: Stream) -> None:
        plan = self.plan
        sets: dict[str, list[Frame]] = {}
        if self.rank == 0:
            atlas, rng = make_atlas(VALIDATION_SEED, min(160, plan.textures)), np.random.default_rng(VALIDATION_SEED)
            sets["held_out"] = [still(rng, atlas, held_out=True) for _ in range(plan.validation)]
            sets["seen_kinds"] = [still(rng, atlas) for _ in range(plan.validation)]
        self.log(action="scored", step=self.step, **self.scores(sets))
        names = ("aligned", "direct", "edges", "steadiness", "spread", "order", "ratio", "card")
        totals, steps = np.zeros(len(names)), 0
        reported = scored = saved = last = time.monotonic()
        worked, parent = 0.0, multiprocessing.parent_process()
        while self.progress < 1 and not self.stopping:
            if parent is not None and not parent.is_alive():
                self.asked_to_stop = True
            if not self.asked_to_stop:  # else the renderers may have been told, too
                self._feed(pool, stream)
            parts = self.train_step(pool)
            now = time.monotonic()
            worked += min(now - last, LONGEST_STEP_SECONDS)
            last = now
            self.clock = self.started_at + (1 - self.started_at) * min(1.0, worked / (plan.minutes * 60))
            totals += [float(getattr(parts, name).detach()) for name in names]
            steps += 1
            if now - reported > plan.report_seconds:
                self.log(
                    action="trained", step=self.step, progress=round(self.progress, 4), minutes=round(worked / 60, 2),
                    frames=pool.frames, rate=round(plan.processes * steps * (STILLS + 2 * CLIPS) / (now - reported), 1),
                    **dict(zip(names, np.round(totals / steps, 4).tolist(), strict=True)),
                )  # fmt: skip
                totals[:], steps, reported = 0, 0, now
            if self.rank:
                continue
            if now - saved > 120:
                self.save()
                saved = now
            if now - scored > plan.score_seconds:
                self.log(action="scored", step=self.step, progress=round(self.progress, 4), **self.scores(sets))
                scored = last = time.monotonic()
        if self.rank:
            return
        self.save()
        self.log(action="stopped" if self.stopping else "finished", step=self.step, **self.scores(sets))
