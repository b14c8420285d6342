"""`stereospot doctor`: what is wrong with this host, the broker, the storage and the records, and what mends it.

    examine(settings, repair) ─> host ─> server ─> streams ─> readers ─> records against storage ─> findings

Looks and says; with `repair` it provisions streams and brings records and storage together (see `rebuild`). Every
finding that is not fine carries an advice. A broker that does not answer is a finding, not an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services import engines, ghosts, rebuild, unheard
from services.context import Context
from stereospot import broker, errors, subjects
from stereospot.options import Codec
from stereospot.settings import Settings
from streams_config.provision import load

LOW_BYTES = 2 * 2**30
"""Free space below which a film may not find room."""

FULL_RATIO = 0.8
"""A stream that is fuller than this is said."""


class Level(StrEnum):
    FINE = "fine"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `repaired` says what was done about it."""

    check: str
    level: Level
    text: str
    advice: str = ""
    repaired: str = ""

    @property
    def is_open(self) -> bool:
        return self.level is Level.ERROR and not self.repaired


# ---- this host -------------------------------------------------------------------------------------------
_LAYERS = """
import json
from stereospot.jail import layers
print(json.dumps(layers.put_on((*layers.SERVER_LAYERS, *layers.CHILD_LAYERS), "auto")))
"""

_ENCODERS = {
    "libx264": Codec.X264, "libx265": Codec.X265, "libsvtav1": Codec.SVTAV1, "h264_nvenc": Codec.NVENC_H264,
    "hevc_nvenc": Codec.NVENC_HEVC,
}  # fmt: skip


async def host(settings: Settings) -> list[Finding]:
    """Programs, libraries, sandbox, engines and free space of the machine that this runs on."""
    found = [await asyncio.to_thread(_program, settings), await _sandbox(settings)]
    found += await asyncio.to_thread(lambda: [*_libraries(), *_engines(settings)])
    with contextlib.suppress(FileNotFoundError):
        free = (await asyncio.to_thread(shutil.disk_usage, settings.data_dir)).free
        text = f"{free / 2**30:.1f} GiB free in {settings.data_dir}"
        low = free < LOW_BYTES
        found.append(Finding("space", Level.WARNING if low else Level.FINE, text, "Free some space." if low else ""))
    return found


def _program(settings: Settings) -> Finding:
    if settings.nats_url is not None:
        return Finding("nats-server", Level.NOTE, "a server of yours is used")
    try:
        return Finding("nats-server", Level.FINE, str(broker.binary()))
    except errors.StereoSpotError as error:
        return Finding("nats-server", Level.ERROR, error.entry.sentence, error.advice)


async def _sandbox(settings: Settings) -> Finding:
    """Put the jail's layers on in a process of its own, as its children do."""
    if settings.sandbox == "off":
        return Finding(
            "sandbox", Level.WARNING, "untrusted files are decoded without it", "Unset STEREOSPOT_SANDBOX=off."
        )
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _LAYERS, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(30):
            out, _ = await child.communicate()
        refused: list[str] = json.loads(out)
    except (OSError, ValueError, TimeoutError) as error:
        return Finding("sandbox", Level.WARNING, f"could not be tried: {error}", errors.entry("INTERNAL").advice)
    if not refused:
        return Finding("sandbox", Level.FINE, "network, privileges and file system are taken from decoders")
    level = Level.ERROR if settings.sandbox == "require" else Level.WARNING
    return Finding("sandbox", level, "; ".join(refused), errors.entry("KERNEL_UNSUPPORTED").advice)


def _libraries() -> Iterator[Finding]:
    import av
    import av.codec

    from stereospot.media import encoders

    versions = ", ".join(f"{name} {'.'.join(map(str, number))}" for name, number in sorted(av.library_versions.items()))
    yield Finding("FFmpeg", Level.FINE, f"PyAV {av.__version__}: {versions}")
    # Hardware encoders are in every build; only one that encodes a picture is there.
    there = {name: codec for name, codec in _ENCODERS.items() if name in av.codec.codecs_available}
    present = [name for name, codec in there.items() if codec not in encoders.HARDWARE or encoders.usable(codec)]
    missing = {"libx264", "libsvtav1"} - set(present)
    yield Finding(
        "encoders", Level.ERROR if missing else Level.FINE, ", ".join(present),
        f"This build of PyAV lacks {', '.join(sorted(missing))}: install the wheel from PyPI." if missing else "",
    )  # fmt: skip


def _engines(settings: Settings) -> Iterator[Finding]:
    there, default = engines.available(), engines.default(settings)
    text = f"{', '.join(there)}; default {default}; device {engines.device()}"
    if default not in there:
        yield Finding("engines", Level.ERROR, text, "Install what the default engine needs, or set STEREOSPOT_ENGINE.")
    else:
        yield Finding("engines", Level.FINE, text)
    runtime = {name: importlib.metadata.version(name) for name in ("onnxruntime", "numpy", "numba")}
    yield Finding("runtime", Level.FINE, ", ".join(f"{name} {version}" for name, version in runtime.items()))


# ---- the broker ------------------------------------------------------------------------------------------
async def server(context: Context) -> list[Finding]:
    """The server's version and how it keeps what it acknowledges."""
    bus, settings = context.bus, context.settings
    found = [Finding("server", Level.FINE, f"nats-server {bus.server_version}")]
    try:
        broker.check_version(bus.server_version)
    except errors.StereoSpotError as error:
        found = [Finding("server", Level.ERROR, str(error), error.advice)]
    account = await bus.api("INFO")
    used, limit = int(account.get("storage", 0)), int(account.get("limits", {}).get("max_storage", -1))
    full = limit > 0 and used > FULL_RATIO * limit
    text = f"{used / 2**20:.1f} MiB in {account.get('streams', 0)} streams, limit " + (
        f"{limit / 2**20:.0f} MiB" if limit > 0 else "none"
    )
    advice = "Raise the account's max_file_store, or shorten what is kept." if full else ""
    found.append(Finding("store", Level.WARNING if full else Level.FINE, text, advice))
    found.append(await asyncio.to_thread(_sync, settings, await _replicas(context)))
    return found


async def _replicas(context: Context) -> int:
    """Servers that hold the stream DONE; 1 also where it is not there."""
    with contextlib.suppress(Exception):
        info = await context.bus.stream_info("DONE")
        return int(info["config"].get("num_replicas", 1))
    return 1


def _sync(settings: Settings, replicas: int) -> Finding:
    """Whether acknowledged writes are on the disk. A client cannot ask that: only our own server's file tells."""
    file = settings.data_dir / "broker" / "server.json"
    if settings.nats_url is None or (f":{settings.nats_port}" in settings.nats_url and file.exists()):
        with contextlib.suppress(OSError, ValueError, KeyError):
            interval = json.loads(file.read_text())["jetstream"]["sync_interval"]
            if interval == "always":
                return Finding("sync", Level.FINE, "every write is synced before it is acknowledged")
            return Finding("sync", Level.ERROR, f"sync_interval is {interval}", "Set sync_interval: always.")
    if replicas >= 3:
        return Finding("sync", Level.NOTE, f"{replicas} replicas; sync_interval cannot be seen from here")
    return Finding(
        "sync", Level.WARNING, "sync_interval of this server cannot be seen from here; its default loses up to 2 min",
        "Set jetstream { sync_interval: always } on a single node (deploy/nats/single.conf), and check it with "
        "`nats server report jetstream` or /jsz?config=1.",
    )  # fmt: skip


async def streams(context: Context, *, repair: bool) -> list[Finding]:
    """Streams, buckets and consumers against `streams_config/`."""
    advice = "Run `stereospot provision`, or `stereospot doctor --repair`."
    try:
        report = await broker.provision(context.bus, context.settings, dry_run=True)
        if report.changed and repair:
            done = await broker.provision(context.bus, context.settings)
            text = f"created {', '.join(done.created) or 'nothing'}; updated {', '.join(done.updated) or 'nothing'}"
            return [Finding("streams", Level.ERROR, "differed from streams_config", repaired=text)]
    except errors.StereoSpotError as error:
        return [Finding("streams", Level.ERROR, str(error), error.advice)]
    found = [Finding("streams", Level.ERROR, f"{name} is missing", advice) for name in report.created]
    found += [Finding("streams", Level.WARNING, str(item), advice) for item in report.differences]
    return found or [Finding("streams", Level.FINE, f"{len(report.unchanged)} streams and consumers as configured")]


async def readers(context: Context) -> list[Finding]:
    """Streams that fill up, and consumers that nobody reads or that are paused."""
    found: list[Finding] = []
    configured = load()
    for name, config in configured.streams.items():
        info = await _or_none(context.bus.stream_info(name))
        limit = int((info["config"] if info else config).get("max_bytes", -1))
        if info and 0 < limit < info["state"]["bytes"] / FULL_RATIO:
            text = f"{name} holds {info['state']['bytes'] / 2**20:.0f} of {limit / 2**20:.0f} MiB"
            found.append(Finding("streams", Level.WARNING, text, "See who should read it; or raise max_bytes."))
    named = [(stream, name) for stream, name in configured.consumers if stream != subjects.CONVERT]
    # Pools are provisioned with labels that no file has.
    pools = await _or_none(context.bus.api(f"CONSUMER.NAMES.{subjects.CONVERT}"))
    named += [(subjects.CONVERT, name) for name in sorted((pools or {}).get("consumers") or ())]
    for stream, name in named:
        info = await _or_none(context.bus.consumer_info(stream, name))
        if info is None:
            continue
        if info.get("paused"):
            text = f"{name} is paused for {info.get('pause_remaining', 0) / 1e9:.0f} s more"
            found.append(Finding("readers", Level.NOTE, text, f"`nats consumer resume {stream} {name}` ends that."))
        elif info["num_pending"] and not info["num_waiting"] and not info["num_ack_pending"]:
            text = f"{info['num_pending']} messages for {name}, and nobody takes them"
            found.append(Finding("readers", Level.WARNING, text, "Start that service: `stereospot run …`."))
    return found or [Finding("readers", Level.FINE, "nothing waits for a service that does not run")]


async def queues(context: Context, *, repair: bool) -> list[Finding]:
    """Messages that lie in a queue and are nobody's."""
    found: list[Finding] = []
    for ghost in await ghosts.find(context.bus):
        text = f"{ghost.stream} {ghost.sequence} ({ghost.subject}) counts as settled, and is there"
        advice = "`stereospot doctor --repair` offers it once more where that may matter, and removes it."
        done = await ghosts.lay(context.bus, ghost) if repair else ""
        found.append(Finding("queues", Level.ERROR, text, advice, done))
    found += [Finding("queues", Level.WARNING, item.text, item.advice) for item in await unheard.find(context.bus)]
    return found or [Finding("queues", Level.FINE, "every message of a queue is somebody's")]


async def _or_none(asked: Any) -> Mapping[str, Any] | None:
    from stereospot.bus import Refused

    try:
        return await asked
    except Refused:
        return None


# ---- records and storage -----------------------------------------------------------------------------------
async def storage(context: Context, *, repair: bool, settled_seconds: float) -> list[Finding]:
    """Records against storage, job by job."""
    found: list[Finding] = []
    for item in await rebuild.compare(context, settled_seconds=settled_seconds):
        text = f"{item.job_id}: {'; '.join(item.problems)}"
        repaired = await rebuild.mend(context, item) if repair else ""
        if repaired.startswith("nothing"):
            found.append(Finding("records", Level.ERROR, text, repaired))
        else:
            advice = f"`stereospot doctor --repair` will: {item.remedy}."
            found.append(Finding("records", Level.ERROR, text, advice, repaired))
    return found or [Finding("records", Level.FINE, "records and storage agree")]


async def examine(
    context: Context, *, repair: bool = False, settled_seconds: float = rebuild.SETTLED_SECONDS
) -> list[Finding]:
    """Everything that needs a broker; one part's trouble does not hide the others."""
    found = await server(context)
    found += await streams(context, repair=repair)
    parts = (
        readers(context), queues(context, repair=repair),
        storage(context, repair=repair, settled_seconds=settled_seconds),
    )  # fmt: skip
    for part in parts:
        try:
            found += await part
        except errors.StereoSpotError as error:
            found.append(Finding("broker", Level.ERROR, str(error), error.advice))
    return found
