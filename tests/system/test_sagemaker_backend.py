"""The sagemaker backend against moto's server (the API and its result objects) and SeaweedFS (the shared bucket).

moto accepts invocations, names result objects and writes them; it runs no container. `Container` stands before it: it
does what the endpoint's container would do with our real server, then lets moto answer.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator
from typing import Any

import httpx
import numpy as np
import pytest

from inference import backends
from inference.backends.sagemaker import Endpoint, SagemakerBackend
from stereospot import errors
from stereospot.settings import Settings
from stereospot.storage.base import ObjectStore
from stereospot.storage.s3 import S3Store
from tests.storage.seaweed import Seaweed, seaweed
from tests.support import wait_until
from tests.system import remote
from tests.unit import clips
from tests.unit.clips import decoded

pytest.importorskip("moto", reason="moto[server] is not installed")

WIDTH, HEIGHT = 160, 90
_MOTO = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def moto() -> Generator[str]:
    process = subprocess.Popen([sys.executable, "-c", _MOTO], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="module")
def weed() -> Generator[Seaweed]:
    with seaweed() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"remote/{uuid.uuid4().hex}"


class Rig:
    """The stores and the backend of one test."""

    def __init__(self, weed: Seaweed, moto: str, prefix: str) -> None:
        self.weed, self.moto, self.prefix = weed, moto, prefix

    def shared(self) -> S3Store:
        return self.bucket("tests", self.prefix)

    def bucket(self, name: str, prefix: str = "") -> S3Store:
        """The shared bucket lies in SeaweedFS, those that moto makes for its results in moto."""
        ours = name == "tests"
        endpoint = self.weed.endpoint if ours else self.moto
        keys = (self.weed.access_key, self.weed.secret_key) if ours else ("testing", "testing")
        return S3Store(name, endpoint=endpoint, access_key=keys[0], secret_key=keys[1], prefix=prefix)

    def backend(self, url: str, timeout_seconds: float = 60.0) -> SagemakerBackend:
        endpoint = Endpoint("stereospot", "us-east-1", url, "testing", "testing", timeout_seconds, attempts=1)
        return SagemakerBackend(endpoint, open_store=self.shared, open_bucket=self.bucket, limits=remote.LIMITS)

    def left(self) -> list[str]:
        """Keys that are still in the shared bucket."""

        async def read() -> list[str]:
            store = self.shared()
            try:
                return [info.key async for info in store.list("")]
            finally:
                await store.close()

        return asyncio.run(read())


@pytest.fixture
def rig(weed: Seaweed, moto: str, prefix: str) -> Rig:
    return Rig(weed, moto, prefix)


Work = Callable[[dict[str, Any]], Any]


class Container:
    """Before moto: reads the request that the invocation names, hands it to `work`, then lets moto answer."""

    def __init__(self, rig: Rig, work: Work | None, results: list[dict[str, Any]]) -> None:
        self._rig, self._work, self._results = rig, work, results
        self.seen: list[dict[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append({"path": scope["path"], **headers})
        location = headers["x-amzn-sagemaker-inputlocation"]
        async with httpx.AsyncClient(timeout=30) as client:
            if self._work is not None:
                store = self._rig.bucket("tests")
                body = await store.get(location.removeprefix("s3://tests/"))
                await store.close()
                assert body is not None
                done = await asyncio.to_thread(self._work, json.loads(body))
                assert done is None or done.status_code == 200, done.text
            await client.post(
                self._rig.moto + "/moto-api/static/sagemaker/async-endpoint-results", json={"results": self._results}
            )
            kept = {k: v for k, v in headers.items() if k not in ("host", "content-length")}
            answer = await client.post(self._rig.moto + scope["path"], headers=kept)
        passed = [
            (k.encode(), v.encode()) for k, v in answer.headers.items() if k.startswith(("x-amzn", "content-type"))
        ]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": passed})
        await send({"type": "http.response.body", "body": answer.content})


def test_a_segment_by_sagemaker_is_the_local_one(rig: Rig) -> None:
    pictures = clips.pictures(30, WIDTH, HEIGHT, cuts=(12,))
    plan = clips.plan(WIDTH, HEIGHT)
    segment = clips.segment(2, 9, 20)

    def open_bucket(name: str) -> ObjectStore:
        return rig.bucket(name)

    with remote.inference_server(open_bucket=open_bucket) as (server, _):

        def work(request: dict[str, Any]) -> httpx.Response:
            return httpx.post(server + "/invocations", json=request, timeout=30)

        container = Container(rig, work, [{"data": '{"status": "ok"}'}])
        with remote.serving(container) as url:
            found = rig.backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=segment)
    wanted = remote.convert(clips.Clip(pictures), plan, segment, None)
    assert found.fragment.pts == wanted.fragment.pts
    assert found.fragment.init_sha256 == wanted.fragment.init_sha256
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), decoded(wanted.fragment), strict=True))
    assert container.seen[0]["path"] == "/endpoints/stereospot/async-invocations"
    assert container.seen[0]["x-amzn-sagemaker-requestttlseconds"] == "60"
    assert rig.left() == []


@pytest.mark.parametrize(
    ("result", "code", "words"),
    [
        ({"data": "model crashed", "is_failure": True}, "REMOTE_FAILED", "model crashed"),
        ({"data": "rubbish"}, "REMOTE_INVALID", "not JSON"),
        ({"data": '{"status": "ok"}'}, "REMOTE_INVALID", "stored nothing"),
    ],
)
def test_bad_results(rig: Rig, result: dict[str, Any], code: str, words: str) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    clip = clips.Clip(clips.pictures(5, WIDTH, HEIGHT))
    with remote.serving(Container(rig, None, [result])) as url, pytest.raises(errors.Transient) as caught:
        rig.backend(url).convert(decoder=clip, plan=plan, segment=clips.segment(0, 0, 5))
    assert caught.value.code == code
    assert words in str(caught.value)
    assert rig.left() == []


class Silent:
    """An endpoint that takes invocations and never writes a result."""

    def __init__(self) -> None:
        self.taken = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"x-amzn-sagemaker-outputlocation", b"s3://tests/never/out"),
            (b"x-amzn-sagemaker-failurelocation", b"s3://tests/never/failure"),
        ]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"InferenceId": "1"}'})
        self.taken.set()


def test_no_result_in_time(rig: Rig) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    clip = clips.Clip(clips.pictures(5, WIDTH, HEIGHT))
    with remote.serving(Silent()) as url, pytest.raises(errors.Transient, match="No answer") as caught:
        rig.backend(url, timeout_seconds=2.0).convert(decoder=clip, plan=plan, segment=clips.segment(0, 0, 5))
    assert caught.value.code == "REMOTE_FAILED"
    assert rig.left() == []


def test_cancel_gives_the_slot_back(rig: Rig) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    clip = clips.Clip(clips.pictures(5, WIDTH, HEIGHT))
    stop, silent = threading.Event(), Silent()
    threading.Thread(target=lambda: silent.taken.wait(20) and stop.set()).start()
    began = time.monotonic()
    with remote.serving(silent) as url, pytest.raises(errors.Permanent) as caught:
        rig.backend(url).convert(decoder=clip, plan=plan, segment=clips.segment(0, 0, 5), stop=stop)
    assert caught.value.code == "CANCELLED"
    assert time.monotonic() - began < 20
    assert rig.left() == []


def test_an_endpoint_that_is_gone(rig: Rig) -> None:
    body = json.dumps({"Message": "Endpoint stereospot of account 1 not found."}).encode()
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    for parrot, words in (
        (remote.Parrot(400, body, "application/json"), "not found"),
        (remote.Parrot(503, b"{}", "application/json"), "503"),
    ):
        clip = clips.Clip(clips.pictures(3, WIDTH, HEIGHT))
        with remote.serving(parrot) as url, pytest.raises(errors.Transient) as caught:
            rig.backend(url).convert(decoder=clip, plan=plan, segment=clips.segment(0, 0, 3))
        assert caught.value.code == "REMOTE_FAILED"
        assert words in str(caught.value)
    clip = clips.Clip(clips.pictures(3, WIDTH, HEIGHT))
    with pytest.raises(errors.Transient) as caught:
        rig.backend(url).convert(decoder=clip, plan=plan, segment=clips.segment(0, 0, 3))
    assert caught.value.code == "REMOTE_FAILED"
    wait_until(lambda: rig.left() == [], what="an empty bucket")


class OneBucket:
    """Answers as SageMaker does, with the result in the bucket that the settings reach: moto has buckets of its own."""

    def __init__(self, rig: Rig, server: str) -> None:
        self._rig, self._server = rig, server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        result = f"{self._rig.prefix}-results/{uuid.uuid4().hex}.out"
        store = self._rig.bucket("tests")
        request = await store.get(headers["x-amzn-sagemaker-inputlocation"].removeprefix("s3://tests/"))
        assert request is not None
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(self._server + "/invocations", content=request)
        await store.put(result, answer.content)
        await store.close()
        place = (b"x-amzn-sagemaker-outputlocation", f"s3://tests/{result}".encode())
        told = [(b"content-type", b"application/json"), place]
        await send({"type": "http.response.start", "status": 202, "headers": told})
        await send({"type": "http.response.body", "body": b'{"InferenceId": "1"}'})


def test_a_plan_and_the_settings_name_the_endpoint(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker of the pool `remote` does with a job whose options say `"backend": "sagemaker"`."""
    environment = {
        "STORAGE": "s3", "S3_BUCKET": "tests", "S3_PREFIX": rig.prefix, "S3_ENDPOINT": rig.weed.endpoint,
        "S3_ACCESS_KEY": rig.weed.access_key, "S3_SECRET_KEY": rig.weed.secret_key, "SANDBOX": "off",
        "SAGEMAKER_ENDPOINT": "stereospot",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(f"STEREOSPOT_{name}", value)
    plan = clips.plan(WIDTH, HEIGHT, engine="flat").model_copy(update={"backend": "sagemaker"})
    with remote.inference_server(open_bucket=rig.bucket) as (server, _), remote.serving(OneBucket(rig, server)) as url:
        monkeypatch.setenv("STEREOSPOT_SAGEMAKER_URL", url)
        made = backends.Backends(Settings())
        with made.borrow(plan) as backend:
            found = backend.convert(
                decoder=clips.Clip(clips.pictures(6, WIDTH, HEIGHT)), plan=plan, segment=clips.segment(0, 0, 6)
            )
        made.close()
    assert found.fragment.frames == 6
    assert "remote" in found.report.stages
    assert rig.left() == []
