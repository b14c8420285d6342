"""Backends: who turns a segment into a fragment. `local` does it here; `stub` only copies, for tests and load.

    Backends.borrow(plan) ─> Backend.convert(decoder, plan, segment) ─> Converted

Importing this package is cheap: numba, onnxruntime and the engines come with the first backend that needs them.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from stereospot import errors, settings
from stereospot.media.model import Plan, Segment

if TYPE_CHECKING:
    from inference.contract import Converted, Frames
    from inference.gpu.samples import Lookup

__all__ = ["Backend", "Backends", "load", "name_of"]

_MODULES = {
    "local": "inference.backends.local",
    "http": "inference.backends.http",
    "sagemaker": "inference.backends.sagemaker",
    "stub": "inference.backends.stub",
}


class Backend(Protocol):
    """Converts one segment at a time; blocking, used by one thread at a time."""

    def convert(
        self,
        *,
        decoder: Frames,
        plan: Plan,
        segment: Segment,
        stop: threading.Event | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> Converted:
        """The fragment of a segment. Raises CANCELLED soon after `stop` is set, and what decoder and engine raise."""
        ...

    def close(self) -> None: ...


def load(name: str, **arguments: Any) -> Backend:
    """A backend by name; raises ENGINE_UNAVAILABLE when this build does not have it."""
    module = _MODULES.get(name)
    if module is None:
        raise errors.error("ENGINE_UNAVAILABLE", f"There is no backend {name!r}; there are {', '.join(_MODULES)}.")
    return importlib.import_module(module).load(**arguments)


def name_of(plan: Plan) -> str:
    """The backend that a plan asks for; plans that say nothing are converted here."""
    return str(getattr(plan, "backend", None) or "local")


class Backends:
    """The backends of one process: each is kept after use and lent to one thread at a time."""

    def __init__(
        self,
        values: settings.Settings,
        *,
        backend: str | None = None,
        windows: Callable[[Plan], Lookup] | None = None,
    ) -> None:
        """backend: use this one for every plan, whatever the plan says; a worker of the pool `stub` always stubs.

        windows: where windows of a plan's curve are found that analysers have taken; None: backends take their own.
        """
        self._windows = windows
        self._forced = backend or ("stub" if values.pool == "stub" else None)
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, str | None], list[Backend]] = {}

    def warm(self, engine: str) -> None:
        """Load an engine and every kernel once, so that the first segment does not wait for it. Blocking, seconds."""
        name = self._forced or "local"
        if name != "local":
            return
        from inference import warm

        warm.kernels()
        key = (name, engine, None)
        found = load(name, engine=engine, model=None)
        with self._lock:
            self._idle.setdefault(key, []).append(found)

    @contextmanager
    def borrow(self, plan: Plan) -> Generator[Backend]:
        """A backend for this plan's engine and model; an error of the work discards it."""
        name = self._forced or name_of(plan)
        key = (name, plan.stereo.engine, plan.stereo.model)
        with self._lock:
            idle = self._idle.get(key)
            found = idle.pop() if idle else None
        if found is None:
            more = {"windows": self._windows} if name == "local" else {}
            found = load(name, engine=plan.stereo.engine, model=plan.stereo.model, **more)
        try:
            yield found
        except errors.StereoSpotError:
            # A bad segment or a cancelled job says nothing against the engine.
            self._keep(key, found)
            raise
        except BaseException:
            found.close()
            raise
        self._keep(key, found)

    def _keep(self, key: tuple[str, str, str | None], backend: Backend) -> None:
        with self._lock:
            self._idle.setdefault(key, []).append(backend)

    def close(self) -> None:
        """Close what is not lent."""
        with self._lock:
            left = [item for items in self._idle.values() for item in items]
            self._idle.clear()
        for item in left:
            item.close()
