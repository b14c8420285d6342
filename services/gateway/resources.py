"""A job as the API, the event streams and the pages show it: one JSON object, made in one place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from services.gateway.crew import Task
from services.gateway.index import Live
from services.gateway.state import Gateway
from services.gateway.table import VISIBLE, Row
from services.notices import LOSSES
from stereospot import errors
from stereospot.completion import Completion
from stereospot.jobs import ACTIVE, PUBLIC_STATE, Job, Phase
from stereospot.messages import Failure, SegmentEvent, Worker

LABELS = {
    Phase.CREATED: "Waiting",
    Phase.INGESTING: "Fetching the film",
    Phase.PLANNING: "Reading the film",
    Phase.CONVERTING: "Converting",
    Phase.ASSEMBLING: "Putting the film together",
    Phase.COMPLETED: "Done",
    Phase.FAILED: "Failed",
    Phase.CANCELLED: "Cancelled",
    Phase.DELETED: "Deleted",
}

_LADDER = {
    Phase.CREATED: 5,
    Phase.INGESTING: 5,
    Phase.PLANNING: 15,
    Phase.CONVERTING: 25,
    Phase.ASSEMBLING: 85,
    Phase.COMPLETED: 100,
}
"""Percentages that clients of the older web UI know; 25 to 75 follow the segments, failed is 0."""


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stage_label(job: Job, state: Completion | None) -> str:
    """What happens now, in a few words."""
    if job.phase is Phase.COMPLETED and losses(job):
        return "Done, with a warning"
    if job.phase is not Phase.CONVERTING or state is None:
        return LABELS[job.phase]
    known = f" of {state.total}" if state.total else ""
    return f"Converting: segment {state.count}{known}" if state.count else "Converting"


def losses(job: Job) -> list[str]:
    """What the film lacks of what its source promised, in sentences."""
    return [item.text for item in job.warnings if item.code in LOSSES]


def ladder_percent(job: Job, state: Completion | None) -> int:
    """`progress_percent` as the older web UI counts it."""
    base = _LADDER.get(job.phase, 0)
    if job.phase is Phase.CONVERTING and state is not None and state.total:
        return min(75, base + 50 * state.count // state.total)
    return base


def ratio(job: Job, state: Completion | None) -> float:
    """Progress from 0 to 1 as a bar shows it: converting is nearly all of the time."""
    done = state.count / state.total if state is not None and state.total else 0.0
    match job.phase:
        case Phase.COMPLETED:
            return 1.0
        case Phase.ASSEMBLING:
            return 0.97
        case Phase.CONVERTING:
            return round(0.02 + 0.94 * done, 4)
        case Phase.PLANNING:
            return round(0.01 + 0.94 * done, 4)
        case Phase.FAILED | Phase.CANCELLED:
            return round(0.94 * done, 4)
        case _:
            return 0.0


def progress(job: Job, live: Live | None, state: Completion | None) -> dict[str, Any]:
    rate = live.rate() if live is not None and job.phase is Phase.CONVERTING else None
    left = state.total - state.count if state is not None and state.total else None
    frames = job.frames / state.total if job.frames and state is not None and state.total else None
    running = sum(cell.state == "running" for cell in live.cells.values()) if live is not None else 0
    retrying = sum(cell.state == "retrying" for cell in live.cells.values()) if live is not None else 0
    return {
        "ratio": ratio(job, state),
        "fps": round(rate * frames, 2) if rate and frames else None,
        "eta_seconds": round(left / rate, 1) if rate and left is not None else None,
        "segments": {
            "done": state.count if state else 0,
            "running": running,
            "retrying": retrying,
            "total": state.total if state else None,
        },
    }


def has_beginning(job: Job, state: Completion) -> bool:
    """Whether the stream can be played from its beginning: what `playback.Showing` says, without the plan.

    Players give up on a playlist that is announced and not there: a source that may have sound is taken for one that
    has. Whether sound still comes of a job at rest only the broker knows: who asks too early is told to come again.
    """
    if not job.has_stream or not state.is_done(0) or state.init is None:
        return False
    return state.audio_ready > 0 or not state.expects_sound(job.is_active)


def job_resource(row: Row, live: Live | None, token: str, *, state: Completion | None = None) -> dict[str, Any]:
    """The whole public state of a job. `state` where the completion set does not come from `live`."""
    job = row.job
    state = state or (live.completion if live is not None else None)
    base = f"/v/{token}/{job.generation}"
    playable = state is not None and has_beginning(job, state)
    return {
        "job_id": job.job_id,
        "status": PUBLIC_STATE[job.phase],
        "phase": job.phase,
        "stage_label": stage_label(job, state),
        "progress_percent": ladder_percent(job, state),
        "progress": progress(job, live, state),
        "title": job.title,
        "filename": job.source.name or job.title,
        "created_at": timestamp(job.created_at),
        "updated_at": timestamp(job.updated_at),
        "generation": job.generation,
        "attempt": job.attempt,
        "revision": row.revision,
        "priority": job.priority,
        "pool": job.pool,
        "options": job.options.model_dump(mode="json"),
        "source": {"name": job.source.name, "size_bytes": job.source.size_bytes, "digest": job.source.digest},
        "frames": job.frames,
        "duration_seconds": job.duration_seconds,
        "engine": job.engine,
        "playhead": job.playhead,
        "playback": {
            "ready": playable or job.film is not None,
            "poster": f"{base}/poster.jpg" if playable or job.duration_seconds else None,
            "hls": f"{base}/master.m3u8" if playable else None,
            "film": f"{base}/film" if job.film is not None else None,
        },
        "outputs": outputs(job),
        "warnings": [{"code": item.code, "text": item.text} for item in job.warnings],
        "lacks": losses(job),
        "error": failure(job.failure) if job.failure is not None else None,
        "history": [
            {"phase": step.phase, "at": timestamp(step.at), "generation": step.generation, "attempt": step.attempt,
             "note": step.note}
            for step in job.history
        ],
        "report": job.report,
        "passthrough": job.passthrough,
        "is_sample": job.options.samples is not None,
        "links": {
            "self": f"/api/v1/jobs/{job.job_id}",
            "page": f"/jobs/{job.job_id}",
            "events": f"/jobs/{job.job_id}/events",
            "segments": f"/api/v1/jobs/{job.job_id}/segments",
        },
    }  # fmt: skip


def resource(gateway: Gateway, row: Row) -> dict[str, Any]:
    """The whole public state of a job as this gateway knows it now."""
    live = gateway.index.live(row.job.job_id, row.job.generation)
    return job_resource(row, live, gateway.token(row))


def outputs(job: Job) -> list[dict[str, Any]]:
    if job.film is None:
        return []
    film = job.film
    return [
        {
            "profile": job.options.layout,
            "path": f"/jobs/{job.job_id}/play",
            "file_name": film.file_name,
            "container": film.container,
            "size_bytes": film.size_bytes,
            "sha256": film.sha256,
            "frames": film.frames,
            "duration_seconds": film.duration_seconds,
        }
    ]


def failure(item: Failure) -> dict[str, Any]:
    return {
        "code": item.code,
        "reason": item.sentence,
        "detail": item.detail,
        "advice": item.advice,
        "segment_index": item.segment_index,
        "attempts": item.attempts,
    }


def snapshot(row: Row, live: Live | None, token: str) -> dict[str, Any]:
    """What event streams send: the resource without what does not change while a page is open, with the strip."""
    body = job_resource(row, live, token)
    for name in ("history", "options", "source", "report", "passthrough", "links"):
        del body[name]
    if live is not None and live.completion is not None:
        dumped = live.completion.model_dump(mode="json", include={"done"})
        body["strip"] = {
            "done": dumped["done"],
            "cells": [cell(item) for item in sorted(live.cells.values(), key=lambda item: item.index)],
        }
    return body


def cell(event: SegmentEvent) -> dict[str, Any]:
    """What a worker said of a segment."""
    return {
        "index": event.index,
        "state": event.state,
        "worker_id": event.worker_id,
        "attempt": event.attempt,
        **({"seconds": event.seconds, "fps": event.fps} if event.seconds is not None else {}),
        **({"error": failure(event.failure)} if event.failure is not None else {}),
    }


def worker(item: Worker, now: float, at_work: Sequence[tuple[Task, str]] = ()) -> dict[str, Any]:
    """A converter; `at_work`: what it is at, each with its film's title."""
    return {
        **item.model_dump(mode="json", exclude={"schema_version", "started_at", "seen_at"}),
        "started_at": timestamp(item.started_at),
        "seen_at": timestamp(item.seen_at),
        "silent_seconds": round(max(0.0, now - item.seen_at), 1),
        "at_work": [
            {"job_id": task.job_id, "generation": task.generation, "segment_index": task.segment_index, "title": title,
             "page": f"/jobs/{task.job_id}"}
            for task, title in at_work
        ],
    }  # fmt: skip


def phases_of(status: str | None) -> tuple[Phase, ...]:
    """The phases that a filter names; `active` are all that go on by themselves."""
    if not status or status == "all":
        return VISIBLE
    if status == "active":
        return tuple(ACTIVE)
    if status in VISIBLE:
        return (Phase(status),)
    found = tuple(phase for phase in VISIBLE if PUBLIC_STATE[phase] == status)
    if not found:
        raise errors.error("INVALID_REQUEST", f"There is no state {status[:40]!r}.")
    return found


def public_counts(counts: dict[str, int]) -> dict[str, int]:
    totals: dict[str, int] = dict.fromkeys(("queued", "processing", "completed", "failed"), 0)
    for phase in VISIBLE:
        totals[PUBLIC_STATE[phase]] += counts.get(phase, 0)
    return totals


def error_resource(code: str) -> dict[str, Any]:
    entry = errors.CATALOGUE[code]
    return {
        "code": entry.code,
        "title": entry.sentence,
        "advice": entry.advice,
        "status": entry.status,
        "retryable": entry.kind in ("transient", "resource"),
    }
