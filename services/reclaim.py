"""Taking back, at the start, what a killed daemon held: on a broker of our own nobody else can be at work on it.

A message that was being worked on comes again after its consumer's ack wait: 20 to 30 s in which nothing would happen
after a crash. Shortening the ack wait for a moment puts all of them into the redelivery queue at once, and keeps their
attempts counted. Should this process die in between, the next start provisions the right ack wait first.
"""

from __future__ import annotations

import asyncio
from typing import Any

from stereospot import log
from stereospot.bus import Bus
from streams_config.provision import load, settle

_log = log.get("daemon")

SHORT_NANOSECONDS = 20_000_000
PAUSE_SECONDS = 0.2
"""Enough for the server's timers; measured: redelivery 0.1 s after the update."""


async def reclaim(bus: Bus, pool: str) -> int:
    """Have every unacknowledged message offered again now; returns how many there were. pool: of the converters."""
    held: list[dict[str, Any]] = []
    for stream, name in settle(load(), pools=(pool,)).consumers:
        info = await bus.consumer_info(stream, name)
        if info["num_ack_pending"]:
            held.append(info)
    if not held:
        return 0
    for info in held:
        await _update(bus, info, SHORT_NANOSECONDS)
    await asyncio.sleep(PAUSE_SECONDS)
    for info in held:
        await _update(bus, info, info["config"]["ack_wait"])
    count = sum(info["num_ack_pending"] for info in held)
    _log.info("reclaimed", action="ready", messages=count)
    return count


async def _update(bus: Bus, info: dict[str, Any], ack_wait: int) -> None:
    stream, name = info["stream_name"], info["name"]
    body = {"stream_name": stream, "config": {**info["config"], "ack_wait": ack_wait}, "action": "update"}
    await bus.api(f"CONSUMER.CREATE.{stream}.{name}", body)
