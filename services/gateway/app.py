"""The gateway as one ASGI application: `create_app(context)`; `serve(context)` runs it with uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Any

import uvicorn
from litestar import Litestar, Response, Router
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.types import ASGIApp

import stereospot
from services.context import Context
from services.gateway import (
    api,
    assets,
    connections,
    direct,
    events,
    handoff,
    health,
    letters,
    methods,
    outputs,
    pages,
    pictures,
    playback,
    problems,
    roots,
    segments,
    stored,
    tracks,
    tus,
)
from services.gateway.description import Description
from services.gateway.feed import Feed
from services.gateway.guard import Guard
from services.gateway.index import Index
from services.gateway.metrics import Metrics
from services.gateway.peers import Peers
from services.gateway.shortcut import Shortcut
from services.gateway.snapshots import Snapshots
from services.gateway.state import Gateway
from services.gateway.tokens import Tokens, load_secret
from services.intake import Intake
from services.listener import listen
from services.plans import Plans
from stereospot import log

_log = log.get("gateway")

GRACE_SECONDS = 5
"""How long open answers may go on after a stop; event streams end at once."""

INDEX_SECONDS = 5
"""How long the first answers wait for the index; without a broker they say so then."""

MAX_JSON_BYTES = 1 << 20


def create_app(context: Context) -> Litestar:
    """The application; its lifespan builds the index and keeps it fed.

    The guard is its outermost layer, so that a test which calls the app sees what a browser sees.
    """
    secret = load_secret(context.settings.data_dir / "gateway.secret")
    metrics = Metrics()
    gateway = Gateway(context, Index(context.bus), Plans(context.store), Tokens(secret), metrics, Intake(context))
    snapshots = Snapshots(gateway)
    feed = Feed(gateway, snapshots)
    shortcut = Shortcut(gateway.index)
    player = playback.Player(gateway, shortcut)
    darkroom = pictures.Darkroom(gateway)
    assets.load()

    @contextlib.asynccontextmanager
    async def lifespan(served: Litestar) -> AsyncGenerator[None]:
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(gateway.index.run()), group.create_task(feed.run())]
                try:
                    # Who asks waits in the socket's queue: a half-read index shows films as less than they are.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(INDEX_SECONDS):
                            await gateway.index.ready.wait()
                    yield
                finally:
                    gateway.stop()
                    for task in running:
                        task.cancel()
        except BaseExceptionGroup as failure:
            served.state.failure = failure
            raise

    def guarded(app: ASGIApp) -> ASGIApp:
        return Guard(app, context.settings, metrics, shortcut)

    app = Litestar(
        route_handlers=[
            Router(
                "/api/v1",
                route_handlers=methods.told(
                    [
                        *tus.HANDLERS,
                        *direct.HANDLERS,
                        *outputs.HANDLERS,
                        *segments.HANDLERS,
                        *letters.HANDLERS,
                        *api.HANDLERS,
                    ]
                ),
            ),
            *methods.told(
                [
                    *events.HANDLERS,
                    *roots.HANDLERS,
                    *letters.ROOTS,
                    *playback.HANDLERS,
                    *tracks.HANDLERS,
                    *stored.HANDLERS,
                    *handoff.HANDLERS,
                    *pictures.HANDLERS,
                    *pages.HANDLERS,
                    *assets.HANDLERS,
                    *health.HANDLERS,
                ]
            ),
        ],
        dependencies={
            "gateway": Provide(lambda: gateway, sync_to_thread=False),
            "snapshots": Provide(lambda: snapshots, sync_to_thread=False),
            "feed": Provide(lambda: feed, sync_to_thread=False),
            "player": Provide(lambda: player, sync_to_thread=False),
            "darkroom": Provide(lambda: darkroom, sync_to_thread=False),
        },
        exception_handlers={**problems.HANDLERS, playback.NotYet: playback.not_yet},
        lifespan=[lifespan],
        openapi_config=OpenAPIConfig(
            title="StereoSpot",
            version=stereospot.__version__,
            description="2D films in, stereoscopic 3D films out.",
            openapi_router=Router("/api/v1", route_handlers=[], include_in_schema=False, after_request=_no_page),
            use_handler_docstrings=True,
            render_plugins=[Description(path="/openapi.json")],
        ),
        request_max_body_size=MAX_JSON_BYTES,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    app.asgi_handler = guarded(app.asgi_handler)
    app.state.gateway = gateway
    app.state.feed = feed
    app.state.failure = None
    return app


def _no_page(response: Response[Any]) -> Response[Any]:
    """The schema's router answers every other path of its folder with a page of HTML: here that is a problem."""
    if response.status_code == 404:
        raise NotFoundException
    return response


async def serve(context: Context, stop: asyncio.Event, *, bound: socket.socket | None = None) -> None:
    """Serve until `stop` is set, then end: streams at once, other answers within a few seconds.

    Raises what the index or the feed failed with: uvicorn only logs it, and would serve errors for ever.
    """
    settings = context.settings
    app = create_app(context)
    peers = Peers(settings.proxies)
    config = uvicorn.Config(
        app,
        http=type("Protocol", (connections.Protocol,), {"peers": peers}),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 << 10,
        lifespan="on",
        ws="none",
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    server = _Server(config)
    sock = connections.Bounded(bound or listen(settings.host, settings.port), connections.most(), peers)
    gateway: Gateway = app.state.gateway

    async def end() -> None:
        await stop.wait()
        gateway.stop()

    async def leave() -> None:
        await gateway.stopping.wait()
        _log.info("stopping", action="stop")
        server.should_exit = True

    async with asyncio.TaskGroup() as group:
        ending = [group.create_task(end()), group.create_task(leave())]
        try:
            _log.info("listening", action="start", address=":".join(map(str, sock.getsockname()[:2])))
            await server.serve(sockets=[sock])
        finally:
            for task in ending:
                task.cancel()
            sock.close()
    if app.state.failure is not None:
        raise app.state.failure


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the daemon has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield
