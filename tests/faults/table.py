"""The table that `just faults` prints: one line a fault, added up over its tries. Every test may tell of one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import pytest

from tests.faults.promises import Verdict


class Tell(Protocol):
    """`tell("F1 …", verdict, recovery=seconds)`: one try of a fault, for the table; called before the asserts.

    Where no whole run was judged, the figures are given one by one.
    """

    def __call__(
        self,
        fault: str,
        verdict: Verdict | None = None,
        *,
        jobs: int = 0,
        lost: int = 0,
        duplicated: int = 0,
        extra: int = 0,
        recovery: float | None = None,
    ) -> None: ...


@dataclass(slots=True)
class Row:
    """What all tries of one fault came to; recovery is the longest, in seconds."""

    tries: int = 0
    jobs: int = 0
    lost: int = 0
    duplicated: int = 0
    extra: int = 0
    recovery: float | None = None

    def add(self, jobs: int, lost: int, duplicated: int, extra: int, *recoveries: float | None) -> None:
        """One more try."""
        self.tries += 1
        self.jobs += jobs
        self.lost += lost
        self.duplicated += duplicated
        self.extra += extra
        self.recovery = max((value for value in (self.recovery, *recoveries) if value is not None), default=None)

    def merge(self, other: Row) -> None:
        """The tries of another run."""
        tries = self.tries + other.tries
        self.add(other.jobs, other.lost, other.duplicated, other.extra, other.recovery)
        self.tries = tries


VARIABLE = "STEREOSPOT_FAULT_TABLE"
"""Where a run leaves its rows for the table of several, instead of printing them."""

_ROWS = pytest.StashKey[dict[str, Row]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """The table of this run."""
    rows = request.config.stash.setdefault(_ROWS, {})

    def add(
        fault: str,
        verdict: Verdict | None = None,
        *,
        jobs: int = 0,
        lost: int = 0,
        duplicated: int = 0,
        extra: int = 0,
        recovery: float | None = None,
    ) -> None:
        row = rows.setdefault(fault, Row())
        if verdict is None:
            row.add(jobs, lost, duplicated, extra, recovery)
        else:
            row.add(verdict.jobs, verdict.lost, verdict.duplicated, verdict.extra, recovery, verdict.recovery)

    return add


def lines(rows: Mapping[str, Row]) -> list[str]:
    """The table in Markdown, in the order of the matrix."""
    found = [
        "| fault | tries | jobs | lost | duplicated | extra computations | recovery s |",
        "|---|---|---|---|---|---|---|",
    ]
    for fault, row in sorted(rows.items(), key=lambda item: (int(item[0].split()[0].strip("Fb")), item[0])):
        recovery = "" if row.recovery is None else f"{row.recovery:.1f}"
        cells = (fault, row.tries, row.jobs, row.lost, row.duplicated, row.extra, recovery)
        found.append("| " + " | ".join(map(str, cells)) + " |")
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the rows, or leave them for the run of which this is a part."""
    rows = config.stash.get(_ROWS, {})
    place = os.environ.get(VARIABLE)
    if place is not None:
        Path(place).write_text(json.dumps({fault: asdict(row) for fault, row in rows.items()}))
    elif rows:
        for line in ["", *lines(rows)]:
            terminalreporter.write_line(line)
