"""B3's counterpart: one bare conversion call over a whole film, in the same jail, with nothing around it."""

from __future__ import annotations

import time
from pathlib import Path

from bench import measure
from inference import backends, geometry
from services import engines
from stereospot.media import plan as planning
from stereospot.media.frames import Decoder
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from stereospot.options import Options
from stereospot.settings import Settings


def plan(source: FileSource, engine: str, options: Options) -> tuple[Plan, Segment]:
    """What the planner would settle, and the whole film as one segment."""
    limits = Limits.of(Settings())
    info = probe(source, limits=limits)
    output = geometry.output_size(info, options.layout, engine=engine)
    head = planning.head(
        info, options, job_id="bare", generation=1, source_key="", engine=engine, model=None,
        divergence=engines.divergence(options, engine), output=output,
        created_at=time.time(),
    )  # fmt: skip
    times: list[int] = []
    end = 0
    for batch in planning.scan(source, info, limits=limits):
        times += batch.pts
        end = batch.end_pts or end
    whole = Segment(index=0, start=times[0], end=None, frames=len(times), last=times[-1], duration=end - times[0])
    return head, whole


def convert(film: Path, engine: str | None = None) -> float:
    """Seconds of the one call; probing, planning and loading the engine are not in it."""
    options = Options()
    name = engine or engines.default(Settings())
    source = FileSource(film)
    pool = backends.Backends(Settings())
    try:
        head, whole = plan(source, name, options)
        pool.warm(name)
        with (
            Decoder(source, head.decode, head.source, limits=Limits.of(Settings())) as decoder,
            pool.borrow(head) as backend,
        ):

            def call() -> None:
                backend.convert(decoder=decoder, plan=head, segment=whole, stop=None).finish()

            return measure.timed(call)
    finally:
        pool.close()
        source.close()
