"""A worker's numbers: what it counts, over HTTP as Prometheus reads them, and labels that nobody can multiply."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from services import daemon
from stereospot import errors, log, metrics
from stereospot.metrics import WorkerMetrics
from tests.system.rig import rig


def test_a_segment_is_counted_with_its_limiting_stage() -> None:
    made = WorkerMetrics()
    for seconds in (2.0, 4.0):
        made.segment(
            engine="depth-anything", device="cuda:0", frames=100, seconds=seconds, stages={"decode": 0.5, "depth": 1.5},
            memory_bytes=7, batch=8, windows_taken=1,
        )  # fmt: skip
    made.window("depth-anything")
    made.failure("OUT_OF_MEMORY")

    def value(name: str, **labels: str) -> float | None:
        return made.registry.get_sample_value(f"stereospot_worker_{name}", labels)

    where = {"engine": "depth-anything", "device": "cuda:0"}
    assert value("segments_total", **where) == 2
    assert value("frames_total", **where) == 200
    assert value("segment_fps", **where) == 25
    assert value("stage_seconds_total", engine="depth-anything", stage="depth") == 3.0
    assert value("limited_segments_total", engine="depth-anything", stage="depth") == 2
    assert value("device_memory_bytes", device="cuda:0") == 7
    assert value("depth_batch", engine="depth-anything") == 8
    assert value("windows_total", engine="depth-anything", service="converter") == 2
    assert value("windows_total", engine="depth-anything", service="analyse") == 1
    assert value("failures_total", code="OUT_OF_MEMORY") == 1


def test_what_a_remote_says_makes_no_new_labels() -> None:
    made = WorkerMetrics()
    for number in range(100):
        made.segment(
            engine="iw3", device=f"gpu-{number}", frames=1, seconds=0.0, stages={f"stage-{number}": 1.0, "remote": -1.0}
        )
    assert (
        made.registry.get_sample_value("stereospot_worker_segments_total", {"engine": "iw3", "device": "other"}) == 100
    )
    assert generate_latest(made.registry).count(b'engine="iw3"') < 20


def test_numbers_are_served() -> None:
    with metrics.served("127.0.0.1", 0) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b"stereospot_worker_build" in answer.read()
        with pytest.raises(errors.Misconfigured) as caught, metrics.served("127.0.0.1", port):
            pass
        assert caught.value.code == "PORT_TAKEN"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was logged since the last call, in whatever form and to whichever stream logging is set by now."""
    captured = capsys.readouterr()
    return captured.out + captured.err


async def test_a_worker_serves_and_no_other_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")  # a command line that was tested before may have made it silent
    async with rig(tmp_path, metrics_port=0) as context:
        said(capsys)
        async with daemon.running(context.settings, {"submit"}):
            assert "serving" not in said(capsys)
        async with daemon.running(context.settings, {"converter"}):
            assert "serving" in said(capsys)
