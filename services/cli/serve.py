"""`stereospot up` and `stereospot run`: services in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import json as jsonlib
from functools import partial
from pathlib import Path

from services.cli.app import DEFAULTS, Common
from services.context import Context
from stereospot import errors


async def up(
    *,
    host: str | None = None,
    port: int | None = None,
    slots: int | None = None,
    workers: int = 0,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Start everything on this host: broker, services, page and API; Ctrl-C stops it, work goes on at the next start.

    Parameters
    ----------
    host
        address to listen on (default 127.0.0.1; any other demands API keys)
    port
        port of page and API (default 8666)
    slots
        segments at a time (default: half the cores; 2 where the engine runs on a GPU)
    workers
        convert in so many processes of their own, which are started again when they end, as one does that loses its
        GPU; of several each has one slot (default: in this process)
    tls_certificate
        PEM file of a certificate: page and API speak https, which VR in a headset's browser needs
    tls_key
        PEM file of its key
    """
    from services import daemon

    settings = common.settings(host=host, port=port, slots=slots, tls_certificate=tls_certificate, tls_key=tls_key)
    if workers < 0:
        raise errors.error("INVALID_OPTIONS", "--workers: 0 or more.")
    return await daemon.run(daemon.ALL, settings, ready=partial(_greet, as_json=common.json), processes=workers)


async def run(
    service: str,
    /,
    *more: str,
    slots: int | None = None,
    pool: str | None = None,
    host: str | None = None,
    port: int | None = None,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Run some services on this host against a broker that exists (--nats or STEREOSPOT_NATS_URL).

    Parameters
    ----------
    service
        planner, analyse, converter, audio, collector, assembler, submit, gateway, janitor, dead-letters, delete
    more
        further ones, in the same process
    slots
        converter: segments at a time
    pool
        converter: the pool it takes from (cpu, gpu, remote, stub, or a label of yours)
    host
        gateway: address to listen on
    port
        gateway: port
    tls_certificate
        gateway: PEM file of a certificate, for https
    tls_key
        gateway: PEM file of its key
    """
    from services import daemon

    names = frozenset((service, *more))
    unknown = names - daemon.ALL
    if unknown:
        raise errors.error("INVALID_OPTIONS", f"No service is called {', '.join(sorted(unknown))}.")
    settings = common.settings(
        slots=slots, pool=pool, host=host, port=port, tls_certificate=tls_certificate, tls_key=tls_key
    )
    if settings.nats_url is None:
        raise errors.error(
            "INVALID_OPTIONS", "Say which broker with --nats URL; `stereospot up` starts one of its own."
        )
    ready = partial(_greet, as_json=common.json) if "gateway" in names else None
    return await daemon.run(names, settings, ready=ready)


async def _greet(context: Context, as_json: bool) -> None:
    """Say where the pages are, with the key where one is needed."""
    from services.gateway import access

    settings = context.settings
    address = await asyncio.to_thread(access.entry_url, settings)
    if as_json:
        print(jsonlib.dumps({"url": address, "data_dir": str(settings.data_dir)}), flush=True)
        return
    print(f"StereoSpot is up at {address}\n  data in {settings.data_dir}; Ctrl-C stops it", flush=True)
