"""For whom a connection counts: one address of the net, or nobody where many come through it.

Whoever has an IPv6 address has all of its /64. A reverse proxy stands for all of its clients, counts and times them
itself, and may itself read nothing for as long as one of them is slow; so neither is done here. On loopback each is
taken for one: whoever is no proxy there runs programs on this machine already.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
IPV6_PREFIX = 64


class Peers:
    """Decides about one address at a time; keeps nothing."""

    def __init__(self, proxies: Iterable[Network] = ()) -> None:
        self._proxies = (*LOOPBACK, *proxies)

    def counted(self, address: str) -> str | None:
        """What connections from `address`, as a socket names it, count for; None where they are not counted."""
        found = ipaddress.ip_address(address)
        mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        found = mapped or found  # a socket for both families names IPv4 clients ::ffff:a.b.c.d
        if any(found in network for network in self._proxies):
            return None
        if isinstance(found, ipaddress.IPv4Address):
            return str(found)
        return str(IPv6Network((int(found), IPV6_PREFIX), strict=False))
