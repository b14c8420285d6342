"""QR codes as inline SVG, for the way from a screen into a headset. Pure."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import segno
from markupsafe import Markup

from services.gateway.access import LOOPBACK


def code(address: str) -> Markup:
    """`address` as an SVG of dark squares on nothing: the page lays white paper under it."""
    return Markup(
        segno.make(address, error="m", micro=False).svg_inline(scale=4, border=4, svgclass="qr", omitsize=True)
    )


def reaches_others(address: str) -> bool:
    """Whether another device can open an address; loopback names mean each device itself."""
    return (urlsplit(address).hostname or "").lower() not in LOOPBACK


def app_links(address: str) -> list[tuple[str, str]]:
    """(name, link) of players that take an address from a page, as their makers document it."""
    encoded = quote(address, safe="")
    scheme, _, rest = address.partition("://")
    return [
        ("A player on this headset (Android)", f"intent://{rest}#Intent;scheme={scheme};type=video/*;action=android.intent.action.VIEW;end"),
        ("VLC on iPhone and iPad", f"vlc-x-callback://x-callback-url/stream?url={encoded}"),
        ("Infuse", f"infuse://x-callback-url/play?url={encoded}"),
        ("IINA on a Mac", f"iina://weblink?url={encoded}"),
    ]  # fmt: skip
