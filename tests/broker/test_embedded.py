"""The embedded server where folders, logs and file systems are not as on the machine that it was written on."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

import pytest

from stereospot import broker, errors
from stereospot.bus import Bus
from stereospot.embedded import Embedded
from stereospot.settings import Settings
from tests.support import eventually


async def test_a_data_folder_may_have_any_name(tmp_path: Path) -> None:
    async with Embedded(tmp_path / 'José 日本 "2"', port=None) as server:
        assert server.pid is not None
    assert (server.folder / "jetstream").is_dir()


async def test_it_comes_back_also_when_somebody_has_taken_its_log_away(tmp_path: Path) -> None:
    async with Embedded(tmp_path, port=None, look_seconds=0.02) as server:
        looks: list[bool] = []
        look = server._has_write_error  # pyright: ignore[reportPrivateUsage]

        def counted() -> bool:
            looks.append(True)
            return look()

        server._has_write_error = counted  # type: ignore[method-assign]
        (server.folder / "server.log").unlink()
        await eventually(lambda: len(looks) > 1, what="it looked at a log that is not there")
        old = server.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        await eventually(lambda: server.pid not in (None, old), seconds=5, what="it comes back")


async def test_an_error_is_seen_in_a_log_that_was_emptied(tmp_path: Path) -> None:
    async with Embedded(tmp_path, port=None, look_seconds=0.02) as server:
        old, said = server.pid, server.folder / "server.log"
        await eventually(lambda: server._read_log == said.stat().st_size > 200)  # pyright: ignore[reportPrivateUsage]
        said.write_text("[1] [ERR] Filestore [WORK] Critical write error: no space left on device\n")
        await eventually(lambda: server.pid not in (None, old), seconds=5, what="it starts again")


async def test_a_data_folder_that_cannot_be_used_is_told_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.Misconfigured, match="file: ") as raised:
        await Embedded(tmp_path / "file", port=None).__aenter__()
    assert (raised.value.code, "--data" in raised.value.detail) == ("BROKER_FAILED", True)

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(errors.Misconfigured, match="No locks available"):
        await Embedded(tmp_path, port=None).__aenter__()


async def test_settings_of_a_fleet_do_not_reach_it(tmp_path: Path) -> None:
    none = tmp_path / "none"
    fleet = Settings(data_dir=tmp_path, replicas=3, nats_creds=none, nats_nkey_seed=none, nats_tls_ca=none)
    async with Embedded(tmp_path, port=None) as server:
        settings = server.settings(fleet)
        bus = await Bus.connect(settings, name="test")
        assert (await broker.provision(bus, settings)).created
        await bus.drain()
