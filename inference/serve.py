"""Run the inference server: `python -m inference.serve`, in a container of SageMaker's or on any machine with a GPU.

What the environment says (`STEREOSPOT_*`) holds here too: engine, device, limits, S3. Loopback needs no token; any
other address demands STEREOSPOT_INFERENCE_TOKEN, except under SageMaker, whose own network alone reaches the container.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path

import uvicorn

from inference import backends
from inference.contract import Converted, Frames
from inference.invocation import Films, Workshop
from inference.server import Options, Server
from stereospot import errors, log, stdio
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.settings import Settings, load
from stereospot.storage import ObjectStore, open_store

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def build(settings: Settings, *, slots: int, roots: tuple[Path, ...] = ()) -> tuple[Server, backends.Backends]:
    """The ASGI app of these settings, and the engines behind it, which are the caller's to close."""
    engines = backends.Backends(settings, backend="local")
    limits = Limits.of(settings)

    def convert(decoder: Frames, plan: Plan, segment: Segment, stop: threading.Event | None) -> Converted:
        with engines.borrow(plan) as backend:
            return backend.convert(decoder=decoder, plan=plan, segment=segment, stop=stop)

    def open_bucket(name: str) -> ObjectStore:
        return open_store(settings.model_copy(update={"storage": "s3", "s3_bucket": name, "s3_prefix": ""}))

    token = settings.inference_token.get_secret_value() if settings.inference_token else None
    films = Films(convert, limits, settings.engine or "relief")
    options = Options(slots=slots, token=token, roots=roots, largest_bytes=settings.max_upload_bytes)
    return Server(Workshop(convert, films, limits), options, open_bucket), engines


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    stdio.open_closed()
    parser = argparse.ArgumentParser(prog="python -m inference.serve", description="Convert video for others, by HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--slots", type=int, default=1, help="conversions at a time; others are answered 429")
    parser.add_argument("--root", type=Path, action="append", default=[], help="folder that file:// may use")
    given = parser.parse_args(arguments)
    try:
        settings = load()
        log.configure(settings.log_level, settings.log_format)
        _check(given.host, settings)
        app, engines = build(settings, slots=given.slots, roots=tuple(given.root))
    except errors.Misconfigured as failure:
        print(f"{failure}\n{failure.advice}", file=sys.stderr)  # noqa: T201
        return errors.EXIT_MISCONFIGURED
    try:
        uvicorn.run(app, host=given.host, port=given.port, log_level="warning", lifespan="on")
    finally:
        engines.close()
    return 0


def _check(host: str, settings: Settings) -> None:
    """Refuse to serve strangers."""
    sagemaker = "SAGEMAKER_BIND_TO_PORT" in os.environ or os.path.isdir("/opt/ml/model")
    if host not in LOOPBACK and settings.inference_token is None and not sagemaker:
        raise errors.error("ENGINE_UNAVAILABLE", f"Serving on {host} needs STEREOSPOT_INFERENCE_TOKEN.")


if __name__ == "__main__":
    sys.exit(main())
