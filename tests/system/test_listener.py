"""The socket that people connect to: what it promises beside a bound address."""

from __future__ import annotations

import asyncio
import socket

import pytest

from services.listener import listen
from stereospot import errors


async def test_a_head_and_a_body_are_sent_without_waiting_for_an_acknowledgement() -> None:
    undelayed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted: socket.socket = writer.get_extra_info("socket")
        undelayed.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(connected, sock=listen("127.0.0.1", 0)) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with asyncio.timeout(5):
            assert await undelayed == 1
        writer.close()


def test_a_port_is_taken_once() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(errors.Misconfigured, match="in use") as caught:
        listen("127.0.0.1", first.getsockname()[1])
    assert caught.value.code == "PORT_TAKEN"
