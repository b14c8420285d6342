"""Whole jobs, through the real daemon, whose engine, model or checkout is not what it should be: a code on the job with
the command that mends it, and the jobs beside it as if nothing had happened.

What each bad file is called when it is read is in `test_weights.py`, `test_depth_anything.py` and `test_iw3.py`.
"""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from inference.depth import iw3
from services import daemon, submit
from services.context import Context
from stereospot import records, subjects
from stereospot.jobs import Phase
from stereospot.options import Options
from tests.support import eventually
from tests.system import curved
from tests.system.rig import ended, rig
from tests.system.test_curved_jobs import workers
from tests.unit import tiny_depth

SERVICES = frozenset({"planner", "collector", "analyse", "converter", "assembler", "dead-letters"})


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Models of this test only: none from a hub, none from a cache of this machine."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("STEREOSPOT_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("STEREOSPOT_DEVICE", "cpu")


def options(engine: str, model: str | None = None) -> Options:
    return Options(
        engine=engine,  # type: ignore[arg-type]
        model=model, accept_license=True, preset="ultrafast", segment_seconds=1.0,
    )  # fmt: skip


@asynccontextmanager
async def converting(tmp_path: Path, jobs: dict[str, Options]) -> AsyncGenerator[Context]:
    """These jobs, and one that needs no model, on a daemon that has its broker to itself."""
    async with (
        rig(tmp_path, slots=2) as context,
        daemon.running(context.settings, SERVICES, provisioned=False, alone=True),
    ):
        source = await submit.local_source(curved.film(tmp_path, seconds=2), None)
        for job_id, given in {**jobs, "BESIDE": options("flat")}.items():
            await submit.create(context, source, given, job_id=job_id)
        yield context


async def refused(context: Context, expected: dict[str, tuple[str, str]]) -> None:
    """Each job failed with that code, and with those words in what it says; the one beside them is whole."""
    for job_id, (code, words) in expected.items():
        job = await ended(context, job_id)
        assert job.phase is Phase.FAILED, job_id
        assert job.failure is not None
        assert job.failure.code == code, (job_id, job.failure)
        assert words in f"{job.failure.sentence} {job.failure.detail}", (job_id, job.failure)
        assert job.failure.advice
    beside = await ended(context, "BESIDE")
    assert beside.phase is Phase.COMPLETED, beside.failure


async def test_without_torch_and_with_another_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "nunif"
    for name in iw3._CALLED:  # pyright: ignore[reportPrivateUsage]
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("# of another commit")
    monkeypatch.setenv("NUNIF_HOME", str(checkout))
    monkeypatch.setitem(sys.modules, "torch", None)
    async with converting(tmp_path, {"LEARNED": options("depth-anything"), "IW3": options("iw3")}) as context:
        await refused(
            context,
            {
                "LEARNED": ("ENGINE_UNAVAILABLE", "pip install 'stereospot[gpu]'"),
                "IW3": ("ENGINE_UNAVAILABLE", f"git -C {checkout} checkout {iw3.COMMIT}"),
            },
        )


class Evil:
    """Runs a command when it is read."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.witness,))


async def test_files_that_are_no_sound_model(tmp_path: Path) -> None:
    """Truncated, another architecture, other tensors, a pickle by its name and one that hides it, none at all."""
    models, witness = tmp_path / "models", tmp_path / "witness"
    sound = tiny_depth.write(tmp_path / "sound")
    bad = {name: Path(shutil.copytree(sound, models / name)) for name in ("small", "v1-small", "v1-base", "base")}
    tensors = "model.safetensors"
    (bad["small"] / tensors).write_bytes((sound / tensors).read_bytes()[:-100])
    other = (sound / "config.json").read_text().replace('"depth_anything"', '"dpt"')
    (bad["v1-small"] / "config.json").write_text(other)
    tiny_depth.write(tmp_path / "narrow", hidden=12)
    shutil.copy2(tmp_path / "narrow" / tensors, bad["v1-base"])
    (bad["base"] / tensors).write_bytes(pickle.dumps(Evil(witness)))
    (models / "large").mkdir()
    (models / "large" / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(witness)))
    expected = {
        "small": ("MODEL_INVALID", "truncated"),
        "v1-small": ("MODEL_INVALID", "'dpt'"),
        "v1-base": ("MODEL_INVALID", "do not fit the architecture"),
        "base": ("MODEL_INVALID", "pickle"),
        "large": ("MODEL_INVALID", "pickle"),
        "v1-large": ("MODEL_MISSING", "hf download LiheYoung/depth-anything-large-hf"),
    }
    async with converting(tmp_path, {name: options("depth-anything", name) for name in expected}) as context:
        await refused(context, expected)
    assert not witness.exists()


async def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that was named is never replaced: not by the CPU, and not by another engine."""
    tiny_depth.write(tmp_path / "models" / "small")
    monkeypatch.setenv("STEREOSPOT_DEVICE", "cuda:63")
    async with converting(tmp_path, {"LEARNED": options("depth-anything")}) as context:
        await refused(context, {"LEARNED": ("ENGINE_UNAVAILABLE", "cuda:63")})


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_fleet_goes_on_without_the_worker_whose_model_is_damaged(tmp_path: Path) -> None:
    """It gives back what it cannot do, the job says why it waits, and completes once a sound worker is there."""
    path = tiny_depth.write(tmp_path / "bad" / "small") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    tiny_depth.write(tmp_path / "good" / "small")
    async with (
        rig(tmp_path, pool="gpu") as context,
        daemon.running(context.settings, {"planner", "collector", "assembler"}),
    ):
        film = await submit.local_source(curved.film(tmp_path, seconds=2), None)
        await submit.create(context, film, options("depth-anything"), job_id="J1")

        async def given_back() -> bool:
            return bool((await context.bus.consumer_info(subjects.WORK, "work-analyse"))["num_redelivered"])

        async with workers(context.settings.model_copy(update={"models_dir": tmp_path / "bad"}), 1, "services.workers"):
            await eventually(given_back, seconds=90, every=0.1, what="a window that was given back")
            job = await records.get_job(context.bus, "J1")
            assert job is not None
            assert job[0].is_active
            good = context.settings.model_copy(update={"models_dir": tmp_path / "good"})
            async with workers(good, 1, "services.workers"):
                done = await ended(context, "J1")
    assert done.phase is Phase.COMPLETED, done.failure
