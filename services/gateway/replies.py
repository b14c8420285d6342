"""Answers about one job, as every route gives them that made, changed or found it."""

from __future__ import annotations

from typing import Any

from litestar import Response

from services.gateway import resources
from services.gateway.idempotency import Once
from services.gateway.state import Gateway
from services.gateway.table import Row


def job_answer(
    gateway: Gateway, row: Row, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response[dict[str, Any]]:
    """A job's resource with its ETag: the record's revision, which writers name.

    No cache may keep it: progress and tokens change without the record, and a browser would be told that nothing did.
    """
    named = {"ETag": f'"{row.revision}"', "Cache-Control": "no-store", **(headers or {})}
    return Response(resources.resource(gateway, row), status_code=status, headers=named)


async def made(gateway: Gateway, job_id: str, told: Once) -> Response[dict[str, Any]]:
    """The answer about a job that a request made, now or when it came first."""
    headers = {"Location": f"/api/v1/jobs/{job_id}"} | told.headers
    return job_answer(gateway, await gateway.index.fresh(job_id), status=told.made_status, headers=headers)
