"""How the two sides of the jail talk: a frame is a kind, a JSON body and raw bytes, each with a bounded length.

Nothing is ever unpickled. Both sides refuse a frame that is over the bounds, so that a hostile child can neither make
the parent allocate without end nor smuggle an object into it.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Literal, NamedTuple

HEADER = struct.Struct(">BII")
MAX_BODY = 32 * 2**20
MAX_BLOB = 1 * 2**30

Kind = Literal[0, 1, 2]
MESSAGE: Kind = 0
END: Kind = 1
ERROR: Kind = 2

BLOCK = 2**20
"""Bytes of one ranged read; the unit of the caches on both sides."""

READ = struct.Struct(">Q")
"""A child's read request: the number of the block."""
READ_REPLY = struct.Struct(">i")
"""The parent's answer: how many bytes follow, or -1 when the source failed."""


class Message(NamedTuple):
    """One message: a JSON object, and bytes beside it where there are any."""

    body: dict[str, Any]
    blob: bytes = b""


class Closed(Exception):
    """The other side is gone."""


class Malformed(Exception):
    """The other side sent something that is no frame."""


def send(channel: socket.socket, kind: Kind, body: dict[str, Any], blob: bytes | memoryview = b"") -> None:
    """Send one frame; raises Closed."""
    text = json.dumps(body, separators=(",", ":")).encode()
    try:
        channel.sendall(HEADER.pack(kind, len(text), len(blob)) + text)
        if blob:
            channel.sendall(blob)
    except TimeoutError:
        raise
    except OSError as failure:  # the other side is gone, or ours was closed by another thread
        raise Closed from failure


def receive(channel: socket.socket) -> tuple[int, Message]:
    """Wait for one frame; raises Closed, Malformed, or TimeoutError of the socket."""
    kind, body_length, blob_length = HEADER.unpack(receive_exactly(channel, HEADER.size))
    if body_length > MAX_BODY or blob_length > MAX_BLOB:
        raise Malformed(f"frame of {body_length} + {blob_length} bytes")
    try:
        body = json.loads(receive_exactly(channel, body_length))
    except (ValueError, RecursionError) as failure:
        raise Malformed("no JSON") from failure
    if not isinstance(body, dict):
        raise Malformed("no JSON object")
    return kind, Message(body, bytes(receive_exactly(channel, blob_length)) if blob_length else b"")


def receive_exactly(channel: socket.socket, length: int) -> bytearray:
    """`length` bytes; raises Closed if the other side ends before."""
    data = bytearray(length)
    view = memoryview(data)
    filled = 0
    while filled < length:
        try:
            count = channel.recv_into(view[filled:])
        except ConnectionResetError as failure:
            raise Closed from failure
        if count == 0:
            raise Closed
        filled += count
    return data
