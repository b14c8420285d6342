"""Depth Anything by torch and transformers: real weights from a folder or the hub, one answer for each frame.

    rgb uint8 ──> mean/std ──> ViT + DPT head (a constant batch, the last one padded) ──> relative inverse depth, raw

The network's scale is its own and drifts from shot to shot: what it returns becomes 0 … 1 by the near/far curve of
`inference.curves` (`needs_curve`). On a CPU each frame is a batch of one on one thread, several frames side by side:
matrix products of another shape or another thread count round differently (measured), so neither may vary. On a GPU the
batch is constant and recorded once as a CUDA graph: the small model is bound by kernel launches otherwise. `batched`
runs the GPU's way on a CPU.

torch and transformers are imported when an engine is loaded, never before; torchvision is not used.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from inference import device as devices
from inference.depth import DEFAULT_DIVERGENCE, EngineInfo, weights
from inference.device import Torch
from stereospot import cores, errors

Dtype = Literal["float32", "bfloat16", "int8"]

PATCH = 14
SHORT_SIDE = 252
GPU_BATCH = 16

NVIDIA = Path("/dev/nvidia0")
"""There where a driver has found a GPU."""

MOST_SHAPES = 4
"""Recorded input shapes that are kept: each holds the memory of one run."""

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
"""Of ImageNet, in sRGB 0 … 1: what the published weights were trained with."""

_lock = threading.Lock()
"""Building a model touches process-wide state of torch (default dtype, random state); one at a time."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where and in which numbers the network runs; `batched`: in constant batches, else a frame a thread."""

    name: str
    dtype: Dtype
    batch: int
    threads: int
    batched: bool = False


def input_size(width: int, height: int, *, short_side: int = SHORT_SIDE) -> tuple[int, int]:
    """(width, height) for a picture of this shape: multiples of the patch, the shorter side near `short_side`.

    A very wide or tall picture is held to 3:1, so that the number of patches stays bounded.
    """
    ratio = min(max(width / height, 1 / 3), 3.0)
    short = max(PATCH, round(short_side / PATCH) * PATCH)
    long = round(short * max(ratio, 1 / ratio) / PATCH) * PATCH
    return (long, short) if ratio >= 1 else (short, long)


class DepthAnything:
    """The network, ready to run. Thread-safe; in batches one caller at a time is let in."""

    def __init__(self, torch: Torch, model: Any, info: EngineInfo, device: Device) -> None:
        self.info = info
        self.device = device
        self._torch = torch
        self._model: Any = model
        self._kind = torch.float32 if device.dtype == "float32" else torch.bfloat16
        self._on = devices.Device(torch, device.name)
        with self._on.working():
            self._mean = torch.tensor(_MEAN, device=device.name).view(1, 3, 1, 1) * 255.0
            self._scale = 1.0 / (torch.tensor(_STD, device=device.name).view(1, 3, 1, 1) * 255.0)
            self._on.wait()  # the network was moved there on another stream: it is there before this one reads it
        self.side_by_side = device.batch if device.batched else device.threads
        self._guard = threading.Lock()
        self._graphs: OrderedDict[tuple[int, ...], devices.Graph] = OrderedDict()
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        if not device.batched:
            # The number of threads of a torch operator belongs to the calling thread: these workers have one each.
            self._pool = concurrent.futures.ThreadPoolExecutor(
                device.threads, "depth", initializer=torch.set_num_threads, initargs=(1,)
            )

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw relative inverse depth, greater is nearer, 0 and up; see `needs_curve`.

        rgb: [n, height, width, 3] uint8, both sides multiples of 14. Returns [n, height, width] float32. Raises
        Exhausted("OUT_OF_MEMORY") when the device has no room, WORKER_LOST when the device is gone.
        """
        if rgb.shape[1] % PATCH or rgb.shape[2] % PATCH:
            raise ValueError(f"sides must be multiples of {PATCH}, got {rgb.shape[2]} x {rgb.shape[1]}")
        if len(rgb) == 0:
            return np.empty(rgb.shape[:3], np.float32)
        if self._pool is not None:
            return np.stack(list(self._pool.map(self._one, rgb)))
        out = np.empty(rgb.shape[:3], np.float32)
        with self._guard, self._on.working():
            for start in range(0, len(rgb), self.device.batch):
                piece = rgb[start : start + self.device.batch]
                out[start : start + len(piece)] = self._on.down(self._batch(self._on.up(piece)))
        return out

    def resize(self, batch: int) -> None:
        """Use another constant batch from now on; what was recorded for the old one is dropped."""
        with self._guard:
            self._graphs.clear()
            self.device = dataclasses.replace(self.device, batch=batch)
            self._on.forget()
        self.side_by_side = batch

    def memory_bytes(self) -> int | None:
        """Peak of this process's memory on the GPU; None on a CPU."""
        return self._on.peak_bytes()

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """The input for a picture of this shape, with as many patches as the engine was loaded for."""
        return input_size(width, height, short_side=min(self.info.width, self.info.height))

    def close(self) -> None:
        """Let threads, graphs and the model's memory go."""
        if self._pool is not None:
            self._pool.shutdown()
        with self._guard:
            self._graphs.clear()
            self._model = None
            self._on.forget()

    def _one(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A frame on the thread that it came to."""
        with self._on.working():
            pixels = self._pixels(self._on.up(frame)[None])
            return self._on.down(self._model(pixels).predicted_depth[0].float())

    def _batch(self, rgb: Any) -> Any:
        """[n <= batch, height, width, 3] uint8 on the device to [n, height, width] float32 there."""
        count, batch = rgb.shape[0], self.device.batch
        if count < batch:
            rgb = self._torch.cat([rgb, rgb[-1:].expand(batch - count, -1, -1, -1)])
        pixels = self._pixels(rgb)
        shape = tuple(pixels.shape)
        if shape not in self._graphs:
            while len(self._graphs) >= MOST_SHAPES:
                self._graphs.popitem(last=False)
            self._graphs[shape] = devices.Graph(self._on, lambda given: self._model(given).predicted_depth, pixels)
        self._graphs.move_to_end(shape)
        return self._graphs[shape](pixels)[:count].float()

    def _pixels(self, rgb: Any) -> Any:
        """The network's input of pictures on the device: NCHW in channels-last memory, in the network's numbers."""
        planes = rgb.permute(0, 3, 1, 2).float()
        pixels = ((planes - self._mean) * self._scale).to(self._kind)
        return pixels.contiguous(memory_format=self._torch.channels_last)


def load(
    *,
    model: str | None = None,
    folder: Path | str | None = None,
    device: str = "auto",
    dtype: Dtype | None = None,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    threads: int | None = None,
    batched: bool = False,
    accept_license: bool = False,
    download: bool = True,
    sha256: str | None = None,
) -> DepthAnything:
    """Load a model of `weights.MODELS`.

    folder: where model folders lie, before the hub is asked; device: auto, cpu, cuda or cuda:1; size: (width, height)
    of the network's input; batch: frames at a time on a GPU; threads: frames side by side on a CPU; batched: constant
    batches on a CPU too, as a GPU takes them.
    Raises LICENSE_NOT_ACCEPTED, ENGINE_UNAVAILABLE (no torch, no such GPU), MODEL_MISSING, MODEL_INVALID.
    """
    found = weights.find(model)
    weights.check_licence(found, accept_license)
    torch = import_torch()
    where = settle(torch, device, dtype, batch, threads, batched=batched)
    place = weights.locate(found, folder=Path(folder) if folder is not None else None, download=download)
    sound = weights.read(place, name=found.name, model_type="depth_anything", sha256=sha256)
    network = _prepared(torch, build(sound), where)
    width, height = size or input_size(16, 9)
    info = EngineInfo(
        name="depth-anything",
        version=f"torch {torch.__version__}",
        model_sha256=sound.sha256,
        width=width,
        height=height,
        default_divergence=DEFAULT_DIVERGENCE["depth-anything"],
        needs_curve=True,
        batch=where.batch,
        model=found.repository,
        device=where.name,
        dtype=where.dtype,
    )
    return DepthAnything(torch, network, info, where)


def import_torch() -> Torch:
    """torch, with transformers at hand; raises Misconfigured("ENGINE_UNAVAILABLE") with the command that mends it."""
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("transformers")
    except Exception as failure:  # a broken installation raises RuntimeError, OSError and others
        raise errors.error(
            "ENGINE_UNAVAILABLE",
            f"depth-anything needs torch and transformers: pip install 'stereospot[gpu]' ({failure})",
        ) from failure
    return torch


def settle(
    torch: Torch, device: str, dtype: str | None, batch: int | None, threads: int | None, *, batched: bool = False
) -> Device:
    """Settle what `auto` and None mean on this machine; a GPU that was asked for by name is never replaced by a CPU."""
    if dtype is not None and dtype not in get_args(Dtype):
        raise errors.error("INVALID_OPTIONS", f"There is no dtype {dtype!r}; there are {', '.join(get_args(Dtype))}.")
    name = device
    if device == "auto":
        # A GPU that torch cannot use is not a machine without one: it would be a CPU's speed without a word.
        name = "cuda" if torch.cuda.is_available() or _has_gpu() else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cuda" and (number.isdigit() or name == kind):
        if not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count():
            built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs only"
            raise errors.error(
                "ENGINE_UNAVAILABLE",
                f"torch {torch.__version__} ({built}) sees no {name}: check `nvidia-smi`, install torch for CUDA, or "
                "set STEREOSPOT_DEVICE=cpu.",
            )
        if dtype == "int8":
            raise errors.error("INVALID_OPTIONS", "int8 is for CPUs; a GPU takes float32 or bfloat16.")
        return Device(name, "float32" if dtype == "float32" else "bfloat16", batch or GPU_BATCH, 1, batched=True)
    if name != "cpu":
        raise errors.error("ENGINE_UNAVAILABLE", f"There is no device {device!r}; there are auto, cpu, cuda, cuda:N.")
    size = (batch or GPU_BATCH) if batched else 1
    return Device("cpu", cast(Dtype, dtype or "float32"), size, threads or cores.available(), batched=batched)


def _has_gpu() -> bool:
    """Whether an NVIDIA GPU is here, and not hidden from this process."""
    return NVIDIA.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


def build(sound: weights.Weights) -> Any:
    """The real architecture with the file's tensors, in float32; raises MODEL_INVALID when the two do not fit."""
    transformers: Any = importlib.import_module("transformers")
    try:
        with _lock:
            config = transformers.DepthAnythingConfig.from_dict(sound.config)
            network = transformers.DepthAnythingForDepthEstimation(config)
        state: Any = importlib.import_module("safetensors.torch").load_file(sound.tensors)
        network.load_state_dict(state, strict=True)
    except Exception as failure:
        reason = str(failure).strip().splitlines() or [type(failure).__name__]
        raise errors.error(
            "MODEL_INVALID", f"{sound.model}: the tensors do not fit the architecture ({' '.join(reason)[:300]})",
            model=sound.model,
        ) from failure  # fmt: skip
    return network.float().eval().requires_grad_(False)


def _prepared(torch: Torch, network: Any, device: Device) -> Any:
    """The network in the numbers and on the device that were settled."""
    if device.dtype != "float32":
        if device.dtype == "int8":
            _quantise(torch, network.backbone)
        network = network.to(torch.bfloat16)
    try:
        network = network.to(device.name).to(memory_format=torch.channels_last)
    except Exception as failure:
        raise devices.translated(failure) from failure
    if device.name == "cpu" and device.dtype != "float32":
        _attend_in_float32(network)
    return network


def _attend_in_float32(network: Any) -> None:
    """Attention of a CPU in float32: measured faster than in bfloat16 (87 against 112 ms a frame of 252 x 448)."""
    interface: Any = importlib.import_module("transformers").AttentionInterface
    inner: Any = importlib.import_module("transformers.integrations.sdpa_attention").sdpa_attention_forward

    def attend(module: Any, query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> Any:
        out, scores = inner(module, query.float(), key.float(), value.float(), *rest, **options)
        return out.to(query.dtype), scores

    interface.register("stereospot_float32", attend)
    network.backbone.config._attn_implementation = "stereospot_float32"


def _quantise(torch: Torch, module: Any) -> None:
    """Replace every linear layer below `module` by one in int8: weights by output channel, activations by row.

    Sums are exact int32, so the order of summing cannot show. Only the transformer's layers: the convolutions of the
    head set the picture's edges and cost little.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, torch.nn.Linear):
            setattr(module, name, _int8_linear(torch, child))
        else:
            _quantise(torch, child)


def _int8_linear(torch: Torch, linear: Any) -> Any:
    class Int8Linear(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            weight = linear.weight.detach().float()
            scale = weight.abs().amax(1).clamp_(min=1e-12) / 127.0
            self.weight = (weight / scale[:, None]).round_().to(torch.int8).t().contiguous()
            self.scale = scale
            self.shift = None if linear.bias is None else linear.bias.detach().float()

        def forward(self, x: Any) -> Any:
            rows = x.reshape(-1, x.shape[-1]).float()
            step = rows.abs().amax(1, keepdim=True).clamp_(min=1e-12) / 127.0
            product = torch._int_mm((rows / step).round_().to(torch.int8), self.weight).float()
            out = product.mul_(step).mul_(self.scale)
            if self.shift is not None:
                out = out.add_(self.shift)
            return out.to(x.dtype).reshape(*x.shape[:-1], -1)

    return Int8Linear()
