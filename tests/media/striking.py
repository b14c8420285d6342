"""What befalls a jailed child from outside, at a known point: the moment before it is told what to do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from stereospot.jail import Jail

Blow = Callable[[Jail], None]


def kill(jail: Jail) -> None:
    """As the OOM killer does it."""
    os.kill(jail.wait_started(), signal.SIGKILL)


def pause(jail: Jail) -> None:
    """As a frozen container does it: the child stands still and holds everything."""
    os.kill(jail.wait_started(), signal.SIGSTOP)


def kill_server(jail: Jail) -> None:
    """The forkserver, and the child with it."""
    jail.wait_started()
    server = jail._server.pid  # pyright: ignore[reportPrivateUsage]
    assert server is not None
    os.kill(server, signal.SIGKILL)


def strike(monkeypatch: pytest.MonkeyPatch, task: str, blow: Blow, *, times: int = 1) -> list[str]:
    """Have the next children that run `task` struck; the list grows with each of them."""
    struck: list[str] = []
    send = Jail.send

    def first(self: Jail, body: dict[str, Any], blob: bytes = b"") -> None:
        name = self._task  # pyright: ignore[reportPrivateUsage]
        if name.endswith(task) and self.pid is None and len(struck) < times:
            struck.append(name)
            blow(self)
        send(self, body, blob)

    monkeypatch.setattr(Jail, "send", first)
    return struck
