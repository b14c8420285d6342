"""The socket that people and programs connect to, bound before anything starts: a taken port is said at once."""

from __future__ import annotations

import socket

from stereospot import errors

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, port 0 for a free one; raises PORT_TAKEN."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off for such sockets only; with it, each answer
    # whose head and body are two writes waits 40 ms for the other side's delayed acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as problem:
        bound.close()
        raise errors.error("PORT_TAKEN", f"{host}:{port}: {problem.strerror}.") from problem
    return bound
