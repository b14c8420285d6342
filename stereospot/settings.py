"""Every setting, from the environment (`STEREOSPOT_*`), a TOML file (`STEREOSPOT_CONFIG`), or its default.

`docs/settings.toml` is the annotated manual; a test holds it against this class.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from stereospot import cores, errors

GPU_ENGINES = frozenset({"depth-anything", "iw3"})
GPU_SLOTS = 2
"""One segment on the GPU while the other is decoded and encoded; each further one would hold memory there, too."""

NVIDIA = Path("/dev/nvidia0")
CONFIG = "STEREOSPOT_CONFIG"
"""The variable that names a file of settings."""


def default_data_dir() -> Path:
    """`$XDG_DATA_HOME/stereospot`, usually ~/.local/share/stereospot."""
    base = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local" / "share") / "stereospot"
    except RuntimeError as problem:
        raise errors.error("INVALID_SETTINGS", f"STEREOSPOT_DATA_DIR is not set: {problem}") from None


class Settings(BaseSettings):
    """Settings of one process."""

    model_config = SettingsConfigDict(env_prefix="STEREOSPOT_", env_ignore_empty=True, extra="ignore")

    data_dir: Path = Field(
        default_factory=default_data_dir, description="state of the embedded broker, local storage, caches"
    )
    roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="folders whose files may be submitted by path; in the environment a:b, or a JSON list"
    )

    # broker
    nats_url: str | None = Field(
        default=None, repr=False, description="use this server or cluster (comma-separated) instead of the embedded one"
    )
    nats_token: SecretStr | None = None
    nats_creds: Path | None = None
    nats_nkey_seed: Path | None = None
    nats_tls_ca: Path | None = None
    nats_port: int = Field(default=4666, description="loopback port of the embedded server")
    replicas: int | None = Field(
        default=None, ge=1, le=5, description="replicas of streams and buckets, 3 on a cluster; default: as they are"
    )

    # storage
    storage: Literal["local", "s3"] = "local"
    s3_bucket: str = "stereospot"
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None
    s3_prefix: str = ""
    s3_page_uploads: bool = Field(
        default=False, description="the page sends films straight to the bucket, whose CORS must let it PUT"
    )

    # gateway
    host: str = "127.0.0.1"
    port: int = Field(default=8666, ge=0, le=65535)
    public_url: str | None = Field(
        default=None, description="address under which people reach the gateway, if not host:port"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="further host names of the gateway; in the environment a,b, or a JSON list"
    )
    tls_certificate: Path | None = Field(
        default=None, description="PEM file of a certificate and its chain: the gateway speaks https itself"
    )
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's key, without a password")
    proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = Field(
        default=(),
        description="addresses or networks of proxies on other hosts, whose connections are neither counted nor timed; "
        "in the environment a,b, or a JSON list",
    )
    max_upload_bytes: int = 50 * 2**30

    # limits for the source
    max_pixels: int = Field(default=8192 * 8192, description="width x height of a decoded picture")
    max_duration_seconds: float = 12 * 3600
    max_streams: int = 64

    # work
    pool: str = "cpu"
    slots: int | None = Field(
        default=None,
        ge=1,
        description="segments at a time in this converter; default: half the cores, at least 1, and 2 on a GPU",
    )
    engine: str | None = Field(
        default=None,
        description="engine for jobs that name none; default relief, or cues where relief's file is missing",
    )
    ack_wait_seconds: float = Field(
        default=20.0,
        ge=1.0,
        description="a worker that is silent for so long loses its segment; counts where streams are provisioned",
    )
    max_attempts: int = Field(default=4, ge=1, description="tries of one message before it is dead-lettered")
    keep_fragments_days: float = Field(
        default=7.0, description="a finished film is streamed for so long (fragments go a day later); samples are kept"
    )
    sandbox: Literal["auto", "require", "off"] = "auto"
    jail_memory_bytes: int = 4 * 2**30

    # learned engines
    models_dir: Path | None = Field(
        default=None, description="folder of model folders, looked into before the hub is asked"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N; a GPU named here is never replaced")
    depth_dtype: Literal["float32", "bfloat16", "int8"] | None = Field(
        default=None, description="numbers of the depth network; default float32 on a CPU, bfloat16 on a GPU"
    )
    depth_every: int = Field(
        default=1, ge=1, le=8, description="infer each so manieth frame and carry the others by motion"
    )
    depth_batch: int | None = Field(default=None, ge=1, le=256, description="frames at a time on a GPU; default 16")

    # remote backends
    inference_url: str | None = Field(default=None, description="the server of the backend http")
    inference_token: SecretStr | None = None
    inference_timeout_seconds: float = Field(default=1200.0, description="for one segment, waiting included")
    inference_transport: Literal["inline", "storage"] = Field(
        default="inline", description="the video in the request itself, or by the shared storage"
    )
    inference_dialect: Literal["stereospot", "plain"] = Field(
        default="stereospot", description="plain: a foreign server that knows only input_uri, output_uri and mode"
    )
    sagemaker_endpoint: str | None = Field(default=None, description="name of the asynchronous endpoint")
    sagemaker_region: str = "us-east-1"
    sagemaker_url: str | None = Field(default=None, description="address of the API, where it is not AWS's own")

    # operation
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    metrics_port: int | None = Field(default=None, description="serve /metrics of a worker on this port")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get(CONFIG)
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if not path:
            return sources
        return (*sources, InitSettingsSource(settings_cls, _read(Path(path), settings_cls)))

    @field_validator("roots", mode="before")
    @classmethod
    def _folders(cls, value: object) -> object:
        return _listed(value, os.pathsep)

    @field_validator("allowed_hosts", "proxies", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return _listed(value, ",")

    @field_validator("roots")
    @classmethod
    def _roots_at_home(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(map(_expanded, value))

    @field_validator(
        "data_dir", "nats_creds", "nats_nkey_seed", "nats_tls_ca", "tls_certificate", "tls_key", "models_dir"
    )
    @classmethod
    def _at_home(cls, value: Path | None) -> Path | None:
        """`~` is written by hand in files and units, where no shell reads it."""
        return None if value is None else _expanded(value)

    @property
    def worker_slots(self) -> int:
        """As set; else two where the engine runs on a GPU, else half the cores."""
        return self.slots or (GPU_SLOTS if self._is_on_gpu else max(1, cores.available() // 2))

    @property
    def _is_on_gpu(self) -> bool:
        """Whether this worker's engine is one for GPUs, and the device one; asks no driver."""
        if self.pool != "gpu" and self.engine not in GPU_ENGINES:
            return False
        is_visible = NVIDIA.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")
        return self.device.startswith("cuda") or (self.device == "auto" and is_visible)

    def with_own_broker(self, url: str, token: str) -> Settings:
        """With the embedded server in place of whichever these name: what is said of a fleet's is not meant for it."""
        fleet = dict.fromkeys(("nats_creds", "nats_nkey_seed", "nats_tls_ca", "replicas"))
        return self.model_copy(update={**fleet, "nats_url": url, "nats_token": SecretStr(token)})

    @property
    def storage_dir(self) -> Path:
        return self.data_dir / "storage"

    @property
    def cache_dir(self) -> Path:
        return self.data_dir / "cache"


def load(**given: Any) -> Settings:
    """The settings of this process, with `given` on top of file and environment.

    Raises INVALID_OPTIONS for what is `given`, and for the rest INVALID_SETTINGS, which names the variable or the file.
    """
    try:
        return Settings(**given)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if name in given:
            raise errors.error("INVALID_OPTIONS", f"{name}: {first['msg']}.") from None
        raise errors.error("INVALID_SETTINGS", f"{_place(name)}: {first['msg']}.") from None


def _place(name: str) -> str:
    """Where the setting was given: the variable, or the file and the name in it."""
    variable = f"STEREOSPOT_{name.upper()}"
    path = os.environ.get(CONFIG)
    is_set = any(given.upper() == variable and value for given, value in os.environ.items())
    return f"{path}: {name}" if path and not is_set else variable


def _read(path: Path, settings_cls: type[BaseSettings]) -> dict[str, Any]:
    """What a file says; a name that is no setting is a mistake that nobody would see otherwise."""
    try:
        found = tomllib.loads(_expanded(path).read_text())
    except (OSError, ValueError) as problem:
        raise errors.error("INVALID_SETTINGS", f"{CONFIG} names {path}: {problem}.") from None
    for name in found:
        if name not in settings_cls.model_fields:
            like = difflib.get_close_matches(name, settings_cls.model_fields, 1)
            meant = f"; did you mean {like[0]}?" if like else "."
            raise errors.error("INVALID_SETTINGS", f"{path}: {name} is no setting{meant}")
    return found


def _expanded(path: Path) -> Path:
    """With the home that `~` or `~user` stands for; ValueError where there is none."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path} begins with the home of nobody: give the whole path") from None


def _listed(value: object, separator: str) -> object:
    """What the environment gives as one text: a JSON list, or items with a separator between them."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(separator) if item.strip()]
