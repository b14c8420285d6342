"""Parsing, exit codes and error texts of every command.

Exit codes: 0 done, 1 the work failed (code, reason and advice on stderr), 2 usage, 78 the operator must act,
130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import sys
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

from cyclopts import App, CycloptsError, Parameter

import stereospot
from stereospot import errors, log, stdio
from stereospot.messages import Failure
from stereospot.settings import Settings, load

app = App(
    name="stereospot",
    version=stereospot.__version__,
    help="Turn 2D video into stereoscopic 3D: crash-safe, on every worker you have, watchable while it converts.",
)
for _name, _target, _help in (
    ("demo", "demo:demo", "Convert a clip of our own and stay up to watch it."),
    ("up", "serve:up", "Start everything on this host."),
    ("convert", "convert:convert", "Convert one film; the same command again goes on."),
    ("jobs", "jobs:jobs", "List, show, watch, cancel, retry or delete jobs."),
    ("dead-letters", "dead_letters:dead_letters", "List, show, retry or drop work that was given up."),
    ("run", "serve:run", "Run some services against a broker that exists."),
    ("provision", "broker:provision", "Create or update streams, consumers and buckets."),
    ("nats-env", "broker:nats_env", "How the nats CLI reaches the broker."),
    ("doctor", "doctor:doctor", "Say what is wrong here and mend it."),
):
    app.command(f"services.cli.{_target}", name=_name, help=_help)


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Common:
    """Options that every command takes."""

    data: Annotated[Path | None, Parameter(help="data folder: broker store, local storage, caches")] = None
    nats: Annotated[str | None, Parameter(help="use this NATS server or cluster instead of the embedded one")] = None
    json: Annotated[bool, Parameter(negative="", help="print JSON on stdout and nothing else there")] = False
    verbose: Annotated[bool, Parameter(negative="", help="log what happens to stderr")] = False

    def settings(self, **changes: object) -> Settings:
        """Settings of environment and file, with what this command line says on top; sets up logging."""
        given: dict[str, object] = {name: value for name, value in changes.items() if value is not None}
        if self.data is not None:
            given["data_dir"] = at_home(self.data).resolve()
        if self.nats is not None:
            given["nats_url"] = self.nats
        settings = load(**given)
        log.configure("info" if self.verbose else settings.log_level, settings.log_format)
        return settings


DEFAULTS = Common()
QUIET = "critical"
"""Log level of commands that talk to a person: what goes wrong reaches them in words of its own."""


def at_home(path: Path) -> Path:
    """`path` with the user's home for a first part `~` that no shell has read (`--data=~/films`).

    Any other name may begin with `~`: `~film.mp4` is a film, and absolute, so that nobody takes it for a home either.
    Raises INVALID_OPTIONS where nobody knows that home.
    """
    if path.parts[:1] == ("~",):
        try:
            return path.expanduser()
        except RuntimeError as problem:
            raise errors.error("INVALID_OPTIONS", f"{path}: {problem}") from problem
    return path.absolute() if str(path).startswith("~") else path


class Failed(Exception):
    """The work ended in a failure that is already told, or whose telling is `failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class Unwritten(OSError):
    """What is printed on stdout cannot be written there."""


class _Stdout:
    """stdout, whose failures are told from those of all other files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._told():
            return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        with self._told():
            self._stream.writelines(lines)

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @staticmethod
    @contextlib.contextmanager
    def _told() -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise Unwritten(error.errno, error.strerror) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    stdio.open_closed()
    code = 0
    try:
        with contextlib.redirect_stdout(cast(TextIO, _Stdout(sys.stdout))):
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
            print(end="", flush=True)
    except Unwritten as error:
        # The reader of our output went away (`stereospot jobs list | head`): that is no failure. Any other is.
        if error.errno not in (errno.EPIPE, errno.EIO) or not _is_unread(1):
            reason = f"the result could not be written: {error.strerror}."
            _say(" ".join((f"stereospot: {reason}", *getattr(error, "__notes__", ()))))
            code = code or 1
        stdio.drop(1)
    try:
        print(end="", file=sys.stderr, flush=True)
    except OSError:
        stdio.drop(2)
    return code


def _is_unread(descriptor: int) -> bool:
    """Whether it is a pipe without an end, or a terminal that was closed."""
    looked = select.poll()
    looked.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in looked.poll(0))


def _run(words: list[str]) -> int:
    as_json = "--json" in words
    try:
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        advice = f"See `{' '.join(('stereospot', *(error.command_chain or ())))} --help`."
        if as_json:
            _say_json("INVALID_OPTIONS", str(error), advice)
        _say(f"stereospot: {error}")
        _say(advice)
        return 2
    except Failed as error:
        return _tell(error.failure, as_json, 1)
    except errors.StereoSpotError as error:
        if error.code == "INVALID_OPTIONS":
            return _tell(Failure.of(error), as_json, 2)
        misconfigured = isinstance(error, errors.Misconfigured)
        code = _tell(Failure.of(error), as_json, errors.EXIT_MISCONFIGURED if misconfigured else 1)
        if error.code in errors.ENDS_PROCESS:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(code)
        return code
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else 0


def _tell(failure: Failure, as_json: bool, code: int) -> int:
    if as_json:
        reason = f"{failure.sentence} {failure.detail}".strip()
        _say_json(failure.code, reason, failure.advice, failure.segment_index, failure.attempts)
    where = f" (segment {failure.segment_index})" if failure.segment_index is not None else ""
    _say(f"error {failure.code}{where}: {failure.sentence} {failure.detail}".rstrip())
    _say(f"  {failure.advice}")
    return code


def _say_json(code: str, reason: str, advice: str, segment: int | None = None, attempts: int | None = None) -> None:
    body = {"code": code, "reason": reason, "advice": advice, "segment": segment, "attempts": attempts}
    _say(json.dumps({"error": body}), sys.stdout)


def _say(text: str, stream: TextIO | None = None) -> None:
    """A line on stderr; where that cannot be written, the exit code alone tells."""
    with contextlib.suppress(OSError):
        print(text, file=stream or sys.stderr)
