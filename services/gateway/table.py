"""The read model's table: every job in a private SQLite file that dies with the process. Blocking; one thread's."""

from __future__ import annotations

import base64
import binascii
import math
import sqlite3
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stereospot.jobs import Job, Phase

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -32768;
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY, revision INTEGER NOT NULL, shelf TEXT NOT NULL, created REAL NOT NULL,
    words TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX by_created ON jobs (created, job_id, shelf, words);
CREATE INDEX by_shelf ON jobs (shelf, created, job_id);
"""

VISIBLE = tuple(phase for phase in Phase if phase is not Phase.DELETED)

Kind = Literal["films", "samples", "all"]
"""Samples are jobs, too, but nobody who looks for films wants to see them."""

_SAMPLES = "+"
"""Behind the phase in the table, so that one index serves lists of either kind."""


@dataclass(frozen=True, slots=True)
class Row:
    """A job as it was last written; `revision` is its ETag."""

    job: Job
    revision: int


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, newest first, and the cursor of the page behind them."""

    rows: list[Row]
    next_cursor: str | None


def encode_cursor(created: float, job_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created!r} {job_id}".encode()).decode().rstrip("=")


def decode_cursor(text: str) -> tuple[float, str] | None:
    """The place behind which a page begins; None for what is not a cursor of ours."""
    try:
        place, gap, job_id = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(" ")
        created = float(place)
    except (ValueError, binascii.Error):
        return None
    return (created, job_id) if gap and math.isfinite(created) else None


def _words(job: Job) -> str:
    """What a search looks at."""
    return _folded(f"{job.title}\n{job.job_id}")


def _folded(text: str) -> str:
    """One form of what reads the same: of any case, its letters in one piece or, as macOS names files, in several."""
    return unicodedata.normalize("NFC", text.casefold())


def _shelves(phases: Sequence[Phase], kind: Kind) -> list[str]:
    films = [phase.value for phase in phases] if kind != "samples" else []
    return films + ([phase + _SAMPLES for phase in phases] if kind != "films" else [])


class Table:
    """Jobs by creation, by phase, by kind and by title."""

    def __init__(self) -> None:
        # An empty name is SQLite's private temporary database: a file without a name, gone with the process.
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._db.executescript(_SCHEMA)
        self._counts: dict[str, int] | None = None

    def close(self) -> None:
        self._db.close()

    def apply(self, changes: Iterable[tuple[str, int, bytes | None, Job | None]]) -> None:
        """Write (job id, revision, record, the same parsed) in one transaction; no record removes the job."""
        self._counts = None
        self._db.execute("BEGIN")
        for job_id, revision, body, job in changes:
            if body is None or job is None:
                self._db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))
                continue
            shelf = job.phase.value + (_SAMPLES if job.options.samples is not None else "")
            self._db.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE SET "
                "revision = excluded.revision, shelf = excluded.shelf, words = excluded.words, body = excluded.body "
                "WHERE excluded.revision > revision",
                (job_id, revision, shelf, job.created_at, _words(job), body),
            )
        self._db.execute("COMMIT")

    def get(self, job_id: str) -> Row | None:
        found = self._db.execute("SELECT body, revision FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return None if found is None else Row(Job.model_validate_json(found[0]), found[1])

    def counts(self, kind: Kind = "films") -> dict[str, int]:
        """Jobs by phase; counted again only after a change, since every open page asks."""
        if self._counts is None:
            self._counts = dict(self._db.execute("SELECT shelf, count(*) FROM jobs GROUP BY shelf"))
        found: dict[str, int] = {}
        for shelf, count in self._counts.items():
            is_sample = shelf.endswith(_SAMPLES)
            if kind == "all" or is_sample == (kind == "samples"):
                phase = shelf.removesuffix(_SAMPLES)
                found[phase] = found.get(phase, 0) + count
        return found

    def page(
        self,
        phases: Sequence[Phase] = VISIBLE,
        *,
        kind: Kind = "films",
        text: str = "",
        after: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> Page:
        """Newest first; `text` is looked for in titles and ids, in any case."""
        created, job_id = after or (1e18, "")
        shelves = _shelves(phases, kind)
        if text or (len(phases) == len(VISIBLE) and kind != "samples"):
            found = self._scan(shelves, text, created, job_id, limit + 1)
        else:
            found = self._merge(shelves, created, job_id, limit + 1)
        rows = [Row(Job.model_validate_json(body), revision) for body, revision, *_ in found[:limit]]
        more = len(found) > limit
        return Page(rows, encode_cursor(rows[-1].job.created_at, rows[-1].job.job_id) if more and rows else None)

    def _scan(
        self, shelves: Sequence[str], text: str, created: float, job_id: str, limit: int
    ) -> list[tuple[bytes, int, float, str]]:
        """Along the creation index, which also holds shelf and words; `instr` takes a fifth of the time of LIKE."""
        marks = ",".join("?" * len(shelves))
        return self._db.execute(
            "SELECT body, revision, created, job_id FROM jobs INDEXED BY by_created "
            f"WHERE (created, job_id) < (?, ?) AND shelf IN ({marks}) "
            "AND (? = '' OR instr(words, ?)) "
            "ORDER BY created DESC, job_id DESC LIMIT ?",
            (created, job_id, *shelves, text, _folded(text), limit),
        ).fetchall()

    def _merge(
        self, shelves: Sequence[str], created: float, job_id: str, limit: int
    ) -> list[tuple[bytes, int, float, str]]:
        """The newest of each shelf, merged: a rare phase costs no walk over all others."""
        found: list[tuple[bytes, int, float, str]] = []
        for shelf in shelves:
            found += self._db.execute(
                "SELECT body, revision, created, job_id FROM jobs INDEXED BY by_shelf "
                "WHERE shelf = ? AND (created, job_id) < (?, ?) ORDER BY created DESC, job_id DESC LIMIT ?",
                (shelf, created, job_id, limit),
            ).fetchall()
        found.sort(key=lambda row: (row[2], row[3]), reverse=True)
        return found[:limit]
