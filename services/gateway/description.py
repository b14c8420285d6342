"""The OpenAPI description: what the framework knows of the routes, and what only we know, put together.

Request bodies are described by their own models, exactly as they are checked; headers that change an answer's meaning,
raw bodies, problems and examples are added here. Examples of answers are made by the code that makes the answers.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from litestar.openapi.plugins import JsonRenderPlugin
from pydantic import BaseModel

from services.gateway import resources
from services.gateway.direct import Announced, Numbers
from services.gateway.problems import PROBLEM, problem_body
from services.gateway.requests import JobChanges, NewJob, Seek
from services.gateway.table import Row
from stereospot import errors, keys
from stereospot.jobs import PUBLIC_STATE, Job, Phase
from stereospot.messages import Film, SourceRef

_ID = "01JD0000000000000000000000"
_MODELS: tuple[type[BaseModel], ...] = (NewJob, JobChanges, Seek, Announced, Numbers)
_REFERENCE = "#/components/schemas/{model}"

Schema = dict[str, Any]


def _header(name: str, text: str, schema: Schema | None = None, *, required: bool = False) -> Schema:
    described = {"name": name, "in": "header", "description": text, "schema": schema or {"type": "string"}}
    return described | {"required": required}


_IF_MATCH = _header("If-Match", "The ETag that the change is for; another one is refused with PRECONDITION_FAILED.")
_ONCE = _header(
    "Idempotency-Key",
    "The same key with the same request does its work once, for a day; the answer then has `Idempotency-Replayed`.",
    {"type": "string", "maxLength": 255},
)
_TUS = _header("Tus-Resumable", "The version of the protocol.", {"const": "1.0.0"}, required=True)
_BYTES: Schema = {"type": "string", "format": "binary"}

_HEADERS: dict[tuple[str, str], list[Schema]] = {
    **{
        ("post", f"/api/v1/{path}"): [_ONCE]
        for path in ("jobs", "jobs/{job_id}/whole", "samples", "uploads/direct", "dead-letters/{dead_id}/retry")
    },
    ("put", "/api/v1/uploads"): [_ONCE],
    ("post", "/dlq/{dead_id}/retry"): [_ONCE],
    ("get", "/api/v1/jobs/{job_id}"): [
        _header("If-None-Match", "The ETag that is known: 304 while it is still the present one."),
        _header("Prefer", "`wait=30`: answer when something changes, at most after so many seconds."),
    ],
    **{
        (method, f"/api/v1/jobs/{{job_id}}{path}"): [_IF_MATCH]
        for method, path in (
            ("patch", ""),
            ("delete", ""),
            ("post", "/delete"),
        )
    },
    **{("post", f"/api/v1/jobs/{{job_id}}/{name}"): [_IF_MATCH, _ONCE] for name in ("cancel", "retry")},
    ("patch", "/api/v1/uploads/{upload_id}"): [
        _TUS,
        _header("Upload-Offset", "Where the bytes belong.", {"type": "integer", "minimum": 0}, required=True),
        _header("Upload-Checksum", "`sha256 <base64>`, `sha1 …` or `md5 …` of this body."),
    ],
    ("post", "/api/v1/uploads"): [
        _ONCE,
        _TUS | {"required": False},
        _header("Upload-Length", "tus: the bytes of the whole.", {"type": "integer", "minimum": 1}),
        _header("Upload-Metadata", "tus: `filename <base64>`, and `sha256 <base64 of the hexadecimal digits>`."),
    ],
}

_BODIES: dict[tuple[str, str], str] = {
    ("put", "/api/v1/uploads"): "application/octet-stream",
    ("post", "/api/v1/uploads"): "application/octet-stream",
    ("patch", "/api/v1/uploads/{upload_id}"): "application/offset+octet-stream",
}


class Description(JsonRenderPlugin):
    """Serves the description."""

    def render(self, request: Any, openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, describe(openapi_schema))


def describe(schema: dict[str, Any]) -> dict[str, Any]:
    """The framework's schema with all that it does not know. Pure."""
    found = copy.deepcopy(schema)
    components: Schema = found.setdefault("components", {})
    schemas: Schema = components.setdefault("schemas", {})
    for model in _MODELS:
        described = model.model_json_schema(ref_template=_REFERENCE)
        schemas |= described.pop("$defs", {})
        schemas[model.__name__] = described
    schemas["Problem"] = _problem_schema()
    schemas["Job"] = {"type": "object", "required": list(_example_job()), "properties": _job_properties()}
    example = problem_body(
        errors.error("NOT_FOUND", f"There is no job {_ID}."), "4b1d0c2f9e8a7766", f"/api/v1/jobs/{_ID}"
    )
    content: Schema = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    components["responses"] = {
        "Problem": {"description": "What went wrong: RFC 9457, with a code of `/api/v1/errors`.", "content": content}
    }
    for path, item in found["paths"].items():
        for method, operation in item.items():
            if method in ("get", "put", "post", "delete", "options", "patch"):
                _complete(method, path, operation)
    return found


def _complete(method: str, path: str, operation: Schema) -> None:
    answers: Schema = operation["responses"]
    answers.pop("400", None)
    answers["default"] = {"$ref": "#/components/responses/Problem"}
    if "204" in answers:
        answers["204"].pop("content", None)
    operation.setdefault("parameters", []).extend(copy.deepcopy(_HEADERS.get((method, path), [])))
    if (kind := _BODIES.get((method, path))) is not None:
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": _BYTES}}}
    if (method, path) == ("get", "/api/v1/jobs/{job_id}"):
        answers["304"] = {"description": "Nothing has changed."}
    if "201" in answers and _ONCE in _HEADERS.get((method, path), ()):
        answers["200"] = {**answers["201"], "description": "What the same request made before."}
    if path.endswith("/outputs/{name}"):
        served = {"application/octet-stream": {"schema": _BYTES}}
        answers["200"] = {"description": "The whole.", "content": {"video/*": {"schema": _BYTES}} | served}
        answers["206"] = {**answers["200"], "description": "The range that was asked for."}
        answers["304"] = {"description": "Nothing has changed."}
    name = "Job" if path.startswith("/api/v1/jobs") else ""
    for status in ("200", "201"):
        media: Schema | None = answers.get(status, {}).get("content", {}).get("application/json")
        if media is None:
            continue
        if (method, path) == ("get", "/api/v1/jobs"):
            media["schema"] = {
                "type": "object",
                "required": ["jobs", "next", "counts"],
                "properties": {"jobs": {"type": "array", "items": {"$ref": "#/components/schemas/Job"}}},
            }
            media["example"] = _example_list()
        elif (
            name
            and path.count("/") <= 5
            and not path.endswith(("/seek", "/segments", "/events", "/whole", "/outputs", "/outputs/{name}"))
        ):
            media["schema"] = {"$ref": "#/components/schemas/Job"}
            media["example"] = _example_job()


# ---- shapes and examples ---------------------------------------------------------------------------------
def _problem_schema() -> Schema:
    text = {"type": "string"}
    properties: Schema = {
        "type": {**text, "format": "uri-reference"},
        "title": text,
        "status": {"type": "integer"},
        "detail": text,
        "instance": text,
        "code": {"enum": sorted(errors.CATALOGUE)},
        "advice": text,
        "retryable": {"type": "boolean"},
        "request_id": text,
        "details": {"type": "object"},
    }
    return {"type": "object", "required": [name for name in properties if name != "details"], "properties": properties}


def _job_properties() -> Schema:
    nullable = {"type": ["number", "null"]}
    return {
        "job_id": {"type": "string"},
        "status": {"enum": sorted(set(PUBLIC_STATE.values()))},
        "phase": {"enum": [phase.value for phase in Phase]},
        "progress_percent": {"type": "integer", "minimum": 0, "maximum": 100},
        "progress": {"type": "object", "properties": {"fps": nullable, "eta_seconds": nullable}},
        "title": {"type": "string"},
        "revision": {"type": "integer", "description": "the ETag"},
        "generation": {"type": "integer"},
        "attempt": {"type": "integer"},
        "priority": {"type": "integer"},
        "options": {"$ref": "#/components/schemas/Options"},
        "outputs": {"type": "array", "items": {"type": "object"}},
        "warnings": {"type": "array", "items": {"type": "object"}},
        "error": {"type": ["object", "null"]},
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    }


@cache
def _example_job() -> Schema:
    """A finished job, as the API answers it."""
    film = Film(
        key=keys.film(_ID, 1, "mp4"), sha256="9f" * 32, size_bytes=734_003_200, frames=143_856,
        duration_seconds=5994.0, container="mp4", file_name="Holiday.3D.HSBS.LR.mp4",
    )  # fmt: skip
    source = SourceRef(
        key=keys.source(_ID, "mp4"), name="Holiday.mp4", size_bytes=1_468_006_400, digest="sha256:" + "1c" * 32
    )
    job = Job(
        job_id=_ID, title="Holiday", phase=Phase.COMPLETED, created_at=1_795_000_000.0, updated_at=1_795_003_600.0,
        source=source, film=film, frames=143_856, duration_seconds=5994.0, segments=1002,
    )  # fmt: skip
    return resources.job_resource(Row(job, 4711), None, f"{_ID}.6a1c3f80.mac")


def _example_list() -> Schema:
    counts = {"queued": 0, "processing": 1, "completed": 41, "failed": 0}
    return {"jobs": [_example_job()], "next": "MTc5NTAwMDAwMC4wIDAxSkQ", "counts": counts, "phases": {"completed": 41}}
