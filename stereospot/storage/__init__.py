"""Where media bytes live: `open_store(settings)` gives the `ObjectStore` that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stereospot.storage.base import ObjectInfo, ObjectStore

if TYPE_CHECKING:
    from stereospot.settings import Settings

__all__ = ["ObjectInfo", "ObjectStore", "open_store"]


def open_store(settings: Settings) -> ObjectStore:
    """The store of this process. Nothing is opened before the first call; `close()` it at the end."""
    # A local store must not pay the second that importing an S3 client takes.
    if settings.storage == "local":
        from stereospot.storage.local import LocalStore

        return LocalStore(settings.storage_dir)
    from stereospot.storage.s3 import S3Store

    return S3Store(
        settings.s3_bucket,
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        access_key=settings.s3_access_key.get_secret_value() if settings.s3_access_key else None,
        secret_key=settings.s3_secret_key.get_secret_value() if settings.s3_secret_key else None,
        prefix=settings.s3_prefix,
    )
