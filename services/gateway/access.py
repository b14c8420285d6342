"""Who needs a key: everybody who does not come from this machine itself.

On loopback, under a loopback name, nobody does: whoever can connect there runs programs here already, and other sites'
pages are kept out by the guard. Any other bind address, and any other name (a proxy's), needs the key of this data
folder: as `Authorization: Bearer <key>`, or once as `?key=<key>` in the browser, which keeps it in a cookie.
Playback addresses carry their own token, since players send neither headers nor cookies.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
from urllib.parse import parse_qsl, quote, urlencode

from services.gateway.tokens import load_secret
from stereospot.settings import Settings

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS = frozenset({"0.0.0.0", "::"})
COOKIE = "stereospot-key"
OPEN = ("/livez", "/readyz", "/favicon.ico", "/static/", "/v/")
"""What needs no key: health, the look of the page that asks for one, and what carries a token."""

_PATH = "/%!$&'()*+,;=:@"
"""What stays as it is in a path (RFC 3986, 3.3)."""


class Access:
    """Decides about one request at a time; keeps nothing."""

    def __init__(self, settings: Settings) -> None:
        self._bound_locally = settings.host.lower() in LOOPBACK
        self._key = access_key(settings)

    def needs_key(self, host: str, path: str) -> bool:
        """Whether a request to `path` under the host name `host` needs a key."""
        if path.startswith(OPEN):
            return False
        return not (self._bound_locally and host in LOOPBACK)

    def has_key(self, headers: dict[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_key(given.strip()):
            return True
        # Cookies know no ports: other servers of this host send theirs along, in forms that `http.cookies` stops at.
        cookies = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return any(name == COOKIE and self.is_key(value) for name, _, value in cookies)

    def is_key(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._key.encode())

    def entered(self, path: bytes, query: bytes, scheme: str) -> tuple[str, str] | None:
        """(where to go on, Set-Cookie) when an address of this scheme brings the right key along.

        path: as it was sent, percent signs and all: `%2F` in a name is not the `/` between two.
        """
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        if not any(name == "key" and self.is_key(value) for name, value in pairs):
            return None
        rest = urlencode([(name, value) for name, value in pairs if name != "key"])
        cookie = f"{COOKIE}={self._key}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000"
        if scheme == "https":
            cookie += "; Secure"
        # `//host/…` and `/\host/…` would lead to another site.
        return "/" + quote(path.lstrip(b"/"), safe=_PATH) + (f"?{rest}" if rest else ""), cookie


def access_key(settings: Settings) -> str:
    """The key of this data folder: derived from its secret, so that there is one file to keep. Blocking."""
    secret = load_secret(settings.data_dir / "gateway.secret")
    return hmac.digest(secret, b"access", hashlib.sha256)[:16].hex()


def entry_url(settings: Settings, path: str = "/") -> str:
    """The address of a page to open in a browser, with the key where one is needed. Blocking."""
    address = own_url(settings) + path
    local = settings.host.lower() in LOOPBACK and settings.public_url is None
    return address if local else f"{address}?key={access_key(settings)}"


def own_url(settings: Settings) -> str:
    """Where people reach the gateway, without a slash at its end."""
    scheme = "http" if settings.tls_certificate is None else "https"
    return (settings.public_url or f"{scheme}://{_shown(settings.host)}:{settings.port}").rstrip("/")


def _shown(host: str) -> str:
    if host in WILDCARDS:
        host = own_address(host)
    return f"[{host}]" if ":" in host else host


def own_address(wildcard: str) -> str:
    """Where others reach a server that listens on all addresses of this machine; loopback without a net."""
    family, away = (socket.AF_INET6, "2001:db8::1") if ":" in wildcard else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Connecting a datagram socket sends nothing: the kernel only chooses the way there.
            probe.connect((away, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return "localhost"
