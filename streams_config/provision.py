"""Compare what is configured here with what a server has, create what is missing, update what may be updated.

    load() ─> settle(replicas, pools, …) ─> compare with the server ─> refuse | create and update

The JSON files go to the JetStream API as they are; `nats stream add --config` and `nats consumer add --config` take the
same files. Only the fields that they state are compared, and an update keeps the others (placement, compression), so
an operator may tune those. Nothing is changed when anything has to be refused.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import nats.errors

__all__ = [
    "Answer",
    "Configuration",
    "Difference",
    "Refusal",
    "Report",
    "Requester",
    "Unreachable",
    "compare",
    "load",
    "provision",
    "settle",
]

FOLDER = Path(__file__).resolve().parent

TEMPLATE_POOL = "cpu"
"""The pool whose consumers are the pattern for pools that have no files of their own."""

STREAM_FIXED = frozenset(
    {
        "retention",
        "storage",
        "max_consumers",
        "sealed",
        "deny_delete",
        "deny_purge",
        "allow_msg_counter",
        "persist_mode",
    }
)
"""What a server does not change on a stream that exists."""

CONSUMER_FIXED = frozenset(
    {"durable_name", "name", "deliver_policy", "ack_policy", "replay_policy", "opt_start_seq", "max_waiting"}
)
"""What a server does not change on a consumer that exists."""

ONE_WAY = frozenset({"allow_msg_ttl", "allow_msg_schedules"})
"""May be switched on, never off."""

EXCUSED = 1000
"""Deliveries that may be given back untried before the server's limit, the net of last resort, is reached."""

_PATIENCE_SECONDS = 20.0
_MISSING = frozenset({10014, 10059})
_NO_LEADER_YET = frozenset({10008, 10009})


class Answer(Protocol):
    @property
    def data(self) -> bytes: ...


class Requester(Protocol):
    """The one method of a NATS client that is needed here."""

    async def request(self, subject: str, payload: bytes = b"", timeout: float = 0.5) -> Any: ...


class Unreachable(Exception):
    """The server, or JetStream on it, does not answer."""


class Refusal(Exception):
    """The server has something that cannot be made ours in place; each difference is one sentence."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = tuple(sentences)


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs, and whether a server changes it in place."""

    what: str
    name: str
    field: str
    ours: Any
    theirs: Any
    fixed: bool

    def __str__(self) -> str:
        end = "which cannot be changed in place" if self.fixed else "which will be updated"
        return (
            f"{self.what} {self.name}: {self.field} is {json.dumps(self.theirs)}, not {json.dumps(self.ours)}, {end}."
        )


@dataclass(frozen=True, slots=True)
class Configuration:
    """Stream configurations by name, and consumer configurations by (stream, consumer)."""

    streams: Mapping[str, Mapping[str, Any]]
    consumers: Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(slots=True)
class Report:
    """What was found and done; names are `STREAM` or `STREAM/consumer`."""

    created: list[str] = field(default_factory=list[str])
    updated: list[str] = field(default_factory=list[str])
    unchanged: list[str] = field(default_factory=list[str])
    differences: list[Difference] = field(default_factory=list[Difference])

    @property
    def changed(self) -> bool:
        return bool(self.created or self.updated)


def load(folder: Path = FOLDER) -> Configuration:
    """Every stream, bucket and consumer of the folder, as the files have them."""
    files = [*sorted((folder / "streams").glob("*.json")), *sorted((folder / "buckets").glob("*.json"))]
    streams = [json.loads(path.read_text()) for path in files]
    consumers = [json.loads(path.read_text()) for path in sorted((folder / "consumers").glob("*.json"))]
    return Configuration(
        {stream["name"]: stream for stream in streams},
        {(item["stream_name"], item["config"]["name"]): item["config"] for item in consumers},
    )


def settle(
    configuration: Configuration,
    *,
    replicas: int | None = None,
    pools: Sequence[str] = (),
    ack_wait_seconds: float | None = None,
    max_attempts: int | None = None,
) -> Configuration:
    """The configuration for one deployment.

    `replicas` None leaves what is there (a stream that is created has one): who provisions a pool later, or has
    `doctor` mend something, must not take a cluster's copies away by saying nothing.
    `ack_wait_seconds` is that of the CONVERT consumers; `max_attempts` is the handlers' own limit of real tries. The
    server counts deliveries, those that were given back untried too: its limit lies far above. `pools` get consumers
    after the pattern of the pool `cpu`.
    """
    streams = {name: {**stream, "num_replicas": replicas} for name, stream in configuration.streams.items()}
    if replicas is None:
        for stream in streams.values():
            del stream["num_replicas"]
    consumers = {key: dict(consumer) for key, consumer in configuration.consumers.items()}
    for pool in pools:
        for (stream, name), consumer in configuration.consumers.items():
            if name.startswith(f"convert-{TEMPLATE_POOL}-"):
                other = _for_pool(consumer, pool)
                consumers.setdefault((stream, other["name"]), other)
    for (stream, _), consumer in consumers.items():
        if ack_wait_seconds is not None and stream == "CONVERT":
            consumer["ack_wait"] = int(ack_wait_seconds * 1e9)
        if max_attempts is not None and consumer.get("max_deliver", -1) > 0:
            consumer["max_deliver"] = max_attempts + EXCUSED
    return Configuration(streams, consumers)


def _for_pool(consumer: Mapping[str, Any], pool: str) -> dict[str, Any]:
    old, new = f"-{TEMPLATE_POOL}-", f"-{pool}-"
    return {
        **consumer,
        "name": consumer["name"].replace(old, new),
        "durable_name": consumer["durable_name"].replace(old, new),
        "description": consumer.get("description", "").replace(f"pool {TEMPLATE_POOL}", f"pool {pool}"),
        "filter_subject": consumer["filter_subject"].replace(f".{TEMPLATE_POOL}.", f".{pool}."),
    }


def compare(what: str, name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    """The stated fields that differ. A field that a server leaves out has its zero value."""
    fixed = STREAM_FIXED if what == "stream" else CONSUMER_FIXED
    found: list[Difference] = []
    for key, value in ours.items():
        other = theirs.get(key)
        if other == value or (not other and not value):
            continue
        never = key in fixed or (key in ONE_WAY and not value)
        found.append(Difference(what, name, key, value, other, never))
    return found


async def provision(
    nc: Requester,
    *,
    replicas: int | None = None,
    pools: Sequence[str] = (),
    ack_wait_seconds: float | None = None,
    max_attempts: int | None = None,
    configuration: Configuration | None = None,
    dry_run: bool = False,
) -> Report:
    """Make the server's streams, buckets and consumers ours; calling it again changes nothing.

    Raises Refusal before any change when something cannot be changed in place, and Unreachable. With `dry_run` the
    report says what would be done.
    """
    wanted = settle(
        configuration or load(),
        replicas=replicas, pools=pools, ack_wait_seconds=ack_wait_seconds, max_attempts=max_attempts,
    )  # fmt: skip
    report = Report()
    steps: list[tuple[str, Mapping[str, Any]]] = []

    def plan(label: str, differences: list[Difference] | None, subject: str, body: Mapping[str, Any]) -> None:
        if differences is None:
            report.created.append(label)
        elif differences:
            report.updated.append(label)
            report.differences += differences
        else:
            report.unchanged.append(label)
            return
        steps.append((subject, body))

    for name, ours in wanted.streams.items():
        theirs = await _find(nc, f"STREAM.INFO.{name}")
        room = (theirs or {}).get("max_bytes")
        if room is not None and not 0 < room < ours["max_bytes"]:
            ours = {**ours, "max_bytes": room}  # who has more than is asked for keeps it; below 1 there is no limit
        differences = None if theirs is None else compare("stream", name, ours, theirs)
        verb = "CREATE" if theirs is None else "UPDATE"
        plan(name, differences, f"STREAM.{verb}.{name}", {**(theirs or {}), **ours})
    for (stream, name), ours in wanted.consumers.items():
        theirs = None if stream in report.created else await _find(nc, f"CONSUMER.INFO.{stream}.{name}")
        label = f"{stream}/{name}"
        differences = None if theirs is None else compare("consumer", label, ours, theirs)
        body = {
            "stream_name": stream,
            "config": {**(theirs or {}), **ours},
            "action": "create" if theirs is None else "update",
        }
        plan(label, differences, f"CONSUMER.CREATE.{stream}.{name}", body)

    fixed = [str(difference) for difference in report.differences if difference.fixed]
    if fixed:
        raise Refusal(fixed)
    if not dry_run:
        for subject, body in steps:
            await _apply(nc, subject, body)
    return report


async def _find(nc: Requester, subject: str) -> dict[str, Any] | None:
    """The `config` of what is there, or None."""
    answer = await _request(nc, subject, b"")
    problem = answer.get("error")
    if problem is None:
        return dict(answer["config"])
    if problem.get("err_code") in _MISSING:
        return None
    raise Refusal([f"The server refuses {subject}: {problem.get('description')} ({problem.get('err_code')})."])


async def _apply(nc: Requester, subject: str, body: Mapping[str, Any]) -> None:
    answer = await _request(nc, subject, json.dumps(body).encode())
    problem = answer.get("error")
    if problem is not None:
        raise Refusal([f"The server refuses {subject}: {problem.get('description')} ({problem.get('err_code')})."])


async def _request(nc: Requester, subject: str, payload: bytes) -> dict[str, Any]:
    """One API request, repeated while a cluster elects its leaders; every request here may be repeated."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            answer = await nc.request(f"$JS.API.{subject}", payload, timeout=5.0)
            value: dict[str, Any] = json.loads(answer.data)
            if value.get("error", {}).get("err_code") not in _NO_LEADER_YET:
                return value
            said = value["error"].get("description", "")
        except nats.errors.NoRespondersError:
            said = "JetStream is not enabled, or has no leader"
        except nats.errors.TimeoutError:
            said = "no answer"
        if time.monotonic() > deadline:
            raise Unreachable(f"{subject}: {said}")
        await asyncio.sleep(0.2)
