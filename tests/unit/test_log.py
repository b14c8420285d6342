"""Logging survives whatever happens to stderr after it was set up, and stays off stdout."""

from __future__ import annotations

import io
import json

import pytest

from stereospot import log


def test_lines_go_to_the_stderr_of_the_moment_and_never_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    log.configure("info", "json")
    logger = log.get("test")
    logger.info("one", action="start")
    first_text = first.getvalue()
    first.close()
    monkeypatch.setattr("sys.stderr", second)
    logger.info("two", action="stop")
    assert json.loads(first_text) | {"timestamp": ""} == {
        "service": "test", "action": "start", "event": "one", "level": "info", "timestamp": "",
    }  # fmt: skip
    assert json.loads(second.getvalue())["event"] == "two"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [None, "1"])
def test_a_terminal_gets_colours_unless_no_color_says_otherwise(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_COLOR", value)
    log.configure("info", "console")
    log.get("test").info("one", action="start")
    log.configure("info", "json")
    assert "one" in said.getvalue()
    assert ("\x1b[" in said.getvalue()) is (value is None)
