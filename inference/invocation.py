"""What an inference server is asked for, and the work: a video file in, a converted one out. Blocking, no HTTP here.

handover (plan, segment, range with padding) ──> exactly that segment, lossless, at the source's times
plain (`mode`, or `options`)                 ──> the whole video converted, sound and tracks kept
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference import curves, geometry, letterbox
from inference.backends import handover
from inference.backends.handover import Handover
from inference.contract import Converted, Frames
from inference.depth import DEFAULT_DIVERGENCE, weights
from stereospot import errors
from stereospot.media import assemble, frames, probe
from stereospot.media import plan as planning
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment, SourceInfo
from stereospot.media.source import FileSource
from stereospot.options import Asked, Layout, Options

Convert = Callable[[Frames, Plan, Segment, threading.Event | None], Converted]
"""One segment on this machine: decoder, plan, segment, stop."""

Film = Callable[[Path, Path, Options, threading.Event | None], None]
"""A whole video: source, target, options, stop."""


class Invocation(BaseModel):
    """The body of `POST /invocations`; `s3_` names are the older spelling of the same fields."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    input_uri: str = Field(min_length=1, max_length=2048)
    output_uri: str = Field(min_length=1, max_length=2048)
    mode: Literal["anaglyph", "sbs"] = "anaglyph"
    options: Asked | None = Field(default=None, description="ours: everything a conversion may ask for, over `mode`")
    stereospot: Handover | None = Field(default=None, description="ours: one exact segment of a plan")

    @property
    def settled(self) -> Options:
        """The options of a whole-file conversion."""
        layout = Layout.FULL_SBS if self.mode == "sbs" else Layout.ANAGLYPH
        return self.options or Options(layout=layout)


def parse(body: bytes) -> Invocation:
    """The request in a JSON body; raises INVALID_REQUEST with what is wrong, INVALID_OPTIONS."""
    try:
        parsed: object = json.loads(body)
    except ValueError as failure:
        raise errors.error("INVALID_REQUEST", "The body is not JSON.") from failure
    if not isinstance(parsed, dict):
        raise errors.error("INVALID_REQUEST", "The body is not a JSON object.")
    given = cast(dict[str, Any], parsed)
    for name in ("input_uri", "output_uri"):
        given[name] = given.get(name) or given.get(f"s3_{name}")
        if not isinstance(given[name], str) or not given[name]:
            raise errors.error("INVALID_REQUEST", f"{name} (or s3_{name}) is missing.")
    try:
        found = Invocation.model_validate(given)
    except ValidationError as failure:
        raise errors.error("INVALID_REQUEST", _first(failure)) from failure
    if found.stereospot is None and (beyond := _beyond(found.settled)):
        raise errors.error("INVALID_OPTIONS", f"A whole film by invocation has no {', '.join(beyond)}.")
    return found


def parse_handover(line: bytes) -> Handover:
    """The first line of an inline request; raises INVALID_REQUEST."""
    try:
        return Handover.model_validate_json(line)
    except ValidationError as failure:
        raise errors.error("INVALID_REQUEST", _first(failure)) from failure


@dataclass(frozen=True, slots=True)
class Workshop:
    """Does the work of one server: `convert` makes a segment, `film` a whole video; `limits` hold for every input."""

    convert: Convert
    film: Film
    limits: Limits

    def segment(
        self, source: Path, target: Path, wanted: Handover, stop: threading.Event | None = None
    ) -> dict[str, Any]:
        """Convert the range in `source` into `target`; returns the report as JSON values."""
        info, plan, segment = handover.received(source, wanted, limits=self.limits)
        opened = FileSource(source)
        try:
            spec = handover.decode_spec(info)
            with frames.Decoder(opened, spec, info, limits=self.limits, stop=stop) as decoder:
                found = self.convert(decoder, plan, segment, stop)
        finally:
            opened.close()
        target.write_bytes(found.fragment.init + found.fragment.media)
        return found.report.model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class Films:
    """Converts whole videos on this machine, segment after segment; call it as a `Film`."""

    convert: Convert
    limits: Limits
    engine: str

    def __call__(self, source: Path, target: Path, options: Options, stop: threading.Event | None = None) -> None:
        """Probe, plan, convert and assemble; sound, subtitles and chapters come from the source.

        Raises what these raise; `target` exists only when all of it went well.
        """
        opened = FileSource(source)
        try:
            info = probe.probe(opened, limits=self.limits, stop=stop)
            head = self._head(info, options)
            if head.stereo.engine not in letterbox.FLAT:
                found = letterbox.find(opened, info, head.decode, limits=self.limits, stop=stop, again=True)
                head = head.model_copy(update={"stereo": head.stereo.model_copy(update={"bars": found})})
            try:
                batches = list(planning.scan(opened, info, limits=self.limits, stop=stop))
            except planning.Untrusted as reason:
                head = planning.synthesised(head, reason)
                told = {"repaired": head.decode.repaired, "reordered": head.decode.reordered}
                batches = list(planning.decode_scan(opened, info, limits=self.limits, stop=stop, **told))
            cutter = planning.Cutter(info, options.segment_seconds, curves.support(head.stereo.engine, info))
            segments = [segment for batch in batches for segment in cutter.feed(batch)]
            rest, total = cutter.finish()
            init = b""
            fragments: list[Path] = []
            with frames.Decoder(opened, head.decode, info, limits=self.limits, stop=stop) as decoder:
                for segment in [*segments, *rest]:
                    made = self.convert(decoder, head, segment, stop).fragment
                    init = made.init
                    fragments.append(target.with_name(f"{segment.index:05d}.m4s"))
                    fragments[-1].write_bytes(made.media)
            pieces = (path.read_bytes() for path in fragments)
            assemble.assemble(head, total, pieces, opened, target, init=init, limits=self.limits, stop=stop)
        finally:
            opened.close()

    def _head(self, info: SourceInfo, options: Options) -> Plan:
        engine = options.engine or self.engine
        weights.check(engine, options.model, options.accept_license)
        divergence = DEFAULT_DIVERGENCE[engine] if options.divergence is None else options.divergence
        return planning.head(
            info,
            options,
            job_id=f"invocation-{uuid.uuid4().hex}",  # backends outlive a film, and remember by job
            generation=1,
            source_key="input",
            engine=engine,
            divergence=divergence,
            output=geometry.output_size(info, options.layout, engine=engine),
            created_at=time.time(),
            model=options.model,
        )


def _beyond(options: Options) -> list[str]:
    """What is asked for and only a job can give: one film goes in here, one comes out, and this machine makes it."""
    asked = {
        "samples": options.samples is not None,
        "export_depth": options.export_depth,
        f"backend {options.backend}": options.backend != "local",
        "engine user": options.engine == "user",
    }
    return [name for name, wanted in asked.items() if wanted]


def _first(failure: ValidationError) -> str:
    problem = failure.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
