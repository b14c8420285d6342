"""How the `nats` CLI is told to reach a broker with credentials of any kind."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from services import cli

URL = "tls://a:4222,tls://b:4222"


def test_all_that_a_connection_needs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    creds, ca = tmp_path / "my user.creds", tmp_path / "ca.pem"
    monkeypatch.setenv("STEREOSPOT_NATS_CREDS", str(creds))
    monkeypatch.setenv("STEREOSPOT_NATS_TLS_CA", str(ca))
    assert cli.main(["nats-env", "--nats", URL]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words == ["export", f"NATS_URL={URL}", "export", f"NATS_CREDS={creds}", "export", f"NATS_CA={ca}"]
    assert cli.main(["nats-env", "--nats", URL, "--context"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"description": "StereoSpot", "url": URL, "token": "", "creds": str(creds), "ca": str(ca)}
