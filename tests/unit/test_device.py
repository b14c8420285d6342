"""What differs between a GPU and a CPU: copies, recorded runs, and what failures are called."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from inference import device
from inference.device import Device, Graph
from stereospot import errors
from tests.unit.devices import DEVICES, torch_on


@pytest.mark.parametrize("name", DEVICES)
def test_there_and_back(name: str) -> None:
    on = Device(torch_on(name), name)
    sent = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    with on.working():
        tensor = on.up(sent)
        assert tensor.device.type == name
        found = on.down(tensor.permute(2, 0, 1) + 1)
    np.testing.assert_array_equal(found, sent.transpose(2, 0, 1) + 1)
    on.forget()
    on.wait()
    assert (on.peak_bytes() is None) is (name == "cpu")


@pytest.mark.parametrize("name", DEVICES)
def test_many_uploads_in_a_row_keep_their_numbers(name: str) -> None:
    """Page-locked memory that were used again before its copy has run would show here."""
    on = Device(torch_on(name), name)
    with on.working():
        tensors = [on.up(np.full((1 << 20,), number, np.int32)) for number in range(40)]
        assert [int(on.down(tensor.max() + tensor.min())) for tensor in tensors] == [2 * n for n in range(40)]


@pytest.mark.parametrize("name", DEVICES)
def test_an_answer_of_a_recorded_run_is_the_callers(name: str) -> None:
    """Input and output lie in fixed memory: the next run must not show in what the last one gave."""
    torch = torch_on(name)
    on = Device(torch, name)
    with on.working():
        weights = torch.full((3, 3), 2.0, device=name)
        graph = Graph(on, lambda given: given @ weights, torch.zeros((4, 3), device=name))
        answers = [graph(torch.full((4, 3), float(number), device=name)) for number in range(5)]
        found = [on.down(answer) for answer in answers]
    assert [float(picture.mean()) for picture in found] == [6.0 * number for number in range(5)]


@pytest.mark.parametrize("name", DEVICES)
def test_two_streams_do_not_disturb_each_other(name: str) -> None:
    """A run is recorded and repeated on one stream while another copies and computes, from a thread of its own."""
    import threading

    torch = torch_on(name)
    one, other = Device(torch, name), Device(torch, name)
    wrong: list[int] = []
    stop = threading.Event()

    def beside() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with other.working():
                tensor = other.up(np.full((1 << 16,), number % 100, np.int64))
                if int(other.down(tensor.sum())) != (number % 100) << 16:
                    wrong.append(number)

    thread = threading.Thread(target=beside)
    thread.start()
    try:
        with one.working():
            graphs = [Graph(one, lambda given: given * 3, torch.zeros((size,), device=name)) for size in (64, 256)]
            for number in range(50):
                for graph, size in zip(graphs, (64, 256), strict=True):
                    found = one.down(graph(one.up(np.full((size,), number, np.float32))))
                    assert found.tolist() == [3.0 * number] * size
    finally:
        stop.set()
        thread.join()
    assert not wrong


class OutOfMemoryError(RuntimeError):
    """By the name that torch gives it."""


class AcceleratorError(RuntimeError):
    """Likewise."""


def broken_off() -> BaseException:
    """What is raised where a recording ran out of memory: its end fails too, and hides why."""
    try:
        try:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        finally:
            raise AcceleratorError("CUDA error: operation failed due to a previous error during capture")
    except RuntimeError as failure:
        return failure


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (MemoryError("no room"), "OUT_OF_MEMORY"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "OUT_OF_MEMORY"),
        (AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be …"), "OUT_OF_MEMORY"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."), "OUT_OF_MEMORY"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "OUT_OF_MEMORY"),
        (broken_off(), "OUT_OF_MEMORY"),
        (AcceleratorError("CUDA error: unspecified launch failure"), "WORKER_LOST"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "WORKER_LOST"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), "WORKER_LOST"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "WORKER_LOST"),
        (RuntimeError("No CUDA GPUs are available"), "WORKER_LOST"),
        (ValueError("CUDA error: is what a file said"), None),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), None),
    ],
)
def test_failures_have_codes(failure: BaseException, code: str | None) -> None:
    found = device.translated(failure)
    if code is None:
        assert found is failure
        return
    assert isinstance(found, errors.StereoSpotError)
    assert found.code == code
    assert bool(found.details.get("device_lost")) is (code == "WORKER_LOST")
    assert isinstance(found, errors.Exhausted) is (code == "OUT_OF_MEMORY")
    assert device.translated(found) is found


def test_a_failure_inside_work_is_translated_and_lets_go_of_its_tensors() -> None:
    """What a failed try held is free for the next one, though its error is still looked at."""
    torch = torch_on("cpu")
    on = Device(torch, "cpu")
    held: list[weakref.ref[Any]] = []

    def work() -> None:
        tensor = torch.zeros(1000)
        held.append(weakref.ref(tensor))
        raise OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(errors.Exhausted) as caught, on.working():
        work()
    assert held[0]() is not None
    device.drop_frames(caught.value)
    gc.collect()
    assert held[0]() is None
    with pytest.raises(ValueError, match="mine") as mine, on.working():
        raise ValueError("mine")
    assert mine.value.__cause__ is None
