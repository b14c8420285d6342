"""The one place that touches numba: how every CPU kernel is compiled and where its machine code is kept.

Kernels have explicit signatures, so that they compile when their module is imported, in a predictable set, and load
from the cache in milliseconds afterwards. They release the GIL, never start threads, and use no fast-math: the same
numbers come out whatever runs beside them. Importing this module costs most of a second; nothing outside `inference`
does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, cast

if "NUMBA_CACHE_DIR" not in os.environ:
    from stereospot.settings import Settings

    os.environ["NUMBA_CACHE_DIR"] = str(Settings().cache_dir / "numba")

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Kernel = Callable[..., Any]

U8 = types.uint8
U16 = types.uint16
I32 = types.int32
I64 = types.int64
F32 = types.float32
F64 = types.float64
VOID = types.void


def array(dtype: Any, dimensions: int) -> Any:
    """Type of a C-contiguous array that the kernel may write."""
    return types.Array(dtype, dimensions, "C")


def view(dtype: Any, dimensions: int) -> Any:
    """Type of a C-contiguous array that the kernel only reads; writable arrays convert to it."""
    return types.Array(dtype, dimensions, "C", readonly=True)


def compiled(*signatures: Any) -> Callable[[Kernel], Kernel]:
    """Compile for these signatures now, or load them from the cache."""

    def decorate(function: Kernel) -> Kernel:
        return cast(Kernel, numba.njit(list(signatures), nogil=True, cache=True, error_model="numpy")(function))

    return decorate


class PerSample:
    """A kernel for planes of 8 and of 16 bits, told apart by its first argument; each is compiled when first used.

    Films of more than 8 bits are the rarer ones, so nobody waits for their kernels without need.
    """

    def __init__(self, function: Kernel, signature: Callable[[Any], Any]) -> None:
        self._function = function
        self._signature = signature
        self._lock = threading.Lock()
        self._compiled: dict[int, Kernel] = {}
        self(1)

    def __call__(self, first: Any, *rest: Any) -> None:
        size = first if isinstance(first, int) else first.dtype.itemsize
        kernel = self._compiled.get(size)
        if kernel is None:
            with self._lock:
                kernel = compiled(self._signature(U8 if size == 1 else U16))(self._function)
                self._compiled[size] = kernel
        if not isinstance(first, int):
            kernel(first, *rest)


def per_sample(signature: Callable[[Any], Any]) -> Callable[[Kernel], PerSample]:
    """Compile for 8 bits now and for 16 on first use; `signature` takes the type of a sample."""
    return lambda function: PerSample(function, signature)


def inner(function: Kernel) -> Kernel:
    """A function for use inside kernels of the same file only: a cache entry knows no other file's changes."""
    return cast(Kernel, numba.njit(nogil=True, error_model="numpy")(function))


def _pair_at(_typing: Any, samples: Any, index: Any) -> Any:
    """See `pair_at`: the type of the result, and how it is generated."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        place = builder.bitcast(builder.gep(data, [values[1]]), ir.IntType(32).as_pointer())
        return builder.load(place, align=2)

    return types.uint32(samples, index), generate


pair_at = cast(Kernel, intrinsic(_pair_at))
"""pair_at(samples, index), inside kernels only: samples[index], and samples[index + 1] in the high half of a uint32.

samples: [n] uint16; index: uint64, at most n - 2. One load, on little-endian machines (all that are supported).

It lives here, beside the compiler's parts, and is compiled into the kernels of other files, whose cache entries know
nothing of a change in this one: whoever changes it changes those files as well.
"""
