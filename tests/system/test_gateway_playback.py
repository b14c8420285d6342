"""Playback while a job converts: runs that only grow, sound beside pictures, ranges, tokens, and real decoding."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import av
import pytest

from services import operations
from services.gateway.tokens import Tokens
from stereospot.completion import Completion
from stereospot.media.model import Segment
from tests.support import eventually
from tests.system.gateway import Served, master_of
from tests.system.showing import FRAME, RATE, Showing


def uris(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


async def run_of(gateway: Served, path: str) -> tuple[list[int], bool]:
    """Segment indices that a media playlist lists, and whether it has ended."""
    answer = await gateway.client.get(path)
    if answer.status_code == 404:
        assert answer.headers["retry-after"] == "1"
        return [], False
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/vnd.apple.mpegurl")
    found = [int(re.search(r"(\d+)\.m4s$", uri)[1]) for uri in uris(answer.text)]  # type: ignore[index]
    return found, "#EXT-X-ENDLIST" in answer.text


async def until_run(gateway: Served, path: str, wanted: list[int], ended: bool) -> None:
    async def reached() -> bool:
        return await run_of(gateway, path) == (wanted, ended)

    await eventually(reached, what=f"{path} lists {wanted}")


async def test_the_run_only_grows_and_ends(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    token = Tokens((gateway.context.settings.data_dir / "gateway.secret").read_bytes()).issue("J1")
    base = f"/v/{token}/1"
    assert (await run_of(gateway, f"{base}/from/0/video.m3u8")) == ([], False)
    assert (await gateway.client.get(f"{base}/master.m3u8")).status_code == 404
    await showing.convert(2)
    await until_run(gateway, f"{base}/from/2/video.m3u8", [2], False)
    assert await run_of(gateway, f"{base}/from/0/video.m3u8") == ([], False)
    await showing.convert(0)
    await until_run(gateway, f"{base}/from/0/video.m3u8", [0], False)
    await showing.convert(1)
    await until_run(gateway, f"{base}/from/0/video.m3u8", [0, 1, 2], False)
    await until_run(gateway, f"{base}/from/1/video.m3u8", [1, 2], False)
    await showing.convert(3)
    await until_run(gateway, f"{base}/from/0/video.m3u8", [0, 1, 2, 3], True)
    await until_run(gateway, f"{base}/from/2/video.m3u8", [2, 3], True)
    assert await run_of(gateway, f"{base}/from/4/video.m3u8") == ([], False)


class Apart(Showing):
    """Samples of a long film: a minute lies between one segment and the next."""

    def segments(self) -> list[Segment]:
        moved = [60 * RATE * FRAME * item.index for item in super().segments()]
        return [
            item.model_copy(update={"start": item.start + by, "last": item.last + by, "end": None})
            for item, by in zip(super().segments(), moved, strict=True)
        ]


@pytest.mark.parametrize(("kind", "anchor", "jumps"), [(Apart, 0, 3), (Apart, 2, 1), (Showing, 0, 0)])
async def test_what_lies_apart_in_the_film_is_told_as_a_discontinuity(
    gateway: Served, kind: type[Showing], anchor: int, jumps: int
) -> None:
    """RFC 8216 4.3.2.3: times that do not go on."""
    showing = kind(gateway.context, "J1", lengths=(2, 2, 2, 2), sound=True)
    await showing.begin()
    await showing.convert(0, 1, 2, 3)
    await showing.sing(4)
    token = Tokens((gateway.context.settings.data_dir / "gateway.secret").read_bytes()).issue("J1")
    for path in ("video.m3u8", "audio/0.m3u8"):
        await until_run(gateway, f"/v/{token}/1/from/{anchor}/{path}", [*range(anchor, 4)], True)
        lines = (await gateway.client.get(f"/v/{token}/1/from/{anchor}/{path}")).text.splitlines()
        assert lines.count("#EXT-X-DISCONTINUITY") == jumps
        first = next(number for number, line in enumerate(lines) if line.startswith("#EXTINF"))
        assert lines[first - 1] != "#EXT-X-DISCONTINUITY"


async def test_a_still_is_told_of_from_the_first_playlist_on(gateway: Served) -> None:
    """RFC 8216 6.2.1: TARGETDURATION stays as it is while the run grows, also towards a segment that is far longer."""
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 9, 2), target_seconds=6.0)
    await showing.begin()
    token = Tokens((gateway.context.settings.data_dir / "gateway.secret").read_bytes()).issue("J1")
    paths = [f"/v/{token}/1/from/{anchor}/video.m3u8" for anchor in (0, 1)]
    await showing.convert(0, 1)
    await until_run(gateway, paths[0], [0, 1], False)
    early = [(await gateway.client.get(path)).text for path in paths]
    await showing.convert(2, 3)
    await until_run(gateway, paths[0], [0, 1, 2, 3], True)
    for path, before in zip(paths, early, strict=True):
        assert "#EXT-X-TARGETDURATION:9\n" in before
        assert (await gateway.client.get(path)).text.startswith(before)


async def test_what_is_asked_again_is_answered_the_same_until_it_changes(gateway: Served) -> None:
    """The short way of the guard: the same bytes and headers, counted under the same route, never stale."""
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    await showing.convert(0)
    master = await master_of(gateway, showing.job_id)
    path = master.replace("master.m3u8", "from/0/video.m3u8")
    for asked in (master, path):
        answers = [await gateway.client.get(asked) for _ in range(3)]
        assert len({answer.content for answer in answers}) == 1
        named = [sorted(item for item in answer.headers.multi_items() if item[0] not in ("date", "x-request-id"))
                 for answer in answers]  # fmt: skip
        assert named[0] == named[1] == named[2]
        head = await gateway.client.head(asked)
        assert (head.content, head.headers["content-length"]) == (b"", str(len(answers[0].content)))
    assert (await gateway.client.get(path, headers={"Host": "evil.example"})).status_code == 403
    text = (await gateway.client.get("/metrics")).text
    route = "/v/{token}/{generation}/from/{anchor}/video.m3u8"
    asked = [line for line in text.splitlines() if route in line and line.startswith("stereospot_http_requests_total")]
    assert any('method="GET"' in line and line.endswith(" 3.0") for line in asked), asked
    await showing.convert(1)
    await until_run(gateway, path, [0, 1], False)
    assert (await gateway.client.delete("/api/v1/jobs/J1")).status_code == 204

    async def gone() -> bool:
        return (await gateway.client.get(path)).status_code == 404

    await eventually(gone, what="no playlist of a deleted job")


async def test_the_m3u_of_a_film_that_is_being_made_is_its_stream(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    early = await gateway.client.get("/playlist/J1.m3u")
    assert (early.status_code, early.json()["code"]) == (400, "INVALID_REQUEST")
    await showing.convert(0)
    master = await master_of(gateway, showing.job_id)
    lines = (await gateway.client.get("/playlist/J1.m3u")).text.splitlines()
    assert lines == ["#EXTM3U", "#EXTINF:-1,Holiday", f"{gateway.url}{master}"]
    assert (await gateway.client.get(lines[2])).status_code == 200
    assert (await gateway.client.get("/playlist.m3u")).text == "#EXTM3U\n", "only finished films"


async def test_playlists_name_what_is_there_and_it_decodes(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", sound=True)
    await showing.begin()
    await showing.convert(0, 1, 2, 3)
    await showing.sing(4)
    master_path = await master_of(gateway, showing.job_id)
    master = (await gateway.client.get(master_path)).text
    assert 'CODECS="avc1.' in master
    assert "mp4a.40.2" in master
    assert "RESOLUTION=128x72,FRAME-RATE=24.000,VIDEO-RANGE=SDR" in master
    assert 'LANGUAGE="eng"' in master
    assert "CH-STEREO" not in master
    [video_uri] = uris(master)
    audio_uri = re.search(r'TYPE=AUDIO.*URI="([^"]+)"', master)[1]  # type: ignore[index]
    video_path = urljoin(master_path, video_uri)
    audio_path = urljoin(master_path, audio_uri)
    frames = await decoded(gateway, video_path, "video")
    assert frames == [number / RATE for number in range(8 * RATE)]
    assert len(await decoded(gateway, audio_path, "audio")) >= 8 * 48_000 // 1024 - 1
    text = (await gateway.client.get(video_path)).text
    durations = [float(value) for value in re.findall(r"#EXTINF:([\d.]+),", text)]
    assert durations == [1.0, 1.0, 2.0, 4.0]
    assert "#EXT-X-TARGETDURATION:4\n" in text
    assert "#EXT-X-START:TIME-OFFSET=0" in text
    assert "#EXT-X-PLAYLIST-TYPE:EVENT" in text


async def decoded(gateway: Served, path: str, kind: str) -> list[float]:
    """Times of all frames of a rendition, from the bytes that its playlist names."""
    text = (await gateway.client.get(path)).text
    init = re.search(r'#EXT-X-MAP:URI="([^"]+)"', text)[1]  # type: ignore[index]
    data = b""
    for uri in [init, *uris(text)]:
        answer = await gateway.client.get(urljoin(path, uri))
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        data += answer.content
    with av.open(io.BytesIO(data)) as container:
        stream = next(item for item in container.streams if item.type == kind)
        return [float(frame.time) for frame in container.decode(stream)]  # type: ignore[union-attr]


async def test_sound_and_pictures_share_the_run(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", sound=True)
    await showing.begin()
    await showing.convert(0, 1, 2)
    await showing.sing(2)
    master_path = await master_of(gateway, showing.job_id)
    base = master_path.removesuffix("/master.m3u8")
    await until_run(gateway, f"{base}/from/0/video.m3u8", [0, 1], False)
    assert await run_of(gateway, f"{base}/from/0/audio/0.m3u8") == ([0, 1], False)
    assert await run_of(gateway, f"{base}/from/2/video.m3u8") == ([], False)
    await showing.convert(3)
    await showing.sing(4)
    await until_run(gateway, f"{base}/from/0/video.m3u8", [0, 1, 2, 3], True)
    assert await run_of(gateway, f"{base}/from/0/audio/0.m3u8") == ([0, 1, 2, 3], True)
    assert (await gateway.client.get(f"{base}/from/0/audio/1.m3u8")).status_code == 404


async def test_a_stream_is_announced_when_all_of_its_beginning_is_there(gateway: Served) -> None:
    """Pictures without their sound make no playlist, and players do not ask twice for one that is not there."""
    showing = Showing(gateway.context, "ANNOUNCED", sound=True, lengths=(2, 2))
    await showing.begin()
    await showing.convert(0)

    async def shown() -> dict[str, Any]:
        return (await gateway.client.get("/api/v1/jobs/ANNOUNCED")).json()

    async def is_done() -> bool:
        return (await shown())["progress"]["segments"]["done"] == 1

    await eventually(is_done, what="the first segment")
    playback = (await shown())["playback"]
    assert (playback["hls"], playback["ready"]) == (None, False)
    await showing.sing(1)
    path = await master_of(gateway, showing.job_id)
    answer = await gateway.client.get(path)
    assert answer.status_code == 200
    assert 'AUDIO="sound"' in answer.text


@pytest.mark.parametrize("silent", [True, False])
async def test_a_film_without_sound_is_announced_with_its_beginning(gateway: Served, silent: bool) -> None:
    """Its plan is not whole yet; the first part says what the probe has found."""
    showing = Showing(gateway.context, "J1", lengths=(2, 2))
    await showing.begin()
    await showing.write(Completion(job_id="J1", generation=1).with_part(0, 1, 1, "cpu", silent=silent))
    await showing.convert(0)

    async def shown() -> dict[str, Any]:
        return (await gateway.client.get("/api/v1/jobs/J1")).json()

    async def is_done() -> bool:
        body = await shown()
        return (body["progress"]["segments"]["done"], body["progress"]["segments"]["total"]) == (1, None)

    await eventually(is_done, what="the first segment")
    path = (await shown())["playback"]["hls"]
    assert (path is not None) == silent
    if path is not None:
        assert await run_of(gateway, path.replace("master.m3u8", "from/0/video.m3u8")) == ([0], False)
    await showing.write(showing.state.with_total(2, (0,), 1, "cpu", False))
    await showing.convert(1)
    path = await master_of(gateway, "J1")
    await until_run(gateway, path.replace("master.m3u8", "from/0/video.m3u8"), [0, 1], True)


async def test_a_job_whose_sound_never_came_still_plays(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", sound=True, lengths=(1, 1))
    await showing.begin()
    await showing.convert(0, 1)
    job = (await gateway.client.get("/api/v1/jobs/J1")).json()
    base = job["playback"]["poster"].removesuffix("/poster.jpg")
    assert await run_of(gateway, f"{base}/from/0/video.m3u8") == ([], False)
    await showing.finish(b"film")
    await until_run(gateway, f"{base}/from/0/video.m3u8", [0, 1], True)
    assert "AUDIO" not in (await gateway.client.get(f"{base}/master.m3u8")).text


async def test_ranges(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1,))
    await showing.begin()
    await showing.convert(0)
    path = (await master_of(gateway, showing.job_id)).replace("master.m3u8", "video/00000.m4s")
    whole = await gateway.client.get(path)
    data, etag = whole.content, whole.headers["etag"]
    size = len(data)
    assert whole.headers["accept-ranges"] == "bytes"
    cases: list[tuple[str, int, bytes | None]] = [
        ("bytes=0-0", 206, data[:1]),
        ("bytes=10-19", 206, data[10:20]),
        ("bytes=10-", 206, data[10:]),
        ("bytes=-7", 206, data[-7:]),
        (f"bytes=-{size * 5}", 206, data),
        (f"bytes=5-{size * 5}", 206, data[5:]),
        (f"bytes={size}-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=9-5", 200, data),
        ("bytes=0-1,5-6", 200, data),
        ("bytes=a-b", 200, data),
        ("lines=0-1", 200, data),
        (f"bytes={'9' * 30}-", 200, data),
    ]
    for header, status, body in cases:
        answer = await gateway.client.get(path, headers={"Range": header})
        assert answer.status_code == status, header
        if body is not None:
            assert answer.content == body, header
            assert answer.headers["content-length"] == str(len(body))
        else:
            assert answer.headers["content-range"] == f"bytes */{size}"
            assert answer.json()["code"] == "RANGE_NOT_SATISFIABLE"
    same = await gateway.client.get(path, headers={"Range": "bytes=0-4", "If-Range": etag})
    assert same.status_code == 206
    for stale in ('"other"', f"W/{etag}", "Fri, 20 Nov 2026 12:00:00 GMT"):
        answer = await gateway.client.get(path, headers={"Range": "bytes=0-4", "If-Range": stale})
        assert (answer.status_code, answer.content) == (200, data)
    assert (await gateway.client.get(path, headers={"If-None-Match": etag})).status_code == 304
    head = await gateway.client.head(path, headers={"Range": "bytes=0-4"})
    assert (head.status_code, head.headers["content-length"], head.content) == (206, "5", b"")


async def test_a_player_that_goes_away_leaves_nothing_open(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1,))
    await showing.begin()
    film = await showing.finish(bytes(32 << 20))
    job = (await gateway.client.get("/api/v1/jobs/J1")).json()
    path = job["playback"]["film"]

    async def look() -> None:
        async with gateway.client.stream("GET", path) as response:
            async for _ in response.aiter_bytes():
                break

    for _ in range(20):
        await look()
    film_path = str(gateway.context.store.local_path(film.key))

    def is_open() -> bool:
        targets: list[str] = []
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                targets.append(str(link.readlink()))
        return film_path in targets

    await eventually(lambda: not is_open(), what="every descriptor closed")
    assert (await gateway.client.head(path)).status_code == 200


async def test_what_was_handed_holds_in_another_generation(gateway: Served) -> None:
    """Its pictures do not: they are of one try at the film."""
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    await showing.convert(0)
    folder = (await master_of(gateway, "J1")).removesuffix("master.m3u8")
    assert await operations.replan(gateway.context.bus, "J1", 1, "The frames were counted anew.")

    async def waits() -> bool:
        return (await gateway.client.get(f"{folder}watch")).headers.get("refresh") is not None

    await eventually(waits, what="a page that looks again")
    assert (await gateway.client.get(f"{folder}playlist.m3u")).headers["retry-after"] == "1"
    again = Showing(gateway.context, "J1", generation=2)
    await again.begin_anew()
    await again.convert(0)
    anew = await master_of(gateway, "J1")
    assert anew == folder.replace("/1/", "/2/") + "master.m3u8"
    assert f'data-hls="{anew}"' in (await gateway.client.get(f"{folder}watch")).text
    assert (await gateway.client.get(f"{folder}playlist.m3u")).text.endswith(f"{anew}\n")
    for path in (
        f"{folder}master.m3u8",
        f"{folder}film",
        f"{folder}video/00000.m4s",
        folder.replace("/1/", "/3/") + "watch",
    ):
        answer = await gateway.client.get(path)
        assert (answer.status_code, answer.headers.get("retry-after")) == (404, None), path
