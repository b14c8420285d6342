"""F7: a whole job over a network and a store that fail: a proxy before a real S3 server."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from services import submit
from stereospot import keys
from stereospot.options import Options
from tests.faults import promises
from tests.faults.fleet import PIPELINE, fleet
from tests.faults.table import Tell
from tests.media import sources as films
from tests.storage.faulty import faulty
from tests.storage.seaweed import seaweed


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_f7_a_job_over_a_store_that_fails(tmp_path: Path, tell: Tell) -> None:
    """30 % answers are 5xx (late ones with status 200 among them), others stall, are reset or torn in their middle."""
    with seaweed() as server:
        async with faulty(server.endpoint) as proxy:
            ours: dict[str, Any] = {
                "storage": "s3", "s3_endpoint": server.endpoint, "s3_access_key": server.access_key,
                "s3_secret_key": server.secret_key, "s3_bucket": "tests", "s3_prefix": uuid.uuid4().hex,
            }  # fmt: skip
            theirs: dict[str, Any] = ours | {"s3_endpoint": proxy.endpoint}
            async with fleet(tmp_path, start=PIPELINE, ours=ours, **theirs) as made:
                for name in ("J1", "J2"):
                    await made.context.store.put(keys.source(name, "mp4"), films.path("h264_mp4").read_bytes())
                proxy.rates = {
                    "503": 0.12, "500": 0.1, "200-with-error": 0.08, "reset": 0.03, "torn": 0.03, "stall": 0.02,
                    "unheard": 0.02,
                }  # fmt: skip
                proxy.inject("200-with-error", "x-amz-copy-source")
                began = time.monotonic()
                options = Options(backend="stub", preset="ultrafast", segment_seconds=0.5)
                for name in ("J1", "J2"):
                    work = submit.SubmitWork(key=keys.source(name, "mp4"), options=options)
                    source = await submit.source_of(made.context, work)
                    await submit.create(made.context, source, options, job_id=name, title=name)
                    made.accepted.append(name)
                await made.ended("J1", "J2", seconds=150)
                await made.at_rest(60)
                print(f"{time.monotonic() - began:.1f} s, {len(proxy.seen)} requests, {dict(proxy.done)}")
                verdict = promises.check(await made.history(), ack_wait_seconds=made.ack_wait)
                tell("F7 S3 with 30 % errors", verdict)
                assert verdict.violations == (), verdict
                assert {"503", "500", "200-with-error", "reset", "torn", "stall", "unheard"} == set(proxy.done)
                failed = sum(proxy.done[kind] for kind in ("503", "500", "200-with-error"))
                assert failed > 0.2 * len(proxy.seen)
                assert not (await made.job("J1")).warnings
