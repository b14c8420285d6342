"""What a worker's `/metrics` tells: segments by engine and device, time by stage, the stage that limits, device memory.

    converter, analyser ─observe─> WORKER ─> http://host:metrics_port/metrics

One set of numbers a process, as Prometheus counts. Labels have a bounded set of values, also where a number comes from
a remote's report: what is not known there is counted as `other`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

import stereospot
from stereospot import errors, log

_log = log.get("metrics")

STAGES: Final = frozenset(
    {"decode", "prepare", "sample", "depth", "carry", "smooth", "warp", "encode", "pack", "remote", "unpack"}
)
"""Stages that a segment's report names; `sample` is waiting for, or taking, the windows of a curve."""

_DEVICE = re.compile(r"cpu|cuda(:\d{1,2})?")


class WorkerMetrics:
    """The numbers of one process. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made = self.registry
        self._segments = Counter(
            "stereospot_worker_segments", "Segments converted.", ["engine", "device"], registry=made
        )
        self._frames = Counter("stereospot_worker_frames", "Frames converted.", ["engine", "device"], registry=made)
        self._fps = Gauge(
            "stereospot_worker_segment_fps", "Frames a second of the last segment.", ["engine", "device"], registry=made
        )
        self._stages = Counter(
            "stereospot_worker_stage_seconds", "Time by stage; stages overlap.", ["engine", "stage"], registry=made
        )
        self._limiting = Counter(
            "stereospot_worker_limited_segments", "Segments by the stage that took longest.", ["engine", "stage"],
            registry=made,
        )  # fmt: skip
        self._memory = Gauge(
            "stereospot_worker_device_memory_bytes", "Peak memory of this process on its device.", ["device"],
            registry=made,
        )  # fmt: skip
        self._batch = Gauge(
            "stereospot_worker_depth_batch", "Frames that the depth network is given at a time.", ["engine"],
            registry=made,
        )  # fmt: skip
        self._windows = Counter(
            "stereospot_worker_windows", "Windows of curves taken, and by whom.", ["engine", "service"], registry=made
        )
        self._failures = Counter(
            "stereospot_worker_failures", "Segments and windows that failed here, by code.", ["code"], registry=made
        )
        build = Gauge("stereospot_worker_build", "Always 1.", ["version"], registry=made)
        build.labels(stereospot.__version__).set(1)

    def segment(
        self,
        *,
        engine: str,
        device: str,
        frames: int,
        seconds: float,
        stages: Mapping[str, float],
        memory_bytes: int | None = None,
        batch: int | None = None,
        windows_taken: int = 0,
    ) -> None:
        """Count a converted segment; `seconds` of wall time, `stages` as its report has them."""
        device = device if _DEVICE.fullmatch(device) else "other"
        self._segments.labels(engine, device).inc()
        self._frames.labels(engine, device).inc(frames)
        self._fps.labels(engine, device).set(frames / max(seconds, 1e-6))
        for stage, spent in stages.items():
            self._stages.labels(engine, _known(stage)).inc(max(0.0, spent))
        if stages:
            self._limiting.labels(engine, _known(max(stages, key=lambda name: stages[name]))).inc()
        if memory_bytes is not None:
            self._memory.labels(device).set(memory_bytes)
        if batch is not None:
            self._batch.labels(engine).set(batch)
        if windows_taken:
            self._windows.labels(engine, "converter").inc(windows_taken)

    def window(self, engine: str) -> None:
        """Count a window that an analyser took."""
        self._windows.labels(engine, "analyse").inc()

    def failure(self, code: str) -> None:
        """Count a failure by its code of the catalogue."""
        self._failures.labels(errors.entry(code).code).inc()


WORKER: Final = WorkerMetrics()
"""Of this process."""


@contextlib.contextmanager
def served(host: str, port: int) -> Generator[int]:
    """Serve `/metrics` of this process around the block; yields the port. Raises PORT_TAKEN.

    port: 0 takes any that is free.
    """
    try:
        server, thread = start_http_server(port, host, WORKER.registry)
    except OSError as error:
        raise errors.error("PORT_TAKEN", f"metrics_port {host}:{port}: {error.strerror}.") from error
    _log.info("serving", action="ready", port=server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _known(stage: str) -> str:
    return stage if stage in STAGES else "other"
