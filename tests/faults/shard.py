"""A pytest plugin that leaves the tests of the other runs out; loaded by `python -m tests.faults`."""

from __future__ import annotations

import os

import pytest

VARIABLE = "STEREOSPOT_FAULT_SHARD"
"""`number/count`."""

WEIGHTS = {
    "test_f2_random_kills[8": 200.0, "test_f4_a_broker_that_was_away[60": 75.0, "test_f7_": 60.0,
    "with_a_curve": 30.0, "test_curves": 20.0, "test_f2_": 40.0, "test_f5_": 15.0, "test_f4_": 20.0,
    "test_a_leader_is_killed": 25.0, "test_p9_": 20.0, "forty_kills": 30.0, "test_pipeline_crash": 7.0,
    "test_f01": 5.0, "test_f": 8.0,
}  # fmt: skip
"""Seconds, roughly, by a part of a test's name; the first that fits counts."""


def weight(name: str) -> float:
    """How long a test takes, roughly."""
    return next((seconds for part, seconds in WEIGHTS.items() if part in name), 1.0)


def share(names: list[str], number: int, count: int) -> set[str]:
    """Those of the tests that run `number` of `count` takes: the longest first, each to whom has least to do."""
    busy = [0.0] * count
    mine: set[str] = set()
    for name in sorted(names, key=lambda name: (-weight(name), name)):
        least = busy.index(min(busy))
        busy[least] += weight(name)
        if least == number:
            mine.add(name)
    return mine


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not ours."""
    number, count = map(int, os.environ[VARIABLE].split("/"))
    mine = share([item.nodeid for item in items], number, count)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in mine])
    items[:] = [item for item in items if item.nodeid in mine]
