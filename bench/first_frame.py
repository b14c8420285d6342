"""B6: how long after the upload ends until the first second can be played, cold and warm, for mp4, mkv and ts.

The clock starts when the upload's answer is there and stops when the playlist names a segment whose bytes, and whose
init's bytes, have arrived. Beside it stands what the first segment itself took to convert, as its worker measured it:
the target is that plus 0.7 s. `cold` is the first job of a fresh daemon, `warm` a later one.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import httpx

from bench import clips, measure

HOUR_SECONDS = 3600
LONG_SECONDS = 2 * HOUR_SECONDS

REST_SECONDS = 30.0
"""How long a deleted job may take to leave the daemon before the next one begins all the same."""
QUIET_SECONDS = 2.0
"""How long nothing must be left and nobody busy: a worker that has not heard yet of a deletion may still store."""


@contextmanager
def daemon(*words: str) -> Generator[tuple[httpx.Client, Path]]:
    """A fresh daemon on a free port: a client of it and its data folder; ended and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="stereospot-bench-"))
    command = [sys.executable, "-m", "services.cli", "up", "--json", "--data", str(folder), "--port", "0", *words]
    environment = {"STEREOSPOT_NATS_PORT": "0"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["url"]
        with httpx.Client(base_url=address, timeout=60) as client:
            yield client, folder
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def first_frame(client: httpx.Client, folder: Path, film: Path) -> tuple[float, float]:
    """(seconds from the end of the upload to the first playable second, seconds that its conversion took)."""
    with film.open("rb") as body:
        stored = client.post("/api/v1/uploads", params={"name": film.name}, content=body)
    stored.raise_for_status()
    start = time.perf_counter()
    made = client.post("/api/v1/jobs", json={"upload": stored.json()["upload"]})
    made.raise_for_status()
    job: dict[str, Any] = made.json()
    playlist = base = ""
    while "#EXTINF" not in playlist:
        job = client.get(job["links"]["self"]).json()
        if job["status"] == "failed":
            raise SystemExit(json.dumps(job["error"]))
        if job["playback"]["hls"]:
            base = job["playback"]["hls"].rsplit("/", 1)[0]
            answer = client.get(f"{base}/from/0/video.m3u8")
            playlist = answer.text if answer.status_code == 200 else ""
        time.sleep(0.01)
    lines = playlist.splitlines()
    init = next(line for line in lines if line.startswith("#EXT-X-MAP")).split('"')[1]
    segment = next(line for line in lines if line and not line.startswith("#"))
    for name in (init, segment):
        got = client.get(str(httpx.URL(f"{base}/from/0/video.m3u8").join(name)))
        got.raise_for_status()
    ready = time.perf_counter() - start
    report = folder / "storage" / "jobs" / job["job_id"] / str(job["generation"]) / "segments" / "00000.json"
    took = float(json.loads(report.read_text())["done"]["seconds"])
    client.delete(job["links"]["self"])
    rest(client, folder, job["job_id"])
    return ready, took


def rest(client: httpx.Client, folder: Path, job_id: str) -> None:
    """Wait until a deleted job has left the daemon: the next clock starts on one that is warm and has nothing to do."""
    stored = folder / "storage" / "jobs" / job_id
    deadline = time.monotonic() + REST_SECONDS
    quiet_from = time.monotonic()
    while (now := time.monotonic()) < min(deadline, quiet_from + QUIET_SECONDS):
        is_busy = any(worker["busy"] for worker in client.get("/api/v1/workers").json()["workers"])
        if is_busy or (stored.exists() and any(path.is_file() for path in stored.rglob("*"))):
            quiet_from = now
        time.sleep(0.1)


def whole_film(client: httpx.Client, film: Path) -> float:
    """Seconds from a job's creation to its recorded film, by the job's own history; the upload is not in it."""
    with film.open("rb") as body:
        stored = client.post("/api/v1/uploads", params={"name": film.name}, content=body)
    stored.raise_for_status()
    job: dict[str, Any] = client.post("/api/v1/jobs", json={"upload": stored.json()["upload"]}).json()
    while job["status"] in ("queued", "processing"):
        time.sleep(0.1)
        job = client.get(job["links"]["self"]).json()
    if job["status"] != "completed":
        raise SystemExit(json.dumps(job["error"]))
    first, last = (datetime.fromisoformat(job["history"][index]["at"]) for index in (0, -1))
    client.delete(job["links"]["self"])
    return (last - first).total_seconds()


def long_film(suffix: str) -> Path:
    """Two hours: a minute of film repeated by copying its packets, in the given container."""
    return clips.repeated(clips.film(60, 640, 360), LONG_SECONDS, suffix)


def remuxed(film: Path, suffix: str) -> Path:
    """The same packets in another container."""
    path = film.with_suffix(f".{suffix}")
    if not path.exists():
        with av.open(str(film)) as source, av.open(str(path), "w") as out:
            pairs = {
                item.index: out.add_stream_from_template(item)
                for item in source.streams
                if item.type in ("video", "audio")
            }
            for packet in source.demux(*[source.streams[index] for index in pairs]):
                if packet.dts is not None:
                    packet.stream = pairs[packet.stream.index]
                    out.mux(packet)
    return path


def b6(repeats: int = 5, long: bool = True) -> str:
    """A row a film: cold, warm (median), conversion of the first second, and what is left over."""
    minute = clips.film(60)
    films = {"mp4, 60 s": minute, "mkv, 60 s": remuxed(minute, "mkv"), "ts, 60 s": remuxed(minute, "ts")}
    if long:
        films |= {f"{suffix}, 2 h, 360p": long_film(suffix) for suffix in ("mp4", "mkv", "ts")}
    rows: list[list[object]] = []
    for name, film in films.items():
        with daemon() as (client, folder):
            cold, _ = first_frame(client, folder, film)
            warm = [first_frame(client, folder, film) for _ in range(repeats)]
        ready = statistics.median(item[0] for item in warm)
        took = statistics.median(item[1] for item in warm)
        rows.append([name, cold, ready, took, ready - took])
    head = ["film", "cold, s", "warm, s", "converting its first segment, s", "warm minus that, s"]
    return measure.table("B6: first playable second after the upload; target: last column <= 0.7", head, rows)
