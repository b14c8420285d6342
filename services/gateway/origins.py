"""What a browser takes for trustworthy: https, and this machine itself. Elsewhere it has no VR and no clipboard."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit


@lru_cache(maxsize=256)
def is_trustworthy(scheme: str, name: str | None) -> bool:
    """Whether pages under this scheme and host name are a secure context (W3C Secure Contexts, 3.1). Pure."""
    if scheme == "https":
        return True
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_trustworthy_address(address: str) -> bool:
    """The same of a whole address. Pure."""
    parts = urlsplit(address)
    return is_trustworthy(parts.scheme, parts.hostname)


class Trust:
    """Whether a browser trusts what it is answered here.

    A proxy that takes https for us may not say so: `public_url` does, for the host that it names.
    """

    def __init__(self, public_url: str | None) -> None:
        parts = urlsplit(public_url or "")
        self._scheme, self._name = parts.scheme, parts.hostname

    def has(self, scheme: str, name: str | None) -> bool:
        return is_trustworthy(self._scheme if name is not None and name == self._name else scheme, name)
