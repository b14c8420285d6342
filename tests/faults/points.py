"""Which service dies at which crash point: the table of F1, complete by construction.

A service has points of its own modules and passes those of the actor, the bus and the buckets on the way of its work.
`uncovered` compares the table with what the sources declare, so a new point without a case fails a test.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ACTOR = ("actor.fetched", "actor.handled", "actor.settled")
PUBLISH = ("bus.before_publish", "bus.after_publish")
WRITE = ("bucket.before_write", "bucket.after_write")
COMMIT = ("bus.before_commit", "bus.in_commit", "bus.after_commit")

OWN = {
    "planner": ("planner",), "converter": ("converter",), "audio": ("audio",), "assembler": ("assembler",),
    "collector": ("collector", "dispatcher", "state"), "analyse": ("analyse",), "delete": ("delete",),
    "dead-letters": ("dead_letters",), "submit": (), "janitor": (),
    "gateway": ("intake",),
}  # fmt: skip
"""Modules whose points die with a service."""

SHARED = {
    "planner": (*ACTOR, *PUBLISH, *WRITE),
    "converter": (*ACTOR, *PUBLISH),
    "audio": (*ACTOR, *PUBLISH),
    "assembler": (*ACTOR, *PUBLISH, *WRITE),
    "collector": (*PUBLISH, *WRITE, *COMMIT),
    "analyse": (*ACTOR, *PUBLISH),
    "delete": ACTOR,
    "dead-letters": (*ACTOR, *PUBLISH, *WRITE),
    "submit": (*ACTOR, *PUBLISH, *WRITE),
    "janitor": PUBLISH,
    "gateway": (*PUBLISH, *WRITE),
}
"""Points of the bus and the actor that each service passes."""

CURVED = ("dispatcher.after_ask",)
"""Passed only by jobs whose engine needs a curve."""

ELSEWHERE = {"actor.dead_lettered": "tests/broker/test_crash.py: no job of the matrix is rejected"}


def declared() -> frozenset[str]:
    """Every point that the sources declare."""
    found: set[str] = set()
    for package in ("stereospot", "services", "inference"):
        for path in (ROOT / package).rglob("*.py"):
            for call in re.findall(r"^crash\.declare\(([^)]*)\)", path.read_text(), re.MULTILINE):
                found.update(re.findall(r'"([^"]+)"', call))
    return frozenset(found)


def of(service: str) -> tuple[str, ...]:
    """The points at which this service is killed."""
    own = sorted(name for name in declared() if name.split(".")[0] in OWN[service])
    return (*own, *SHARED[service])


def uncovered() -> set[str]:
    """Points that no case kills at, and entries that are no points any more."""
    covered = {point for service in OWN for point in of(service)} | set(ELSEWHERE)
    return covered ^ declared()
