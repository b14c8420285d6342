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
