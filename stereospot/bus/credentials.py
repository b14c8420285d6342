"""Who we are to a server, in nats-py's options; and its address in words, without what is secret in it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from stereospot.settings import Settings


def options(settings: Settings, servers: Sequence[str]) -> dict[str, Any]:
    """A token, a creds file, an nkey seed, or the user in the first URL.

    A server of a cluster names the others without any user: who connects to one of those needs it all the same.
    """
    found: dict[str, Any] = {}
    first = urlsplit(servers[0])
    if settings.nats_token is not None:
        found["token"] = settings.nats_token.get_secret_value()
    elif first.username and first.password:
        found |= {"user": first.username, "password": first.password}
    if settings.nats_creds is not None:
        found["user_credentials"] = str(settings.nats_creds)
    if settings.nats_nkey_seed is not None:
        found["nkeys_seed"] = str(settings.nats_nkey_seed)
    if settings.nats_tls_ca is not None:
        found["tls"] = ssl.create_default_context(cafile=str(settings.nats_tls_ca))
    return found


def addresses(servers: Sequence[str]) -> str:
    """The servers without the passwords that may be in their URLs."""
    return ", ".join(url.rpartition("@")[2].rpartition("//")[2] for url in servers)
