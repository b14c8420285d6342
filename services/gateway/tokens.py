"""Playback tokens: who may fetch a job's pictures, as a part of the path.

Players drop headers and, for what a playlist names, queries; a path is inherited. A token is
`<job>.<expiry, hex>.<mac>`: HMAC-SHA256 over the first two, 128 bits of it. Expiry is rounded up to whole days, so
that the same URL is given out for a day and caches work. That of the list of all films has `*films` for the job.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path
from typing import BinaryIO

from stereospot import subjects
from stereospot.bus import Bus, Conflict
from stereospot.subjects import is_token

DAY = 86_400
LIFETIME_DAYS = 7
SECRET_BYTES = 32
SECRET_KEY = "gateway"
"""Of the bucket `keys`."""

_ALL_FILMS = "*films"
"""Stands where others have a job, whose id whoever submits it may choose: no job can be called that."""


def load_secret(path: Path) -> bytes:
    """The secret of this data folder, made once and readable by its owner only. Blocking."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        if not path.exists():
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                _write(file)
            with contextlib.suppress(FileExistsError):  # another process was first: its secret counts
                os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    found = path.read_bytes()
    if len(found) >= SECRET_BYTES:
        return found
    # Cut short by a power failure; nothing that was signed with it is about. One process mends it, in its place.
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if len(file.read()) < SECRET_BYTES:
            os.fchmod(file.fileno(), 0o600)
            file.seek(0)
            _write(file)
    return path.read_bytes()


async def agree(bus: Bus, path: Path) -> None:
    """Make this data folder's secret that of all gateways of the broker; the first one's counts.

    It is kept in the bucket `keys`, so that a key and an address that one gateway gave out are good at every other,
    and after a move to another host. Raises BROKER_UNAVAILABLE, and Refused where nothing was provisioned.
    """
    bucket = bus.bucket(subjects.KEYS)
    own = await asyncio.to_thread(load_secret, path)
    entry = await bucket.get(SECRET_KEY)
    if entry is None:
        try:
            await bucket.create(SECRET_KEY, own)
            return
        except Conflict:  # another gateway was first
            entry = await bucket.get(SECRET_KEY)
    if entry is not None and entry.value != own:
        await asyncio.to_thread(_replace, path, entry.value)


def _replace(path: Path, secret: bytes) -> None:
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        _write(file, secret)
    os.replace(fresh, path)


def _write(file: BinaryIO, secret: bytes | None = None) -> None:
    file.write(secret or secrets.token_bytes(SECRET_BYTES))
    file.flush()
    os.fsync(file.fileno())


def expiry_of(token: str) -> float:
    """Until when a token that was checked is good, in seconds since the epoch."""
    return float(int(token.split(".")[1], 16))


class Tokens:
    """Make and check playback tokens."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SECRET_BYTES:
            raise ValueError("a secret has at least 32 bytes")
        self._secret = secret

    def issue(self, job_id: str, *, now: float | None = None) -> str:
        """A token for one job, good for seven to eight days."""
        return self._issue(job_id, now)

    def issue_list(self, *, now: float | None = None) -> str:
        """A token for the list of all films, and nothing else; good for as long."""
        return self._issue(_ALL_FILMS, now)

    def check(self, token: str, *, now: float | None = None) -> str | None:
        """The job that a token is for; None for one that is forged, damaged or expired."""
        job_id = self._check(token, now)
        return job_id if job_id is not None and is_token(job_id) else None

    def is_list(self, token: str, *, now: float | None = None) -> bool:
        """Whether a token is for the list of all films."""
        return self._check(token, now) == _ALL_FILMS

    def _issue(self, what: str, now: float | None) -> str:
        at = time.time() if now is None else now
        expiry = (int(at) // DAY + 1 + LIFETIME_DAYS) * DAY
        text = f"{what}.{expiry:x}"
        return f"{text}.{self._mac(text)}"

    def _check(self, token: str, now: float | None) -> str | None:
        text, _, mac = token.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(text).encode()):
            return None
        what, _, expiry = text.partition(".")
        return what if int(expiry, 16) > (time.time() if now is None else now) else None

    def _mac(self, text: str) -> str:
        digest = hmac.digest(self._secret, text.encode(), hashlib.sha256)[:16]
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
