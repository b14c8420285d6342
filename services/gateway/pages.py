"""The pages."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath

from services.gateway import api
from services.gateway.state import Given


@get("/jobs/{job_id:str}", include_in_schema=False)
async def job_page(request: Request[Any, Any, Any], gateway: Given, job_id: FromPath[str]) -> Response[Any]:
    return api.job_answer(gateway, await gateway.index.fresh(job_id))


HANDLERS = (job_page,)
