"""The scene renderer and the trainer: what is rendered is exact and repeatable; a tiny run trains, resumes, exports."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the scene renderer draws with Pillow")

from inference.training import film, metrics, render, scenes
from inference.training.textures import Atlas, make_atlas
from inference.training.world import World
from tests.unit.devices import torch_on


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return make_atlas(1, 32)


def test_one_seed_gives_one_picture(atlas: Atlas) -> None:
    first, second = (render.still(np.random.default_rng(4), atlas, "room") for _ in range(2))
    assert np.array_equal(first.rgb, second.rgb)
    assert np.array_equal(first.inverse, second.inverse)
    other = render.still(np.random.default_rng(5), atlas, "room")
    assert not np.array_equal(first.rgb, other.rgb)
    assert np.array_equal(make_atlas(1, 32).texels, atlas.texels)


def test_held_out_kinds_are_not_trained_on(atlas: Atlas) -> None:
    trained, held_out = scenes.names(), scenes.names(held_out=True)
    assert set(held_out) == {"shelf", "stairs", "street"}
    assert not set(trained) & set(held_out)
    rng = np.random.default_rng(0)
    assert {render.still(rng, atlas).kind for _ in range(6)} <= set(trained)


@pytest.mark.parametrize(
    "kind",
    [
        "field",
        "traffic",
        "face",
        "gathering",
        "close_up",
        "blocks",
        "table_top",
        "caption_card",
        "title_card",
        "graphic_card",
        "slide_card",
        "screen_card",
        "showing",
        "team",
        "street",
    ],
)
def test_each_kind_has_truth(atlas: Atlas, kind: str) -> None:
    frame = render.still(np.random.default_rng(1), atlas, kind)
    seen = frame.inverse[frame.inverse >= 0].astype(np.float32)
    assert frame.kind == kind
    assert frame.rgb.shape == (render.HEIGHT, render.WIDTH, 3)
    assert seen.size > 0.4 * frame.inverse.size
    assert 0 <= seen.min() <= seen.max() <= 1.3
    if kind.endswith("_card"):
        assert np.ptp(seen) == 0


def test_what_is_seen_from_near_is_mostly_in_focus() -> None:
    rng = np.random.default_rng(3)
    near = [film.Film(rng, flat=False, close_up=True).focus for _ in range(60)]
    assert sum(focus is not None and focus >= 80 for focus in near) > 30
    assert sum(film.Film(rng, flat=False).focus is not None for _ in range(60)) < 30


@pytest.mark.parametrize(("pitch", "half_width", "horizon"), [(-0.6, 0.5, 1.0), (-0.2, 0.9, 0.315)])
def test_places_on_the_ground_are_in_every_row_of_it(
    atlas: Atlas, pitch: float, half_width: float, horizon: float
) -> None:
    scene = World(np.random.default_rng(6), atlas)
    scene.pitch, scene.eye[1], scene.half_width, scene.shape = pitch, 6.0, half_width, 16 / 9
    rows, columns = [], []
    for _ in range(200):
        x, z = scene.on_ground(1.0)
        depth = z * math.cos(pitch) - scene.eye[1] * math.sin(pitch)  # along the camera's axis
        up = -scene.eye[1] * math.cos(pitch) - z * math.sin(pitch)
        rows.append(up / depth / scene.half_height)
        columns.append(x / depth / scene.half_width)
    assert np.histogram(rows, 4, (-1, horizon))[0].min() > 30
    assert np.histogram(columns, 4, (-1, 1))[0].min() > 30
    assert min(rows) >= -1 - 1e-9
    assert max(rows) <= horizon + 1e-3


def test_what_one_lamp_lights_stays_dark(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    def brightness(dark: float) -> float:
        def build(*given: Any, **more: Any) -> tuple[str, World]:
            name, world = built(*given, **more)
            world.dark = dark
            return name, world

        monkeypatch.setattr(scenes, "build", build)
        frames = [render.still(np.random.default_rng(seed), atlas, "wall") for seed in range(6)]
        return float(np.mean([frame.rgb for frame in frames]))

    built = scenes.build
    assert 5 < brightness(2.0) < 0.75 * brightness(0.0)


def test_the_flow_leads_to_the_same_surface(atlas: Atlas) -> None:
    rng, errors = np.random.default_rng(2), []
    for _ in range(6):
        clip = render.clip(rng, atlas, "room")
        flow, visible = clip.flow.astype(np.float32), np.abs(clip.flow.astype(np.float32)).max(-1) < 1
        x = np.clip((flow[..., 0] + 1) / 2 * render.WIDTH, 0, render.WIDTH - 1).astype(int)
        y = np.clip((flow[..., 1] + 1) / 2 * render.HEIGHT, 0, render.HEIGHT - 1).astype(int)
        there = clip.second.inverse.astype(np.float32)[y, x]
        errors.append(float(np.median(np.abs(there - clip.first.inverse.astype(np.float32))[visible])))
    assert max(errors) < 0.02


def test_the_flow_follows_crop_and_mirror(atlas: Atlas) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    from inference.training import augment

    clip = render.clip(np.random.default_rng(2), atlas, "room")
    rgb = torch.zeros(2, 3, render.HEIGHT, render.WIDTH)
    inverse = torch.from_numpy(np.stack([clip.first.inverse, clip.second.inverse])).float()
    back = torch.from_numpy(np.stack([clip.first.back, clip.second.back])).float()
    flow = torch.from_numpy(clip.flow).float()[None]
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        size = (render.HEIGHT, render.WIDTH)
        _, cut, _, moved = augment.geometry(rgb, inverse, back, flow, 1, size, generator)
        there = torch.nn.functional.grid_sample(cut[1:, None], moved, align_corners=False)[0, 0]
        visible = moved[0].abs().amax(-1) < 1
        assert visible.float().mean() > 0.5
        assert (there - cut[0]).abs()[visible].median() < 0.02


def test_what_stays_is_told_from_what_may_come_and_go(atlas: Atlas) -> None:
    rng = np.random.default_rng(6)
    (first, mask), *_, (empty, nothing) = render.walk(rng, atlas, "plain_ground", 9)[4:]
    assert mask.any()
    assert not nothing.any()
    assert np.array_equal(first.back, empty.back), "the mover is no part of it"
    small = empty.inverse[render.BACK // 2 :: render.BACK, render.BACK // 2 :: render.BACK].astype(np.float32)
    there = empty.back >= 0
    assert np.median(np.abs(small - empty.back)[there]) < 0.01


def test_the_ground_does_not_move_for_what_is_small_and_makes_room_for_what_is_large() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    from inference.training import losses

    ramp = torch.linspace(0.4, 0.8, render.HEIGHT)[:, None].expand(render.HEIGHT, render.WIDTH)
    back = ramp[None, 2::4, 2::4]
    alone = losses.target(ramp[None], back)[0][0]
    assert alone.min() < 0.02
    assert alone.max() > 0.98
    scenes = []
    for width in (10, 60, 150):
        scene = ramp.clone()
        scene[40:100, 20 : 20 + width] = 1.2
        scenes.append(scene)
    few, some, many = losses.target(torch.stack(scenes), back.expand(3, -1, -1))[0]
    ground = few[:, 180:], some[:, 180:], many[:, 180:]
    moves = [float((g - alone[:, 180:]).abs().mean()) for g in ground]
    assert moves[0] < 1e-3 < 0.02 < moves[1] < moves[2]
    assert float(few[50, 25]) == 1.5, "beyond the range, and cut there"
    assert abs(float(many[50, 25]) - 1) < 0.02, "it has the range for itself"


def test_both_frames_of_a_clip_have_one_scale() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    from inference.training import losses

    ramp = torch.linspace(0.4, 0.8, render.HEIGHT)[:, None].repeat(1, render.WIDTH)
    full = ramp.clone()
    full[20:, 20:] = 1.2
    back = ramp[None, 2::4, 2::4].expand(4, -1, -1)
    relief = losses.target(torch.stack([ramp, full, ramp, full]), back, pairs=1)[0]
    assert torch.equal(relief[2][:, :20], relief[3][:, :20])
    assert not torch.allclose(relief[0][:, :20], relief[1][:, :20], atol=0.02), "stills have each their own"


def test_the_order_term_knows_near_from_far() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    from inference.training import losses

    inverse = torch.rand(2, render.HEIGHT, render.WIDTH, generator=torch.Generator().manual_seed(1))
    valid = torch.ones_like(inverse)
    right, wrong = losses.order(inverse, inverse, valid), losses.order(1 - inverse, inverse, valid)
    assert right < 0.01 < 0.2 < wrong
    assert losses.order(inverse, torch.full_like(inverse, 0.5), valid) == 0


def test_the_ratio_term_forgives_scale_and_shift_and_counts_near_misses_most() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")

    from inference.training import losses

    inverse = torch.linspace(0.05, 1, 112)[None, :, None].repeat(1, 1, 192)
    valid = torch.ones_like(inverse)
    assert losses.ratio(0.3 + 0.5 * inverse, inverse, valid) < 0.03
    # Where the fit has nothing to go by, everything lies at the mean: beyond the factor for most.
    flat = losses.ratio(torch.full_like(inverse, 0.5), inverse, valid)
    assert flat > 0.5
    assert losses.ratio(1 - inverse, inverse, valid) >= flat - 1e-3, "a negative scale is no relief at all"
    beyond = torch.where(inverse > 0.5, inverse, 0.01)
    assert losses.ratio(inverse.requires_grad_(), beyond.detach(), valid) < 0.03, "what is nearly infinitely far"


def test_what_stands_out_counts_more_than_the_ground() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    from inference.training import losses

    ramp = torch.linspace(0, 1, render.HEIGHT)[:, None].expand(render.HEIGHT, render.WIDTH)
    truth = ramp.clone()[None]
    truth[0, 40:70, 80:100] += 0.3
    found = losses.standing(truth, torch.ones_like(truth))[0]
    assert found[42:68, 82:98].min() > 0.5
    assert found[30:80, :70].max() == 0  # a ramp stands out nowhere
    unseen = torch.ones_like(truth)
    unseen[0, :, 60:] = 0
    assert losses.standing(truth, unseen)[0, 30:80, :55].max() == 0  # nor beside bars


def test_a_flatter_answer_is_not_a_steadier_one() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    from inference.training import losses

    generator = torch.Generator().manual_seed(1)
    truth = torch.rand(1, 28, 48, generator=generator).repeat(2, 1, 1)
    shaky = truth + 0.05 * torch.randn(truth.shape, generator=generator)
    grid = torch.meshgrid((torch.arange(28) + 0.5) / 14 - 1, (torch.arange(48) + 0.5) / 24 - 1, indexing="ij")
    flow = torch.stack(grid[::-1], -1)[None]
    assert losses.steadiness(truth, truth, flow, 1) < 1e-5
    full, half = (losses.steadiness(0.5 + share * (shaky - 0.5), truth, flow, 1) for share in (1.0, 0.5))
    assert full > 0.02
    assert half > 0.8 * full


def test_scores() -> None:
    inverse = np.linspace(0.2, 1, 112 * 192, dtype=np.float32).reshape(112, 192)
    perfect = metrics.score(inverse * 3 + 1, inverse, np.random.default_rng(0))
    assert perfect.error < 1e-4
    assert perfect.delta1 > 0.999
    assert perfect.order > 0.999
    upside_down = metrics.score(1 - inverse, inverse, np.random.default_rng(0))
    assert upside_down.order < 0.01
    assert upside_down.error > 0.1


def share_unequal_gradients(rank: int, folder: str) -> None:
    """One of two trainers that share a step; all that must agree is written down."""
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    from inference.training.trainer import Plan, Trainer

    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    trainer = Trainer(Plan(minutes=1, processes=2), Path(folder), rank)
    trainer.clock, trainer.asked_to_stop = (0.25, True) if rank == 0 else (0.75, False)
    values = list(trainer.network.parameters())
    for index, value in enumerate(values):
        value.grad = torch.full_like(value, float(index + 10 * rank))
    trainer._share()  # pyright: ignore[reportPrivateUsage]
    grads = [value.grad for value in values]
    assert all(g is not None and bool((g == index + 5).all()) for index, g in enumerate(grads))
    assert (trainer.progress, trainer.stopping, trainer.should_stop()) == (0.25, True, True)
    assert trainer.gathered([rank, 7]) == [0, 7, 1, 7]
    distributed.destroy_process_group()


def test_trainers_share_their_gradients_and_obey_the_first(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    torch.multiprocessing.spawn(share_unequal_gradients, args=(str(tmp_path),), nprocs=2)


COMMON = ("--textures", "32", "--validation", "2", "--renderers", "1")


def spoken(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_smoke_run_trains_resumes_and_exports(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    pytest.importorskip("onnx", reason="export needs onnx")
    from inference.training import export, train

    common, checkpoint = ["--out", str(tmp_path), *COMMON], tmp_path / "checkpoint.pt"
    steps = [0]
    for more in ((), ("--resume",), ("--resume", "--processes", "2")):  # the last sharing each step
        if more:  # as if stopped half-way
            torch.save(torch.load(checkpoint, weights_only=True) | {"progress": 0.5}, checkpoint)
        assert train.main(["--minutes", "0.02", *common, *more]) == 0
        state = torch.load(checkpoint, weights_only=True)
        assert state["progress"] == 1
        assert state["step"] > steps[-1]
        steps.append(state["step"])
    actions = [line["action"] for line in spoken(tmp_path)]
    assert (actions.count("finished"), actions.count("resumed")) == (3, 2), "one of two trainers speaks"
    assert len(spoken(tmp_path)[[i for i, a in enumerate(actions) if a == "started"][-1]]["pids"]) == 4
    model = tmp_path / "relief.onnx"
    assert export.main(["--checkpoint", str(checkpoint), "--out", str(model), "--calibration", "6"]) == 0
    card = json.loads(model.with_suffix(".json").read_text())
    assert card["bytes"] == model.stat().st_size
    assert b"site-packages" not in model.read_bytes()
    assert train.main(["--minutes", "0.01", "--init", str(model), "--out", str(tmp_path / "on"), *COMMON]) == 0
    begun = next(line for line in spoken(tmp_path / "on") if line["action"] == "initialised")
    assert begun["parameters"] > 0.95 * begun["of"]  # equal vectors of a new network are one in the file


def test_a_resumed_run_goes_on_with_its_momentum(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    pytest.importorskip("onnx", reason="weights are read with onnx")
    from inference.training.trainer import Plan, Trainer

    first = Trainer(Plan(minutes=1), tmp_path)
    for value in first.network.parameters():
        value.grad = torch.randn_like(value)
    for optimiser in first.optimisers:
        optimiser.step()
    first.save()
    second = Trainer(Plan(minutes=1), tmp_path)
    assert second.resume()
    for before, after in zip(first.optimisers, second.optimisers, strict=True):
        kept, found = before.state_dict()["state"], after.state_dict()["state"]
        assert kept.keys() == found.keys()
        assert kept
        for number, values in kept.items():
            assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(found[number][k])) for k, v in values.items())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_stopped_leaves_a_checkpoint_and_nobody_behind(tmp_path: Path, processes: int) -> None:
    pytest.importorskip("torch", reason="training needs torch, which the application does not")
    pytest.importorskip("onnx", reason="weights are read with onnx")
    command = [sys.executable, "-m", "inference.training.train", "--minutes", "0.3", "--out", str(tmp_path), *COMMON]
    with subprocess.Popen([*command, "--processes", str(processes)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        started = json.loads(run.stdout.readline())
        assert started["action"] == "started"
        assert json.loads(run.stdout.readline())["action"] == "scored"  # in the first step soon
        run.terminate()
        last = json.loads(run.stdout.read().splitlines()[-1])
        assert last["action"] == "stopped"
    assert run.returncode == 0
    assert (tmp_path / "checkpoint.pt").exists()
    assert not [pid for pid in started["pids"] if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)])
def test_a_run_that_is_stopped_before_it_began_ends(tmp_path: Path, signals: tuple[signal.Signals, ...]) -> None:
    pytest.importorskip("torch", reason="training needs torch, which the application does not")
    pytest.importorskip("onnx", reason="weights are read with onnx")
    command = [sys.executable, "-m", "inference.training.train", "--minutes", "60", "--out", str(tmp_path), *COMMON]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert json.loads(run.stdout.readline())["action"] == "started"
        for number in signals:
            run.send_signal(number)
        assert json.loads(run.stdout.read())["action"] == "stopped"
        assert run.stderr is not None
        assert "Traceback" not in run.stderr.read()
    assert run.returncode == 0


def test_where_one_trainer_fails_all_end(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch, which the application does not")
    pytest.importorskip("onnx", reason="weights are read with onnx")
    command = [sys.executable, "-m", "inference.training.train", "--minutes", "60", "--out", str(tmp_path), *COMMON]
    with subprocess.Popen([*command, "--processes", "2"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout is not None
        pids = json.loads(run.stdout.readline())["pids"]
        os.kill(pids[2], signal.SIGKILL)  # the second trainer
        run.stdout.read()
    assert run.returncode == 1


@pytest.mark.gpu
def test_a_step_is_trained_on_a_gpu(tmp_path: Path) -> None:
    torch_on("cuda")
    from inference.training import train

    assert train.main(["--minutes", "0.02", "--out", str(tmp_path), *COMMON]) == 0
