"""`stereospot dead-letters …`: work that was given up, why, and how to have it tried again."""

from __future__ import annotations

from cyclopts import App

from services.cli import tables
from services.cli.app import DEFAULTS, QUIET, Common

dead_letters = App(name="dead-letters", help="List, show, retry or drop work that was given up.")


@dead_letters.command(name="list")
async def list_(*, common: Common = DEFAULTS) -> int:
    """All dead letters, the oldest first."""
    from services import dead_letters as service
    from services.cli.reach import reach

    async with reach(common.settings(log_level=QUIET)) as context:
        found = await service.letters(context.bus)
    if common.json:
        print("[" + ",".join(letter.model_dump_json() for letter in found) + "]")
        return 0
    rows = (
        (item.dead_id, item.kind, item.job_id or "", str(item.attempts), f"{item.failure.code} {item.failure.detail}")
        for item in found
    )
    tables.show(("id", "kind", "job", "tries", "reason"), rows)
    return 0


@dead_letters.command
async def show(dead_id: str, /, *, common: Common = DEFAULTS) -> int:
    """One dead letter with the original message."""
    from services import dead_letters as service
    from services.cli.reach import reach
    from stereospot import errors

    async with reach(common.settings(log_level=QUIET)) as context:
        letter = await service.find(context.bus, dead_id)
    if letter is None:
        raise errors.error("NOT_FOUND", f"No dead letter {dead_id}.")
    print(letter.model_dump_json() if common.json else letter.model_dump_json(indent=2))
    return 0


@dead_letters.command
async def retry(dead_id: str, /, *, common: Common = DEFAULTS) -> int:
    """Send the original message once more."""
    from services import dead_letters as service
    from services.cli.reach import reach

    async with reach(common.settings(log_level=QUIET)) as context:
        letter = await service.retry(context.bus, dead_id)
    print(letter.model_dump_json() if common.json else f"sent again: {letter.subject}")
    return 0


@dead_letters.command
async def drop(dead_id: str, /, *, common: Common = DEFAULTS) -> int:
    """Forget a dead letter."""
    from services import dead_letters as service
    from services.cli.reach import reach
    from stereospot import errors

    async with reach(common.settings(log_level=QUIET)) as context:
        dropped = await service.drop(context.bus, dead_id)
    if not dropped:
        raise errors.error("NOT_FOUND", f"No dead letter {dead_id}.")
    return 0
