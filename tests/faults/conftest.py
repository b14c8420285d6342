"""The table that `just faults` prints: one line a fault, added up over its tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.faults.history import Verdict

Tell = Callable[..., None]


@dataclass(slots=True)
class Row:
    """What all tries of one fault came to; recovery is the longest, in seconds."""

    tries: int = 0
    jobs: int = 0
    lost: int = 0
    duplicated: int = 0
    extra: int = 0
    recovery: float | None = None


_ROWS = pytest.StashKey[dict[str, Row]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """`tell("F1 …", verdict, recovery=seconds)`: one try of a fault, for the table; called before the asserts."""
    rows = request.config.stash.setdefault(_ROWS, {})

    def add(fault: str, verdict: Verdict, *, recovery: float | None = None) -> None:
        row = rows.setdefault(fault, Row())
        row.tries += 1
        row.jobs += verdict.jobs
        row.lost += verdict.lost
        row.duplicated += verdict.duplicated
        row.extra += verdict.extra
        longest = [value for value in (row.recovery, recovery, verdict.recovery) if value is not None]
        row.recovery = max(longest, default=None)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
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
