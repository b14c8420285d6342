"""The one place that touches numba: how every CPU kernel is compiled and where its machine code is kept.

Kernels have explicit signatures, so that they compile when their module is imported, in a predictable set, and load
from the cache in milliseconds afterwards. They release the GIL, never start threads, and use no fast-math: the same
numbers come out whatever runs beside them. Importing this module costs most of a second; nothing outside `inference`
does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

if "NUMBA_CACHE_DIR" not in os.environ:
    from stereospot.settings import Settings

    os.environ["NUMBA_CACHE_DIR"] = str(Settings().cache_dir / "numba")

import numba
from numba import types

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


def inlined(function: Kernel) -> Kernel:
    """A small function for use inside kernels of the same file only: a cache entry knows no other file's changes."""
    return cast(Kernel, numba.njit(nogil=True, inline="always")(function))
