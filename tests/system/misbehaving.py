"""An inference server that answers one segment of a job badly: `python -m tests.system.misbehaving PORT_FILE`.

The real server and the real conversion; what is wrong is asked for by the job's id, `<MOOD>-always` or `<MOOD>-once`,
and concerns the segment SPOILT. Other jobs and segments get what they should.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import uvicorn

from inference.backends.handover import Handover
from inference.invocation import Workshop
from inference.server import Options, Server
from tests.system import remote

SPOILT = 1
LONG_SECONDS = 600.0

MOODS = {
    "RUBBISH": "REMOTE_INVALID", "CUT": "REMOTE_INVALID", "HALF": "REMOTE_INVALID", "FEWER": "REMOTE_INVALID",
    "MORE": "REMOTE_INVALID", "NEVER": "REMOTE_FAILED",
}  # fmt: skip
"""What may be wrong with an answer, and the code that a job is to have for it."""


@dataclass(frozen=True, slots=True)
class Spoiling:
    """The workshop of `inference.server`, whose work is spoilt where a job's id says so."""

    inner: Workshop
    done: Counter[tuple[str, str]] = field(default_factory=Counter)

    def segment(
        self, source: Path, target: Path, wanted: Handover, stop: threading.Event | None = None
    ) -> dict[str, Any]:
        """As `Workshop.segment`, and then something else."""
        report = self.inner.segment(source, target, wanted, stop)
        mood, _, how = wanted.plan.job_id.partition("-")
        if mood in MOODS and wanted.segment.index == SPOILT:
            self.done[mood, how] += 1
            if how == "always" or self.done[mood, how] == 1:
                spoil(mood, target, stop)
        return report

    @property
    def film(self) -> Callable[..., None]:
        return self.inner.film


def spoil(mood: str, target: Path, stop: threading.Event | None) -> None:
    """Turn a good answer into a bad one."""
    if mood == "NEVER":
        (stop or threading.Event()).wait(LONG_SECONDS)
    elif mood == "RUBBISH":
        target.write_bytes(b"200 OK, but no film. " * 500)
    elif mood == "CUT":
        target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    else:
        remuxed(target, mood)


def remuxed(path: Path, mood: str) -> None:
    """The film with another number of pictures: without its last ones, or with its last one once more."""
    made = path.with_suffix(".other.mp4")
    with av.open(str(path)) as given, av.open(str(made), "w") as output:
        copy = output.add_stream_from_template(given.streams.video[0], opaque=True)
        packets = [packet for packet in given.demux(given.streams.video[0]) if packet.size]
        step = (packets[1].pts or 0) - (packets[0].pts or 0)
        count = {"HALF": len(packets) // 2, "FEWER": len(packets) - 1, "MORE": len(packets) + 1}[mood]
        for number in range(count):
            packet = packets[min(number, len(packets) - 1)]
            if number >= len(packets):
                packet = av.Packet(bytes(packets[-1]))
                packet.time_base = packets[-1].time_base
                packet.pts = packet.dts = (packets[-1].pts or 0) + step * (number - len(packets) + 1)
            packet.stream = copy
            output.mux(packet)
    os.replace(made, path)


def main() -> None:
    """Serve until killed; the port is in the file that was named once the server listens."""
    place = Path(sys.argv[1])
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    listener = socket.create_server(("127.0.0.1", port))
    app = Server(Spoiling(Workshop(remote.convert, remote.copy, remote.LIMITS)), Options(slots=8))  # type: ignore[arg-type]
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    other = place.with_suffix(".new")
    other.write_text(str(listener.getsockname()[1]))
    other.replace(place)
    asyncio.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
