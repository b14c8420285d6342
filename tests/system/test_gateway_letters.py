"""Dead letters by the API and as a page: in pages, newest first."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from services import dead_letters
from services.gateway.table import encode_cursor
from stereospot import errors, subjects
from stereospot.bus import Delivery
from stereospot.letters import dead_letter
from stereospot.messages import Failure
from tests.support import eventually
from tests.system.gateway import Served
from tests.system.showing import Showing

FAILURE = Failure.of(errors.error("CORRUPT_INPUT", "no picture"))


async def bury(gateway: Served, number: int, at: float, failure: Failure = FAILURE) -> str:
    """A letter; returns its id."""
    source = Delivery(
        subject=subjects.work("plan", "J1"), data=b'{"job_id": "J1"}', attempt=4, stream=subjects.WORK,
        stream_sequence=number, headers={},
    )  # fmt: skip
    made = dead_letter(source, failure, worker_id="w", at=at)
    await gateway.context.bus.publish(subjects.dead(made.kind, made.dead_id), made)
    return made.dead_id


async def listed(gateway: Served, query: str = "") -> dict[str, Any]:
    answer = await gateway.client.get(f"/api/v1/dead-letters{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_dead_letters_come_in_pages(gateway: Served) -> None:
    # Three of them in the same moment: a cursor that knew the time alone would lose two.
    ids = [await bury(gateway, number, 1_795_000_000.0 + number // 3) for number in range(7)]
    seen: list[list[str]] = []
    query = "?limit=2"
    while True:
        body = await listed(gateway, query)
        seen.append([item["dead_id"] for item in body["dead_letters"]])
        if body["next"] is None:
            break
        query = f"?limit=2&cursor={body['next']}"
    assert [len(page) for page in seen] == [2, 2, 2, 1]
    assert [dead_id for page in seen for dead_id in page] == ids[::-1]
    assert (await listed(gateway))["next"] is None
    assert (await listed(gateway, "?limit=7"))["next"] is None, "nothing is behind the last one"


async def test_a_letter_that_goes_between_two_pages_hides_no_other(gateway: Served) -> None:
    ids = [await bury(gateway, number, 1_795_000_000.0 + number) for number in range(5)]
    first = await listed(gateway, "?limit=2")
    for dead_id in ids[3:]:
        assert (await gateway.client.delete(f"/api/v1/dead-letters/{dead_id}")).status_code == 204
    second = await listed(gateway, f"?limit=2&cursor={first['next']}")
    assert [item["dead_id"] for item in second["dead_letters"]] == [ids[2], ids[1]]


async def test_a_page_reads_what_it_shows_and_goes_past_gaps(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 600 letters, most are gone again; and the pages of 600 read no more than there is on them, and a little."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(bury(gateway, number, 1_795_000_000.0 + number)) for number in range(600)]
    ids = [task.result() for task in tasks]
    read: list[int] = []
    between = dead_letters.between

    async def counted(*arguments: Any) -> Any:
        found = await between(*arguments)
        read.append(len(found))
        return found

    monkeypatch.setattr(dead_letters, "between", counted)
    first = await listed(gateway, "?limit=20")
    second = await listed(gateway, f"?limit=20&cursor={first['next']}")
    assert [len(page["dead_letters"]) for page in (first, second)] == [20, 20]
    assert read == [21, 21]
    left = ids[::50]
    await asyncio.gather(*(dead_letters.drop(gateway.context.bus, item) for item in ids if item not in left))
    found = [item["dead_id"] for item in (await listed(gateway))["dead_letters"]]
    assert sorted(found) == sorted(left)
    old = (await gateway.client.get("/dlq?limit=2")).json()
    assert ([item["message_id"] for item in old["messages"]], old["count"]) == (found[:2], 12)
    for item in left:
        await dead_letters.drop(gateway.context.bus, item)
    assert (await listed(gateway)) == {"dead_letters": [], "next": None}


@pytest.mark.parametrize(("buried", "gone"), [(1, 0), (3, 0), (3, 2)])
async def test_a_letter_that_goes_while_a_page_is_read_is_not_waited_for(
    gateway: Served, monkeypatch: pytest.MonkeyPatch, buried: int, gone: int
) -> None:
    """It is counted, and dropped by somebody else before it is read."""
    ids = [await bury(gateway, number, 1_795_000_000.0 + number) for number in range(buried)]
    bus = gateway.context.bus
    asked = bus.api

    async def api(path: str, *arguments: Any, **more: Any) -> Any:
        answer = await asked(path, *arguments, **more)
        if path.startswith(f"CONSUMER.CREATE.{subjects.DEAD}"):
            monkeypatch.setattr(bus, "api", asked)
            await dead_letters.drop(bus, ids[gone])
        return answer

    monkeypatch.setattr(bus, "api", api)
    async with asyncio.timeout(5):
        found = [item["dead_id"] for item in (await listed(gateway))["dead_letters"]]
    assert bus.api == asked, "it went in the middle"
    assert found == [item for item in ids[::-1] if item != ids[gone]]


async def test_what_is_no_cursor_and_no_limit_is_refused(gateway: Served) -> None:
    for query in ("cursor=nonsense", f"cursor={encode_cursor(math.inf, 'x')}", "limit=0", "limit=201"):
        answer = await gateway.client.get(f"/api/v1/dead-letters?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST"), query


async def test_the_page_leads_to_older_ones(gateway: Served) -> None:
    ids = [await bury(gateway, number, 1_795_000_000.0 + number) for number in range(51)]
    html = {"Accept": "text/html"}
    first = (await gateway.client.get("/dead-letters", headers=html)).text
    assert first.count("data-letter=") == 50
    link = first.partition('<a rel="next" href="')[2].partition('"')[0]
    second = (await gateway.client.get(link, headers=html)).text
    assert [second.count("data-letter="), second.count(f'data-letter="{ids[0]}"'), second.count("cursor=")] == [1, 1, 0]


async def test_a_letter_says_whether_another_try_can_help(gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    helps = await bury(gateway, 1, 1.0, Failure.of(errors.error("ATTEMPTS_EXHAUSTED")))
    never = await bury(gateway, 2, 2.0, FAILURE)

    async def told() -> bool:
        found = {item["dead_id"]: item for item in (await listed(gateway))["dead_letters"]}
        assert not found[never]["can_retry"]
        said = tuple(found[helps][name] for name in ("can_retry", "why_not", "page"))
        return said == (True, None, "/jobs/J1")

    await eventually(told, what="a letter of a job that is there")
    one = (await gateway.client.get(f"/api/v1/dead-letters/{never}")).json()
    assert "would fail again" in one["why_not"]
    assert (await gateway.client.delete("/api/v1/jobs/J1")).status_code == 204

    async def gone() -> bool:
        found = (await gateway.client.get(f"/api/v1/dead-letters/{helps}")).json()
        return (found["why_not"], found["page"]) == ("Its film was removed.", None)

    await eventually(gone, what="the job's end")


async def test_clearing_away_what_was_removed_can_be_tried_again(gateway: Served) -> None:
    source = Delivery(
        subject=subjects.work("delete", "J9"), data=b'{"job_id": "J9"}', attempt=4, stream=subjects.WORK,
        stream_sequence=1, headers={},
    )  # fmt: skip
    made = dead_letter(source, Failure.of(errors.error("STORAGE_UNAVAILABLE")), worker_id="w", at=1.0)
    await gateway.context.bus.publish(subjects.dead(made.kind, made.dead_id), made)
    answer = await gateway.client.post(f"/api/v1/dead-letters/{made.dead_id}/retry")
    assert answer.status_code == 200, answer.text
    assert await gateway.context.bus.last(subjects.WORK, subjects.work("delete", "J9")) is not None
