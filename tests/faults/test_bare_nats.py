"""docs/operations.md, sent as bytes: a film made by `stereospot up` for a client that is a socket and nothing else.

The `nats` CLI is not needed to run this: each of its commands is one or two messages, and `Wire` sends those. No code
of ours takes part on the client's side.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from tests.broker.shipped import free_port
from tests.faults.fleet import stretched
from tests.media import sources as films
from tests.support import wait_until

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


class Wire:
    """The NATS text protocol over one socket."""

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=stretched(30))
        self._file = self._socket.makefile("rb")
        self._sids = 0
        assert self._file.readline().startswith(b"INFO ")
        self._send(f'CONNECT {{"verbose":false,"pedantic":false,"headers":true,"auth_token":"{token}"}}')

    def _send(self, line: str, body: bytes | None = None) -> None:
        data = line.encode() + b"\r\n"
        self._socket.sendall(data if body is None else data + body + b"\r\n")

    def publish(self, subject: str, body: bytes, reply: str = "") -> None:
        self._send(" ".join(filter(None, ("PUB", subject, reply, str(len(body))))), body)

    def subscribe(self, subject: str) -> None:
        self._sids += 1
        self._send(f"SUB {subject} {self._sids}")

    def next(self) -> tuple[str, bytes]:
        """Subject and body of the next message."""
        while True:
            line = self._file.readline()
            assert line, "the server closed the connection"
            words = line.split()
            if words[0] == b"PING":
                self._send("PONG")
            elif words[0] in (b"MSG", b"HMSG"):
                body = self._file.read(int(words[-1]) + 2)[:-2]
                return words[1].decode(), body[int(words[-2]) :] if words[0] == b"HMSG" else body
            else:
                assert not words[0].startswith(b"-ERR"), line

    def ask(self, subject: str, body: bytes = b"") -> dict[str, Any]:
        """One request; other messages that come meanwhile are dropped."""
        inbox = f"_INBOX.bare.{time.monotonic_ns()}"
        self.subscribe(inbox)
        self.publish(subject, body, inbox)
        while True:
            where, answer = self.next()
            if where == inbox:
                return json.loads(answer)

    def value(self, bucket: str, key: str) -> bytes:
        query = json.dumps({"last_by_subj": f"$KV.{bucket}.{key}"}).encode()
        return base64.b64decode(self.ask(f"$JS.API.STREAM.MSG.GET.KV_{bucket}", query)["message"]["data"])

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def commands() -> dict[str, list[str]]:
    """The first `nats …` line of the document for each pair of words, split as a shell does."""
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^nats (.+)$", DOCUMENT.read_text(), re.MULTILINE):
        words = shlex.split(line, comments=True)
        found.setdefault(" ".join(words[:2]) if words[0] in ("kv", "consumer", "stream") else words[0], words)
    return found


@contextmanager
def up(folder: Path, root: Path, port: int) -> Generator[subprocess.Popen[bytes]]:
    """`stereospot up` as it is shipped, but for its ports."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEREOSPOT_")}
    environment |= {
        "STEREOSPOT_NATS_PORT": str(port), "STEREOSPOT_PORT": str(free_port()), "STEREOSPOT_SLOTS": "1",
        "STEREOSPOT_ROOTS": json.dumps([str(root)]),
    }  # fmt: skip
    command = [sys.executable, "-m", "services.cli", "up", "--data", str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        assert b"is up" in process.stdout.readline()
        yield process
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_the_bytes_of_the_documented_commands_make_a_film(tmp_path: Path) -> None:
    film = films.path("h264_mp4")
    port = free_port()
    said = commands()
    with up(tmp_path, film.parent, port):
        token = (tmp_path / "broker" / "token").read_text().strip()
        wire = Wire(port, token)

        # nats sub 'stereospot.event.>'
        wire.subscribe(said["sub"][1])

        # nats pub stereospot.work.submit.<id> '{…}'
        _, subject, body = [word for word in said["pub"] if not word.startswith("--")]
        job_id = subject.rsplit(".", 1)[-1]
        submitted = json.loads(body) | {"path": str(film)}
        submitted["options"] |= {"engine": "identity", "preset": "ultrafast"}
        wire.publish(subject, json.dumps(submitted).encode())

        seen: list[str] = []
        while f"stereospot.event.job.{job_id}.completed" not in seen:
            where, event = wire.next()
            seen.append(where)
            assert not where.endswith(".failed"), event
        assert seen[0] == f"stereospot.event.job.{job_id}.created"
        assert any(where.startswith(f"stereospot.event.segment.{job_id}.1.") for where in seen)

        # nats kv get jobs <id> --raw
        _, _, bucket, key, *_ = said["kv get"]
        record = json.loads(wire.value(bucket, key))
        assert (record["job_id"], record["phase"]) == (job_id, "completed")
        made = tmp_path / "storage" / record["film"]["key"]
        with av.open(str(made)) as container, av.open(str(film)) as source:
            assert sum(1 for _ in container.decode(video=0)) == sum(1 for _ in source.decode(video=0))

        # nats consumer pause … / resume …
        _, _, stream, consumer, *_ = said["consumer pause"]
        pause = f"$JS.API.CONSUMER.PAUSE.{stream}.{consumer}"
        assert wire.ask(pause, b'{"pause_until": "2099-01-01T00:00:00Z"}')["paused"] is True
        assert said["consumer resume"][2:4] == [stream, consumer]
        assert not wire.ask(pause, b"{}").get("paused")

        # nats req '$JS.API.CONSUMER.RESET.KV_state.assembler' '{"seq":1}': the film's trigger is offered once more
        _, subject, body = said["req"]
        assert wire.ask(subject, body.encode())["reset_seq"] == 1, "from the first trigger"
        info = subject.replace("RESET", "INFO")
        wait_until(lambda: wire.ask(info)["ack_floor"]["consumer_seq"], seconds=stretched(20), what="it was taken")
        assert json.loads(wire.value(bucket, key))["film"] == record["film"], "it was not made twice"

        # nats stream get EVENT 1: replay is reading the stream again
        first = wire.ask("$JS.API.STREAM.MSG.GET.EVENT", b'{"seq": 1}')["message"]
        assert first["subject"] == seen[0]
        wire.close()


def test_every_documented_command_names_what_is_there() -> None:
    """Streams, buckets and consumers of the document are those of `streams_config/`."""
    configured = {path.stem for path in (DOCUMENT.parents[1] / "streams_config").glob("*/*.json")}
    text = DOCUMENT.read_text()
    for kind, pattern in (
        ("stream", r"^nats stream (?:info|view|get|backup|purge) ([A-Za-z_]+)"),
        ("bucket", r"^nats kv (?:get|ls|watch) ([a-z]+)"),
    ):
        named = re.findall(pattern, text, re.MULTILINE)
        assert named, kind
        for name in named:
            assert name.removeprefix("KV_") in configured, f"{kind} {name}"
    pairs = re.findall(r"^nats consumer (?:info|pause|resume) ([A-Za-z_]+) ([a-z-]+)", text, re.MULTILINE)
    assert pairs
    for stream, name in pairs:
        assert f"{stream}.{name}" in configured
