"""What `/metrics` tells; every label has a bounded set of values: routes are templates, never paths."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

import stereospot
from stereospot.jobs import Phase

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The gateway's own registry, so that two gateways in one process (tests) do not share numbers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.requests = Counter(
            "stereospot_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "stereospot_http_request_seconds",
            "Time to the end of an answer.",
            ["route"],
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
            registry=self.registry,
        )
        self.upload_bytes = Counter("stereospot_upload_bytes", "Bytes of uploads stored.", registry=self.registry)
        self.uploads = Counter("stereospot_uploads", "Uploads by result.", ["result"], registry=self.registry)
        self.sse_clients = Gauge("stereospot_sse_clients", "Open event streams.", registry=self.registry)
        self.jobs = Gauge("stereospot_jobs", "Jobs by phase.", ["phase"], registry=self.registry)
        self.ready = Gauge("stereospot_index_ready", "Whether the index has caught up.", registry=self.registry)
        build = Gauge("stereospot_build", "Always 1.", ["version"], registry=self.registry)
        build.labels(stereospot.__version__).set(1)

    def count(self, method: str, route: str | None, status: int, seconds: float) -> None:
        method = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"
        known = method, route or "none", status
        series = self._series.get(known)
        if series is None:
            # Finding a series by its labels takes longer than counting.
            made = self.requests.labels(known[0], known[1], str(status)), self.seconds.labels(known[1])
            series = self._series[known] = made
        series[0].inc()
        series[1].observe(seconds)

    def render(self, counts: dict[str, int], ready: bool) -> bytes:
        for phase in Phase:
            self.jobs.labels(phase).set(counts.get(phase, 0))
        self.ready.set(int(ready))
        return generate_latest(self.registry)
