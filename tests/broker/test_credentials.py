"""Who we say that we are, to real servers with users, nkeys, JWTs and TLS; and what one without TLS gets to see."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys
import pytest

from stereospot import errors
from stereospot.bus import Bus
from stereospot.settings import Settings
from tests.support import Nats, eventually, nats_server
from tests.system import certificates

PASSWORD = "a/b#c?d@e,f:g%h+i"
CODED = "a%2Fb%23c%3Fd%40e%2Cf%3Ag%25h+i"


async def connects(**settings: Any) -> bool:
    """Whether a connection was made; ends it."""
    bus = await Bus.connect(Settings(**settings), name="test")
    answered = await bus.nc.request("$SYS.REQ.USER.INFO", timeout=5)
    await bus.drain()
    return bool(answered.data)


async def refusal(**settings: Any) -> str:
    """What is said of settings that cannot be used, at once and without a secret."""
    started = time.monotonic()
    with pytest.raises(errors.Misconfigured) as raised:
        await Bus.connect(Settings(**settings), name="test")
    assert raised.value.code == "INVALID_SETTINGS"
    assert time.monotonic() - started < 5
    assert "hunter2" not in str(raised.value)
    return raised.value.detail


def written(folder: Path, text: str, name: str = "file") -> Path:
    (folder / name).write_text(text)
    return folder / name


# ---- users in addresses --------------------------------------------------------------------------------------
async def test_a_password_may_have_any_characters(tmp_path: Path) -> None:
    users = json.dumps({"authorization": {"users": [{"user": "u@home", "password": PASSWORD}]}})
    with nats_server(config=written(tmp_path, users)) as server:
        assert await connects(nats_url=f"nats://u%40home:{CODED}@127.0.0.1:{server.port}")
        # The first server is not there, and the other one is named without a user, as servers name each other.
        assert await connects(nats_url=f"nats://u%40home:{CODED}@127.0.0.1:1, 127.0.0.1:{server.port},")
        assert await connects(nats_url=f"127.0.0.1:1,nats://u%40home:{CODED}@127.0.0.1:{server.port}")


async def test_a_token_may_stand_in_the_address(tmp_path: Path) -> None:
    with nats_server(config=written(tmp_path, json.dumps({"authorization": {"token": PASSWORD}}))) as server:
        assert await connects(nats_url=f"nats://{CODED}@127.0.0.1:{server.port}")
        assert await connects(nats_url=server.url, nats_token=PASSWORD)


@pytest.mark.parametrize(
    "url",
    [
        "nats://u:p@h:99999", "nats://u:p@h:abc", "nats://u:hun/ter2@h", "nats://u:12#hunter2@h", "nats://u:1?hunter2@h",
        "nats://u:hunter2,x@h", "nats://u:hunter2@[::1", "nats://u:hunter2@", "http://u:hunter2@h",
        "nats://u:hunter2@h,ws://h", ",",
    ],
)  # fmt: skip
async def test_an_address_that_cannot_be_read_is_told_and_not_shown(url: str) -> None:
    said = await refusal(nats_url=url)
    assert "STEREOSPOT_NATS_URL" in said
    assert "ter2" not in said


# ---- nkeys and creds -----------------------------------------------------------------------------------------
def keypair(prefix: int) -> tuple[str, str]:
    """(seed, public key)."""
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    pair: Any = nkeys.from_seed(bytearray(seed))
    return seed.decode(), pair.public_key.decode()


async def test_an_nkey_seed_lets_in(tmp_path: Path) -> None:
    seed, public = keypair(nkeys.PREFIX_BYTE_USER)
    other, _ = keypair(nkeys.PREFIX_BYTE_USER)
    with nats_server(config=written(tmp_path, json.dumps({"authorization": {"users": [{"nkey": public}]}}))) as server:
        assert await connects(nats_url=server.url, nats_nkey_seed=written(tmp_path, f"{seed}\n", "seed"))
        with pytest.raises(errors.Misconfigured) as raised:
            await connects(nats_url=server.url, nats_nkey_seed=written(tmp_path, other, "other"))
    assert raised.value.code == "BROKER_FORBIDDEN"


def jwt(seed: str, issuer: str, subject: str, name: str, claims: dict[str, Any]) -> str:
    """A JWT as NATS signs them."""

    def coded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    body = {"iat": int(time.time()), "iss": issuer, "sub": subject, "name": name, "nats": {"version": 2, **claims}}
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).rstrip(b"=").decode()
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    text = f"{coded(json.dumps(head).encode())}.{coded(json.dumps(body).encode())}"
    return f"{text}.{coded(nkeys.from_seed(bytearray(seed.encode())).sign(text.encode()))}"


async def test_a_creds_file_lets_in(tmp_path: Path) -> None:
    operator = keypair(nkeys.PREFIX_BYTE_OPERATOR)
    system, account = keypair(nkeys.PREFIX_BYTE_ACCOUNT), keypair(nkeys.PREFIX_BYTE_ACCOUNT)
    seed, public = keypair(nkeys.PREFIX_BYTE_USER)
    every = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1) | {"wildcards": True}
    config = {
        "operator": jwt(*operator, operator[1], "op", {"type": "operator"}),
        "resolver": "MEMORY",
        "system_account": system[1],
        "resolver_preload": {
            public: jwt(*operator, public, "films", {"type": "account", "limits": every})
            for _, public in (system, account)
        },
    }
    user = jwt(*account, public, "u", {"type": "user", "subs": -1, "data": -1, "payload": -1})
    creds = (
        f"-----BEGIN NATS USER JWT-----\n{user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    with nats_server(config=written(tmp_path, json.dumps(config))) as server:
        assert await connects(nats_url=server.url, nats_creds=written(tmp_path, creds, "user.creds"))
        with pytest.raises(errors.Misconfigured) as caught:
            await connects(nats_url=server.url, nats_creds=written(tmp_path, creds.replace("\n", "\r\n"), "w.creds"))
    assert caught.value.code == "INVALID_SETTINGS"


@pytest.mark.parametrize("setting", ["nats_creds", "nats_nkey_seed", "nats_tls_ca"])
@pytest.mark.parametrize("text", [None, "", "SUhunter2", "-----BEGIN USER NKEY SEED-----\nSUhunter2\n"])
async def test_a_file_that_cannot_be_used_is_told(setting: str, text: str | None, server: Nats, tmp_path: Path) -> None:
    path = tmp_path / "none" if text is None else written(tmp_path, text)
    said = await refusal(**{"nats_url": server.url, setting: path})
    assert f"STEREOSPOT_{setting.upper()}" in said
    assert str(path) in said


# ---- TLS -----------------------------------------------------------------------------------------------------
@asynccontextmanager
async def listening(port: int = 0) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """A server that greets as one without TLS; (port, what each client has said)."""
    heard: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.12.5", "max_payload": 1024, "auth_required": True, "headers": True}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        heard.append(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


async def test_no_password_goes_to_a_server_without_the_tls_that_was_asked_for(server: Nats, tmp_path: Path) -> None:
    ca, _ = certificates.write(tmp_path)
    async with listening() as (port, heard):
        for url, more in (("tls", {}), ("nats", {"nats_tls_ca": ca}), ("tls", {"nats_token": "hunter2"})):
            said = await refusal(nats_url=f"{url}://u:hunter2@127.0.0.1:{port}", **more)
            assert "TLS" in said
        await eventually(lambda: len(heard) == 3)
        assert heard == [b""] * 3
    assert "TLS" in await refusal(nats_url=server.url.replace("nats:", "tls:"))
    assert await connects(nats_url=server.url)


def with_tls(folder: Path, **more: Any) -> tuple[Path, Path]:
    """(configuration, certificate)"""
    certificate, key = certificates.write(folder)
    return written(
        folder, json.dumps({"tls": {"cert_file": str(certificate), "key_file": str(key)}, **more})
    ), certificate


@pytest.mark.parametrize("more", [{}, {"allow_non_tls": True}])
async def test_tls_is_spoken_where_it_was_asked_for(more: dict[str, Any], tmp_path: Path) -> None:
    """Also to a server that has it and takes clients without."""
    config, ca = with_tls(tmp_path, **more)
    with nats_server(config=config) as server:
        for scheme in ("nats", "tls"):
            bus = await Bus.connect(
                Settings(nats_url=f"{scheme}://127.0.0.1:{server.port}", nats_tls_ca=ca), name="test"
            )
            transport: Any = bus.nc._transport  # pyright: ignore[reportPrivateUsage]
            assert transport._io_writer.get_extra_info("ssl_object") is not None
            await bus.drain()


async def test_also_when_the_connection_comes_back(tmp_path: Path) -> None:
    config, ca = with_tls(tmp_path)
    with nats_server(config=config) as server:
        url = f"tls://u:hunter2@127.0.0.1:{server.port}"
        bus = await Bus.connect(Settings(nats_url=url, nats_tls_ca=ca), name="test")
        server.kill()
        async with listening(server.port) as (_, heard):
            await eventually(lambda: len(heard) >= 2, seconds=10)
            assert set(heard) == {b""}
        server.restart()
        await eventually(lambda: bus.is_connected, seconds=10)
        await bus.drain()
