"""The backend of learned engines: one engine a process and device, shared by the segments in flight.

    plan ─> engine (loaded once) at the picture's shape ─> curve ─> `convert_learned`

A worker that cannot load the engine says so and takes none of its work; nothing falls back to another engine or device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from inference import depth
from inference.contract import Converted, Frames
from inference.curves import Window
from inference.gpu.batching import Shared
from inference.gpu.convert import convert_learned
from inference.gpu.samples import Known, Lookup, Sampler
from stereospot.media.model import Plan, Segment
from stereospot.settings import Settings

_lock = threading.Lock()
_engines: dict[tuple[Any, ...], tuple[Shared, int]] = {}
"""Loaded engines with how many backends use each."""


class Learned:
    """Converts one segment at a time; several may share one engine. Remembers the generation that it worked on."""

    def __init__(
        self, engine: Shared, *, every: int = 1, lookup: Callable[[Plan], Lookup] | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """lookup: where windows of a plan's curve may be found that others have taken."""
        self._engine, self._every, self._lookup = engine, every, lookup
        self._release = release or engine.close
        self._owner: tuple[str, int] | None = None
        self._known = Known()
        self._view = engine
        self._sampler: Sampler | None = None

    def convert(
        self,
        *,
        decoder: Frames,
        plan: Plan,
        segment: Segment,
        stop: threading.Event | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> Converted:
        """See `convert_learned`."""
        owner = (plan.job_id, plan.generation)
        if owner != self._owner:
            self._known, self._view = Known(), self._sized(plan)
            lookup = self._lookup(plan) if self._lookup is not None else None
            self._sampler = Sampler(plan, self._view, self._known, lookup) if self._view.info.needs_curve else None
            self._owner = owner
        self._view.seconds = 0.0
        return convert_learned(
            decoder=decoder, plan=plan, segment=segment, engine=self._view, sampler=self._sampler, known=self._known,
            every=self._every, stop=stop, on_frame=on_frame,
        )  # fmt: skip

    def measure(self, *, decoder: Frames, plan: Plan, index: int, stop: threading.Event | None = None) -> Window:
        """The samples of one window of the plan's curve: what `work.analyse` asks for."""
        view = self._sized(plan)
        return Sampler(plan, view, Known()).measure(decoder, index, stop)

    def close(self) -> None:
        """Let the engine go; the last user closes it."""
        self._release()

    def _sized(self, plan: Plan) -> Shared:
        """The engine at the shape of the picture inside its bars."""
        video, bars = plan.source.video, plan.stereo.bars
        return self._engine.fitted(video.width - bars.left - bars.right, video.height - bars.top - bars.bottom)


def load(
    *,
    engine: str,
    model: str | None = None,
    every: int = 1,
    lookup: Callable[[Plan], Lookup] | None = None,
    **arguments: Any,
) -> Learned:
    """A backend on the process's one engine of this kind; arguments as the engine's own `load` takes them."""
    key = (engine, model, *sorted((name, str(value)) for name, value in arguments.items()))
    with _lock:
        found, users = _engines.get(key, (None, 0))
        if found is None:
            given = arguments if model is None else {"model": model, **arguments}
            found = Shared(depth.load(engine, **given))
        _engines[key] = (found, users + 1)
    return Learned(found, every=every, lookup=lookup, release=lambda: _released(key))


def _released(key: tuple[Any, ...]) -> None:
    with _lock:
        found, users = _engines[key]
        if users > 1:
            _engines[key] = (found, users - 1)
            return
        del _engines[key]
    found.close()


def configured(*, engine: str, model: str | None = None, windows: Callable[[Plan], Lookup] | None = None) -> Learned:
    """The backend with the settings of this process; licences were checked when the job was planned.

    windows: where windows of a plan's curve are found that others have taken.
    """
    values = Settings()
    arguments: dict[str, Any] = {"accept_license": True}
    if engine == "depth-anything":
        arguments |= {
            "folder": values.models_dir,
            "device": values.device,
            "dtype": values.depth_dtype,
            "batch": values.depth_batch,
        }
    elif engine == "iw3" and values.device != "auto":
        arguments["gpu"] = -1 if values.device == "cpu" else int(values.device.partition(":")[2] or 0)
    return load(engine=engine, model=model, every=values.depth_every, lookup=windows, **arguments)
