"""One request to the JetStream API, and what its errors mean."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import nats.errors

from stereospot import errors

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""Compare-and-set lost; a cluster answers with either."""

DUPLICATE_IN_BATCH = 10201
MESSAGE_MISSING = 10037
NOT_THERE = frozenset({10037, 10043, 10057})
"""Three ways to say that a sequence holds no message."""

STORE_FULL = frozenset({10023, 10047, 10077})
"""Insufficient resources, storage resources exceeded, maximum messages or bytes exceeded."""

_AGAIN = frozenset({10158, 10176, 10210, 10211})
"""Duplicate still in process; a batch that a reconnect tore apart or that found too many open ones."""

UNREACHABLE = (
    nats.errors.NoRespondersError,
    nats.errors.TimeoutError,
    nats.errors.FlushTimeoutError,
    nats.errors.StaleConnectionError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.OutboundBufferLimitError,
)
"""What a call may raise while the server, or the stream's leader, is away."""

MARKERS = ("KV-Operation", "Nats-Marker-Reason")
"""Headers of a message that says that a key is gone; the second comes from limits and TTLs."""


class Conflict(Exception):
    """A compare-and-set found another revision: read again, then decide.

    `unsure`: an earlier try of the same call had no answer, so the revision found may be the call's own.
    """

    def __init__(self, text: str, *, unsure: bool = False) -> None:
        super().__init__(text)
        self.unsure = unsure


class Refused(Exception):
    """The JetStream API answered with an error; `err_code` is the server's stable number."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.code == 503 or self.err_code in _AGAIN or self.err_code in STORE_FULL


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a stream holds it."""

    subject: str
    data: bytes
    sequence: int
    timestamp: float
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    pending: int = 0

    @property
    def is_marker(self) -> bool:
        """Whether it says that a KV key was deleted, purged or expired."""
        return is_marker(self.headers)


def is_marker(headers: Mapping[str, str] | None) -> bool:
    return headers is not None and any(name in headers for name in MARKERS)


def unavailable(cause: object) -> errors.StereoSpotError:
    """BROKER_UNAVAILABLE (or STORAGE_FULL) with what was seen last as the detail."""
    if isinstance(cause, Refused) and cause.err_code in STORE_FULL:
        return errors.error("STORAGE_FULL", f"The broker says: {cause.description}.")
    return errors.error("BROKER_UNAVAILABLE", f"{type(cause).__name__}: {cause}".rstrip(": "))


def check(answer: bytes) -> dict[str, Any]:
    """The JSON of an API answer; raises Refused for an error."""
    value: dict[str, Any] = json.loads(answer)
    problem = value.get("error")
    if problem:
        raise Refused(problem.get("code", 500), problem.get("err_code", 0), problem.get("description", ""))
    return value


def stored(message: Mapping[str, Any]) -> Stored:
    """The `message` of an answer to `STREAM.MSG.GET`."""
    return Stored(
        subject=message["subject"],
        data=base64.b64decode(message.get("data", "")),
        sequence=message["seq"],
        timestamp=seconds(message["time"]),
        headers=parse_headers(base64.b64decode(message.get("hdrs", ""))),
    )


def parse_headers(raw: bytes) -> dict[str, str]:
    """Headers in NATS wire format: a version line, then `name: value` lines."""
    lines = raw.decode(errors="replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def seconds(rfc3339: str) -> float:
    """Unix seconds of a server's timestamp (nanoseconds are cut to microseconds)."""
    head, _, rest = rfc3339.partition(".")
    digits = "".join(char for char in rest if char.isdigit()) if rest else ""
    zone = rest.lstrip("0123456789") if rest else head[19:]
    fraction = (digits + "000000")[:6]
    text = f"{head[:19]}.{fraction}{'+00:00' if zone in ('', 'Z') else zone}"
    return datetime.fromisoformat(text).timestamp()
