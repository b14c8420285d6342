"""The OpenAPI description: what the framework knows of the routes, and what only we know, put together.

Request bodies are described by their own models, exactly as they are checked; answers by those of `answers.py` and
`answers_service.py`, with an example each (`examples.py`). Headers that change an answer's meaning, raw bodies and
problems are added here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from litestar.openapi.plugins import JsonRenderPlugin
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from services.gateway import answers as films
from services.gateway import answers_service as service
from services.gateway import examples
from services.gateway.direct import Announced, Numbers
from services.gateway.problems import PROBLEM, problem_body
from services.gateway.requests import JobChanges, NewJob, Seek
from stereospot import errors

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
    ("get", "/api/v1/jobs/{job_id}/outputs/{name}"): [
        _header("Range", "`bytes=0-1023`: one range; 416 where the file has none of it."),
        _header("If-Range", "The ETag that the range is of: the whole is sent when it is another."),
        _header("If-None-Match", "The ETag that is known: 304 while it is still the present one."),
    ],
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

_JOB = ((films.Job,), examples.job)
_ANSWERS: dict[tuple[str, str], tuple[tuple[type[BaseModel], ...], Callable[[], Schema]]] = {
    ("get", "/api/v1/jobs"): ((films.JobList,), examples.job_list),
    ("post", "/api/v1/jobs"): _JOB,
    ("get", "/api/v1/jobs/{job_id}"): _JOB,
    ("patch", "/api/v1/jobs/{job_id}"): _JOB,
    ("post", "/api/v1/jobs/{job_id}/cancel"): _JOB,
    ("post", "/api/v1/jobs/{job_id}/retry"): _JOB,
    ("post", "/api/v1/jobs/{job_id}/whole"): _JOB,
    ("post", "/api/v1/samples"): _JOB,
    ("post", "/api/v1/jobs/{job_id}/seek"): ((films.Anchor,), examples.anchor),
    ("get", "/api/v1/jobs/{job_id}/outputs"): ((films.OutputList,), examples.output_list),
    ("get", "/api/v1/jobs/{job_id}/segments"): ((films.SegmentList,), examples.segment_list),
    ("get", "/api/v1/jobs/{job_id}/segments/{index}"): ((films.WholeSegment,), examples.segment),
    ("put", "/api/v1/uploads"): ((films.Upload,), examples.upload),
    ("post", "/api/v1/uploads"): ((films.Upload,), examples.upload),
    ("get", "/api/v1/uploads/{upload_id}"): ((films.Upload,), examples.upload),
    ("post", "/api/v1/uploads/direct"): ((films.DirectUpload,), examples.direct_upload),
    ("get", "/api/v1/uploads/{upload_id}/parts"): ((films.PartList,), examples.part_list),
    ("post", "/api/v1/uploads/{upload_id}/parts"): ((films.PartAddresses,), examples.part_addresses),
    ("post", "/api/v1/uploads/{upload_id}/complete"): ((films.CheckedUpload,), examples.checked_upload),
    ("get", "/api/v1/dead-letters"): ((service.DeadLetterList,), examples.dead_letter_list),
    ("get", "/api/v1/dead-letters/{dead_id}"): ((service.DeadLetter,), examples.dead_letter),
    ("post", "/api/v1/dead-letters/{dead_id}/retry"): ((service.DeadLetter, service.GoneLetter), examples.dead_letter),
    ("get", "/api/v1/workers"): ((service.WorkerList,), examples.worker_list),
    ("get", "/api/v1/stats"): ((service.Stats,), examples.stats),
    ("get", "/api/v1/capabilities"): ((service.Capabilities,), examples.capabilities),
    ("get", "/api/v1/errors"): ((service.Catalogue,), examples.catalogue),
    ("get", "/api/v1/errors/{code}"): ((service.CatalogueEntry,), examples.error),
    ("get", "/dlq"): ((service.OldLetters,), examples.old_letters),
    ("post", "/dlq/{dead_id}/retry"): ((service.Requeued,), examples.requeued),
}
"""What each answers that answers with JSON: one of these models, and an example."""

_FILM = ("UPLOAD_INCOMPLETE", "SOURCE_MISSING", "CHECKSUM_MISMATCH", "INVALID_OPTIONS", "LICENSE_NOT_ACCEPTED")
_STORED = ("UPLOAD_INCOMPLETE", "EMPTY_INPUT", "UNSUPPORTED_CONTAINER", "CHECKSUM_MISMATCH", "STORAGE_FULL")
_PROBLEMS: dict[tuple[str, str], tuple[str, ...]] = {
    ("post", "/api/v1/jobs"): (*_FILM, "NOT_FOUND", "EMPTY_INPUT", "UNSUPPORTED_CONTAINER", "NOT_AVAILABLE"),
    ("post", "/api/v1/samples"): (*_FILM, "NOT_FOUND"),
    ("post", "/api/v1/jobs/{job_id}/whole"): _FILM,
    ("post", "/api/v1/jobs/{job_id}/seek"): ("CONFLICT", "STREAM_EXPIRED"),
    ("post", "/api/v1/jobs/{job_id}/retry"): ("NOT_AVAILABLE",),
    ("get", "/api/v1/jobs/{job_id}/outputs/{name}"): ("SOURCE_MISSING", "RANGE_NOT_SATISFIABLE"),
    ("put", "/api/v1/uploads"): _STORED,
    ("post", "/api/v1/uploads"): (*_STORED, "PRECONDITION_FAILED"),
    ("patch", "/api/v1/uploads/{upload_id}"): (*_STORED, "CONFLICT", "PRECONDITION_FAILED"),
    ("delete", "/api/v1/uploads/{upload_id}"): ("CONFLICT", "PRECONDITION_FAILED"),
    ("post", "/api/v1/uploads/direct"): ("NOT_AVAILABLE", "STORAGE_FULL"),
    ("get", "/api/v1/uploads/{upload_id}/parts"): ("CONFLICT",),
    ("post", "/api/v1/uploads/{upload_id}/parts"): ("CONFLICT",),
    ("post", "/api/v1/uploads/{upload_id}/complete"): _STORED,
}
"""What an operation may answer beside what its parameters tell of themselves."""


class Description(JsonRenderPlugin):
    """Serves the description."""

    def render(self, request: Any, openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, describe(openapi_schema))


def describe(schema: dict[str, Any]) -> dict[str, Any]:
    """The framework's schema with all that it does not know. Pure."""
    found = copy.deepcopy(schema)
    components: Schema = found.setdefault("components", {})
    schemas: Schema = components.setdefault("schemas", {})
    answered = {model for models, _ in _ANSWERS.values() for model in models}
    for model in sorted(answered, key=lambda model: model.__name__):
        _add(schemas, model, "serialization")
    for model in _MODELS:
        _add(schemas, model, "validation")
    schemas["Problem"] = _problem_schema()
    example = _problem_example("NOT_FOUND")
    content: Schema = {PROBLEM: {"schema": _reference("Problem"), "example": example}}
    components["responses"] = {
        "Problem": {"description": "What went wrong: RFC 9457, with a code of `/api/v1/errors`.", "content": content}
    }
    for path, item in found["paths"].items():
        for method, operation in item.items():
            if method in ("get", "put", "post", "delete", "options", "patch"):
                _complete(method, path, operation)
    return found


def _add(schemas: Schema, model: type[BaseModel], mode: JsonSchemaMode) -> None:
    """Put a model among the components, and those that it is made of."""
    described = model.model_json_schema(ref_template=_REFERENCE, mode=mode)
    schemas |= described.pop("$defs", {})
    schemas[model.__name__] = described


def _reference(name: str) -> Schema:
    return {"$ref": _REFERENCE.format(model=name)}


def _complete(method: str, path: str, operation: Schema) -> None:
    answers: Schema = operation["responses"]
    answers.pop("400", None)
    if "204" in answers:
        answers["204"].pop("content", None)
    parameters: list[Schema] = operation.setdefault("parameters", [])
    parameters.extend(copy.deepcopy(_HEADERS.get((method, path), [])))
    if (kind := _BODIES.get((method, path))) is not None:
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": _BYTES}}}
    if (method, path) == ("get", "/api/v1/jobs/{job_id}"):
        answers["304"] = {"description": "Nothing has changed."}
    if path.endswith("/outputs/{name}"):
        served = {"application/octet-stream": {"schema": _BYTES}}
        answers["200"] = {"description": "The whole.", "content": {"video/*": {"schema": _BYTES}} | served}
        answers["206"] = {**answers["200"], "description": "The range that was asked for."}
        answers["304"] = {"description": "Nothing has changed."}
    if (answer := _ANSWERS.get((method, path))) is not None:
        models, example = answer
        references = [_reference(model.__name__) for model in models]
        media = {"schema": references[0] if len(references) == 1 else {"anyOf": references}, "example": example()}
        for status in answers.keys() & {"200", "201"}:
            answers[status] = {
                "description": (models[0].__doc__ or "").strip(),
                "content": {"application/json": media},
            }
    if (method, path) == ("post", "/api/v1/uploads"):
        answers["201"]["content"]["text/plain"] = {"schema": {"const": "", "description": "tus: see `Location`"}}
    if "201" in answers and _ONCE in parameters:
        answers["200"] = {**answers["201"], "description": "What the same request made before."}
    answers |= _problems(method, path, operation)
    answers["default"] = {"$ref": "#/components/responses/Problem"}


# ---- problems --------------------------------------------------------------------------------------------
def _problems(method: str, path: str, operation: Schema) -> Schema:
    """What an operation of its own refuses, by status. What any may meet is the default: no key, the broker away."""
    if method == "options":
        return {}
    codes = list(_PROBLEMS.get((method, path), ()))
    parameters: list[Schema] = operation["parameters"]
    if any(item["in"] == "path" for item in parameters):
        codes.append("NOT_FOUND")
    if "requestBody" in operation or _ONCE in parameters or any(item["in"] == "query" for item in parameters):
        codes.append("INVALID_REQUEST")
    if "requestBody" in operation:
        codes.append("TOO_LARGE")
    if _IF_MATCH in parameters:
        codes += ["PRECONDITION_FAILED", "CONFLICT"]
    if _ONCE in parameters:
        codes.append("CONFLICT")
    by_status: dict[str, list[str]] = {}
    for code in sorted(set(codes)):
        by_status.setdefault(str(errors.CATALOGUE[code].status), []).append(code)
    return {status: _problem_answer(found) for status, found in sorted(by_status.items())}


def _problem_answer(codes: list[str]) -> Schema:
    examples = {code: {"value": _problem_example(code)} for code in codes}
    said = " ".join(f"`{code}`: {errors.CATALOGUE[code].sentence}" for code in codes)
    return {"description": said, "content": {PROBLEM: {"schema": _reference("Problem"), "examples": examples}}}


def _problem_example(code: str) -> Schema:
    detail = f"There is no job {examples.JOB_ID}." if code == "NOT_FOUND" else ""
    return problem_body(errors.error(code, detail), "4b1d0c2f9e8a7766", f"/api/v1/jobs/{examples.JOB_ID}")


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
