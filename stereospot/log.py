"""Logging: structlog, one line an event, JSON for machines and colours for a terminal.

Every line has an `action` from a small vocabulary, so that logs can be counted: start, stop, ready, fetch, done, retry,
reject, dispatch, trigger, store, connect, disconnect, mend, refuse, request.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any, Literal, TextIO, cast

import structlog

Logger = structlog.stdlib.BoundLogger


class _Stderr:
    """Whatever stderr is at the moment of writing: it may be replaced, and closed, after logging was set up.

    A line that cannot be written, on a full disk or to a terminal that is gone, is no reason to stop working.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def configure(level: str = "info", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Set up logging of this process; to stderr, so that stdout stays for results."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.processors.JSONRenderer()
    if console:
        plain: Any = {"colors": False} if os.environ.get("NO_COLOR") else {}
        renderer = structlog.dev.ConsoleRenderer(**plain)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.StackInfoRenderer(),
            *([] if console else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _Stderr())),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=logging.WARNING, stream=cast(TextIO, _Stderr()), format="%(name)s %(message)s", force=True
    )


def get(service: str, **values: Any) -> Logger:
    """A logger with a service's name; modules ask for theirs at import, so it reads the set-up when it is used."""
    return structlog.get_logger(service=service, **values)
