"""One segment from the decoder's frames to a fragment: four stages, each in a thread, joined by short queues.

    decode, small pictures ─> depth, smoothing, upsampling ─> warp, layout ─> encode

A segment converted alone equals the same frames of a serial run bit for bit before encoding: `padding(plan)` frames are
decoded on each side for the depth window (`inference.window`), and nothing else has a memory. Engine `identity` copies
the pictures, engine `flat` needs no small pictures and no padding.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inference import cadence, finish, layouts, prepare, upsample, window
from inference.channel import Channel, Halt
from inference.contract import Converted, Flush, Frame, Frames, Planes
from inference.depth import DepthEngine, user
from inference.recent import Recent
from inference.report import SegmentReport
from stereospot import errors
from stereospot.media.cmaf import FragmentEncoder
from stereospot.media.model import Plan, Segment

if TYPE_CHECKING:
    from inference.depth import export
    from inference.tonemap import ToneMapper

__all__ = ["STILL", "Converted", "Frame", "Frames", "convert_segment", "padding"]

Depth = NDArray[np.float32] | NDArray[np.uint16]

STILL = frozenset({"flat", "identity", "user"})
"""Engines whose depth does not depend on the picture: it is always the same, or given with the frame."""

_GATHERED = 5
"""Frames that are gathered for a batch at most, so that a decoder of the default number of slots never runs dry."""

_QUEUE = 2
_BUFFERS = 3


def padding(plan: Plan) -> int:
    """Frames that have to be decoded on each side of a segment."""
    return 0 if plan.stereo.engine in STILL else window.PADDING + 1


def convert_segment(
    *,
    decoder: Frames,
    plan: Plan,
    segment: Segment,
    engine: DepthEngine,
    stop: threading.Event | None = None,
    on_frame: Callable[[int], None] | None = None,
    recent: Recent | None = None,
) -> Converted:
    """Convert one segment; blocking, with three threads of its own.

    stop: ends the work within a frame, CANCELLED is raised. on_frame: called with the number of frames encoded so far.
    recent: depth of frames that the segment before had as padding; changes nothing but the time.
    Raises what the decoder raises, and SEGMENT_MISMATCH when the frames are not those of the plan.
    """
    return _Conversion(decoder, plan, segment, engine, stop, recent).run(on_frame)


@dataclass(slots=True, eq=False)
class _Taken:
    """A frame with its small picture; `wanted`: its depth is still to be estimated."""

    pts: int
    frame: Frame | None
    small: prepare.Small
    depth: NDArray[np.float32] | None
    wanted: bool


class _Conversion:
    def __init__(
        self,
        decoder: Frames,
        plan: Plan,
        segment: Segment,
        engine: DepthEngine,
        stop: threading.Event | None,
        recent: Recent | None,
    ) -> None:
        video, stereo = plan.source.video, plan.stereo
        self._decoder, self._plan, self._segment, self._engine = decoder, plan, segment, engine
        self._recent = recent
        self._halt = Halt(stop)
        source_format, target_format = plan.decode.pixel_format, plan.encode.pixel_format
        self._tones: ToneMapper | None = None
        if video.colour.is_hdr and target_format == source_format.removesuffix("10le") != source_format:
            from inference.tonemap import ToneMapper

            self._tones = ToneMapper(video.width, video.height, source_format, video.colour)
        elif source_format != target_format:
            raise errors.error("INTERNAL", f"The plan decodes to {source_format} and encodes {target_format}.")
        self._compositor = layouts.Compositor(
            video.width, video.height, target_format, stereo, plan.encode.colour if self._tones else video.colour
        )
        place = self._compositor.arrangement
        if (place.width, place.height) != (plan.encode.width, plan.encode.height):
            raise errors.error(
                "INTERNAL",
                f"The plan encodes {plan.encode.width}x{plan.encode.height}, {stereo.layout} gives "
                f"{place.width}x{place.height}.",
            )
        size = (engine.info.width, engine.info.height)
        self._still = stereo.engine in STILL
        if not self._still:
            self._preparer = prepare.Preparer(
                video.width, video.height, plan.decode.pixel_format, video.colour, stereo.bars, *size
            )
            self._upsampler = upsample.Upsampler(video.width, video.height, stereo.bars, *size)
            self._cadence = cadence.Cadence.of(stereo.engine, video.average_rate, video.time_base)
        self._taken: Channel[_Taken] = Channel(_QUEUE, self._halt)
        self._settled: Channel[tuple[Frame, Depth | None, bool]] = Channel(_QUEUE, self._halt)
        self._composed: Channel[tuple[int, Planes]] = Channel(_BUFFERS, self._halt)
        self._spare: Channel[Planes] = Channel(_BUFFERS, self._halt)
        self._seconds: dict[str, float] = {}
        self._not_finite = 0
        self._cuts: list[bool] = []
        self._means: list[float] = []
        self._open: set[Frame] = set()
        self._export: export.Writer | None = None
        if stereo.export_depth and stereo.engine != "identity":
            from inference.depth import export

            grid = self._compositor.field.grid
            self._export = export.Writer(grid.columns, grid.rows, video.average_rate)

    def run(self, on_frame: Callable[[int], None] | None) -> Converted:
        started = time.perf_counter()
        work = [self._decode_still, self._warp] if self._still else [self._decode, self._estimate, self._warp]
        threads = [
            threading.Thread(target=self._halt.run, args=(part,), name=f"convert-{part.__name__[1:]}") for part in work
        ]
        for thread in threads:
            thread.start()
        flush: Flush | None = None
        try:
            flush = self._encode(on_frame)
        except BaseException as error:
            self._halt.fail(error)
        finally:
            for thread in threads:
                thread.join()
            for frame in list(self._open):
                self._release(frame)
        if flush is None or self._halt.is_set:
            self._halt.reraise()
            raise errors.error("INTERNAL", "A conversion ended without a fragment.")
        depth = self._export.finish() if self._export is not None else b""
        return Converted(flush, self._report(time.perf_counter() - started), depth)

    # ---- the stages ---------------------------------------------------------------------------------------
    def _frames(self, pad: int) -> Iterator[Frame]:
        found = self._decoder.frames(self._segment.start, self._segment.end, before=pad, after=pad)
        try:
            for frame in found:
                self._open.add(frame)
                self._halt.check()
                yield frame
        finally:
            close = getattr(found, "close", None)
            if close is not None:
                close()

    def _release(self, frame: Frame) -> None:
        self._open.discard(frame)
        frame.release()

    def _decode(self) -> None:
        """Take frames from the decoder and make their small pictures."""
        clock = _Clock(self._seconds)
        previous: int | None = None
        for frame in self._frames(padding(self._plan)):
            clock.lap("decode")
            is_key = self._cadence.is_key(frame.pts, previous)
            previous = frame.pts
            known = self._recent.get(frame.pts) if self._recent is not None else None
            small, depth = known if known is not None else (self._preparer.prepare(frame.planes), None)
            if not is_key:  # estimated once as the first of another range, where nobody knew the frame before it
                depth = None
            item = _Taken(frame.pts, frame if frame.pad == 0 else None, small, depth, is_key and depth is None)
            if frame.pad != 0:
                self._release(frame)
            clock.lap("prepare")
            self._taken.put(item)
        self._taken.close()

    def _decode_still(self) -> None:
        """Frames that need no depth of their own."""
        clock = _Clock(self._seconds)
        grid = self._compositor.field.grid
        depth = None
        given = self._plan.stereo.engine == "user"
        if not given and self._plan.stereo.engine != "identity":
            depth = np.full((grid.rows, grid.columns), self._engine.infer(np.zeros((1, 1, 1, 3), np.uint8))[0, 0, 0])
        for frame in self._frames(0):
            clock.lap("decode")
            self._settled.put((frame, user.depth_of(frame) if given else depth, False))
        self._settled.close()

    def _estimate(self) -> None:
        """Depth in batches of a constant shape, then the window."""
        clock = _Clock(self._seconds)
        found: window.DepthWindow[Frame] = window.DepthWindow(
            self._upsampler, lambda small: self._finite(self._infer([small])[0])
        )
        size = min(self._engine.info.batch, _GATHERED)
        batch: list[_Taken] = []
        for item in self._taken:
            batch.append(item)
            if sum(entry.wanted for entry in batch) in (0, size):
                self._push(found, batch, clock)
                batch = []
        self._push(found, batch, clock)
        self._settle(found.finish())
        clock.lap("smooth")
        self._settled.close()

    def _push(self, found: window.DepthWindow[Frame], batch: list[_Taken], clock: _Clock) -> None:
        wanted = [item for item in batch if item.wanted]
        for item, depth in zip(wanted, self._infer([item.small for item in wanted]), strict=False):
            item.depth = self._finite(depth)
        clock.lap("depth")
        for item in batch:
            if self._recent is not None:
                self._recent.put(item.pts, item.small, item.depth)
            self._settle(found.push(item.small, item.depth, item.frame))
        clock.lap("smooth")

    def _infer(self, smalls: list[prepare.Small]) -> list[NDArray[np.float32]]:
        """Raw depth of some frames, in one batch of the engine's constant shape."""
        if not smalls:
            return []
        pictures = [small.rgb for small in smalls]
        pictures += [pictures[-1]] * (self._engine.info.batch - len(pictures))
        return list(self._engine.infer(np.stack(pictures))[: len(smalls)])

    def _settle(self, ready: list[window.Ready[Frame]]) -> None:
        for item in ready:
            self._settled.put((item.payload, item.depth, item.cut))

    def _finite(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Depth that is no number lies at the screen; what is beyond the scale is brought to its end."""
        good = np.isfinite(depth)
        if not good.all():
            self._not_finite += int(depth.size - np.count_nonzero(good))
            depth = np.where(good, depth, np.float32(self._plan.stereo.convergence))
        return np.ascontiguousarray(np.clip(depth, 0, 1), dtype=np.float32)

    def _warp(self) -> None:
        """Both eyes of each frame into the layout."""
        clock = _Clock(self._seconds)
        spare = iter(self._spare)
        for frame, depth, cut in self._settled:
            out = next(spare)
            if self._export is not None and depth is not None:
                depth = self._compositor.disparity.codes(depth)
                self._export.write(depth)
            clock.lap("wait")
            self._compositor.compose(self._tones.map(frame.planes) if self._tones else frame.planes, depth, out)
            self._cuts.append(cut)
            self._means.append(self._compositor.disparity.mean_percent)
            pts = frame.pts
            self._release(frame)
            clock.lap("warp")
            self._composed.put((pts, out))
        self._composed.close()

    def _encode(self, on_frame: Callable[[int], None] | None) -> Flush:
        encoder = FragmentEncoder(self._plan.encode)
        for _ in range(_BUFFERS):
            self._spare.put(encoder.canvas())
        flush, self._seconds["encode"] = finish.encode(
            encoder, self._segment, self._composed, spare=self._spare.put, on_frame=on_frame
        )
        return flush

    def _report(self, seconds: float) -> SegmentReport:
        stages = {name: spent for name, spent in self._seconds.items() if name != "wait"}
        return finish.measured(
            self._segment, self._engine.info, self._compositor, means=self._means, cuts=self._cuts,
            not_finite=self._not_finite, seconds=seconds, stages=stages,
        )  # fmt: skip


class _Clock:
    """CPU time of the present thread, by what it was spent on."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._last = time.thread_time()

    def lap(self, name: str) -> None:
        now = time.thread_time()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now
