"""The shape of the house: imports point downwards, and the wheel holds four packages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ["streams_config", "stereospot", "inference", "services"]
"""From the ground up; a floor imports itself and what lies below."""


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "training" not in path.parts)


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_downwards(floor: str) -> None:
    above = set(FLOORS[FLOORS.index(floor) + 1 :]) | {"tests", "bench", "deploy"}
    assert modules(floor)
    wrong = {str(path.relative_to(ROOT)): imported(path) & above for path in modules(floor)}
    assert not {name: names for name, names in wrong.items() if names}


def test_torch_is_never_imported_at_module_level() -> None:
    for floor in FLOORS:
        for path in modules(floor):
            top = {
                name
                for node in ast.parse(path.read_text()).body
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
            }
            assert not any(name.partition(".")[0] in ("torch", "transformers") for name in top), path
