"""Memory of a conversion over a long film: does it stay where it was after the first minute?

A daemon with its converter in it (`up --slots 1`) converts ten minutes; once a second the resident memory of the
daemon, of the jailed children (decoder and their server) and of the broker is read from /proc. Pages of the ring in
which decoded frames lie are counted on both sides. The peak of each tenth of the way is printed, and the slope of a
line through all that follows the first fifth, in MiB a minute of film.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench import clips, first_frame, measure

PARTS: tuple[str, ...] = ("daemon", "jail", "broker")


@dataclass(slots=True)
class Samples:
    """Megabytes (MiB) of each part, with the share of the film that was converted by then (0 to 1)."""

    share: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PARTS})

    def add(self, share: float, found: Mapping[str, float]) -> None:
        self.share.append(share)
        for name in PARTS:
            self.parts[name].append(found[name])

    def whole(self) -> list[float]:
        return [sum(values) for values in zip(*self.parts.values(), strict=True)]

    def slope(self, name: str | None = None) -> float:
        """MiB that a whole film adds, by a line through what follows its first fifth, assembling left out."""
        values = self.whole() if name is None else self.parts[name]
        late = [(x, y) for x, y in zip(self.share, values, strict=True) if 0.2 <= x <= 0.9]
        if len({x for x, _ in late}) < 2:
            raise SystemExit("Too few samples: take a longer film.")
        return statistics.linear_regression([x for x, _ in late], [y for _, y in late]).slope


def resident(root: int) -> dict[str, float]:
    """MiB of the process `root` and of what descends from it."""
    parents: dict[int, int] = {}
    sizes: dict[int, tuple[str, float]] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue  # it has just ended
        number = int(status.parent.name)
        parents[number] = int(lines["PPid"])
        sizes[number] = lines["Name"], int(lines.get("VmRSS", "0 kB").split()[0]) / 1024
    found = dict.fromkeys(PARTS, 0.0)
    for number, (name, size) in sizes.items():
        above = number
        while above not in (root, 0):
            above = parents.get(above, 0)
        if above == root:
            found["daemon" if number == root else "broker" if name.startswith("nats") else "jail"] += size
    return found


def sampled(film: Path, *, every_seconds: float = 1.0) -> Samples:
    """Convert `film` in a fresh daemon and watch."""
    found = Samples()
    with first_frame.daemon("--slots", "1") as (client, folder):
        root = _daemon(folder)
        with film.open("rb") as body:
            stored = client.post("/api/v1/uploads", params={"name": film.name}, content=body)
        stored.raise_for_status()
        job: dict[str, Any] = client.post("/api/v1/jobs", json={"upload": stored.json()["upload"]}).json()
        while job["status"] in ("queued", "processing"):
            time.sleep(every_seconds)
            job = _look(client, job)
            found.add(float(job["progress"]["ratio"]), resident(root))
        if job["status"] != "completed":
            raise SystemExit(json.dumps(job["error"]))
    return found


def _daemon(folder: Path) -> int:
    """The process whose command line names this data folder and has no such parent."""
    named: dict[int, int] = {}
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in line.read_bytes():
                status = (line.parent / "status").read_text()
                named[int(line.parent.name)] = int(status.split("PPid:")[1].split()[0])
        except OSError:
            continue
    return next(number for number, parent in named.items() if parent not in named)


def _look(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    answer = client.get(job["links"]["self"])
    answer.raise_for_status()
    return answer.json()


def memory(minutes: int = 10, width: int = 1920, height: int = 1080) -> str:
    """Peaks by tenth of the way, and what a minute of film adds."""
    film = clips.repeated(clips.film(60, width, height), 60 * minutes)
    found = sampled(film)
    rows: list[list[object]] = []
    for tenth in range(10):
        inside = [i for i, share in enumerate(found.share) if tenth <= 10 * share < tenth + 1]
        if inside:
            whole = found.whole()
            peaks = [f"{max(found.parts[name][i] for i in inside):.0f}" for name in PARTS]
            rows.append([f"{10 * tenth} to {10 * tenth + 10} %", *peaks, f"{max(whole[i] for i in inside):.0f}"])
    peaks = [f"{max(found.parts[name]):.0f}" for name in PARTS]
    rows.append(["peak", *peaks, f"{max(found.whole()):.0f}"])
    slopes = [f"{found.slope(name) / minutes:+.2f}" for name in PARTS]
    rows.append(["MiB a minute of film", *slopes, f"{found.slope() / minutes:+.2f}"])
    title = f"Memory, MiB resident: {minutes} minutes of {width}x{height}, half-SBS, one converter"
    return measure.table(title, ["part of the film", *PARTS, "all"], rows)
