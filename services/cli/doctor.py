"""`stereospot doctor`: examine this host, the broker and the storage, and mend what can be mended."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from services.cli.app import DEFAULTS, QUIET, Common

_MARKS = {"fine": "ok     ", "note": "note   ", "warning": "WARNING", "error": "ERROR  "}


async def doctor(
    *,
    repair: Annotated[bool, Parameter(negative="")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Say what is wrong with this host, the broker, the storage and the records; exits with 1 if anything is.

    Parameters
    ----------
    repair
        create missing streams, and bring records and storage together again
    """
    from services import doctor as service
    from services.cli.reach import reach
    from stereospot import errors

    settings = common.settings(log_level=QUIET)
    found = await service.host(settings)
    try:
        async with reach(settings) as context:
            found += await service.examine(context, repair=repair)
    except errors.StereoSpotError as error:
        found.append(service.Finding("broker", service.Level.ERROR, str(error), error.advice))
    if common.json:
        print(jsonlib.dumps([asdict(item) for item in found]))
    else:
        for item in found:
            print(f"{_MARKS[item.level]} {item.check:<12} {item.text}")
            if item.repaired or item.advice:
                print(f"{'':>20} {f'repaired: {item.repaired}' if item.repaired else item.advice}")
    return int(any(item.is_open for item in found))
