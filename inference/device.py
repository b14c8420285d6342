"""The device that torch works on: all that differs between a GPU and a CPU is in this file.

    numpy ──up, page-locked──> tensors on a stream of their own ──down──> numpy      failures ──> the catalogue's codes

Engines and the compositor are written against `Device` and `Graph`, so what they do runs on a CPU as it runs on a GPU;
the lines behind `is_gpu` here are the only ones that a machine without a GPU never executes. torch is given by the
caller, who imported it.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stereospot import errors

Torch = Any
"""torch ships no types that strict checking accepts; the module and its tensors are Any here."""

_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")
"""What torch, CUDA's runtime, cuBLAS and cuDNN say when there is no room; the last is a handle that found none."""

_LOST = (
    "CUDA error", "CUDA driver error", "device-side assert", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error",
    "No CUDA GPUs are available", "CUDA unknown error",
)  # fmt: skip
"""What they say after anything else: the context is gone, and no call of this process will work again."""

_recording = threading.Lock()
"""CUDA records one graph at a time in a process."""


class Device:
    """`name` as torch calls it (cpu, cuda, cuda:1), with a stream of its own on a GPU.

    Work of one `Device` is in order, whichever thread asks; work of two overlaps: engines and compositors differ in it.
    Tensors of one must not be used by another before `down` or `wait`.
    """

    def __init__(self, torch: Torch, name: str) -> None:
        self.torch = torch
        self.name = name
        self.is_gpu = name.startswith("cuda")
        self.stream: Any = torch.cuda.Stream(device=name) if self.is_gpu else None

    @contextlib.contextmanager
    def working(self) -> Generator[None]:
        """Everything inside is inference on this stream, and on this GPU: both belong to the calling thread.

        Raises OUT_OF_MEMORY (Exhausted) where there is no room, WORKER_LOST with `device_lost` where the GPU is gone.
        A GPU fails late, when its answer is fetched: `up` and `down` belong inside as well.
        """
        chosen = self.torch.cuda.stream(self.stream) if self.is_gpu else contextlib.nullcontext()
        try:
            with chosen, self.torch.inference_mode():
                yield
        except Exception as failure:
            known = translated(failure)
            if known is failure:
                raise
            raise known from failure

    def up(self, array: NDArray[Any]) -> Any:
        """The array as a tensor on the device; on a CPU it is the array's own memory.

        Page-locked on the way, so that the copy runs beside the caller. torch keeps page-locked memory until the copy
        that reads it has run, whoever drops the tensor before.
        """
        tensor = self.torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory().to(self.name, non_blocking=True) if self.is_gpu else tensor

    def down(self, tensor: Any) -> NDArray[Any]:
        """The tensor in the caller's memory; waits for this device's stream, so all before it has happened."""
        if not self.is_gpu:
            return tensor.numpy()
        found = self.torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        found.copy_(tensor, non_blocking=True)
        self.stream.synchronize()
        return found.numpy()

    def wait(self) -> None:
        """Until everything that was asked of the GPU has happened, on any stream."""
        if self.is_gpu:
            self.torch.cuda.synchronize(self.name)

    def forget(self) -> None:
        """Give cached memory back to the GPU."""
        if self.is_gpu:
            self.torch.cuda.empty_cache()

    def peak_bytes(self) -> int | None:
        """The most memory that this process held on the GPU; None on a CPU."""
        return int(self.torch.cuda.max_memory_allocated(self.name)) if self.is_gpu else None


class Graph:
    """A function of tensors recorded for one input shape: fixed memory in, the same kernels, fixed memory out.

    On a GPU a run is one launch instead of hundreds. A CPU has no graphs and computes anew, between the same fixed
    memory, so that what could go wrong with memory that is used again goes wrong there too. One caller at a time; made
    and called inside `device.working()`.
    """

    def __init__(self, device: Device, function: Callable[[Any], Any], example: Any) -> None:
        self._given = example.clone()
        self._replay: Callable[[], Any]
        if device.is_gpu:
            self._found, self._replay = self._record(device, function)
        else:
            self._found = function(self._given).clone()
            self._replay = lambda: self._found.copy_(function(self._given))

    def __call__(self, tensor: Any) -> Any:
        """The function's answer; the caller's to keep."""
        self._given.copy_(tensor)
        self._replay()
        return self._found.clone()

    def _record(self, device: Device, function: Callable[[Any], Any]) -> tuple[Any, Callable[[], Any]]:
        """Warm up, since libraries allocate and choose kernels in the first runs, then record one run."""
        for _ in range(3):
            function(self._given)
        graph = device.torch.cuda.CUDAGraph()
        # thread_local: other threads copy and allocate for other segments meanwhile, which would spoil the recording.
        mode = "thread_local"
        with _recording, device.torch.cuda.graph(graph, stream=device.stream, capture_error_mode=mode):
            found = function(self._given)
        return found, graph.replay


def translated(failure: BaseException) -> BaseException:
    """A failure of torch in the catalogue's words; anything else stays what it is.

    What is said of a failure may hide what caused it: a recording that runs out of memory says that it was broken off.
    """
    if isinstance(failure, errors.StereoSpotError):
        return failure
    link: BaseException | None = failure
    while link is not None:
        if isinstance(link, MemoryError) or type(link).__name__ == "OutOfMemoryError" or _says(link, _MEMORY):
            return errors.error("OUT_OF_MEMORY", _line(link))
        link = link.__cause__ or link.__context__
    if type(failure).__name__ == "AcceleratorError" or _says(failure, _LOST):
        # A context that has failed never recovers in this process: the segment goes back, the worker has to restart.
        return errors.error("WORKER_LOST", f"The GPU stopped answering: {_line(failure)}", device_lost=True)
    return failure


def drop_frames(failure: BaseException) -> None:
    """Let go of what the frames of a failure still hold: tensors among it, whose memory the next try needs."""
    link: BaseException | None = failure
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def _says(failure: BaseException, words: tuple[str, ...]) -> bool:
    return isinstance(failure, RuntimeError) and any(word in str(failure) for word in words)


def _line(failure: BaseException) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0]
