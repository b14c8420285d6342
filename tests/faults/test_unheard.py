"""Messages of a queue that no consumer's filter takes: `doctor` names them, and nothing that somebody takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services import doctor, ledger, unheard
from services.context import Context
from services.doctor import Level
from services.unheard import Unheard
from stereospot import errors, subjects
from streams_config import provision as provisioner
from tests.system.rig import rig


async def publish(context: Context, *names: str) -> None:
    for name in names:
        await context.bus.publish(f"{subjects.PREFIX}.{name}", b"{}")


async def test_messages_that_no_filter_takes_are_named_and_counted(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await publish(context, "work.plan.J1", "convert.cpu.now.J1.1.0", "done.J1.1.0", "done.slip")
        assert await unheard.find(context.bus) == []
        await publish(context, *(f"convert.studio.normal.J1.1.{index}" for index in range(3)))
        await publish(context, "work.paint.J1", "convert.cpu.later.J1.1.0", "work.paint.J1", "work.plan")
        found = {item.subject: item for item in await unheard.find(context.bus)}
        assert {subject: item.messages for subject, item in found.items()} == {
            "stereospot.convert.studio.normal.>": 3, "stereospot.convert.cpu.later.J1.1.0": 1,
            "stereospot.work.paint.J1": 2, "stereospot.work.plan": 1,
        }  # fmt: skip
        told = {item.text: item for item in await doctor.queues(context, repair=False)}
        finding = told["CONVERT holds 3 of stereospot.convert.studio.normal.>, which no consumer takes"]
        assert (finding.check, finding.level) == ("queues", Level.WARNING)
        assert "purge CONVERT --subject 'stereospot.convert.studio.normal.>'" in finding.advice
        assert len(told) == 4
        await provisioner.provision(context.bus.nc, pools=("studio",))
        assert "stereospot.convert.studio.normal.>" not in {item.subject for item in await unheard.find(context.bus)}


async def test_a_queue_without_its_consumer_and_one_that_forgets(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await publish(context, "done.J1.1.0", "done.J1.1.1", "live.open.S1", "live.open.S2")
        await context.bus.api(f"CONSUMER.DELETE.{subjects.DONE}.collector")
        assert sorted(await unheard.find(context.bus), key=lambda item: item.stream) == [
            Unheard(subjects.DONE, "stereospot.done.J1.>", 2, None),
            Unheard(subjects.LIVE, "stereospot.live.open.>", 2, 120.0),
        ]
        (live,) = [item for item in await doctor.queues(context, repair=False) if subjects.LIVE in item.text]
        assert "forgotten after 120 s" in live.text
        await context.bus.api(f"STREAM.DELETE.{subjects.DONE}")
        assert [item.stream for item in await unheard.find(context.bus)] == [subjects.LIVE]


async def test_many_subjects_are_summed_up_in_the_end(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await publish(context, "work.aa.J1", "work.aa.J2", *(f"work.k{number}.J1" for number in range(10)))
        found = await unheard.find(context.bus)
        assert found[0].subject == "stereospot.work.aa.>"
        assert [item.messages for item in found] == [2, *[1] * (unheard.SHOWN - 1), 3]
        assert found[-1].text == "WORK holds 3 of other subjects, which no consumer takes"


async def test_a_queue_of_which_one_consumer_takes_all_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Completions may be many; names are read of no more than is needed, messages of none."""
    async with rig(tmp_path) as context:
        await publish(context, "done.J1.1.0", "convert.cpu.now.J1.1.0", "work.plan.J1")
        asked: list[str] = []
        api = context.bus.api

        async def seen(path: str, *args: object, **values: object) -> object:
            asked.append(path)
            return await api(path, *args, **values)  # type: ignore[arg-type]

        listed: list[str] = []
        subjects_of = context.bus.subjects

        async def names(stream: str, pattern: str = ">") -> dict[str, int]:
            listed.append(stream)
            return await subjects_of(stream, pattern)

        monkeypatch.setattr(context.bus, "api", seen)
        monkeypatch.setattr(context.bus, "subjects", names)
        assert await unheard.find(context.bus) == []
    assert sorted(listed) == [subjects.CONVERT, subjects.LIVE, subjects.WORK]
    assert not [path for path in asked if "MSG.GET" in path]


async def test_a_consumer_that_does_not_answer_is_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster leaves consumers without a leader out of its list: their messages are not to be purged."""
    async with rig(tmp_path) as context:
        await publish(context, "work.plan.J1")
        api = context.bus.api

        async def partial(path: str, *args: Any, **values: Any) -> dict[str, Any]:
            answer = await api(path, *args, **values)
            if path == f"CONSUMER.LIST.{subjects.WORK}":
                answer["consumers"] = [item for item in answer["consumers"] if item["name"] != "work-plan"]
                answer["missing"] = ["work-plan"]
            return answer

        monkeypatch.setattr(context.bus, "api", partial)
        with pytest.raises(errors.StereoSpotError, match="work-plan") as caught:
            await unheard.find(context.bus)
        assert caught.value.code == "BROKER_UNAVAILABLE"


@pytest.mark.slow
async def test_more_subjects_than_one_answer_has_are_all_read(tmp_path: Path) -> None:
    """The server tells 100,000 a request; the janitor took the segments behind them for lost."""
    count = 100_003
    async with rig(tmp_path) as context:
        bus = context.bus
        for number in range(count):
            await bus.nc.publish(f"{subjects.PREFIX}.done.J{number // 1000}.1.{number % 1000}", b"{}")
            if number % 1000 == 0:
                await bus.nc.flush()
        await bus.publish(subjects.done_plan("last", 1, "total"), b"{}")
        found = await ledger.subjects_in(bus, subjects.DONE, f"{subjects.PREFIX}.done.>")
    assert len(found) == count + 1


@pytest.mark.parametrize(
    ("subject", "pattern", "taken"),
    [
        ("a.b.c", "a.b.c", True), ("a.b.c", "a.*.c", True), ("a.b.c", "a.>", True), ("a.b.c", ">", True),
        ("a.b", "a.b.>", False), ("a.b.c", "a.b", False), ("a.b", "a.b.c", False), ("a.b.c", "a.*", False),
        ("a.>", "a.>", True), ("a.b.>", "a.>", True), ("a.>", "a.*", False), ("a.>", "a.b.>", False),
        ("a.*.>", "a.*.>", True), ("a.*", "a.b", False), ("a.>", "a.*.>", False),
    ],
)  # fmt: skip
def test_which_filter_takes_which_subject_or_pattern(subject: str, pattern: str, taken: bool) -> None:
    assert subjects.matches(subject, pattern) is taken
