"""The iw3 adapter: what it says when something is missing or dies; and, with NUNIF_HOME, the real thing."""

from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from inference import depth
from inference.depth import iw3
from inference.gpu import backend
from inference.gpu.batching import Shared
from stereospot import errors
from stereospot.options import Layout
from tests.unit import clips

Test = TypeVar("Test", bound=Callable[..., Any])


def refused(call: Callable[[], Any]) -> errors.StereoSpotError:
    with pytest.raises(errors.StereoSpotError) as caught:
        call()
    return caught.value


# ---- without a checkout -------------------------------------------------------------------------------------
def test_without_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NUNIF_HOME", raising=False)
    found = refused(lambda: depth.load("iw3"))
    assert found.code == "ENGINE_UNAVAILABLE"
    assert f"git -C nunif checkout {iw3.COMMIT}" in str(found)
    assert "is no checkout" in str(refused(lambda: depth.load("iw3", home=tmp_path)))


def test_another_commit(tmp_path: Path) -> None:
    for name in iw3._CALLED:  # pyright: ignore[reportPrivateUsage]
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# other")
    found = refused(lambda: depth.load("iw3", home=tmp_path))
    assert found.code == "ENGINE_UNAVAILABLE"
    assert "another commit" in str(found)
    assert f"checkout {iw3.COMMIT}" in str(found)


def test_a_clone_at_another_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that are called may be equal: a clone still says what it is, detached, on a branch, or packed."""
    for name in iw3._CALLED:  # pyright: ignore[reportPrivateUsage]
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# the same")
    monkeypatch.setattr(iw3, "FINGERPRINT", iw3.fingerprint(tmp_path))
    assert iw3.find(tmp_path) == tmp_path
    head = tmp_path / ".git" / "HEAD"
    head.parent.mkdir()
    head.write_text(iw3.COMMIT + "\n")
    assert iw3.find(tmp_path) == tmp_path
    for where, line in (
        (head, "0" * 40),
        (head.parent / "packed-refs", f"# pack-refs\n{'0' * 40} refs/heads/master\n"),
    ):
        head.write_text("ref: refs/heads/master\n")
        where.write_text(line)
        found = refused(lambda: iw3.find(tmp_path))
        assert (found.code, "another commit" in str(found)) == ("ENGINE_UNAVAILABLE", True)


@pytest.mark.parametrize("model", ["Any_V2_B", "Any_V2_L", "Distill_Any_L", "DepthPro", "Any_V2_N", "no such"])
def test_licences(model: str) -> None:
    assert refused(lambda: depth.load("iw3", model=model)).code == "LICENSE_NOT_ACCEPTED"


def test_methods() -> None:
    found = refused(lambda: depth.load("iw3", model="Any_V2_S:mlbw_l2_inpaint"))
    assert found.code == "INVALID_OPTIONS"
    assert "row_flow_v3" in str(found)


def process(script: str, tmp_path: Path) -> Any:
    """A child that is no iw3 at all: a shell script in place of the interpreter."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return iw3._Process(str(path), tmp_path)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo oh no >&2; exit 3", "oh no"),
        ("kill -9 $$", "Exit status -9"),
        ("exec sleep 60", "did not answer in time"),
    ],
)
def test_a_child_that_dies_or_hangs(script: str, words: str, tmp_path: Path) -> None:
    child = process(script, tmp_path)
    found = refused(lambda: child.ask({"do": "load"}, b"", seconds=0.5))
    assert found.code == "WORKER_LOST"
    assert isinstance(found, errors.Transient)
    assert words in str(found)
    child.close()


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    found = refused(lambda: iw3._Process(str(tmp_path / "none"), tmp_path))  # pyright: ignore[reportPrivateUsage]
    assert found.code == "ENGINE_UNAVAILABLE"


def test_an_interpreter_without_torch(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "torch.py").write_text("raise ImportError('no torch here')")
    script = f'PYTHONPATH={blocked} exec {sys.executable} "$@"'
    child = process(script, tmp_path)
    body = {"do": "load", "model": "NULL", "gpu": -1, "resolution": 98, "threads": 1}
    found = refused(lambda: child.ask(body, b"", seconds=60, loading="NULL"))
    assert found.code == "ENGINE_UNAVAILABLE"
    assert "stereospot[iw3]" in str(found)
    child.close()


_ROOMY = """
import json, sys
while head := sys.stdin.buffer.read(4):
    body = json.loads(sys.stdin.buffer.read(int.from_bytes(head, "big")))
    sys.stdin.buffer.read(body["bytes"])
    n, h, w = body["shape"]
    told, data = {"error": "memory", "text": f"CUDA out of memory: {n}"}, b""
    if n <= int(sys.argv[-1]):
        told, data = {}, bytes(n * h * w * 4) if body["do"] == "depth" else bytes(2 * n * h * w * 3)
    line = json.dumps({**told, "bytes": len(data)}).encode()
    sys.stdout.buffer.write(len(line).to_bytes(4, "big") + line + data)
    sys.stdout.buffer.flush()
"""
"""A child of the adapter's protocol whose GPU has room for so many frames."""


@pytest.mark.parametrize(("room", "fits"), [(4, True), (3, False)])
def test_memory_that_runs_out_halves_its_batches_once(tmp_path: Path, room: int, fits: bool) -> None:
    (tmp_path / "roomy.py").write_text(_ROOMY)
    child = process(f"exec {sys.executable} {tmp_path / 'roomy.py'} {room}", tmp_path)
    info = depth.EngineInfo("iw3", "test", None, 28, 14, 2.0, batch=8, device="cuda:0")
    shared = Shared(iw3.Iw3(child, info, "backward"))
    frames, near = np.zeros((10, 14, 28, 3), np.uint8), np.zeros((8, 7, 14), np.float32)
    if fits:
        assert shared.infer(frames).shape == (10, 14, 28)
        assert shared.group == 4
        assert shared.eyes(frames[:8], near).shape == (2, 8, 14, 28, 3)
    else:
        assert refused(lambda: shared.infer(frames)).code == "OUT_OF_MEMORY"
        assert refused(lambda: shared.eyes(frames[:8], near)).code == "OUT_OF_MEMORY"
    shared.close()


@pytest.mark.parametrize(
    ("kind", "loading", "code"),
    [
        ("memory", None, "OUT_OF_MEMORY"),
        ("device", None, "WORKER_LOST"),
        ("files", "ZoeD_N", "MODEL_MISSING"),
        ("value", "ZoeD_N", "INVALID_OPTIONS"),
        ("other", "ZoeD_N", "MODEL_INVALID"),
        ("other", None, "INTERNAL"),
    ],
)
def test_codes(kind: str, loading: str | None, code: str) -> None:
    assert iw3._translated(kind, "why", loading).code == code  # pyright: ignore[reportPrivateUsage]


# ---- with one -----------------------------------------------------------------------------------------------
def needs_checkout(test: Test) -> Test:
    """Each loads torch and iw3 in a fresh process, which takes its time."""
    missing = pytest.mark.skipif("NUNIF_HOME" not in os.environ, reason="NUNIF_HOME names no nunif checkout")
    return missing(pytest.mark.timeout(300)(test))


def pictures(count: int, height: int = 98, width: int = 168) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    base = 100 + 60 * np.sin(x / 17.0) + 40 * np.sin(y / 11.0)
    return (
        np.stack([np.stack([base + 9 * i, base, base - 5 * i], 2) for i in range(count)]).clip(0, 255).astype(np.uint8)
    )


@needs_checkout
def test_depth_of_a_real_checkout() -> None:
    engine = depth.load("iw3", model="NULL", gpu=-1, resolution=98, threads=1)
    assert engine.info.needs_curve
    assert iw3.COMMIT[:12] in engine.info.version
    frames = pictures(3)
    found = engine.infer(frames)
    assert found.shape == (3, 98, 168)
    # NULL is the mean of the colours at 98 x 98.
    assert np.corrcoef(found[0].ravel(), frames[0].mean(2).ravel())[0, 1] > 0.99
    np.testing.assert_array_equal(engine.infer(frames[2:])[0], found[2])
    engine.close()
    engine.close()


@needs_checkout
@pytest.mark.parametrize("method", ["backward", "forward_fill"])
def test_eyes_of_a_real_checkout(method: str) -> None:
    engine: Any = depth.load("iw3", model=f"NULL:{method}", gpu=-1, resolution=98, threads=1)
    frames = pictures(2)
    still = engine.eyes(frames, np.full((2, 49, 84), 0.5, np.float32), divergence=4.0)
    assert still.shape == (2, 2, 98, 168, 3)
    assert np.abs(still[0][:, :, 8:-8].astype(int) - frames[:, :, 8:-8]).mean() < 3
    near = engine.eyes(frames, np.ones((2, 49, 84), np.float32), divergence=4.0)
    # 4 % of 168 pixels, half of it for the part in front of the screen: left and right 3.4 pixels apart.
    left, right = near[0][0, 49, 30:130, 1].astype(int), near[1][0, 49, :, 1].astype(int)
    errors_by_shift = {shift: np.abs(left - right[30 - shift : 130 - shift]).mean() for shift in range(-8, 9)}
    assert min(errors_by_shift, key=lambda shift: errors_by_shift[shift]) in (3, 4)
    engine.close()


@needs_checkout
@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.FULL_TB])
def test_a_film_with_iw3s_depth_and_eyes(layout: Layout) -> None:
    """A conversion from end to end: left and right differ by parallax, and segments apart equal a serial run."""
    shown = clips.pictures(14, 168, 98)
    plan = clips.plan(168, 98, engine="iw3", layout=layout, divergence=4.0)

    def converted(places: list[int]) -> list[NDArray[Any]]:
        made = backend.load(engine="iw3", model="NULL:backward", gpu=-1, resolution=98, threads=1)
        found: list[NDArray[Any]] = []
        for first, last in itertools.pairwise(places):
            one = made.convert(decoder=clips.Clip(shown), plan=plan, segment=clips.segment(0, first, last))
            assert one.report.engine.name == "iw3"
            with av.open(io.BytesIO(one.fragment.init + one.fragment.media), "r") as container:
                found += [frame.to_ndarray() for frame in container.decode(video=0)]
        made.close()
        return found

    serial, apart = converted([0, 14]), converted([0, 5, 14])
    assert len(serial) == 14
    assert all(np.array_equal(a, b) for a, b in zip(apart, serial, strict=True))
    luma = serial[3][: plan.encode.height].astype(int)
    left, right = np.split(luma, 2, axis=1 if layout is Layout.HALF_SBS else 0)
    assert np.abs(left - right).mean() > 0.5
    source = shown[3][0].astype(int)
    seen = (left + right) / 2
    squeezed = source.reshape(98, 84, 2).mean(2) if layout is Layout.HALF_SBS else source
    assert np.corrcoef(seen.ravel(), squeezed.ravel())[0, 1] > 0.9


@needs_checkout
def test_layouts_that_mix_colours_need_our_warp() -> None:
    plan = clips.plan(168, 98, engine="iw3", layout=Layout.ANAGLYPH)
    made = backend.load(engine="iw3", model="NULL:backward", gpu=-1, resolution=98, threads=1)
    clip = clips.Clip(clips.pictures(3, 168, 98))
    found = refused(lambda: made.convert(decoder=clip, plan=plan, segment=clips.segment(0, 0, 3)))
    assert found.code == "INVALID_OPTIONS"
    made.close()


@needs_checkout
def test_a_method_whose_weights_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    engine: Any = depth.load("iw3", model="NULL:row_flow_v3", gpu=-1, resolution=98, threads=1)
    found = refused(lambda: engine.eyes(pictures(1), np.ones((1, 49, 84), np.float32)))
    assert found.code == "MODEL_MISSING"
    engine.close()


@needs_checkout
@pytest.mark.parametrize(("model", "code"), [("VDA_S", "INVALID_OPTIONS"), ("nothing", "INVALID_OPTIONS")])
def test_models_that_do_not_fit(model: str, code: str) -> None:
    assert refused(lambda: depth.load("iw3", model=model, gpu=-1, accept_license=True)).code == code


@needs_checkout
def test_a_model_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    found = refused(lambda: depth.load("iw3", model="Any_S", gpu=-1))
    assert found.code == "MODEL_MISSING"
    assert "iw3.download_models" in str(found)


@needs_checkout
def test_a_gpu_that_is_not_there() -> None:
    found = refused(lambda: depth.load("iw3", model="NULL", gpu=63))
    assert found.code in ("INVALID_OPTIONS", "WORKER_LOST", "MODEL_INVALID")
