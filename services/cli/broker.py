"""`stereospot provision` and `stereospot nats-env`: what operators do with the broker."""

from __future__ import annotations

import json as jsonlib
import shlex
from typing import Annotated

from cyclopts import Parameter

from services.cli.app import DEFAULTS, QUIET, Common


async def provision(*, common: Common = DEFAULTS) -> int:
    """Create or update the streams, consumers and buckets; refuses what cannot be changed in place."""
    from services.cli.reach import reach
    from stereospot import broker

    async with reach(common.settings(log_level=QUIET)) as context:
        report = await broker.provision(context.bus, context.settings)
    found = {"created": report.created, "updated": report.updated, "unchanged": report.unchanged}
    if common.json:
        print(jsonlib.dumps(found))
        return 0
    for what, names in found.items():
        for name in names:
            print(f"{what:<10} {name}")
    return 0


def nats_env(
    *,
    context: Annotated[bool, Parameter(negative="", help="print a context file for the nats CLI instead")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Print how the `nats` CLI reaches the broker: `eval "$(stereospot nats-env)"`."""
    from services.cli.reach import resolve

    settings = resolve(common.settings(log_level=QUIET))
    url = settings.nats_url or ""
    token = settings.nats_token.get_secret_value() if settings.nats_token else ""
    files = {"creds": settings.nats_creds, "nkey": settings.nats_nkey_seed, "ca": settings.nats_tls_ca}
    given = {"token": token} | {name: str(path.absolute()) for name, path in files.items() if path is not None}
    if context or common.json:
        print(jsonlib.dumps({"description": "StereoSpot", "url": url, **given}, indent=2))
        return 0
    for name, value in {"url": url, **given}.items():
        if value:
            print(f"export NATS_{name.upper()}={shlex.quote(value)}")
    return 0
