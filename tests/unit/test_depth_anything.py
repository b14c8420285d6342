"""The learned engine with the real architecture and seeded weights: purity, precision, and clear errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import depth
from inference.depth import depth_anything, weights
from stereospot import errors
from tests.unit import tiny_depth

SIZE = (70, 42)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_depth.write(folder / "small")
    return folder


def pictures(count: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(3)
    return random.integers(0, 256, (count, SIZE[1], SIZE[0], 3), np.uint8)


def load(models: Path, **arguments: Any) -> Any:
    return depth.load("depth-anything", folder=models, device="cpu", size=SIZE, download=False, **arguments)


def test_without_torch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(errors.Misconfigured) as caught:
        depth.load("depth-anything")
    assert caught.value.code == "ENGINE_UNAVAILABLE"
    assert "pip install 'stereospot[gpu]'" in str(caught.value)


def test_a_licence_is_asked_before_anything_is_loaded() -> None:
    with pytest.raises(errors.Permanent) as caught:
        depth.load("depth-anything", model="large")
    assert caught.value.code == "LICENSE_NOT_ACCEPTED"


@pytest.mark.parametrize(
    ("picture", "expected"),
    [((1920, 1080), (448, 252)), ((720, 576), (308, 252)), ((1080, 1920), (252, 448)), ((8000, 100), (756, 252))],
)
def test_input_sizes(picture: tuple[int, int], expected: tuple[int, int]) -> None:
    assert depth_anything.input_size(*picture) == expected


def test_each_frame_has_one_answer(models: Path) -> None:
    frames = pictures(5)
    engine = load(models, threads=1)
    together = engine.infer(frames)
    assert together.shape == (5, SIZE[1], SIZE[0])
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    assert together.std() > 0
    assert np.abs(together[0] - together[1]).max() > 0
    for index in range(5):
        np.testing.assert_array_equal(engine.infer(frames[index : index + 1])[0], together[index])
    engine.close()
    parallel = load(models, threads=3)
    np.testing.assert_array_equal(parallel.infer(frames[::-1]), together[::-1])
    assert parallel.infer(frames[:0]).shape == (0, SIZE[1], SIZE[0])
    parallel.close()


def test_the_result_names_the_model(models: Path) -> None:
    engine = load(models, threads=1)
    assert engine.info.needs_curve
    assert engine.info.model == "depth-anything/Depth-Anything-V2-Small-hf"
    assert engine.info.model_sha256 == weights.file_sha256(models / "small" / "model.safetensors")
    assert (engine.info.device, engine.info.dtype, engine.info.batch) == ("cpu", "float32", 1)
    engine.close()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_small_numbers_stay_near(models: Path, dtype: str) -> None:
    frames = pictures(2)
    exact = load(models, threads=2)
    coarse = load(models, threads=2, dtype=dtype)
    want, found = exact.infer(frames), coarse.infer(frames)
    assert np.abs(want - found).mean() < 0.1 * want.std()
    np.testing.assert_array_equal(coarse.infer(frames[1:])[0], found[1])
    exact.close()
    coarse.close()


def test_sides_must_fit_the_patches(models: Path) -> None:
    engine = load(models, threads=1)
    with pytest.raises(ValueError, match="multiples of 14"):
        engine.infer(np.zeros((1, 40, 70, 3), np.uint8))
    engine.close()


def test_tensors_of_another_network(tmp_path: Path, models: Path) -> None:
    folder = tiny_depth.write(tmp_path / "small", hidden=12)
    (folder / "config.json").write_bytes((models / "small" / "config.json").read_bytes())
    with pytest.raises(errors.Misconfigured, match="do not fit the architecture") as caught:
        load(tmp_path)
    assert caught.value.code == "MODEL_INVALID"


def test_a_truncated_model(tmp_path: Path) -> None:
    path = tiny_depth.write(tmp_path / "small") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(errors.Misconfigured, match="truncated") as caught:
        load(tmp_path)
    assert caught.value.code == "MODEL_INVALID"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"device": "cuda:99"}, "ENGINE_UNAVAILABLE"),
        ({"device": "abacus"}, "ENGINE_UNAVAILABLE"),
        ({"device": "cuda:one"}, "ENGINE_UNAVAILABLE"),
        ({"dtype": "float8"}, "INVALID_OPTIONS"),
    ],
)
def test_what_this_machine_has_not(models: Path, arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(errors.StereoSpotError) as caught:
        depth.load("depth-anything", folder=models, size=SIZE, download=False, **arguments)
    assert caught.value.code == code


def test_auto_does_not_pass_over_a_gpu_that_torch_cannot_use(
    models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A driver with a GPU, and a torch that sees none: said, instead of a CPU's speed."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra gpu)")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(depth_anything, "NVIDIA", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(errors.Misconfigured, match="STEREOSPOT_DEVICE=cpu") as caught:
        depth.load("depth-anything", folder=models, device="auto", download=False)
    assert caught.value.code == "ENGINE_UNAVAILABLE"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    made = depth.load("depth-anything", folder=models, device="auto", size=SIZE, download=False, threads=1)  # type: ignore[call-arg]
    assert made.info.device == "cpu"
    made.close()
