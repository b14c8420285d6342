"""Model files: what is refused, with which code, and the words that mend it. No torch needed."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import zipfile
from pathlib import Path

import pytest

from inference.depth import iw3, weights
from stereospot import errors

HEADER = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def safetensors(header: object, payload: bytes) -> bytes:
    body = json.dumps(header).encode()
    return len(body).to_bytes(8, "little") + body + payload


def model(folder: Path, tensors: bytes, config: object | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "depth_anything"} if config is None else config))
    (folder / "model.safetensors").write_bytes(tensors)
    return folder


def zipped_pickle() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return buffer.getvalue()


def read(folder: Path, sha256: str | None = None) -> weights.Weights:
    return weights.read(folder, name="small", model_type="depth_anything", sha256=sha256)


def test_a_sound_file_is_hashed(tmp_path: Path) -> None:
    data = safetensors(HEADER, bytes(24))
    found = read(model(tmp_path, data))
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.config == {"model_type": "depth_anything"}
    assert read(tmp_path, sha256=found.sha256.upper()) == found


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (b"\x10\x00", "truncated"),
        (safetensors(HEADER, bytes(24))[:20], "truncated"),
        (safetensors(HEADER, bytes(23)), "truncated"),
        (safetensors(HEADER, bytes(25)), "truncated"),
        (safetensors([1], b""), "damaged header"),
        ((12).to_bytes(8, "little") + b"not json at all", "damaged header"),
        (safetensors({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 20]}}, bytes(20)), "24"),
        (safetensors({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "not described"),
        (safetensors({"a": 5}, b""), "not described"),
        (zipped_pickle(), "pickle"),
        *[(pickle.dumps({"a": 1}, protocol), "pickle") for protocol in (2, 3, 4, 5)],
    ],
)
def test_bad_tensor_files(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(errors.Misconfigured) as caught:
        read(model(tmp_path, data))
    assert caught.value.code == "MODEL_INVALID"
    assert words in str(caught.value)


@pytest.mark.parametrize("config", [{"model_type": "zoedepth"}, {}, [1]])
def test_another_architecture(tmp_path: Path, config: object) -> None:
    with pytest.raises(errors.Misconfigured) as caught:
        read(model(tmp_path, safetensors(HEADER, bytes(24)), config))
    assert caught.value.code == "MODEL_INVALID"


def test_another_hash(tmp_path: Path) -> None:
    with pytest.raises(errors.Misconfigured, match="sha256"):
        read(model(tmp_path, safetensors(HEADER, bytes(24))), sha256="0" * 64)


def test_a_pickle_beside_a_config_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(zipped_pickle())
    with pytest.raises(errors.Misconfigured) as caught:
        weights.locate(weights.find("small"), folder=folder, download=False)
    assert caught.value.code == "MODEL_INVALID"
    assert "pytorch_model.bin is a pickle" in str(caught.value)


def test_a_missing_model_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(errors.Misconfigured) as caught:
        weights.locate(weights.find(None), folder=tmp_path, download=False)
    assert caught.value.code == "MODEL_MISSING"
    expected = "hf download depth-anything/Depth-Anything-V2-Small-hf config.json model.safetensors"
    assert f"{expected} --local-dir {tmp_path / 'small'}" in str(caught.value)


def test_a_folder_of_models_and_a_model_folder_both_serve(tmp_path: Path) -> None:
    inside = tmp_path / "small"
    inside.mkdir()
    model(inside, safetensors(HEADER, bytes(24)))
    assert weights.locate(weights.find("small"), folder=tmp_path, download=False) == inside
    assert weights.locate(weights.find("small"), folder=inside, download=False) == inside


def test_an_unknown_model() -> None:
    with pytest.raises(errors.Misconfigured, match="there are small"):
        weights.find("enormous")


def test_licences() -> None:
    assert weights.find(None).commercial
    for found in weights.MODELS.values():
        assert found.commercial == (found.licence == "Apache-2.0")
        if found.commercial:
            weights.check_licence(found, accepted=False)
            continue
        with pytest.raises(errors.Permanent, match=r"CC-BY-NC") as caught:
            weights.check_licence(found, accepted=False)
        assert caught.value.code == "LICENSE_NOT_ACCEPTED"
        weights.check_licence(found, accepted=True)


def test_the_page_lists_every_model() -> None:
    """docs/models.md says what the code refuses and accepts."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text()
    for found in weights.MODELS.values():
        assert f"| `{found.name}` | {found.repository} | {found.licence} | {found.parameters_millions} M |" in page
    free = {
        name
        for line in page.splitlines()
        if line.startswith(("| `ZoeD", "| `Any_V2_S"))
        for name in re.findall(r"`(\w+)`", line)
    }
    assert free == weights.IW3_FREE - {"NULL"}
    assert iw3.COMMIT in page
    assert all(f"`{method}`" in page for method in iw3.METHODS)


@pytest.mark.parametrize(
    ("engine", "model", "code"),
    [
        ("relief", None, None),
        ("depth-anything", None, None),
        ("depth-anything", "large", "LICENSE_NOT_ACCEPTED"),
        ("depth-anything", "enormous", "MODEL_MISSING"),
        ("iw3", None, None),
        ("iw3", "ZoeD_N:row_flow_v3", None),
        ("iw3", "Any_V2_L", "LICENSE_NOT_ACCEPTED"),
    ],
)
def test_what_a_planner_asks(engine: str, model: str | None, code: str | None) -> None:
    if code is None:
        weights.check(engine, model, accepted=False)
        return
    with pytest.raises(errors.StereoSpotError) as caught:
        weights.check(engine, model, accepted=False)
    assert caught.value.code == code
