"""The gateway's modules need no particular order of imports."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["problems", "ranges"])
def test_a_module_can_be_the_first_that_is_imported(module: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"import services.gateway.{module}"], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("module", "above"),
    [
        ("guard", "playback"),
        ("guard", "resources"),
        ("handoff", "api"),
        ("letters", "api"),
        ("pages", "api"),
        ("service", "api"),
    ],
)
def test_what_serves_others_imports_no_routes(module: str, above: str) -> None:
    code = f"import sys, services.gateway.{module}; sys.exit('services.gateway.{above}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
