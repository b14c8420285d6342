"""The annotated example is the manual: it names every setting, with its true default."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from stereospot.settings import Settings

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "settings.toml"


def test_the_manual_names_every_setting_with_its_default() -> None:
    text = MANUAL.read_text()
    values = tomllib.loads(text)
    mentioned = set(values) | set(re.findall(r'^# (\w+) = "…"', text, re.MULTILINE))
    assert mentioned == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert f"[STEREOSPOT_{name.upper()}]" in text
        if field.description:
            assert field.description.lower() in text.lower()
        if name in values and name != "data_dir":
            default = field.get_default(call_default_factory=True)
            assert values[name] == (list(default) if isinstance(default, tuple) else default), name


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('port = 1\nhost = "0.0.0.0"\n')
    monkeypatch.setenv("STEREOSPOT_CONFIG", str(file))
    monkeypatch.setenv("STEREOSPOT_PORT", "2")
    settings = Settings()
    assert (settings.port, settings.host) == (2, "0.0.0.0")


def test_secrets_do_not_show() -> None:
    assert "hunter2" not in repr(Settings(nats_token="hunter2"))  # type: ignore[arg-type]
