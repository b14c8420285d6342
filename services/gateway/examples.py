"""Examples for the description: one film from its upload to its end, as the code that makes the answers shows it. Pure.

What only a running service can tell (addresses of a store, counts) is written down here; tests hold every example
against the model of its answer.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from services.gateway import letters, resources, segments, service, tus
from services.gateway.crew import Task
from services.gateway.strip import Piece
from services.gateway.table import Row, encode_cursor
from services.intake import Arrived
from stereospot import errors, keys, subjects
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase, Step
from stereospot.messages import DeadLetter, Failure, Film, SegmentEvent, SourceRef, Worker
from stereospot.settings import Settings

JOB_ID = "01JD0000000000000000000000"
WORKER_ID = "studio-4711-0"

_BEGUN = 1_795_000_000.0
_ENDED = 1_795_003_600.0
_BYTES = 1_468_006_400
_SHA256 = "1c" * 32
_PART_BYTES = 8 << 20

Example = dict[str, Any]


# ---- jobs and what they make -----------------------------------------------------------------------------
@cache
def _job() -> Job:
    film = Film(
        key=keys.film(JOB_ID, 1, "mp4"), sha256="9f" * 32, size_bytes=734_003_200, frames=143_856,
        duration_seconds=5994.0, container="mp4", file_name="Holiday.3D.HSBS.LR.mp4",
    )  # fmt: skip
    source = SourceRef(
        key=keys.source(JOB_ID, "mp4"), name="Holiday.mp4", size_bytes=_BYTES, digest=f"sha256:{_SHA256}"
    )
    history = tuple(
        Step(phase=phase, at=at, generation=1, attempt=1)
        for phase, at in (
            (Phase.PLANNING, _BEGUN),
            (Phase.CONVERTING, _BEGUN + 2),
            (Phase.ASSEMBLING, _ENDED - 9),
            (Phase.COMPLETED, _ENDED),
        )
    )
    return Job(
        job_id=JOB_ID, title="Holiday", phase=Phase.COMPLETED, created_at=_BEGUN, updated_at=_ENDED, source=source,
        film=film, frames=143_856, duration_seconds=5994.0, segments=1002, history=history,
    )  # fmt: skip


def job() -> Example:
    """A finished job."""
    return resources.job_resource(Row(_job(), 4711), None, f"{JOB_ID}.6a1c3f80.mac")


def job_list() -> Example:
    counts = {"queued": 0, "processing": 1, "completed": 41, "failed": 0}
    phases = {"converting": 1, "completed": 41}
    return {"jobs": [job()], "next": encode_cursor(_BEGUN, JOB_ID), "counts": counts, "phases": phases}


def anchor() -> Example:
    return {"segment_index": 12, "start_seconds": 72.0, "hls": f"/v/{JOB_ID}.6a1c3f80.mac/1/from/12/master.m3u8"}


def output_list() -> Example:
    base = f"/api/v1/jobs/{JOB_ID}/outputs"
    found = [item | {"href": f"{base}/{item['file_name']}"} for item in resources.outputs(_job())]
    return {"job_id": JOB_ID, "generation": 1, "outputs": found}


# ---- segments --------------------------------------------------------------------------------------------
def _segment(index: int, *events: SegmentEvent) -> Example:
    job = _job()
    state = Completion(job_id=JOB_ID, generation=1, total=1002, planned=1002, done=(1 << 1002) - 1)
    piece = Piece(index, index * 6.0, 6.0, 144)
    return segments.entry(piece, job, state, events[-1] if events else None)


def _events() -> list[SegmentEvent]:
    lost = Failure.of(errors.error("WORKER_LOST", "No worker that took it came back."))
    begun = SegmentEvent(
        job_id=JOB_ID, generation=1, index=1, state="running", worker_id="studio-4710-0", at=_BEGUN + 3
    )
    again = begun.model_copy(
        update={"state": "retrying", "worker_id": WORKER_ID, "attempt": 2, "at": _BEGUN + 25, "failure": lost}
    )
    done = again.model_copy(update={"state": "done", "at": _BEGUN + 31, "seconds": 6.02, "fps": 23.9, "failure": None})
    return [begun, again, done]


def segment_list() -> Example:
    return {"job_id": JOB_ID, "generation": 1, "segments": [_segment(0), _segment(1, *_events())]}


def segment() -> Example:
    more = {"job_id": JOB_ID, "generation": 1, "log": [segments.told(item) for item in _events()]}
    return _segment(1, *_events()) | more | {"report": {"measures": {"fps": 23.9, "disparity_p50": -0.4}}}


# ---- uploads ---------------------------------------------------------------------------------------------
def _arrived() -> Arrived:
    key = keys.source(JOB_ID, "mp4")
    return Arrived(
        upload_id=JOB_ID, key=key, name="Holiday.mp4", size_bytes=_BYTES, sha256=_SHA256, container="mp4", at=_BEGUN
    )


def upload() -> Example:
    return tus.whole(_arrived())


def checked_upload() -> Example:
    return upload() | {"checked_at": resources.timestamp(_BEGUN)}


def _shape() -> Example:
    count = -(-_BYTES // _PART_BYTES)
    return {"size_bytes": _BYTES, "part_bytes": _PART_BYTES, "part_count": count, "takes_sums": True}


def direct_upload() -> Example:
    return {"upload_id": JOB_ID, "upload": keys.source(JOB_ID, "mp4"), "name": "Holiday.mp4", **_shape()}


def part_list() -> Example:
    return {**_shape(), "parts": [{"number": 1, "size_bytes": _PART_BYTES}]}


def part_addresses() -> Example:
    url = f"https://films.s3.example/{keys.source(JOB_ID, 'mp4')}?partNumber=2&uploadId=2~Vg&X-Amz-Signature=5d7e"
    headers = {"x-amz-checksum-sha256": "oplo+tLngqqfIECjXwWtuX7Yl56x9XLIyOp4Y34nXzw="}
    return {"parts": [{"number": 2, "url": url, "headers": headers}], "method": "PUT", "expires_in_seconds": 3600}


# ---- the service -----------------------------------------------------------------------------------------
def _letter() -> DeadLetter:
    return DeadLetter(
        dead_id="CONVERT-1842", kind="convert", subject=subjects.convert("cpu", "normal", JOB_ID, 1, 17),
        original=f'{{"job_id":"{JOB_ID}","generation":1,"attempt":1,"index":17,"part":0}}',
        failure=Failure.of(errors.error("CORRUPT_INPUT", "no picture in 6 s"), segment_index=17, attempts=4),
        attempts=4, worker_id=WORKER_ID, job_id=JOB_ID, at=_BEGUN + 60,
    )  # fmt: skip


def dead_letter() -> Example:
    return letters.letter_resource(_letter(), _job())


def dead_letter_list() -> Example:
    return {"dead_letters": [dead_letter()], "next": encode_cursor(1842, "CONVERT-1842")}


def _worker() -> Worker:
    return Worker(
        worker_id=WORKER_ID, host="studio", pid=4711, pool="cpu", slots=2, busy=(f"{JOB_ID}.1.17",),
        engines=("relief", "cues", "flat", "identity"), fps=23.9, started_at=_BEGUN - 60, seen_at=_BEGUN, version="1.0",
    )  # fmt: skip


def worker_list() -> Example:
    return {"workers": [resources.worker(_worker(), _BEGUN + 1.2, [(Task(JOB_ID, 1, 17), "Holiday")])]}


def stats() -> Example:
    counts = {"queued": 0, "processing": 1, "completed": 41, "failed": 0}
    return {
        "queue_depth": 1,
        "dlq_depth": 1,
        "total_jobs": 42,
        "jobs_by_status": counts,
        "processing_rate_per_minute": 0.3,
        "workers": 1,
    }


def capabilities() -> Example:
    return service.abilities(Settings.model_construct(), [_worker()])


def error() -> Example:
    return resources.error_resource("NOT_FOUND")


def catalogue() -> Example:
    return {"errors": [error()]}


# ---- for clients of the older pipeline -------------------------------------------------------------------
def old_letters() -> Example:
    return {"messages": [letters.old_resource(_letter())], "count": 1}


def requeued() -> Example:
    return {"message": "Job requeued", "job_id": JOB_ID, "at": resources.timestamp(_ENDED)}
