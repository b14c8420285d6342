"""What OPTIONS says of a path: the methods of all its handlers, the same that a 405 names.

Litestar makes such an answer with the first handler of a path and keeps it, without those that are registered later; it
makes none where the first handler is one of OPTIONS. So `told` stands before the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute


def allowed(request: Request[Any, Any, Any]) -> str:
    """`Allow` for the path that was asked."""
    path = request.scope["path_template"]
    routes = [item for item in request.app.routes if isinstance(item, HTTPRoute) and item.path_format == path]
    return ", ".join(sorted({method for item in routes for method in item.methods}))


def told(handlers: Iterable[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """The handlers, before them one of OPTIONS for those of their paths that have none of their own."""
    found = list(handlers)
    own = {path for item in found if "OPTIONS" in item.http_methods for path in item.paths}
    paths = sorted({path for item in found for path in item.paths} - own)

    @route(paths, http_method=["OPTIONS"], status_code=204, include_in_schema=False)
    async def offer(request: Request[Any, Any, Any]) -> Response[None]:
        return Response(None, status_code=204, headers={"Allow": allowed(request)})

    return [offer, *found]
