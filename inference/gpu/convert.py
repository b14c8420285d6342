"""A segment by a learned engine, from the decoder's frames to a fragment; stages in threads, joined by short queues.

    decode, small pictures ─> keys inferred in batches ─> carried, near/far, window ─> warp, layout ─> encode

The same stages as `inference.convert`, around another way to depth. Frames are copied out of the decoder's memory as
they come: a batch of keys may span more frames than the decoder's ring. Any worker gets the same depth for a frame:
keys lie on the film's grid and at shot starts, each is inferred by itself, and the curve is the film's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inference import curves, finish, layouts, prepare, shots, upsample, window
from inference.channel import Channel, Halt
from inference.contract import Converted, Flush, Frames, Planes
from inference.depth import export
from inference.depth.motion import KeyGrid
from inference.gpu.batching import Shared
from inference.gpu.compositor import GROUP, DeviceCompositor, fits
from inference.gpu.depths import Depths, Entry
from inference.gpu.eyes import EyesCompositor
from inference.gpu.samples import Known, Sampler
from inference.report import SegmentReport
from stereospot import errors
from stereospot.media.cmaf import FragmentEncoder
from stereospot.media.model import Plan, Segment

_QUEUE = 4
_BUFFERS = 4


def key_grid(plan: Plan, every: int) -> KeyGrid:
    """The keys of a plan's film when every `every`-th frame is inferred."""
    video = plan.source.video
    return KeyGrid(every, video.average_rate, video.time_base)


def padding(every: int) -> int:
    """Frames that have to be decoded on each side of a segment: the window's, with the keys beside each of them."""
    return window.PADDING if every == 1 else window.PADDING + every + 1 + shots.REACH


def convert_learned(
    *,
    decoder: Frames,
    plan: Plan,
    segment: Segment,
    engine: Shared,
    sampler: Sampler | None,
    known: Known,
    every: int = 1,
    stop: threading.Event | None = None,
    on_frame: Callable[[int], None] | None = None,
    warp_device: str | None = None,
) -> Converted:
    """Convert one segment; blocking. Arguments and errors as `convert.convert_segment`.

    sampler: gives the curve of an engine that needs one; known: raw depth that this worker has inferred already;
    every: infer each so manieth frame, carry the others; warp_device: of torch, None: the engine's GPU, else the CPU
    kernel. Raises OUT_OF_MEMORY when half the batch does not fit.
    """
    began, before = time.perf_counter(), engine.seconds
    curve, taken = None, sampler.taken if sampler is not None else 0
    if engine.info.needs_curve:
        if sampler is None:
            raise errors.error("INTERNAL", f"The engine {engine.info.name} needs a curve.")
        curve = sampler.curve(decoder, *curves.reach(plan, segment), stop=stop)
    sampled = time.perf_counter() - began
    device = warp_device or (engine.info.device if engine.info.device.startswith("cuda") else None)
    work = _Conversion(decoder, plan, segment, engine, stop, padding(every), device)
    depths = Depths(work.halt, work.upsampler, engine, known, key_grid(plan, every), curve, plan.stereo.convergence)
    flush = work.run(depths, on_frame)
    seconds = time.perf_counter() - began
    stages = {**work.seconds, **depths.seconds, "sample": sampled, "depth": engine.seconds - before}
    more = {
        "batch": engine.group,
        "every": every,
        "device_memory_bytes": engine.memory_bytes(),
        "windows_taken": sampler.taken - taken if sampler is not None else 0,
    }
    found = work.report(engine, seconds=seconds, stages=stages, not_finite=depths.not_finite)
    depth = work.export.finish() if work.export is not None else b""
    return Converted(flush, found.model_copy(update=more), depth)


@dataclass(slots=True, eq=False)
class _Picture:
    """A frame of the segment in memory of our own."""

    pts: int
    planes: Planes


class _Conversion:
    """The stages around depth."""

    def __init__(
        self,
        decoder: Frames,
        plan: Plan,
        segment: Segment,
        engine: Shared,
        stop: threading.Event | None,
        pad: int,
        warp_device: str | None,
    ) -> None:
        video, stereo = plan.source.video, plan.stereo
        source_form, form = plan.decode.pixel_format, plan.encode.pixel_format
        self._tones = None
        if source_form != form:
            # The one reason to decode to more bits than are encoded is that HDR was asked to be mapped down.
            from inference.tonemap import ToneMapper

            self._tones = ToneMapper(video.width, video.height, source_form, video.colour)
        size = (engine.info.width, engine.info.height)
        self.halt = Halt(stop)
        self.upsampler = upsample.Upsampler(video.width, video.height, stereo.bars, *size)
        self.seconds: dict[str, float] = {"decode": 0.0, "prepare": 0.0, "warp": 0.0, "encode": 0.0}
        self._decoder, self._plan, self._segment, self._pad = decoder, plan, segment, pad
        self._preparer = prepare.Preparer(video.width, video.height, source_form, video.colour, stereo.bars, *size)
        colour = video.colour if self._tones is None else plan.encode.colour
        self._compositor = layouts.Compositor(video.width, video.height, form, stereo, colour)
        self._device: DeviceCompositor | EyesCompositor | None = None
        if engine.method is not None:
            self._device = EyesCompositor(self._compositor, plan, engine)
        elif warp_device is not None and fits(plan):
            self._device = DeviceCompositor(self._compositor, plan, warp_device)
        self._taken: Channel[Entry[_Picture]] = Channel(_QUEUE, self.halt)
        self._settled: Channel[window.Ready[_Picture]] = Channel(_QUEUE, self.halt)
        self._composed: Channel[tuple[int, Planes]] = Channel(_BUFFERS, self.halt)
        self._spare: Channel[Planes] = Channel(_BUFFERS, self.halt)
        self._cuts: list[bool] = []
        self._means: list[float] = []
        self.export: export.Writer | None = None
        if stereo.export_depth:
            grid = self._compositor.field.grid
            self.export = export.Writer(grid.columns, grid.rows, video.average_rate)

    def run(self, depths: Depths[_Picture], on_frame: Callable[[int], None] | None) -> Flush:
        """All stages; the encoder runs in the caller's thread."""
        work = (self._decode, lambda: depths.infer(self._taken), lambda: depths.follow(self._settled), self._warp)
        threads = [threading.Thread(target=self.halt.run, args=(part,), name="learned") for part in work]
        for thread in threads:
            thread.start()
        flush: Flush | None = None
        try:
            flush = self._encode(on_frame)
        except BaseException as error:
            self.halt.fail(error)
        finally:
            for thread in threads:
                thread.join()
        if flush is None or self.halt.is_set:
            self.halt.reraise()
            raise errors.error("INTERNAL", "A conversion ended without a fragment.")
        return flush

    def _decode(self) -> None:
        """Frames copied, so that the decoder's ring is free at once, with their small pictures."""
        mark = time.thread_time()
        frames = self._decoder.frames(self._segment.start, self._segment.end, before=self._pad, after=self._pad)
        for frame in frames:
            try:
                self.halt.check()
                self.seconds["decode"] += time.thread_time() - mark
                mark = time.thread_time()
                small = self._preparer.prepare(frame.planes)
                own: Planes | None = None
                if frame.pad == 0:
                    # Both the decoder's and the mapper's planes are theirs again soon: the frame travels in a copy.
                    shown = frame.planes if self._tones is None else self._tones.map(frame.planes)
                    own = tuple(np.array(plane) for plane in shown)
                pts = frame.pts
            finally:
                frame.release()
            self.seconds["prepare"] += time.thread_time() - mark
            self._taken.put(Entry(pts, small, None if own is None else _Picture(pts, own)))
            mark = time.thread_time()
        self._taken.close()

    def _warp(self) -> None:
        """Both eyes of each frame into the layout, here or on the device."""
        if self._device is not None:
            self._warp_there(self._device)
            return
        for _ in range(_BUFFERS):
            self._spare.put(self._compositor.empty())
        spare = iter(self._spare)
        for item in self._settled:
            self._keep(item)
            out = next(spare)
            mark = time.thread_time()
            self._compositor.compose(item.payload.planes, item.depth, out)
            self._cuts.append(item.cut)
            self._means.append(self._compositor.disparity.mean_percent)
            self.seconds["warp"] += time.thread_time() - mark
            self._composed.put((item.payload.pts, out))
        self._composed.close()

    def _warp_there(self, device: DeviceCompositor | EyesCompositor) -> None:
        """The same in groups, by a GPU or by iw3's stereo method."""
        waiting: list[window.Ready[_Picture]] = []

        def flush() -> None:
            mark = time.perf_counter()
            made: list[Planes] = []
            for item in waiting:
                self._cuts.append(item.cut)
            if waiting:
                made = device.compose([item.payload.planes for item in waiting], [item.depth for item in waiting])
                self._means += device.means
            self.seconds["warp"] += time.perf_counter() - mark
            for item, planes in zip(waiting, made, strict=True):
                self._composed.put((item.payload.pts, planes))
            waiting.clear()

        for item in self._settled:
            self._keep(item)
            waiting.append(item)
            if len(waiting) == GROUP:
                flush()
        flush()
        self._composed.close()

    def _keep(self, item: window.Ready[_Picture]) -> None:
        if self.export is not None:
            self.export.write(self._compositor.disparity.codes(item.depth))

    def _encode(self, on_frame: Callable[[int], None] | None) -> Flush:
        spare = self._spare.put if self._device is None else None
        encoder = FragmentEncoder(self._plan.encode)
        flush, self.seconds["encode"] = finish.encode(
            encoder, self._segment, self._composed, spare=spare, on_frame=on_frame
        )
        return flush

    def report(self, engine: Shared, *, seconds: float, stages: dict[str, float], not_finite: int) -> SegmentReport:
        """What was measured; what concerns batches and memory is the caller's to add."""
        return finish.measured(
            self._segment, engine.info, self._compositor, means=self._means, cuts=self._cuts, not_finite=not_finite,
            seconds=seconds, stages=stages,
        )  # fmt: skip
