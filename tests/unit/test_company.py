"""Company: anybody beside anybody, but for one that is to be alone."""

from __future__ import annotations

import asyncio

import pytest

from services.company import Company
from tests.support import eventually


class Worker:
    """Lets segments visit, and says what happened."""

    def __init__(self) -> None:
        self.company = Company()
        self.present: set[str] = set()
        self.refused: set[str] = set()
        self._ends: dict[str, asyncio.Event] = {}

    async def work(self, name: str, *, alone: bool = False) -> None:
        end = self._ends.setdefault(name, asyncio.Event())
        async with self.company.visit(alone=alone) as welcome:
            if not welcome:
                self.refused.add(name)
                return
            self.present.add(name)
            assert not alone or self.present == {name}
            await end.wait()
            self.present.discard(name)

    def end(self, name: str) -> None:
        self._ends[name].set()


async def test_a_suspect_waits_for_those_at_work_and_newcomers_go_elsewhere() -> None:
    worker = Worker()
    async with asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(worker.work(name))
        await eventually(lambda: worker.present == {"a", "b"})
        group.create_task(worker.work("suspect", alone=True))
        await asyncio.sleep(0)
        await worker.work("late")
        assert worker.refused == {"late"}
        worker.end("a")
        await eventually(lambda: worker.present == {"b"})
        worker.end("b")
        await eventually(lambda: worker.present == {"suspect"})
        await worker.work("another suspect", alone=True)
        assert worker.refused == {"late", "another suspect"}
        worker.end("suspect")
    async with worker.company.visit(alone=False) as welcome:
        assert welcome, "after the suspect all goes on as before"


async def test_a_suspect_that_is_cancelled_or_fails_holds_nobody_up() -> None:
    worker = Worker()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.work("a"))
        await eventually(lambda: worker.present == {"a"})
        suspect = group.create_task(worker.work("suspect", alone=True))
        await asyncio.sleep(0)
        suspect.cancel()
        with pytest.raises(asyncio.CancelledError):
            await suspect
        worker.end("a")
    with pytest.raises(ValueError, match="broken"):
        async with worker.company.visit(alone=True):
            raise ValueError("broken")
    async with worker.company.visit(alone=True) as welcome:
        assert welcome
