"""Windows of a curve that analysers have stored, read from a converter's threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING

from pydantic import ValidationError

from inference.curves import Window
from stereospot import errors, keys, log
from stereospot.media.model import Plan
from stereospot.storage.base import ObjectStore

if TYPE_CHECKING:
    from inference.gpu.samples import Lookup

_log = log.get("converter")

READ_SECONDS = 10.0


class StoredWindows:
    """Windows that were stored; `lookup` is what `inference.backends.Backends` wants. Thread-safe."""

    def __init__(self, store: ObjectStore, loop: asyncio.AbstractEventLoop) -> None:
        self._store, self._loop = store, loop

    def lookup(self, plan: Plan) -> Lookup:
        """A function from a window's index to the stored window, None where there is none.

        It raises STORAGE_UNAVAILABLE where that cannot be known: the converter waits, as for its source.
        """

        def read(index: int) -> Window | None:
            key = keys.curve_window(plan.job_id, plan.generation, index)
            future = asyncio.run_coroutine_threadsafe(self._store.get(key), self._loop)
            try:
                body = future.result(READ_SECONDS)
            except FutureTimeout as error:
                future.cancel()
                raise errors.error("STORAGE_UNAVAILABLE", f"{key} was not read in {READ_SECONDS:g} s.") from error
            try:
                return None if body is None else Window.model_validate_json(body)
            except ValidationError as error:
                _log.warning("window not read", action="refuse", key=key, reason=str(error))
                return None

        return read
