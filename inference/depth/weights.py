"""Weights of learned depth models: which there are, under which licence, where they lie, and whether a file is sound.

    name ──> Model (licence asked first) ──> folder with config.json + model.safetensors ──> Weights (checked, hashed)

Only safetensors are read: a header of JSON and raw numbers. Pickles run code when they are opened and are refused by
their first bytes, whatever the file is called. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from stereospot import errors

CONFIG = "config.json"
TENSORS = "model.safetensors"

LARGEST_HEADER_BYTES = 100 << 20
"""The limit that the format's own reader keeps."""

_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x1f\x8b")
"""How torch's zip files, bare pickles of protocols 2 to 5 and gzipped ones begin."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model that an engine may load; `commercial` False means that its licence has to be accepted."""

    name: str
    engine: str
    repository: str
    licence: str
    commercial: bool
    parameters_millions: float
    note: str = ""


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("small", "depth-anything", "depth-anything/Depth-Anything-V2-Small-hf", "Apache-2.0", True, 24.8),
        Model("base", "depth-anything", "depth-anything/Depth-Anything-V2-Base-hf", "CC-BY-NC-4.0", False, 97.5),
        Model("large", "depth-anything", "depth-anything/Depth-Anything-V2-Large-hf", "CC-BY-NC-4.0", False, 335.3),
        Model("v1-small", "depth-anything", "LiheYoung/depth-anything-small-hf", "Apache-2.0", True, 24.8),
        Model("v1-base", "depth-anything", "LiheYoung/depth-anything-base-hf", "Apache-2.0", True, 97.5),
        Model("v1-large", "depth-anything", "LiheYoung/depth-anything-large-hf", "Apache-2.0", True, 335.3),
    )
}
"""Relative-depth models of the engine `depth-anything`; docs/models.md is the same list for people."""

DEFAULT = "small"


@dataclass(frozen=True, slots=True)
class Weights:
    """A sound pair of files: the architecture as its JSON says it, the tensors' path and sha256."""

    model: str
    config: dict[str, Any]
    tensors: Path
    sha256: str


def find(name: str | None) -> Model:
    """The model of that name (None: the default); raises Misconfigured("MODEL_MISSING") for an unknown one."""
    model = MODELS.get(name or DEFAULT)
    if model is None:
        raise errors.error("MODEL_MISSING", f"There is no model {name!r}; there are {', '.join(MODELS)}.")
    return model


def check_licence(model: Model, accepted: bool) -> None:
    """Raise Permanent("LICENSE_NOT_ACCEPTED") for a non-commercial model whose licence was not accepted."""
    if not model.commercial and not accepted:
        raise errors.error("LICENSE_NOT_ACCEPTED", f"{model.repository} is under {model.licence}.", model=model.name)


IW3_FREE = frozenset(
    {
        "NULL", "ZoeD_N", "ZoeD_K", "ZoeD_NK", "ZoeD_Any_N", "ZoeD_Any_K", "Any_S", "Any_B", "Any_L", "Any_V2_S",
        "Any_V2_N_S", "Any_V2_K_S", "Any_V3_Mono", "Any_V3_Mono_01", "Distill_Any_S",
    }
)  # fmt: skip
"""iw3's models under MIT or Apache-2.0; every other one has to be accepted."""


def check(engine: str, model: str | None, accepted: bool) -> None:
    """What a planner asks before it plans: is there such a model, and may it be used?

    Raises MODEL_MISSING for a name that no engine knows, LICENSE_NOT_ACCEPTED. Imports nothing and reads no file.
    """
    if engine == "depth-anything":
        check_licence(find(model), accepted)
    elif engine == "iw3":
        name = (model or "Any_V2_S").partition(":")[0]
        if name not in IW3_FREE and not accepted:
            raise errors.error("LICENSE_NOT_ACCEPTED", f"iw3 model {name} is under a licence of its own.", model=name)


def command(model: Model, folder: Path | None) -> str:
    """The command that brings the model to this machine."""
    place = f" --local-dir {folder / model.name}" if folder is not None else ""
    return f"hf download {model.repository} {CONFIG} {TENSORS}{place}"


def locate(model: Model, *, folder: Path | None = None, download: bool = True) -> Path:
    """The folder that holds the model's two files.

    `folder`/<name>, then `folder` itself, then the cache of the Hugging Face hub, then, with `download` and unless
    HF_HUB_OFFLINE is set, the hub. Raises Misconfigured("MODEL_MISSING") with the command that mends it.
    """
    if folder is not None:
        for place in (folder / model.name, folder):
            if (place / TENSORS).is_file() and (place / CONFIG).is_file():
                return place
            _refuse_pickles(place)
    missing = errors.error("MODEL_MISSING", f"{model.repository}. Run: {command(model, folder)}", model=model.name)
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as failure:
        raise missing from failure
    offline = not download or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    for local_only in (True,) if offline else (True, False):
        try:
            found = hub.snapshot_download(
                model.repository, allow_patterns=[CONFIG, TENSORS], local_files_only=local_only, etag_timeout=10
            )
        except Exception as failure:  # the hub's own error classes differ from release to release
            missing.__cause__ = failure
            continue
        place = Path(found)
        if (place / TENSORS).is_file() and (place / CONFIG).is_file():
            return place
    raise missing


def read(folder: Path, *, name: str, model_type: str, sha256: str | None = None) -> Weights:
    """Check the two files of `folder` and hash the tensors.

    Raises Misconfigured("MODEL_INVALID") for a truncated file, a pickle, a config of another architecture than
    `model_type`, or tensors that are not the ones that `sha256` promises.
    """
    tensors = folder / TENSORS
    if not tensors.is_file():
        _refuse_pickles(folder)
        raise errors.error("MODEL_MISSING", f"There is no {TENSORS} in the folder of {name}.", model=name)
    try:
        parsed: object = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as failure:
        raise _invalid(name, f"{CONFIG}: {failure}") from failure
    if not isinstance(parsed, dict):
        raise _invalid(name, f"{CONFIG} is not an object.")
    config = cast(dict[str, Any], parsed)
    if config.get("model_type") != model_type:
        raise _invalid(name, f"{CONFIG} describes {config.get('model_type')!r}, not {model_type!r}.")
    check_safetensors(tensors, name)
    digest = file_sha256(tensors)
    if sha256 is not None and digest != sha256.lower():
        raise _invalid(name, f"sha256 is {digest}, expected {sha256.lower()}.")
    return Weights(name, config, tensors, digest)


def check_safetensors(path: Path, name: str) -> None:
    """Check a file's header against its size; raises Misconfigured("MODEL_INVALID")."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head.startswith(_PICKLES):
            raise _invalid(name, f"{path.name} is a pickle, which may run code when opened; only safetensors are read.")
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length < 2 or length > min(LARGEST_HEADER_BYTES, size - 8):
            raise _invalid(name, f"{path.name} is truncated or is not a safetensors file ({size} bytes).")
        try:
            parsed: object = json.loads(file.read(length))
        except ValueError as failure:
            raise _invalid(name, f"{path.name} has a damaged header.") from failure
    if not isinstance(parsed, dict):
        raise _invalid(name, f"{path.name} has a damaged header.")
    end = 0
    for key, entry in cast(dict[str, Any], parsed).items():
        if key == "__metadata__":
            continue
        try:
            first, last = entry["data_offsets"]
            count = 1
            for extent in entry["shape"]:
                count *= int(extent)
            expected = count * _DTYPE_BITS[entry["dtype"]] // 8
        except (KeyError, TypeError, ValueError) as failure:
            raise _invalid(name, f"{path.name}: tensor {key!r} is not described.") from failure
        if last - first != expected:
            raise _invalid(name, f"{path.name}: tensor {key!r} has {last - first} bytes, its shape needs {expected}.")
        end = max(end, last)
    if end != size - 8 - length:
        raise _invalid(name, f"{path.name} is truncated: {size} bytes, its header promises {8 + length + end}.")


def file_sha256(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_pickles(folder: Path) -> None:
    """Say so where somebody has put a pickle: it is present, so MODEL_MISSING would mislead."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl") and path.is_file():
            raise _invalid(folder.name, f"{path.name} is a pickle, which may run code; only {TENSORS} is read.")


def _invalid(name: str, detail: str) -> errors.StereoSpotError:
    return errors.error("MODEL_INVALID", f"{name}: {detail}", model=name)
