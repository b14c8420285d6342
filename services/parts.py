"""How each service is put together from its handler, its stream and its consumer: the one place that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import stereospot
from services import waits
from services.context import Context
from stereospot import errors, log, subjects
from stereospot.actor import Actor, Handler, OnReject
from stereospot.messages import Worker

_log = log.get("daemon")

WORKER_BEAT_SECONDS = 5.0
"""A third of what the bucket `workers` remembers."""

POOLS = ("cpu", "gpu", "remote", "stub")
"""The pools that jobs are sent to by their engine and backend; any other is a label."""

WAIT_SECONDS = 24 * 3600.0
"""How long work waits for a full disk or a storage that is away before that counts as a failed attempt: from its first
failure on, in its slot or at rest. What has rested goes on with that in another process."""

REST_SECONDS = 30.0
"""How long a message rests first whose storage has been away for a minute, or whose one object cannot be read; twice as
long each time, up to five minutes (`patience`)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A service that runs: `stop` asks it to end (None: cancel it), `close` gives back what it holds."""

    name: str
    run: Callable[[], Coroutine[Any, Any, None]]
    stop: Callable[[], None] | None = None
    close: Callable[[], Awaitable[None]] | None = None


Builder = Callable[[Context, "socket.socket | None"], Part]


def _actor(
    context: Context,
    stream: str,
    consumer: str | list[str],
    handler: Handler,
    name: str,
    *,
    slots: int = 1,
    ack_wait: float = 20.0,
    on_reject: OnReject | None = None,
    says_waits: bool = False,
    rests: bool = True,
    max_attempts: int | None = -1,
) -> Actor:
    return Actor(
        context.bus, stream, consumer, handler, name=name, slots=slots, ack_wait=ack_wait, on_reject=on_reject,
        on_wait=functools.partial(waits.say, context) if says_waits else None,
        max_attempts=context.settings.max_attempts if max_attempts == -1 else max_attempts,
        patience_seconds=WAIT_SECONDS, rest_seconds=REST_SECONDS if rests else None,
    )  # fmt: skip


def _part(actor: Actor, close: Callable[[], None] | None = None) -> Part:
    async def end() -> None:
        if close is not None:
            close()

    return Part(actor.name, actor.run, actor.stop, end)


# ---- one builder a service: heavy modules are imported by those who run them -----------------------------
def _planner(context: Context, _: object) -> Part:
    from services.planner import Planner

    planner = Planner(context)
    actor = _actor(
        context, subjects.WORK, "work-plan", planner.handle, "planner", slots=planner.slots, on_reject=planner.reject,
        says_waits=True,
    )  # fmt: skip
    return _part(actor, planner.close)


def _audio(context: Context, _: object) -> Part:
    from services.audio import Audio

    audio = Audio(context)
    actor = _actor(
        context, subjects.WORK, "work-audio", audio.handle, "audio", slots=audio.slots, on_reject=audio.reject
    )
    return _part(actor, audio.close)


def _analyse(context: Context, _: object) -> Part:
    from services.analyse import Analyse

    analyse = Analyse(context)
    actor = _actor(
        context, subjects.WORK, "work-analyse", analyse.handle, "analyse", slots=analyse.slots,
        on_reject=analyse.reject, says_waits=True,
    )  # fmt: skip
    analyse.on_lost = actor.stop

    async def run() -> None:
        await actor.run()
        if analyse.lost is not None:
            raise analyse.lost

    async def close() -> None:
        analyse.close()

    return Part(actor.name, run, actor.stop, close)


def _assembler(context: Context, _: object) -> Part:
    from services.assembler import Assembler

    assembler = Assembler(context)
    stream = subjects.kv_stream(subjects.STATE)
    actor = _actor(
        context, stream, "assembler", assembler.handle, "assembler", slots=assembler.slots, ack_wait=30.0,
        on_reject=assembler.reject, says_waits=True,
    )  # fmt: skip
    return _part(actor, assembler.close)


def _collector(context: Context, _: object) -> Part:
    from services.collector import Collector

    return Part("collector", Collector(context).run)


def _submit(context: Context, _: object) -> Part:
    from services import submit

    handler = functools.partial(submit.handle, context)
    return _part(_actor(context, subjects.WORK, ["work-submit", "work-ingest"], handler, "submit", slots=8))


def _delete(context: Context, _: object) -> Part:
    from services import delete

    handler = functools.partial(delete.handle, context)
    return _part(_actor(context, subjects.WORK, "work-delete", handler, "delete", slots=2))


def _dead_letters(context: Context, _: object) -> Part:
    from services import dead_letters

    handler = functools.partial(dead_letters.handle, context)
    return _part(
        _actor(context, subjects.ADVISORY, "dead-letters", handler, "dead-letters", ack_wait=30.0, max_attempts=None)
    )


def _janitor(context: Context, _: object) -> Part:
    from services.janitor import Janitor

    return Part("janitor", Janitor(context).run)


def _converter(context: Context, _: object) -> Part:
    from services.converter import Converter

    settings = context.settings
    worker_id = f"{_host()}-{os.getpid()}-{secrets.token_hex(2)}"
    slots = settings.worker_slots
    converter = Converter(context, worker_id=worker_id, slots=slots)
    pools = dict.fromkeys((settings.pool, *(POOLS if context.alone else ())))
    lanes = [subjects.convert_consumer(pool, lane) for lane in subjects.LANES for pool in pools]
    actor = _actor(
        context, subjects.CONVERT, lanes, converter.handle, "converter", slots=slots,
        ack_wait=settings.ack_wait_seconds, on_reject=converter.reject,
        # Else it leaves the work to others after a while, and says that.
        says_waits=context.alone, rests=context.alone,
    )  # fmt: skip
    # As many again as there are slots: a worker that cannot store must not take the whole queue.
    converter.ahead.on_change = lambda ahead: actor.resize(slots + min(ahead, slots))
    converter.setbacks.on_lost = actor.stop
    started = time.time()

    def card() -> Worker:
        return Worker(
            worker_id=worker_id, host=_host(), pid=os.getpid(), pool=settings.pool, slots=slots,
            busy=tuple(sorted(converter.busy)), engines=converter.engines, device=converter.device, fps=converter.fps,
            started_at=started, seen_at=time.time(), version=stereospot.__version__,
        )  # fmt: skip

    async def present() -> None:
        """Say what this worker is, every few seconds; the bucket forgets who stops saying so."""
        bucket = context.bus.bucket(subjects.WORKERS)
        while True:
            try:
                await bucket.put(worker_id, card())
            except errors.Transient as error:
                _log.debug("worker card not written", action="retry", code=error.code)
            await converter.tidy()
            await asyncio.sleep(WORKER_BEAT_SECONDS)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(present()), group.create_task(converter.warm())]
            try:
                await actor.run()
            finally:
                for task in others:
                    task.cancel()
        # A courtesy: the bucket forgets by itself.
        with contextlib.suppress(errors.StereoSpotError, TimeoutError):
            async with asyncio.timeout(1.0):
                await context.bus.bucket(subjects.WORKERS).delete(worker_id)
        if converter.setbacks.lost is not None:
            raise converter.setbacks.lost

    return Part("converter", run, actor.stop, converter.close)


def _gateway(context: Context, listener: socket.socket | None) -> Part:
    from services.gateway import app

    stopping = asyncio.Event()

    async def run() -> None:
        await app.serve(context, stopping, bound=listener)

    return Part("gateway", run, stopping.set)


def _host() -> str:
    name = "".join(char if char.isalnum() or char in "-_" else "-" for char in socket.gethostname())
    return name[:32] or "host"


BUILDERS: Mapping[str, Builder] = {
    "analyse": _analyse,
    "assembler": _assembler,
    "audio": _audio,
    "collector": _collector,
    "converter": _converter,
    "dead-letters": _dead_letters,
    "delete": _delete,
    "gateway": _gateway,
    "janitor": _janitor,
    "planner": _planner,
    "submit": _submit,
}
