"""Engine `iw3`: depth, and eyes, by a pinned checkout of nunif, in a process of its own.

    rgb ──pipe──> child (iw3's model, one batch at a time) ──pipe──> relative inverse depth, raw

The checkout is named by NUNIF_HOME (nunif is on no package registry), its interpreter by STEREOSPOT_IW3_PYTHON, else
this one. Models are those that iw3 knows and lie where iw3 keeps them. The pipe's protocol: `iw3_process.child`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.depth import DEFAULT_DIVERGENCE, EngineInfo, weights
from stereospot import errors

COMMIT = "d23721f1b5f0a4c92c3ee1be013180bf298730c5"
"""Of github.com/nagadomi/nunif, 18 April 2026: what this adapter was written and tested against."""

FINGERPRINT = "626c14590282ea308e796ae8637012499ae224be5da39698fcb0e4dfaa624859"
"""sha256 over the sha256 of `_CALLED` in that commit: also an archive without .git tells what it is."""

_CALLED = (
    "iw3/base_depth_model.py", "iw3/depth_model_factory.py", "iw3/stereo_model_factory.py", "iw3/utils.py",
    "iw3/backward_warp.py", "iw3/forward_warp.py", "iw3/mapper.py",
)  # fmt: skip

MODEL = "Any_V2_S"
RESOLUTION = 392
LOAD_SECONDS = 600.0
ANSWER_SECONDS = 300.0

METHODS = (
    "backward", "forward", "forward_fill", "row_flow_v2", "row_flow_v3", "row_flow_v3_sym",
    "mlbw_l2", "mlbw_l4", "mlbw_l2s", "mlbw_l4s",
)  # fmt: skip
"""iw3's stereo methods without a memory of earlier frames."""


class Iw3:
    """iw3's depth model behind the engine protocol; `eyes` is its stereo method. One caller at a time is let in."""

    def __init__(self, process: _Process, info: EngineInfo, method: str | None) -> None:
        self.info = info
        self.method = method
        self._process = process
        self._batch = info.batch

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw relative inverse depth of [n, h, w, 3] uint8, as [n, h, w] float32; each frame by itself."""
        n, height, width = rgb.shape[:3]
        out = np.empty((n, height, width), np.float32)
        # One frame a call on a CPU: sums of another batch size round differently.
        size = 1 if self.info.device == "cpu" else self._batch
        for start in range(0, n, size):
            piece = rgb[start : start + size]
            missing = size - len(piece)
            filled = np.concatenate([piece, np.repeat(piece[-1:], missing, 0)]) if missing else piece
            body = {"do": "depth", "shape": [size, height, width]}
            _, data = self._process.ask(body, np.ascontiguousarray(filled), seconds=ANSWER_SECONDS)
            found = np.frombuffer(data, np.float32).reshape(size, height, width)
            out[start : start + len(piece)] = found[: len(piece)]
        return out

    def eyes(
        self,
        rgb: NDArray[np.uint8],
        depth: NDArray[np.float32],
        *,
        divergence: float = DEFAULT_DIVERGENCE["iw3"],
        convergence: float = 0.5,
        synthesise: str = "both",
    ) -> NDArray[np.uint8]:
        """Left and right eye, [2, n, h, w, 3], of pictures [n, h, w, 3] and depth [n, rows, columns], 0 … 1.

        By the stereo method that the model's name gave; MODEL_MISSING is raised where its own weights are missing.
        """
        n, height, width = rgb.shape[:3]
        body = {
            "do": "eyes", "shape": [n, height, width], "grid": list(depth.shape[1:]), "method": self.method,
            "divergence": divergence, "convergence": convergence, "synthesise": synthesise,
        }  # fmt: skip
        payload = np.ascontiguousarray(rgb).tobytes() + np.ascontiguousarray(depth, dtype=np.float32).tobytes()
        _, data = self._process.ask(body, payload, seconds=ANSWER_SECONDS, loading=self.method)
        return np.frombuffer(data, np.uint8).reshape(2, n, height, width, 3)

    def resize(self, batch: int) -> None:
        """Use another constant batch from now on."""
        self._batch = batch

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """The picture's shape with iw3's resolution on the shorter side, in whole patches of 14."""
        short = min(self.info.width, self.info.height)
        ratio = min(max(width / height, 0.25), 4.0)
        long = round(short * max(ratio, 1 / ratio) / 14) * 14
        return (long, short) if ratio >= 1 else (short, long)

    def close(self) -> None:
        """End the process."""
        self._process.close()


def load(
    *,
    model: str | None = None,
    home: Path | str | None = None,
    python: str | None = None,
    gpu: int | None = None,
    resolution: int = RESOLUTION,
    batch: int = 8,
    threads: int | None = None,
    accept_license: bool = False,
) -> Iw3:
    """Start iw3 with a depth model, and with a stereo method where `model` is `DEPTH:METHOD`.

    gpu: number of the device, -1 for the CPU, None for the first GPU or, where there is none, the CPU.
    Raises ENGINE_UNAVAILABLE (no checkout, another commit, an import that fails), MODEL_MISSING, LICENSE_NOT_ACCEPTED,
    INVALID_OPTIONS.
    """
    name, _, method = (model or MODEL).partition(":")
    weights.check("iw3", name, accept_license)
    if method and method not in METHODS:
        raise errors.error("INVALID_OPTIONS", f"iw3 method {method!r}; there are {', '.join(METHODS)}.")
    checkout = find(home)
    device = gpu if gpu is not None else 0 if os.path.exists("/dev/nvidia0") else -1
    process = _Process(python or os.environ.get("STEREOSPOT_IW3_PYTHON") or sys.executable, checkout)
    body = {"do": "load", "model": name, "gpu": device, "resolution": resolution, "threads": threads}
    try:
        told, _ = process.ask(body, b"", seconds=LOAD_SECONDS, loading=name)
    except BaseException:
        process.close()
        raise
    info = EngineInfo(
        name="iw3",
        version=f"nunif {COMMIT[:12]}, torch {told.get('torch')}",
        model_sha256=None,
        width=round(resolution * 16 / 9 / 14) * 14,
        height=resolution,
        default_divergence=DEFAULT_DIVERGENCE["iw3"],
        needs_curve=True,
        batch=1 if device < 0 else batch,
        model=model or MODEL,
        device="cpu" if device < 0 else f"cuda:{device}",
    )
    return Iw3(process, info, method or None)


def find(home: Path | str | None = None) -> Path:
    """The checkout, proven to be the pinned commit; raises Misconfigured("ENGINE_UNAVAILABLE") with what to do."""
    given = home or os.environ.get("NUNIF_HOME")
    mend = f"git clone https://github.com/nagadomi/nunif && git -C nunif checkout {COMMIT}"
    if not given:
        raise errors.error("ENGINE_UNAVAILABLE", f"iw3 needs NUNIF_HOME, a checkout of nunif. Run: {mend}")
    checkout = Path(given).expanduser()
    try:
        found = fingerprint(checkout)
    except OSError as failure:
        raise errors.error("ENGINE_UNAVAILABLE", f"NUNIF_HOME is no checkout ({failure}). Run: {mend}") from failure
    if found != FINGERPRINT or commit(checkout) not in (None, COMMIT):
        raise errors.error(
            "ENGINE_UNAVAILABLE", f"NUNIF_HOME is at another commit. Run: git -C {checkout} checkout {COMMIT}"
        )
    return checkout


def commit(checkout: Path) -> str | None:
    """The commit that a clone is at, read from its files; None for an archive, which has none."""
    folder = checkout / ".git"
    try:
        head = (folder / "HEAD").read_text().strip()
        name = head.removeprefix("ref: ")
        if name == head:
            return head
        loose = folder / name
        if loose.is_file():
            return loose.read_text().strip()
        packed = (folder / "packed-refs").read_text().split("\n")
        return next((line.partition(" ")[0] for line in packed if line.endswith(f" {name}")), None)
    except OSError:
        return None


def fingerprint(checkout: Path) -> str:
    """What the files that this adapter calls are."""
    digest = hashlib.sha256()
    for name in _CALLED:
        digest.update(hashlib.sha256((checkout / name).read_bytes()).digest())
    return digest.hexdigest()


class _Process:
    """The child and its pipes; an answer in time or an error, never a guess."""

    def __init__(self, python: str, checkout: Path) -> None:
        script = importlib.util.find_spec("inference.iw3_process.child")
        assert script is not None
        assert script.origin is not None
        self._lock = threading.Lock()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        try:
            self._child = subprocess.Popen(
                [python, script.origin, str(checkout)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
            )
        except OSError as failure:
            self._log.close()
            raise errors.error("ENGINE_UNAVAILABLE", f"iw3's interpreter {python}: {failure}") from failure

    def ask(
        self, body: dict[str, Any], data: Any, *, seconds: float, loading: str | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """One request and its answer; raises what the child reports, WORKER_LOST when it dies or is silent."""
        payload = memoryview(data).cast("B")
        line = json.dumps({**body, "bytes": payload.nbytes}).encode()
        with self._lock:
            assert self._child.stdin is not None
            assert self._child.stdout is not None
            deadline = time.monotonic() + seconds
            try:
                self._child.stdin.write(len(line).to_bytes(4, "big") + line)
                self._child.stdin.write(payload)
                self._child.stdin.flush()
            except (BrokenPipeError, ValueError) as failure:
                raise self._lost("It ended.") from failure
            head = self._read(self._child.stdout, 4, deadline)
            told: dict[str, Any] = json.loads(self._read(self._child.stdout, int.from_bytes(head, "big"), deadline))
            found = self._read(self._child.stdout, told["bytes"], deadline)
        if "error" in told:
            raise _translated(told["error"], told["text"], loading)
        return told, found

    def _read(self, stream: Any, count: int, deadline: float) -> bytes:
        """Exactly `count` bytes; the stream is read by its descriptor, so nothing waits in a buffer of ours."""
        parts = bytearray()
        descriptor = stream.fileno()
        while len(parts) < count:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._child.kill()
                raise self._lost("It did not answer in time.")
            block = os.read(descriptor, min(count - len(parts), 1 << 20))
            if not block:
                raise self._lost("It ended.")
            parts += block
        return bytes(parts)

    def _lost(self, detail: str) -> errors.StereoSpotError:
        code = self._child.wait(10)
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        said = self._log.read().decode(errors="replace").strip()
        # The model went with its process: this engine answers nothing any more, as one whose GPU is gone.
        return errors.error(
            "WORKER_LOST", f"iw3: {detail} Exit status {code}. {said[-500:]}", exit_status=code, stderr=said,
            device_lost=True,
        )  # fmt: skip

    def close(self) -> None:
        """End the child and wait for it."""
        self._child.kill()
        self._child.wait(10)
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue
        self._log.close()


def _translated(kind: str, text: str, loading: str | None) -> errors.StereoSpotError:
    """The child's failure in the catalogue's words."""
    if kind == "memory":
        return errors.error("OUT_OF_MEMORY", f"iw3: {text}")
    if kind == "device":
        return errors.error("WORKER_LOST", f"iw3: {text}", device_lost=True)
    if kind == "import":
        return errors.error("ENGINE_UNAVAILABLE", f"iw3: {text}. Run: pip install 'stereospot[iw3]'")
    if loading is not None and kind == "files":
        return errors.error(
            "MODEL_MISSING", f"iw3 {loading}: {text}. Run, in NUNIF_HOME: python -m iw3.download_models", model=loading
        )
    if loading is not None and kind == "value":
        return errors.error("INVALID_OPTIONS", f"iw3 {loading}: {text}")
    if loading is not None:
        return errors.error("MODEL_INVALID", f"iw3 {loading}: {text}", model=loading)
    return errors.error("INTERNAL", f"iw3: {text}")
