"""Train what tells cards from scenes, alone: `python -m inference.training.cards --init … --minutes … --out folder`.

Place in the flow: after `train.py`, before `export.py`, to which it leaves a
checkpoint. All but `ReliefNet.letters` and `.card` stays as it is, so relief
does not change and a picture costs a tenth of what it costs `train.py`. Half of
the pictures are cards, and many scenes have writing on them.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from inference.training import augment, scenes, weights
from inference.training.network import HEIGHT, WIDTH, ReliefNet
from inference.training.render import BACK, still
from inference.training.textures import Atlas, make_atlas
from inference.training.trainer import Plan, keep_average, rate

CHUNK, BATCH, POOL = 32, 64, 24_000
COVERED = 0.35
"""Share of scenes with writing or a logo on them: those that are most like cards."""
ALIKE = ("showing", "team", "flat_lay", "studio", "blocks")
"""Kinds of scenes that are most like cards; half of the scenes are of these."""
KEPT = 0.998
"""Share of the average of the weights that each step leaves."""
USES = 4
"""Times a picture is drawn on average before the trainer waits for new ones."""
_atlas: dict[int, Atlas] = {}


def _chunk(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pictures [32, h, w, 3], of which every other one is a card, and which are."""
    rng, family = np.random.default_rng(seed), seed // 64
    if family not in _atlas:
        _atlas.clear()
        _atlas[family] = make_atlas(family, 160)
    cards = [kind for kind in scenes.names() if kind.endswith("_card")]
    others = [kind for kind in scenes.names() if kind not in cards]
    pictures = []
    for place in range(CHUNK):
        kind = str(rng.choice(ALIKE)) if place % 4 == 1 else scenes.drawn(rng, others if place % 2 else cards)
        pictures.append(still(rng, _atlas[family], kind, covered=COVERED).rgb)
    return np.stack(pictures), np.arange(CHUNK) % 2 == 0


class _Pool:
    """Recent pictures, rendered by processes of their own."""

    def __init__(self, source: Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]) -> None:
        self.source, self.received, self.drawn = source, 0, 0
        self.rgb = np.empty((POOL, HEIGHT, WIDTH, 3), np.uint8)
        self.card = np.empty(POOL, bool)

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """rgb [64, 3, h, w] in 0..1 and which are cards [64]."""
        while self.received < 20 * BATCH or self.drawn > USES * self.received:
            rgb, card = next(self.source)
            at = np.arange(self.received, self.received + len(rgb)) % POOL
            self.rgb[at], self.card[at] = rgb, card
            self.received += len(rgb)
        self.drawn += BATCH
        some = rng.integers(0, min(self.received, POOL), BATCH)
        return torch.from_numpy(self.rgb[some]).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(self.card[some])


def _augmented(rgb: Tensor, generator: torch.Generator) -> Tensor:
    count = len(rgb)
    unused = torch.zeros(count, HEIGHT, WIDTH), torch.zeros(count, HEIGHT // BACK, WIDTH // BACK)
    flow = torch.zeros(0, HEIGHT, WIDTH, 2)
    rgb = augment.geometry(rgb, *unused, flow, 0, (HEIGHT, WIDTH), generator)[0]
    return augment.colour(rgb, 0, generator)


def _learns(network: ReliefNet) -> list[nn.Module]:
    return [network.letters, network.card]


def train(network: ReliefNet, pool: _Pool, plan: Plan) -> tuple[ReliefNet, int]:
    """Fits the two parts in place; returns the network with their averages, and the steps."""
    generator, rng = torch.Generator().manual_seed(plan.seed), np.random.default_rng(plan.seed)
    network.requires_grad_(False).eval()
    for part in _learns(network):
        part.requires_grad_(True).train()
    learned = [value for part in _learns(network) for value in part.parameters()]
    optimiser = torch.optim.AdamW(learned, weight_decay=plan.weight_decay)
    average, step, reported, losses = copy.deepcopy(network).eval(), 0, 0.0, list[float]()
    pool.draw(rng)  # which waits until there is something
    began = time.monotonic()
    while (progress := (time.monotonic() - began) / (60 * plan.minutes)) < 1:
        rgb, card = pool.draw(rng)
        pictures = _augmented(rgb, generator).contiguous(memory_format=torch.channels_last)
        *_, logit = network.down(network.first(pictures))
        loss = F.binary_cross_entropy_with_logits(logit, card.float())
        for group in optimiser.param_groups:
            group["lr"] = rate(plan, step, progress)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        keep_average(average, network, min(KEPT, step / (10 + step)))
        losses.append(float(loss.detach()))
        if time.monotonic() - reported > 60:
            reported = time.monotonic()
            said = {"action": "trained", "step": step, "progress": round(progress, 3), "pictures": pool.received}
            print(json.dumps(said | {"loss": round(float(np.mean(losses)), 4)}), flush=True)
            losses.clear()
    return average, step


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train what tells cards from scenes, alone.")
    parser.add_argument("--init", type=Path, required=True, help="an exported .onnx model or a checkpoint .pt")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--renderers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    chosen = ("minutes", "seed", "learning_rate", "renderers", "threads")
    plan = Plan(**{name: getattr(given, name) for name in chosen}, warm_up_steps=100, weight_decay=0.05)
    torch.manual_seed(given.seed)
    torch.set_num_threads(given.threads)
    network = ReliefNet().to(memory_format=torch.channels_last)
    if given.init.suffix == ".onnx":
        weights.load_onnx(network, given.init)
    else:
        state = torch.load(given.init, weights_only=True, map_location="cpu")
        network.load_state_dict(state["average"])
    given.out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(given.renderers) as renderers:
        seeds = iter(range(1_000_000 * given.seed, 1_000_000 * (given.seed + 1)))
        pool = _Pool(_ahead(renderers, seeds, 2 * given.renderers))
        average, steps = train(network, pool, plan)
    told = {name: getattr(plan, name) for name in (*chosen, "warm_up_steps", "weight_decay")}
    told |= {"parts": ["letters", "card"], "init": hashlib.sha256(given.init.read_bytes()).hexdigest()}
    torch.save({"average": average.state_dict(), "step": steps, "progress": 1.0, "plan": told},
               given.out / "checkpoint.pt")  # fmt: skip
    return 0


def _ahead(
    renderers: multiprocessing.pool.Pool, seeds: Iterator[int], count: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Chunks in the order of their seeds, `count` of them rendered ahead and no more."""
    waiting = [renderers.apply_async(_chunk, (next(seeds),)) for _ in range(count)]
    while True:
        chunk = waiting.pop(0).get()
        waiting.append(renderers.apply_async(_chunk, (next(seeds),)))
        yield chunk


if __name__ == "__main__":
    sys.exit(main())
