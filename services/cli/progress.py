"""How far a job is, as numbers and as a line on a terminal.

Frames count when their segment is stored, since only that survives a crash; the rate is measured over what this run
stored, so that a resumed job does not promise the moon.
"""

from __future__ import annotations

import contextlib
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from services.follow import Snapshot
from stereospot import errors
from stereospot.jobs import Phase

LABELS = {
    Phase.CREATED: "waiting",
    Phase.INGESTING: "fetching",
    Phase.PLANNING: "reading",
    Phase.CONVERTING: "converting",
    Phase.ASSEMBLING: "putting together",
    Phase.COMPLETED: "done",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "cancelled",
    Phase.DELETED: "deleted",
}


class Meter:
    """Frames a second and seconds to go, from when the first frames of this run were stored."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def update(self, done: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        if self._last is None or done != self._last[1]:
            self._last = (now, done)

    @property
    def fps(self) -> float | None:
        if self._first is None or self._last is None or self._last[1] <= self._first[1]:
            return None
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])

    def eta_seconds(self, total: int | None) -> float | None:
        fps = self.fps
        if fps is None or total is None or self._last is None:
            return None
        return max(0.0, (total - self._last[1]) / fps - (time.monotonic() - self._last[0]))


def clock(seconds: float) -> str:
    """75 as `1:15`, 3700 as `1:01:40`."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class Bar:
    """A progress bar on stderr when that is a terminal, else a line now and then; silent with `quiet`.

    Where stderr cannot be written any more, as nobody reads it or the terminal is gone, it is silent, too: the film is
    made all the same.
    """

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self.meter = Meter()
        self._progress: Progress | None = None
        self._spoken = ""
        self._warned = set[str]()
        self._quiet = quiet
        if not quiet and sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[frames]}"),
                TextColumn("[cyan]{task.fields[rate]}"),
                TextColumn("[dim]{task.fields[left]}"),
                console=Console(stderr=True),
                expand=True,
            )
            self._task = self._progress.add_task(title, total=None, frames="", rate="", left="")
            with contextlib.suppress(OSError):
                self._progress.start()

    def show(self, snapshot: Snapshot) -> None:
        """Say how far it is."""
        with contextlib.suppress(OSError):
            self._show(snapshot)

    def _show(self, snapshot: Snapshot) -> None:
        if snapshot.job.phase is Phase.CONVERTING:
            self.meter.update(snapshot.done)
        label = LABELS[snapshot.job.phase]
        self._warn(snapshot)
        if self._progress is None:
            if not self._quiet and label != self._spoken:
                self._spoken = label
                print(f"{label} …", file=sys.stderr)
            return
        fps, eta = self.meter.fps, self.meter.eta_seconds(snapshot.total)
        self._progress.update(
            self._task,
            description=f"{label:<16}",
            completed=snapshot.done,
            total=snapshot.total,
            frames=f"{snapshot.done}/{snapshot.total or '…'} frames",
            rate=f"{fps:.1f} fps" if fps else "",
            left=f"{clock(eta)} left" if eta is not None and snapshot.job.phase is Phase.CONVERTING else "",
        )

    def _warn(self, snapshot: Snapshot) -> None:
        """Say at once what the job waits for; its other warnings come with the film."""
        for warning in snapshot.job.warnings:
            if warning.code in errors.ELSEWHERE and warning.text not in self._warned and not self._quiet:
                self._warned.add(warning.text)
                said = f"warning {warning.code}: {warning.text}"
                if self._progress is None:
                    print(said, file=sys.stderr)
                else:
                    self._progress.console.print(said, markup=False)

    def close(self) -> None:
        if self._progress is not None:
            with contextlib.suppress(OSError):
                self._progress.stop()
