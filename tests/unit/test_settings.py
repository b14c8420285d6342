"""The annotated example is the manual: it names every setting, with its true default."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from stereospot import errors
from stereospot import settings as module
from stereospot.settings import Settings, load

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


def test_folders_and_names_are_written_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEREOSPOT_ROOTS", f"/films{os.pathsep} ~/more")
    monkeypatch.setenv("STEREOSPOT_ALLOWED_HOSTS", "films.example, [::1],")
    monkeypatch.setenv("STEREOSPOT_DATA_DIR", "~/stereospot")
    monkeypatch.setenv("STEREOSPOT_PROXIES", "10.0.0.5, fd00::/8")
    settings = load()
    assert list(map(str, settings.proxies)) == ["10.0.0.5/32", "fd00::/8"]
    assert settings.roots == (Path("/films"), Path.home() / "more")
    assert settings.allowed_hosts == ("films.example", "[::1]")
    assert settings.data_dir == Path.home() / "stereospot"
    monkeypatch.setenv("STEREOSPOT_ROOTS", '["/a:b", "/c"]')
    assert load().roots == (Path("/a:b"), Path("/c"))


MISTAKES = [
    ("STEREOSPOT_PORT", "many", "STEREOSPOT_PORT"),
    ("STEREOSPOT_ROOTS", "[/films", "STEREOSPOT_ROOTS"),
    ("STEREOSPOT_CONFIG", "nowhere.toml", "nowhere.toml"),
    ("STEREOSPOT_CONFIG", "broken.toml", "line 1"),
    ("STEREOSPOT_CONFIG", "misspelt.toml", "did you mean max_attempts?"),
    ("STEREOSPOT_CONFIG", "wrong.toml", "wrong.toml: port: "),
    ("STEREOSPOT_CONFIG", "~no-such-user/settings.toml", "home of nobody"),
    ("STEREOSPOT_ROOTS", "/films:~no-such-user/films", "STEREOSPOT_ROOTS"),
    ("STEREOSPOT_PROXIES", "10.0.0.5,caddy", "STEREOSPOT_PROXIES: value is not a valid IPv4 or IPv6 network"),
    ("STEREOSPOT_TLS_KEY", "~no-such-user/key.pem", "STEREOSPOT_TLS_KEY"),
]


@pytest.mark.parametrize(("name", "value", "said"), MISTAKES)
def test_a_setting_that_cannot_be_used_is_told_by_its_name(
    name: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.toml").write_text("port == 1")
    (tmp_path / "misspelt.toml").write_text("max_atempts = 1")
    (tmp_path / "wrong.toml").write_text('port = "many"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.Misconfigured) as raised:
        load()
    assert raised.value.code == "INVALID_SETTINGS"
    assert said in str(raised.value)


def test_the_variable_is_named_where_it_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.toml").write_text("port = 1")
    monkeypatch.setenv("STEREOSPOT_CONFIG", str(tmp_path / "settings.toml"))
    monkeypatch.setenv("STEREOSPOT_PORT", "many")
    with pytest.raises(errors.Misconfigured, match="STEREOSPOT_PORT: "):
        load()


def test_a_data_folder_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(errors.Misconfigured, match="STEREOSPOT_DATA_DIR"):
        load()


ON_GPU: list[tuple[dict[str, Any], bool, str | None, bool]] = [
    ({"pool": "gpu"}, True, None, True),
    ({"pool": "gpu"}, True, "", False),
    ({"pool": "gpu"}, False, None, False),
    ({"pool": "gpu", "device": "cpu"}, True, None, False),
    ({"pool": "gpu", "device": "cuda:1"}, True, "1", True),
    ({"pool": "studio", "engine": "depth-anything"}, True, None, True),
    ({"engine": "iw3", "device": "cuda"}, True, None, True),
    ({"engine": "relief", "device": "cuda"}, True, None, False),
    ({}, True, None, False),
]


@pytest.mark.parametrize(("values", "is_there", "visible", "is_on_gpu"), ON_GPU)
def test_two_segments_at_a_time_where_the_engine_runs_on_a_gpu(
    values: dict[str, Any],
    is_there: bool,
    visible: str | None,
    is_on_gpu: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "NVIDIA", tmp_path if is_there else tmp_path / "none")
    monkeypatch.setattr(module.cores, "available", lambda: 16)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Settings(**values).worker_slots == (2 if is_on_gpu else 8)
    assert Settings(**values, slots=5).worker_slots == 5


def test_secrets_do_not_show() -> None:
    assert "hunter2" not in repr(Settings(nats_token="hunter2"))  # type: ignore[arg-type]
    assert "hunter2" not in repr(Settings(nats_url="nats://u:hunter2@h"))


def test_what_is_set_for_a_fleet_s_broker_is_not_for_our_own() -> None:
    fleet = Settings(
        nats_url="tls://u:p@h", nats_creds=Path("c"), nats_nkey_seed=Path("n"), nats_tls_ca=Path("t"), replicas=3,
        slots=5,
    )  # fmt: skip
    own = fleet.with_own_broker("nats://127.0.0.1:1", "secret")
    assert own == Settings(nats_url="nats://127.0.0.1:1", nats_token="secret", slots=5)  # type: ignore[arg-type]
