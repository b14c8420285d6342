"""The table that `just faults` prints: one line a fault, added up over its tries. Every test may tell of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pytest

from tests.faults.history import Verdict


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the rows in the order of the matrix."""
    rows = config.stash.get(_ROWS, {})
    if not rows:
        return
    terminalreporter.write_line("")
    terminalreporter.write_line("| fault | tries | jobs | lost | duplicated | extra computations | recovery s |")
    terminalreporter.write_line("|---|---|---|---|---|---|---|")
    for fault, row in sorted(rows.items(), key=lambda item: (int(item[0].split()[0].strip("Fb")), item[0])):
        recovery = "" if row.recovery is None else f"{row.recovery:.1f}"
        cells = (fault, row.tries, row.jobs, row.lost, row.duplicated, row.extra, recovery)
        terminalreporter.write_line("| " + " | ".join(map(str, cells)) + " |")
