"""F5, what a tear may undo: a message that was acknowledged lies in its queue again. `doctor` finds and removes it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from services import doctor, ghosts
from services.context import Context
from stereospot import records, subjects
from stereospot.bus import Bus, Puller
from stereospot.messages import DeleteWork, PlanWork, SubmitWork
from stereospot.settings import Settings
from stereospot.storage import open_store
from streams_config.provision import provision
from tests.faults.table import Tell
from tests.support import Nats, eventually, nats_server
from tests.system.rig import a_job

PLAN = subjects.work("plan", "J1", 1)


async def undo(server: Nats, bus: Bus, before: Path) -> None:
    """The queue as it was in `before`; what its consumers have counted stays, and is written before the end."""
    server.process.terminate()
    server.process.wait(10)
    messages = server.store / "jetstream" / "$G" / "streams" / subjects.WORK / "msgs"
    shutil.rmtree(messages)
    shutil.copytree(before, messages)
    server.restart()

    async def back() -> bool:
        return bus.is_connected and bool(await bus.stream_info(subjects.WORK))

    await eventually(back, seconds=30, what="the server")


async def keep(server: Nats, bus: Bus, folder: Path) -> Path:
    """A copy of the queue's blocks as they are now; the server is killed for it, so that they are whole."""
    server.kill()
    shutil.copytree(server.store / "jetstream" / "$G" / "streams" / subjects.WORK / "msgs", folder)
    server.restart()

    async def back() -> bool:
        return bus.is_connected and bool(await bus.stream_info(subjects.WORK))

    await eventually(back, seconds=30, what="the server")
    return folder


async def test_a_removal_that_was_under_way_is_no_ghost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nats_server() as server:
        bus = await Bus.connect(Settings(data_dir=tmp_path / "data", nats_url=server.url), name="test")
        await provision(bus.nc)
        await bus.publish(PLAN, PlanWork(job_id="J1", generation=1))
        before = await keep(server, bus, tmp_path / "before")
        assert await take(bus, "work-plan") == [PLAN]
        await undo(server, bus, before)
        (ghost,) = await ghosts.find(bus)
        api, looked = bus.api, asyncio.Event()

        async def asked(subject: str, *args: Any, **values: Any) -> Any:
            if subject.endswith(subjects.DONE):
                looked.set()  # the queue of plans was looked at before
            return await api(subject, *args, **values)

        monkeypatch.setattr(bus, "api", asked)
        async with asyncio.TaskGroup() as group:
            found = group.create_task(ghosts.find(bus))
            await looked.wait()
            await bus.remove(ghost.stream, ghost.sequence)
        assert found.result() == []
        await bus.drain()


async def take(bus: Bus, consumer: str) -> list[str]:
    """Subjects that a consumer is given, acknowledged."""
    puller = Puller(bus, subjects.WORK, consumer)
    await puller.open()
    found = await puller.take(10)
    for received in found:
        await received.ack_confirmed()
    await puller.close()
    return [received.delivery.subject for received in found]


@pytest.mark.parametrize("deleted", [False, True])
async def test_doctor_offers_a_message_of_nobody_again_and_removes_it(
    tmp_path: Path, tell: Tell, deleted: bool
) -> None:
    with nats_server() as server:
        settings = Settings(data_dir=tmp_path / "data", nats_url=server.url, sandbox="off")
        bus = await Bus.connect(settings, name="test")
        await provision(bus.nc)
        store = open_store(settings)
        context = Context(settings, bus, store)
        if deleted:
            await records.create_job(bus, a_job("sent"))
            await records.delete_job(bus, "sent")
        submission = subjects.work("submit", "sent")
        await bus.publish(PLAN, PlanWork(job_id="J1", generation=1))
        await bus.publish(submission, SubmitWork(path="/films/a.mp4"))
        before = await keep(server, bus, tmp_path / "before")
        assert await take(bus, "work-plan") == [PLAN]
        assert await take(bus, "work-submit") == [submission]
        assert await ghosts.find(bus) == [], "in a running broker there are none"
        await bus.publish(subjects.work("delete", "J2"), DeleteWork(job_id="J2"))
        assert await ghosts.find(bus) == [], "what waits is none"

        await undo(server, bus, before)
        found = await ghosts.find(bus)
        assert [item.subject for item in found] == [PLAN, submission]
        assert await take(bus, "work-plan") == [], "nobody gets it"
        said = await doctor.queues(context, repair=False)
        assert [item.is_open for item in said] == [True, True]
        assert len(await ghosts.find(bus)) == 2, "looking removes nothing"

        mended = [item.repaired for item in await doctor.queues(context, repair=True)]
        assert mended == ["offered once more", "removed" if deleted else "offered once more"]
        assert await ghosts.find(bus) == []
        assert await take(bus, "work-plan") == [PLAN]
        assert await take(bus, "work-submit") == ([] if deleted else [submission]), "a deleted job stays deleted"
        left = (await bus.stream_info(subjects.WORK))["state"]["messages"]
        tell("F5 a removal undone", lost=0, duplicated=left)
        assert left == 0
        await store.close()
        await bus.drain()
