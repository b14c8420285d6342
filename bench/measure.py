"""What every benchmark shares: pairs in turn, medians, and a line that says on what machine.

A machine may be shared, so a single absolute time means little. Two things are run in turn (A B A B …) and the ratio is
taken pair by pair; its median is the figure, its spread the error bar.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds of A and of B, run in turn."""

    a: Sequence[float]
    b: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """A over B, pair by pair."""
        return [a / b for a, b in zip(self.a, self.b, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def describe(self) -> str:
        low, high = min(self.ratios), max(self.ratios)
        return f"{self.ratio:.3f} (min {low:.3f}, max {high:.3f}, {len(self.ratios)} pairs)"


def in_turn(a: Callable[[], float], b: Callable[[], float], pairs: int) -> Pairs:
    """Run both `pairs` times in turn; each returns the seconds that count."""
    first: list[float] = []
    second: list[float] = []
    for _ in range(pairs):
        first.append(a())
        second.append(b())
    return Pairs(first, second)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{os.cpu_count()} cores, {model}, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process with all its threads; unlike its rate, they do not depend on neighbours."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with a title line, so that what is printed can be pasted into the docs."""
    lines = [f"### {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        "| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"
