"""Errors as RFC 9457 problems: `application/problem+json` with the catalogue's code, advice and the request's id."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import ClientException, HTTPException, NotAuthorizedException
from pydantic import ValidationError

from services.gateway.render import render, wants_html
from stereospot import errors, log

PROBLEM = "application/problem+json"

_log = log.get("gateway")

_BY_STATUS = {404: "NOT_FOUND", 405: "INVALID_REQUEST", 413: "TOO_LARGE", 415: "INVALID_REQUEST"}


def problem_body(error: errors.StereoSpotError, request_id: str, instance: str) -> dict[str, Any]:
    """The members of the problem; `type` is a relative reference to the catalogue of this very service."""
    entry = error.entry
    return {
        "type": f"/api/v1/errors/{entry.code}",
        "title": entry.sentence,
        "status": entry.status,
        "detail": error.detail or entry.sentence,
        "instance": instance,
        "code": entry.code,
        "advice": entry.advice,
        "retryable": entry.kind in ("transient", "resource"),
        "request_id": request_id,
        **({"details": error.details} if error.details else {}),
    }


def request_id_of(scope: Any) -> str:
    return str(scope.get("stereospot_request_id", ""))


def problem(request: Request[Any, Any, Any], error: errors.StereoSpotError, status: int | None = None) -> Response[Any]:
    """The answer to `request` for `error`; `status` only where HTTP has a finer one than the catalogue."""
    body = problem_body(error, request_id_of(request.scope), request.url.path)
    body["status"] = status or body["status"]
    headers = {"Cache-Control": "no-store"}
    if body["retryable"]:
        headers["Retry-After"] = "2"
    if wants_html(request.headers.get("accept", "")):
        text = render("problem.html", problem=body, here="", asked=None)
        return Response(text, status_code=body["status"], media_type=MediaType.HTML, headers=headers)
    return Response(body, status_code=body["status"], media_type=PROBLEM, headers=headers)


def _known(request: Request[Any, Any, Any], error: errors.StereoSpotError) -> Response[Any]:
    if error.entry.status >= 500:
        _log.warning("failed", action="reject", code=error.code, detail=error.detail, path=request.url.path)
    return problem(request, error)


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """What Litestar itself refuses: unknown paths, methods, bodies that do not parse."""
    if error.status_code >= 500 and not isinstance(error, ClientException):
        return _unknown(request, error)
    code = _BY_STATUS.get(error.status_code, "INVALID_REQUEST")
    detail = error.detail
    if error.status_code == 404:
        detail = f"There is no {request.url.path}."
    extra: Any = error.extra
    details = {"fields": extra} if isinstance(extra, list) and not isinstance(error, NotAuthorizedException) else {}
    answer = problem(request, errors.error(code, detail, **details), error.status_code)
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


def _invalid(request: Request[Any, Any, Any], error: ValidationError) -> Response[Any]:
    return problem(request, invalid(error))


def invalid(error: ValidationError) -> errors.StereoSpotError:
    """A pydantic model's complaint as one error, its fields in the details."""
    found = [
        {"field": ".".join(map(str, item["loc"])), "message": item["msg"]}
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    first = found[0]
    return errors.error("INVALID_REQUEST", f"{first['field'] or 'body'}: {first['message']}.", fields=found)


def _late(request: Request[Any, Any, Any], error: TimeoutError) -> Response[Any]:
    return problem(request, errors.error("STORAGE_UNAVAILABLE", "An answer took too long."))


def _deep(request: Request[Any, Any, Any], error: RecursionError) -> Response[Any]:
    """Nothing here calls itself, but what reads a body's brackets does."""
    _log.warning("nested too deeply", action="reject", path=request.url.path, exc_info=error)
    return problem(request, errors.error("INVALID_REQUEST", "The body is nested too deeply."))


def _unknown(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    _log.error("unexpected", action="reject", path=request.url.path, exc_info=error)
    return problem(request, errors.error("INTERNAL"))


HANDLERS: dict[Any, Any] = {
    errors.StereoSpotError: _known,
    ValidationError: _invalid,
    HTTPException: _http,
    asyncio.TimeoutError: _late,
    RecursionError: _deep,
    Exception: _unknown,
}
