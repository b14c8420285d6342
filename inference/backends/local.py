"""The backend `local`: engine, warp and encoder in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from inference import convert, curves, depth
from inference.contract import Converted, Frames
from inference.recent import Recent
from stereospot.media.model import Plan, Segment

if TYPE_CHECKING:
    from inference.gpu.backend import Learned
    from inference.gpu.samples import Lookup


class Local:
    """One engine, loaded once; remembers the depth of the last frames of the generation that it worked on."""

    def __init__(self, engine: depth.DepthEngine) -> None:
        self._engine = engine
        self._owner: tuple[str, int] | None = None
        self._recent = Recent()

    def convert(
        self,
        *,
        decoder: Frames,
        plan: Plan,
        segment: Segment,
        stop: threading.Event | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> Converted:
        """See `convert.convert_segment`."""
        owner = (plan.job_id, plan.generation)
        if owner != self._owner:
            self._owner, self._recent = owner, Recent()
        return convert.convert_segment(
            decoder=decoder, plan=plan, segment=segment, engine=self._engine, stop=stop, on_frame=on_frame,
            recent=self._recent,
        )  # fmt: skip

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def load(*, engine: str, model: str | None = None, windows: Callable[[Plan], Lookup] | None = None) -> Local | Learned:
    """Load the engine; raises ENGINE_UNAVAILABLE, and for learned engines MODEL_MISSING and MODEL_INVALID.

    windows: where a learned engine finds the windows of a plan's curve; None: it takes their samples itself.
    """
    if engine in curves.ENGINES:
        # They need curves and batches, and share one engine among the segments in flight.
        from inference.gpu import backend

        return backend.configured(engine=engine, model=model, windows=windows)
    arguments = {} if model is None else {"model": model}
    return Local(depth.load(engine, **arguments))
