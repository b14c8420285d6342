"""Who may ask at all, decided before any route: an ASGI layer around the application.

A browser lets every page on the web send requests to loopback. So a request must name a host that is ours (a page whose
own name was pointed at 127.0.0.1 does not), and one that changes something must come from our own pages: `Origin` and
`Sec-Fetch-Site` say where it comes from; programs send neither. Reading across sites is refused by the browser, since
no answer here carries CORS headers; cross-site embedding is refused by us.

The layer also names each request, counts it, sets the security headers, and serves HEAD by GET without the body; so
it is also what names HEAD beside GET in `Allow`.
"""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
import time
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from services.gateway.access import LOOPBACK, WILDCARDS, Access
from services.gateway.metrics import Metrics
from services.gateway.origins import Trust
from services.gateway.problems import PROBLEM, problem_body
from services.gateway.render import render, wants_html
from services.gateway.shortcut import Shortcut
from stereospot import errors, log
from stereospot.settings import Settings

_log = log.get("gateway")

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID = re.compile(r"^[A-Za-z0-9_-]{8,64}$")

POLICY = (
    "default-src 'self'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "media-src 'self' blob:",
    "worker-src 'self' blob:",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
)

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    # Not `no-referrer`: with that, forms say `Origin: null` to their own server (Fetch, 3.2), and are refused here.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), xr-spatial-tracking=(self)"),
)

ISOLATION = (b"cross-origin-opener-policy", b"same-origin")
"""Only where browsers heed it: of an address that they do not trust they say in the console that they ignore it."""


def policy(settings: Settings) -> str:
    """The content security policy. The bucket is named in it only where the page itself sends films there."""
    where = ["'self'"]
    if page_uploads(settings):
        endpoint = urlsplit(settings.s3_endpoint or "")
        where += (
            [f"{endpoint.scheme}://{endpoint.netloc}"]
            if endpoint.netloc
            else [f"https://{settings.s3_bucket}.s3.{part}amazonaws.com" for part in ("", f"{settings.s3_region}.")]
        )
    return "; ".join((*POLICY, f"connect-src {' '.join(where)}"))


def page_uploads(settings: Settings) -> bool:
    """Whether the page sends films straight to the store."""
    return settings.storage == "s3" and settings.s3_page_uploads


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Host names (no port) under which this gateway is reached."""
    names = {*LOOPBACK, settings.host.lower(), *(host.lower() for host in settings.allowed_hosts)}
    if settings.public_url:
        names.add((urlsplit(settings.public_url).hostname or "").lower())
    return frozenset(names - WILDCARDS - {""})


@lru_cache(maxsize=256)
def host_name(host: str) -> str | None:
    """The name of a Host header without its port; None for what is not one."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname.lower().rstrip(".") if parts.hostname else None


def is_address(name: str) -> bool:
    """Whether a host's name is an IP address: no page of another site can have that name turned to point here."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def refusal(method: str, headers: dict[str, str], hosts: frozenset[str], *, any_address: bool = False) -> str | None:
    """Why a request is refused, or None. `headers` have lower-case names.

    any_address: the server listens on all addresses, so all of them are its names.
    """
    host = headers.get("host", "")
    name = host_name(host)
    if name is None or (name not in hosts and not (any_address and is_address(name))):
        return f"The host {host[:100]!r} is not one of this server's names."
    site = headers.get("sec-fetch-site")
    if method in SAFE:
        embedded = site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate"
        return "Another site may link to this server, but not embed it." if embedded else None
    if site not in (None, "same-origin", "none"):
        return f"The request was sent by another site ({site})."
    origin = headers.get("origin")
    if origin is None:
        return None
    try:
        parts = urlsplit(origin)
    except ValueError:  # `http://[`
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or parts.netloc.lower() != host.lower():
        return f"The request was sent by {origin[:100]!r}."
    return None


class Guard:
    """The outermost ASGI layer."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, shortcut: Shortcut) -> None:
        self.app = app
        self.shortcut = shortcut
        self.hosts = allowed_hosts(settings)
        self.any_address = settings.host in WILDCARDS
        self.headers = ((b"content-security-policy", policy(settings).encode()), *HEADERS)
        self.trusted_headers = (*self.headers, ISOLATION)
        self.access = Access(settings)
        self.trust = Trust(settings.public_url)
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await self._serve(scope, receive, send)

    async def _serve(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else secrets.token_hex(8)
        extra: dict[str, Any] = scope  # type: ignore[assignment]
        extra["stereospot_request_id"] = request_id
        method = scope["method"]
        head = method == "HEAD"
        if head:
            extra["stereospot_head"] = True
            extra["method"] = "GET"
        begun = time.perf_counter()
        status = 500
        is_trusted = self.trust.has(scope["scheme"], host_name(headers.get("host", "")))
        own = self.trusted_headers if is_trusted else self.headers

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message["headers"]}
                added = [pair for pair in own if pair[0] not in present]
                message["headers"] = [*message["headers"], *added, (b"x-request-id", request_id.encode())]
                if b"allow" in present:
                    message["headers"] = [_with_head(*pair) for pair in message["headers"]]
            elif head and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        try:
            if (reason := refusal(method, headers, self.hosts, any_address=self.any_address)) is not None:
                await _refuse(scope, answer, errors.error("FORBIDDEN_ORIGIN", reason), request_id)
            elif (known := self.shortcut.find(scope)) is not None:
                # Its path carries the token: no key is asked for.
                extra["path_template"] = known.route
                await known.send(answer)
            elif await self._is_let_in(scope, headers, answer, request_id):
                await self.app(scope, receive, answer)
        finally:
            self.metrics.count(method, extra.get("path_template"), status, time.perf_counter() - begun)

    async def _is_let_in(self, scope: HTTPScope, headers: dict[str, str], send: Send, request_id: str) -> bool:
        """Whether the request may go on; if not, it is answered here: with a cookie, or with what is missing."""
        path = scope["path"]
        host = host_name(headers.get("host", "")) or ""
        if not self.access.needs_key(host, path) or self.access.has_key(headers):
            return True
        sent = scope.get("raw_path") or quote(path).encode()
        entered = (
            self.access.entered(sent, scope["query_string"], scope["scheme"]) if scope["method"] == "GET" else None
        )
        if entered is None:
            await _refuse(scope, send, errors.error("KEY_REQUIRED"), request_id)
            return False
        location, cookie = entered
        found = [(b"location", location.encode()), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 303, "headers": found})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return False


def _with_head(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A header, with HEAD where it is `Allow` and names GET."""
    named = set(value.split(b", "))
    is_served = name.lower() == b"allow" and b"GET" in named
    return name, b", ".join(sorted(named | {b"HEAD"})) if is_served else value


def _asked(scope: HTTPScope) -> list[tuple[str, str]] | None:
    """The query that was asked with, without a key, which the form for the key sends once more.

    None for what only came once, like a form with a film: behind its address is no page to come back to.
    """
    if scope["method"] not in SAFE:
        return None
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return [(name, value) for name, value in pairs if name != "key"]


async def _refuse(scope: HTTPScope, send: Send, error: errors.StereoSpotError, request_id: str) -> None:
    _log.warning("refused", action="refuse", code=error.code, reason=error.detail, path=scope["path"])
    described = problem_body(error, request_id, scope["path"])
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"").decode("latin-1")
    if wants_html(accept):
        text = render("problem.html", problem=described, here="", asked=_asked(scope))
        body, kind = text.encode(), b"text/html; charset=utf-8"
    else:
        body, kind = json.dumps(described).encode(), PROBLEM.encode()
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    if error.entry.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="StereoSpot"'))
    await send({"type": "http.response.start", "status": error.entry.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
