"""BANDWIDTH of a master playlist, against what is stored."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from stereospot import keys
from stereospot.storage.base import ObjectInfo
from tests.system.gateway import Served, master_of
from tests.system.showing import Showing
from tests.system.test_gateway_playback import until_run

BANDWIDTH = re.compile(r"[:,]BANDWIDTH=(\d+)(?:,AVERAGE-BANDWIDTH=(\d+))?")


async def test_the_bandwidth_is_what_the_stream_takes(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8216 4.3.4.2: the peaks of all that is stored; before that no less than the first segment's."""
    showing = Showing(gateway.context, "J1", sound=True)
    await showing.begin()
    await showing.convert(0)
    await showing.sing(4)
    path, job = await master_of(gateway, showing.job_id), ("J1", 1)
    store, listed = gateway.context.store, list[str]()
    heavy = (await store.get(keys.audio_segment(*job, 0, 0)) or b"") + bytes(90_000)
    await store.put(keys.audio_segment(*job, 0, 0), heavy)

    async def told() -> tuple[int, int]:
        found = BANDWIDTH.search((await gateway.client.get(path)).text)
        assert found is not None
        return int(found[1]), int(found[2] or 0)

    assert (await told())[0] >= 64_000 + len(heavy) * 8
    await showing.convert(1, 2, 3)
    await until_run(gateway, path.replace("master.m3u8", "from/0/video.m3u8"), [0, 1, 2, 3], True)
    whole = store.list

    def counted(prefix: str) -> AsyncIterator[ObjectInfo]:
        listed.append(prefix)
        return whole(prefix)

    monkeypatch.setattr(store, "list", counted)
    names = (
        [keys.segment(*job, index) for index in range(4)],
        [keys.audio_segment(*job, 0, index) for index in range(4)],
    )
    peak, average = 0.0, 0.0
    for track in names:
        bits = [8 * len(await store.get(name) or b"") for name in track]
        # They last for 1, 1, 2 and 4 s: those in a row that last for 2 to 6 s.
        peak += max((bits[0] + bits[1]) / 2, sum(bits[:3]) / 4, (bits[1] + bits[2]) / 3, bits[2] / 2, sum(bits[2:]) / 6,
                    bits[3] / 4)  # fmt: skip
        average += sum(bits) / 8
    for _ in range(2):
        assert await told() == (pytest.approx(peak, abs=2), pytest.approx(average, abs=2))
    anchored = (await gateway.client.get(path.replace("master.m3u8", "from/2/master.m3u8"))).text
    assert BANDWIDTH.search(anchored)[0] in (await gateway.client.get(path)).text  # type: ignore[index]
    assert len(listed) == 2, "pictures and sound, once"
