"""Where the time of a frame goes: core-milliseconds of each stage of a conversion, at three picture sizes.

Half-SBS, default engine and encoder, one thread for each stage except the encoder's own. CPU time, so other work on the
machine disturbs it little; of several rounds over the same frames the quickest counts. `decode` is the child's time for
plain decoding, `hand-over` what the jail adds to it on both sides of the shared memory, `depth` the engine's time over
the frames that share one estimate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from bench import clips, measure
from inference import cadence, depth, geometry, layouts, prepare, temporal, upsample
from inference.contract import Planes
from stereospot.media.cmaf import FragmentEncoder
from stereospot.media.frames import Decoder
from stereospot.media.limits import Limits
from stereospot.media.model import DecodeSpec, EncodeSpec, SourceInfo, StereoSpec
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from stereospot.options import Codec, Layout

SIZES = ((1280, 720), (1920, 1080), (3840, 2160))
FRAMES = 48
FIRST = 96  # the clip opens with a fade, on which engines have little to do
HELD = 16
ROUNDS = 5
STAGES = ("decode", "hand-over", "prepare", "depth", "temporal", "upsample", "warp", "encode")


def table(engine: str | None = None) -> str:
    """A Markdown table; engine: `relief` where it is installed, unless named."""
    name = engine or "relief"
    columns = {f"{width}x{height}": budget(width, height, name) for width, height in SIZES}
    lines = [
        f"### Budget: core-milliseconds a frame, half-SBS, engine {name}, x264 veryfast crf 20\n",
        "| stage | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for stage in STAGES:
        lines.append(f"| {stage} | " + " | ".join(f"{column[stage]:.2f}" for column in columns.values()) + " |")
    totals = (sum(column.values()) for column in columns.values())
    lines.append("| **sum** | " + " | ".join(f"**{total:.1f}**" for total in totals) + " |")
    own = (sum(column[stage] for stage in STAGES[1:-1]) for column in columns.values())
    lines.append("| of it ours (without decode and encode) | " + " | ".join(f"{total:.1f}" for total in own) + " |")
    return "\n".join(lines) + "\n"


def budget(width: int, height: int, engine_name: str) -> dict[str, float]:
    """Core-milliseconds a frame of each stage."""
    path = clips.film(6, width, height)
    plain = min(_plain_decode(path) for _ in range(2))
    info, child, parent, pictures = _jailed_decode(path)
    found = {"decode": plain, "hand-over": max(0.0, child - plain) + parent}
    video = info.video
    stereo = StereoSpec(
        engine=engine_name,
        layout=Layout.HALF_SBS,
        divergence=depth.DEFAULT_DIVERGENCE[engine_name],
        convergence=0.5,
    )
    engine = depth.load(engine_name)
    size = (engine.info.width, engine.info.height)
    place = (video.width, video.height)
    preparer = prepare.Preparer(*place, video.pixel_format, video.colour, stereo.bars, *size)
    upsampler = upsample.Upsampler(*place, stereo.bars, *size)
    compositor = layouts.Compositor(*place, video.pixel_format, stereo, video.colour)
    small = [preparer.prepare(planes) for planes in pictures]
    raw = [engine.infer(item.rgb[None])[0] for item in small]
    soft = [temporal.soften(item.luma) for item in small]
    grids = [upsampler.upsample(deep, item.luma, item.grid) for deep, item in zip(raw, small, strict=True)]
    outputs = [compositor.compose(planes, grid) for planes, grid in zip(pictures, grids, strict=True)]

    every = cadence.Cadence.of(engine_name, video.average_rate, video.time_base).every

    def smooth(index: int) -> None:
        temporal.soften(small[index].luma)
        near = range(index - temporal.RADIUS, index + temporal.RADIUS + 1)
        known = [raw[i % HELD] if i % every == 0 else None for i in near]
        temporal.smooth(known, [soft[i % HELD] for i in near], temporal.RADIUS)

    found["prepare"] = _each(lambda i: preparer.prepare(pictures[i]))
    found["depth"] = _each(lambda i: engine.infer(small[i].rgb[None])) / every
    found["temporal"] = _each(smooth)
    found["upsample"] = _each(lambda i: upsampler.upsample(raw[i], small[i].luma, small[i].grid))
    found["warp"] = _each(lambda i: compositor.compose(pictures[i], grids[i], outputs[i]))
    found["encode"] = _encode(info, outputs)
    engine.close()
    return found


def _each(work: Callable[[int], Any]) -> float:
    """CPU milliseconds of one call, over the held frames, in the quickest of some rounds."""
    rounds: list[float] = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for index in range(HELD):
            work(index)
        rounds.append((time.process_time() - started) / HELD)
    return min(rounds) * 1e3


def _plain_decode(path: Path) -> float:
    started, count = time.process_time(), 0
    with av.open(str(path)) as container:
        for _ in container.decode(video=0):
            count += 1
            if count == FRAMES:
                break
    return (time.process_time() - started) / count * 1e3


def _jailed_decode(path: Path) -> tuple[SourceInfo, float, float, list[Planes]]:
    """The source, CPU milliseconds a frame of the child and of this side, and copies of some frames."""
    source = FileSource(path)
    info = probe(source, limits=Limits())
    spec = DecodeSpec(stream_index=info.video.stream_index, pixel_format=info.video.pixel_format)
    kept: list[Planes] = []
    with Decoder(source, spec, info) as decoder:
        pid = decoder.jail.wait_started()
        for number, frame in enumerate(decoder.frames(None, None)):
            if number >= FIRST and len(kept) < HELD:
                kept.append(tuple(plane.copy() for plane in frame.planes))
            frame.release()
        before, started, count = measure.cpu_seconds(pid), time.thread_time(), 0
        for frame in decoder.frames(None, None):
            frame.release()
            count += 1
        parent = time.thread_time() - started
        child = measure.cpu_seconds(pid) - before
    source.close()
    return info, child / count * 1e3, parent / count * 1e3, kept


def _encode(info: SourceInfo, outputs: list[Planes]) -> float:
    video = info.video
    size = geometry.output_size(info, Layout.HALF_SBS)
    base = Fraction(video.time_base)
    spec = EncodeSpec(
        codec=Codec.X264, pixel_format=video.pixel_format, width=size[0], height=size[1], time_base=base,
        rate=video.average_rate, crf=20, preset="veryfast", colour=video.colour, layout=Layout.HALF_SBS,
    )  # fmt: skip
    step = round(1 / (video.average_rate * base))
    encoder = FragmentEncoder(spec)
    # There and back again, so that consecutive frames belong together.
    order = [*range(HELD), *range(HELD - 2, 0, -1)] * 2
    started = time.process_time()
    for index, picture in enumerate(order):
        encoder.write(outputs[picture], index * step)
    encoder.finish(len(order) * step)
    return (time.process_time() - started) / len(order) * 1e3


def main() -> None:
    """Print the table."""
    np.seterr(all="raise")
    print(table())


if __name__ == "__main__":
    main()
