"""The GPU's way through a segment, on torch's CPU device and, by marker, on a GPU: constant batches in recorded runs,
two segments in flight on one engine, the warp on the device, and what follows when memory runs out or the device goes.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import depth, layouts
from inference.contract import Converted
from inference.depth import depth_anything
from inference.gpu import compositor
from inference.gpu.batching import Shared
from inference.gpu.convert import convert_learned
from inference.gpu.samples import Known, Sampler
from inference.warp import torch_kernel
from stereospot import errors
from stereospot.media import encoders
from stereospot.media.cmaf import Fragment, FragmentEncoder
from stereospot.options import Codec, Layout
from tests.unit import clips, tiny_depth
from tests.unit.clips import decoded
from tests.unit.devices import DEVICES, torch_on

SIZE = (70, 42)
WIDTH, HEIGHT, COUNT = 160, 90, 60
BATCH = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_depth.write(folder / "small")
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[tuple[np.ndarray, ...]]:
    return clips.pictures(COUNT, WIDTH, HEIGHT, cuts=(13, 40))


def engine(models: Path, device: str, **arguments: Any) -> Any:
    given = {"batch": BATCH, "batched": True, "dtype": "float32", **arguments}
    return depth.load("depth-anything", folder=models, device=device, size=SIZE, download=False, **given)


def noise(count: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, size[1], size[0], 3), np.uint8)


def watched(made: Any) -> list[int]:
    """The batch of every run of the network from now on."""
    seen: list[int] = []

    def note(_: Any, given: Any) -> None:
        seen.append(given[0].shape[0])

    made._model.register_forward_pre_hook(note)
    return seen


@pytest.mark.parametrize("name", DEVICES)
def test_batches_are_constant_and_answers_are_the_frames_own(models: Path, name: str) -> None:
    torch_on(name)
    frames = noise(2 * BATCH + 3)
    alone = depth.load("depth-anything", folder=models, device="cpu", size=SIZE, download=False, threads=1)  # type: ignore[call-arg]
    wanted = alone.infer(frames)
    alone.close()
    made = engine(models, name)
    seen = watched(made)
    found = made.infer(frames)
    assert set(seen) == {BATCH}
    near = 1e-4 if name == "cpu" else 2e-2  # a GPU multiplies in TF32 where it convolves
    assert np.abs(found - wanted).max() < near * np.ptp(wanted)
    for index in (0, 5, 10):
        np.testing.assert_array_equal(made.infer(frames[index:][:1])[0], found[index])
    assert made.infer(frames[:0]).shape == (0, SIZE[1], SIZE[0])
    made.close()


@pytest.mark.parametrize("name", DEVICES)
def test_a_run_is_recorded_for_each_shape_and_few_are_kept(models: Path, name: str) -> None:
    torch_on(name)
    made = engine(models, name)
    shapes = [(28 + 14 * number, 42) for number in range(depth_anything.MOST_SHAPES + 2)]
    first = [made.infer(noise(1, shape)) for shape in shapes]
    assert len(made._graphs) == depth_anything.MOST_SHAPES
    for shape, wanted in zip(shapes, first, strict=True):
        np.testing.assert_array_equal(made.infer(noise(1, shape)), wanted)
    made.resize(2)
    assert not made._graphs
    seen = watched(made)
    made.infer(noise(3))
    assert set(seen) == {2}
    made.close()


@pytest.mark.gpu
def test_bfloat16_on_a_gpu_stays_near(models: Path) -> None:
    torch_on("cuda")
    exact, coarse = engine(models, "cuda"), engine(models, "cuda", dtype=None)
    assert coarse.info.dtype == "bfloat16"
    wanted, found = exact.infer(noise(5)), coarse.infer(noise(5))
    assert np.abs(wanted - found).mean() < 0.1 * wanted.std()
    assert exact.memory_bytes() > 0
    exact.close()
    coarse.close()


def failing(made: Any, most: int, failure: BaseException) -> None:
    """The network raises `failure` for more than `most` frames at a time."""

    def check(_: Any, given: Any) -> None:
        if given[0].shape[0] > most:
            raise failure

    made._model.register_forward_pre_hook(check)


def test_memory_that_runs_out_inside_the_network(models: Path) -> None:
    torch = torch_on("cpu")
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    made = engine(models, "cpu")
    failing(made, 2, full)
    shared = Shared(made)
    assert shared.group == BATCH
    assert shared.infer(noise(5)).shape == (5, SIZE[1], SIZE[0])
    assert (shared.group, made.device.batch) == (2, 2)
    failing(made, 1, full)
    with pytest.raises(errors.Exhausted) as caught:
        shared.infer(noise(5, (84, 42)))
    assert caught.value.code == "OUT_OF_MEMORY"
    made.close()


def test_a_device_that_goes_away_inside_the_network(models: Path) -> None:
    torch_on("cpu")
    made = engine(models, "cpu")
    made.infer(noise(2))
    failing(made, 0, RuntimeError("CUDA error: unspecified launch failure"))
    with pytest.raises(errors.Transient) as caught:
        Shared(made).infer(noise(2))
    assert caught.value.code == "WORKER_LOST"
    assert caught.value.details["device_lost"]
    made.close()


@pytest.mark.parametrize("name", DEVICES)
def test_two_segments_in_flight(models: Path, pictures: list[tuple[np.ndarray, ...]], name: str) -> None:
    """Decoded, inferred, warped and encoded side by side on one engine: each as if it were alone."""
    torch_on(name)
    plan = clips.plan(WIDTH, HEIGHT, engine="depth-anything")

    def converted(shared: Shared, first: int) -> Converted:
        view, known = shared.fitted(WIDTH, HEIGHT), Known()
        return convert_learned(
            decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, first, first + 25), engine=view,
            sampler=Sampler(plan, view, known), known=known, every=2, warp_device=name,
        )  # fmt: skip

    lonely = Shared(engine(models, name))
    alone = {first: decoded(converted(lonely, first).fragment) for first in (0, 30)}
    lonely.close()
    shared, found, failures = Shared(engine(models, name)), dict[int, Converted](), list[BaseException]()

    def one(first: int) -> None:
        try:
            found[first] = converted(shared, first)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=one, args=(first,)) for first in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not failures
    for first, wanted in alone.items():
        assert all(np.array_equal(a, b) for a, b in zip(decoded(found[first].fragment), wanted, strict=True))
        told = found[first].report.model_dump()
        assert told["batch"] == BATCH
        assert told["device"].startswith(name)
        assert (told["device_memory_bytes"] is None) is (name == "cpu")
        assert told["limiting"] in told["stages"]
    shared.close()


def test_memory_that_runs_out_in_the_warp(
    pictures: list[tuple[np.ndarray, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group is halved once, between a frame's planes; pictures and counts are those of a device with room."""
    torch = torch_on("cpu")
    plan = clips.plan(WIDTH, HEIGHT, layout=Layout.HALF_SBS, engine="depth-anything", divergence=6.0)
    colour = plan.source.video.colour
    whole, tight = (layouts.Compositor(WIDTH, HEIGHT, "yuv420p", plan.stereo, colour) for _ in range(2))
    grid = whole.field.grid
    depths = list(np.random.default_rng(5).random((8, grid.rows, grid.columns)).astype(np.float32))
    wanted = compositor.DeviceCompositor(whole, plan, "cpu").compose(pictures[:8], depths)
    real, sizes = torch_kernel.render, list[int]()

    def render(plane: Any, *rest: Any) -> None:
        sizes.append(len(plane))
        if len(plane) > most and plane.shape[1] < HEIGHT:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        real(plane, *rest)

    monkeypatch.setattr(torch_kernel, "render", render)
    most = 4
    made = compositor.DeviceCompositor(tight, plan, "cpu")
    found = made.compose(pictures[:8], depths)
    assert made.group == 4
    assert set(sizes) == {8, 4}
    for one, other in zip(found, wanted, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    np.testing.assert_array_equal(tight.stretch, whole.stretch)
    np.testing.assert_array_equal(tight.disparity.histogram, whole.disparity.histogram)
    assert len(made.means) == 8
    most = 3
    with pytest.raises(errors.Exhausted):
        made.compose(pictures[:8], depths)


@pytest.mark.gpu
@pytest.mark.parametrize("codec", sorted(encoders.HARDWARE))
def test_hardware_encoders(codec: Codec) -> None:
    """A segment by the GPU's encoder: every picture, at its time, and the same init from an encoder opened anew."""
    if not encoders.usable(codec):
        pytest.skip(f"this machine encodes no {codec}")
    plan = clips.plan(320, 192)
    spec = plan.encode.model_copy(update={"codec": codec, "crf": 20, "preset": "veryfast", "width": 320, "height": 192})
    shown = clips.pictures(30, 320, 192)
    made: list[Fragment] = []
    for _ in range(2):
        encoder = FragmentEncoder(spec)
        for number, planes in enumerate(shown):
            encoder.write(planes, number * clips.TICKS)
        made.append(encoder.finish(len(shown) * clips.TICKS))
    assert made[0].init_sha256 == made[1].init_sha256
    assert made[0].pts == [number * clips.TICKS for number in range(30)]
    found = decoded(made[0])
    assert len(found) == 30
    for picture, planes in zip(found, shown, strict=True):
        assert np.abs(picture[:192].astype(int) - planes[0]).mean() < 12
