"""Jobs by the API: made once, changed by their revision, waited for, ended, listed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from stereospot import keys, records, subjects, titles
from stereospot.jobs import Phase
from stereospot.messages import Failure, Film, Worker
from tests.support import Nats, eventually
from tests.system.gateway import CLIP, FILM, Served, move, served, upload
from tests.system.showing import Showing


async def test_a_job_may_ask_for_a_pool_by_its_label(gateway: Served) -> None:
    stored = (await gateway.client.put("/api/v1/uploads", content=CLIP)).json()
    body = {"upload": stored["upload"]}
    nowhere = await gateway.client.post("/api/v1/jobs", json={**body, "pool": "nowhere"})
    assert (nowhere.status_code, nowhere.json()["code"]) == (422, "INVALID_OPTIONS")
    made = await gateway.client.post("/api/v1/jobs", json={**body, "pool": "gpu"})
    assert (made.status_code, made.json()["pool"]) == (201, "gpu")


async def test_etags(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    path = f"/api/v1/jobs/{job_id}"
    answer = await gateway.client.get(path)
    etag = answer.headers["etag"]
    assert etag == f'"{answer.json()["revision"]}"'
    assert (await gateway.client.get(path, headers={"If-None-Match": etag})).status_code == 304
    changed = await gateway.client.patch(path, json={"title": "New"}, headers={"If-Match": etag})
    assert changed.json()["title"] == "New"
    stale = await gateway.client.patch(path, json={"title": "Newer"}, headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["code"]) == (412, "PRECONDITION_FAILED")
    assert (await gateway.client.get(path, headers={"If-None-Match": etag})).status_code == 200
    head = await gateway.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == changed.headers["etag"]


async def test_no_cache_keeps_what_changes_without_the_record(gateway: Served) -> None:
    """With a validator and nothing more, browsers ask by themselves whether it changed, and show the old progress."""
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    before = await gateway.client.get("/api/v1/jobs/J1")
    await showing.convert(0)

    async def after() -> httpx.Response | None:
        answer = await gateway.client.get("/api/v1/jobs/J1")
        return answer if answer.json()["progress"] != before.json()["progress"] else None

    changed = await eventually(after, what="progress")
    assert changed is not None
    assert changed.headers["etag"] == before.headers["etag"]
    same = await gateway.client.get("/api/v1/jobs/J1", headers={"If-None-Match": before.headers["etag"]})
    assert same.status_code == 304, "whoever waits for the record asks so"
    assert {answer.headers["cache-control"] for answer in (before, changed, same)} == {"no-store"}


async def test_an_edit_that_is_made_already_is_no_conflict(gateway: Served) -> None:
    """Whoever did not hear the answer asks again; RFC 9110, 13.1.1 has a success where all is as it is to be."""
    path = f"/api/v1/jobs/{(await upload(gateway))['job_id']}"
    headers = {"If-Match": (await gateway.client.get(path)).headers["etag"]}
    first = await gateway.client.patch(path, json={"title": "New", "priority": 7}, headers=headers)
    for same in ({"title": "New", "priority": 7}, {"title": "New"}, {"priority": 7}):
        again = await gateway.client.patch(path, json=same, headers=headers)
        assert (again.status_code, again.headers["etag"], again.json()) == (200, first.headers["etag"], first.json())
    for other in ({"title": "New", "priority": 8}, {"title": "Else"}, {}):
        assert (await gateway.client.patch(path, json=other, headers=headers)).status_code == 412, other


async def at_once(gateway: Served, method: str, path: str, bodies: list[dict[str, str] | None]) -> list[httpx.Response]:
    """Requests that are sent together, all for the revision that is there before them."""
    headers = {"If-Match": (await gateway.client.get("/".join(path.split("/")[:5]))).headers["etag"]}
    requests = [gateway.client.request(method, path, json=body, headers=headers) for body in bodies]
    return await asyncio.gather(*requests)


async def test_of_writers_with_one_etag_one_wins(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    path = f"/api/v1/jobs/{job_id}"
    for turn in range(3):
        answers = await at_once(gateway, "PATCH", path, [{"title": f"{turn}.{number}"} for number in range(8)])
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
        (won,) = [number for number, answer in enumerate(answers) if answer.status_code == 200]
        assert {answer.json()["code"] for answer in answers if answer.status_code == 412} == {"PRECONDITION_FAILED"}
        assert (await gateway.client.get(path)).json()["title"] == f"{turn}.{won}"
    cancelled = await at_once(gateway, "POST", f"{path}/cancel", [None] * 8)
    assert sorted(answer.status_code for answer in cancelled) == [200] + [412] * 7
    deleted = await at_once(gateway, "DELETE", path, [None] * 8)
    lost = sorted(answer.status_code for answer in deleted)[1:]
    assert [answer.status_code for answer in deleted].count(204) == 1
    assert set(lost) <= {404, 412}, "whoever comes later still finds no job"


async def test_of_retries_with_one_etag_one_wins(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    path = f"/api/v1/jobs/{job_id}"
    for turn in range(3):
        assert (await gateway.client.post(f"{path}/cancel")).status_code == 200
        answers = await at_once(gateway, "POST", f"{path}/retry", [None] * 8)
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
        assert {answer.json()["code"] for answer in answers if answer.status_code == 412} == {"PRECONDITION_FAILED"}
        job = (await gateway.client.get(path)).json()
        assert (job["phase"], job["attempt"]) == ("planning", turn + 2), "one attempt more, not eight"


async def test_prefer_wait(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    path = f"/api/v1/jobs/{job_id}"
    etag = (await gateway.client.get(path)).headers["etag"]
    headers = {"If-None-Match": etag, "Prefer": "wait=20"}
    waiting = asyncio.create_task(gateway.client.get(path, headers=headers))
    await asyncio.sleep(0)
    await move(gateway, job_id, Phase.PLANNING)
    answer = await asyncio.wait_for(waiting, 10)
    assert answer.json()["phase"] == "planning"
    assert answer.headers["preference-applied"] == "wait=20"
    none = await gateway.client.get(path, headers={"If-None-Match": answer.headers["etag"], "Prefer": "wait=0"})
    assert none.status_code == 304


async def test_cancel_retry_delete(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    path = f"/api/v1/jobs/{job_id}"
    refused = await gateway.client.post(f"{path}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")
    cancelled = await gateway.client.post(f"{path}/cancel")
    assert (cancelled.json()["phase"], cancelled.json()["status"]) == ("cancelled", "failed")
    retried = await gateway.client.post(f"{path}/retry")
    assert (retried.json()["phase"], retried.json()["attempt"]) == ("planning", 2)
    assert (await gateway.client.delete(path)).status_code == 204
    assert (await gateway.client.get(path)).status_code == 404

    async def unlisted() -> bool:
        return (await gateway.client.get("/api/v1/jobs")).json()["jobs"] == []

    await eventually(unlisted, what="the list without the job")


async def test_lists_filters_and_pages(gateway: Served) -> None:
    ids = [(await upload(gateway, name=f"film {number}.mp4"))["job_id"] for number in range(7)]
    await move(gateway, ids[0], Phase.PLANNING)
    await move(gateway, ids[1], Phase.FAILED, failure=Failure(code="NO_FRAMES", sentence="s", advice="a"))
    film = Film(key=keys.film(ids[2], 1, "mp4"), **FILM)
    await move(gateway, ids[2], Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING, Phase.COMPLETED, film=film)

    async def counted() -> bool:
        body = (await gateway.client.get("/api/v1/jobs")).json()
        return body["counts"] == {"queued": 4, "processing": 1, "completed": 1, "failed": 1}

    await eventually(counted, what="the counts")
    seen: list[str] = []
    cursor = ""
    while True:
        body = (await gateway.client.get(f"/api/v1/jobs?limit=3{cursor}")).json()
        seen += [job["job_id"] for job in body["jobs"]]
        if body["next"] is None:
            break
        cursor = f"&cursor={body['next']}"
    assert seen == ids[::-1]

    async def listed(query: str) -> list[str]:
        return [job["job_id"] for job in (await gateway.client.get(f"/api/v1/jobs?{query}")).json()["jobs"]]

    assert await listed("status=failed") == [ids[1]]
    assert await listed("status=completed") == [ids[2]]
    assert await listed("status=active") == [ids[6], ids[5], ids[4], ids[3], ids[0]]
    assert await listed("q=FILM%203") == [ids[3]]
    assert await listed("q=%25") == []
    failed = (await gateway.client.get("/api/v1/jobs?status=failed")).json()["jobs"][0]
    assert failed["error"]["code"] == "NO_FRAMES"


async def test_a_restarted_gateway_knows_all_jobs(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path) as first:
        ids = {(await upload(first))["job_id"] for _ in range(20)}
        secret = (tmp_path / "gateway.secret").read_bytes()
    async with served(server, tmp_path) as second:
        found = (await second.client.get("/api/v1/jobs")).json()["jobs"]
        assert {job["job_id"] for job in found} == ids
        assert (tmp_path / "gateway.secret").read_bytes() == secret
        assert (tmp_path / "gateway.secret").stat().st_mode & 0o777 == 0o600


async def test_a_film_that_lacks_frames_is_not_plainly_done(gateway: Served) -> None:
    whole, cut = (await upload(gateway))["job_id"], (await upload(gateway))["job_id"]
    text = "The file ends early: 180 of 377 frames are in it."
    for job_id, code, said in ((whole, "TIMES_ROUNDED", "Frames were moved."), (cut, "SOURCE_CUT", text)):
        film = Film(key=keys.film(job_id, 1, "mp4"), **FILM)
        await records.change_job(gateway.context.bus, job_id, lambda job, c=code, s=said: job.with_warning(c, s))
        await move(gateway, job_id, Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING, Phase.COMPLETED, film=film)

    jobs: dict[str, dict[str, Any]] = {}

    async def listed() -> bool:
        found = (await gateway.client.get("/api/v1/jobs?status=completed")).json()["jobs"]
        jobs.update({job["job_id"]: job for job in found})
        return len(jobs) == 2

    await eventually(listed, what="both films")
    assert (jobs[whole]["stage_label"], jobs[whole]["lacks"]) == ("Done", [])
    assert (jobs[cut]["stage_label"], jobs[cut]["lacks"]) == ("Done, with a warning", [text])
    page = (await gateway.client.get("/jobs", headers={"Accept": "text/html"})).text
    assert page.count("Done, with a warning") == 1


async def test_a_worker_says_which_film_and_which_segment_it_is_at(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    card = Worker(
        worker_id="w1", host="h", pid=1, pool="cpu", slots=3, busy=("J1.1.0", "gone.2.7"), started_at=1.0, seen_at=10.0
    )
    await gateway.context.bus.bucket(subjects.WORKERS).put("w1", card)

    async def at_work(*wanted: tuple[str, int, str]) -> bool:
        found = (await gateway.client.get("/api/v1/workers")).json()["workers"]
        return [(of["job_id"], of["segment_index"], of["title"]) for item in found for of in item["at_work"]] == [
            *wanted
        ]

    await eventually(lambda: at_work(("J1", 0, "Holiday"), ("gone", 7, "")), what="what its card says")
    await showing.tell(1, "running", at=11.0)
    await showing.tell(0, "done", at=12.0)
    await eventually(lambda: at_work(("J1", 1, "Holiday"), ("gone", 7, "")), what="what it said since")
    (worker,) = (await gateway.client.get("/api/v1/workers")).json()["workers"]
    assert worker["at_work"][0]["page"] == "/jobs/J1"


async def test_a_title_of_blanks_is_none(gateway: Served) -> None:
    """It is the film's link in every list."""
    stored = (await gateway.client.put("/api/v1/uploads?name=Holiday.mp4", content=CLIP)).json()
    made = await gateway.client.post("/api/v1/jobs", json={"upload": stored["upload"], "title": " \t\u3000"})
    assert (made.status_code, made.json()["title"]) == (201, "Holiday")
    path = f"/api/v1/jobs/{made.json()['job_id']}"
    for where in (path, path.removeprefix("/api/v1")):
        refused = await gateway.client.patch(where, json={"title": "  "})
        assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_REQUEST")
    changed = await gateway.client.patch(path, json={"title": "  Our holiday \n"})
    assert (changed.status_code, changed.json()["title"]) == (200, "Our holiday")
    form = {"title": (None, "  "), "file": ("Skiing.mp4", CLIP, "video/mp4")}
    sent = await gateway.client.post("/upload", files=form)
    assert (await gateway.client.get(f"/api/v1/jobs/{sent.json()['job_id']}")).json()["title"] == "Skiing"
    nameless = (await upload(gateway, name="   .mp4"))["job_id"]
    assert (await gateway.client.get(f"/api/v1/jobs/{nameless}")).json()["title"].strip()


@pytest.mark.parametrize("title", ["\u200b", "\ufeff \u2060", "\u202e\u00ad", "\u3164\ufe0f"])
async def test_a_title_that_nobody_sees_is_none(gateway: Served, title: str) -> None:
    stored = (await gateway.client.put("/api/v1/uploads?name=Holiday.mp4", content=CLIP)).json()
    made = await gateway.client.post(
        "/api/v1/jobs", json={"upload": stored["upload"], "title": title, "filename": title}
    )
    assert (made.status_code, made.json()["title"], made.json()["filename"]) == (201, "Holiday", "Holiday.mp4")
    path = f"/api/v1/jobs/{made.json()['job_id']}"
    for where in (path, path.removeprefix("/api/v1")):
        refused = await gateway.client.patch(where, json={"title": title})
        assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_REQUEST")
    assert (await gateway.client.get(path)).json()["title"] == "Holiday"
    form = {"title": (None, title), "file": ("Skiing.mp4", CLIP, "video/mp4")}
    sent = await gateway.client.post("/upload", files=form)
    assert (await gateway.client.get(f"/api/v1/jobs/{sent.json()['job_id']}")).json()["title"] == "Skiing"
    nameless = (await upload(gateway, name=f"{title}.mp4"))["job_id"]
    assert titles.shown((await gateway.client.get(f"/api/v1/jobs/{nameless}")).json()["title"])


@pytest.mark.parametrize(
    "title", ["👨\u200d👩\u200d👧", "❤\ufe0f", "🏴\U000e0067\U000e0062\U000e007f", "می\u200cخواهم"]
)
async def test_signs_that_are_joined_stay_whole(gateway: Served, title: str) -> None:
    made = (await upload(gateway, name=f"{title}.mp4"))["job_id"]
    path = f"/api/v1/jobs/{made}"
    assert (await gateway.client.get(path)).json()["title"] == title
    changed = await gateway.client.patch(path, json={"title": f" {title} "})
    assert (changed.status_code, changed.json()["title"]) == (200, title)
