"""Who we are to a server, in nats-py's options; its address in words, without what is secret in it; and a client that
says nothing secret to a server without TLS where TLS was asked for.

    STEREOSPOT_NATS_* ─> servers ─> addresses without users, and options with the user ─> SecureClient.connect
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import nats.errors
from nats.aio.client import Client

from stereospot import errors
from stereospot.settings import Settings

_JWT = re.compile(rb"BEGIN NATS USER JWT-*\n\S")
_SEED = re.compile(rb"BEGIN USER NKEY SEED-*\n(\S+)")


class SecureClient(Client):
    """nats-py's client, which by itself starts TLS only where the server demands it, whatever the address says.

    With `needs_tls` a server that has it is spoken to in TLS, and one that has not gets no CONNECT: nats-py says
    SecureConnWantedError to its error callback and goes to the next server, at the first connection and later.
    """

    needs_tls = False

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if self.needs_tls and initial_connection:
            server = self._current_server
            if not (info.get("tls_required") or info.get("tls_available")) or not server or server.uri.scheme == "ws":
                if self._transport is not None:
                    self._transport.close()  # nats-py only forgets it
                raise nats.errors.SecureConnWantedError
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)


def servers(settings: Settings) -> list[SplitResult]:
    """The addresses that the settings name; raises INVALID_SETTINGS, which shows none: passwords may be in them."""
    texts = (settings.nats_url or f"nats://127.0.0.1:{settings.nats_port}").split(",")
    found = [_read(text.strip()) for text in texts if text.strip()]
    schemes = {url.scheme for url in found}
    if not schemes or not (schemes <= {"nats", "tls"} or schemes <= {"ws", "wss"}):
        raise _unusable("NATS_URL", "addresses begin with nats:// or tls://, or all with ws:// or wss://")
    return found


def _read(text: str) -> SplitResult:
    try:
        url = urlsplit(text if "://" in text else f"nats://{text}")
        _ = url.port
    except ValueError:
        url = None
    if url is not None and url.hostname and "@" not in url.path + url.query + url.fragment:
        return url
    raise _unusable(
        "NATS_URL",
        "an address cannot be read; it is nats://user:password@host:port, and in user and password / is written %2F,"
        " # %23, ? %3F, @ %40, : %3A, % %25 and a comma %2C",
    )


def needs_tls(settings: Settings, urls: Sequence[SplitResult]) -> bool:
    """Whether TLS was asked for, which wss:// has by itself."""
    return any(url.scheme == "tls" or (settings.nats_tls_ca and url.scheme != "wss") for url in urls)


def bare(url: SplitResult) -> str:
    """The address without the user."""
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()


def addresses(urls: Sequence[SplitResult]) -> str:
    """The servers without the passwords that may be in their URLs."""
    return ", ".join(url.netloc.rpartition("@")[2] for url in urls)


def options(settings: Settings, urls: Sequence[SplitResult]) -> dict[str, Any]:
    """A token, a creds file, an nkey seed, or the user in the first URL that has one.

    A server of a cluster names the others without any user: who connects to one of those needs it all the same. Raises
    INVALID_SETTINGS for files that cannot be used: nats-py would say so in a traceback, or not at all.
    """
    found: dict[str, Any] = {}
    named = next((url for url in urls if url.username), None)
    if settings.nats_token is not None:
        found["token"] = settings.nats_token.get_secret_value()
    elif named is not None and named.password is not None:
        found |= {"user": unquote(named.username or ""), "password": unquote(named.password)}
    elif named is not None:
        found["token"] = unquote(named.username or "")
    if (path := settings.nats_creds) is not None:
        data = _bytes("NATS_CREDS", path)
        if b"\r" in data:  # which nats-py takes for a part of the seed
            raise _unusable("NATS_CREDS", f"{path} has Windows' line ends; write it with those of Unix")
        seed = _SEED.search(data)
        if seed is None or not _JWT.search(data):
            raise _unusable("NATS_CREDS", f"{path} is not a creds file: it needs a user's JWT and seed")
        _check_seed("NATS_CREDS", path, seed[1])
        found["user_credentials"] = str(path)
    if (path := settings.nats_nkey_seed) is not None:
        _check_seed("NATS_NKEY_SEED", path, _bytes("NATS_NKEY_SEED", path).strip())
        found["nkeys_seed"] = str(path)
    if (path := settings.nats_tls_ca) is not None:
        try:
            found["tls"] = ssl.create_default_context(cafile=str(path))
        except OSError as error:
            raise _unusable("NATS_TLS_CA", f"{path}: {error.strerror or error}") from error
    return found


def _bytes(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(name, f"{path}: {error.strerror or error}") from error


def _check_seed(name: str, path: Path, seed: bytes) -> None:
    import nkeys  # with its library of ciphers, which few need

    try:
        nkeys.from_seed(bytearray(seed)).wipe()
    except (nkeys.NkeysError, ValueError) as error:
        raise _unusable(name, f"{path} holds no seed of a user (SU…)") from error


def _unusable(name: str, reason: str) -> errors.StereoSpotError:
    return errors.error("INVALID_SETTINGS", f"STEREOSPOT_{name}: {reason}.")
