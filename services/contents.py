"""What a file is by its first bytes: never by its name.

The probe decides what is a film. This only tells at once, before ten gigabytes have been sent, what is plainly
something else: text (playlists and scripts among it), pictures, archives, documents, programs. Pure.
"""

from __future__ import annotations

LOOK_BYTES = 4096
"""How much of a file is looked at; formats that begin with a signature need far less."""

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ATOMS = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"pnot", b"uuid"})

_FILMS: tuple[tuple[bytes, str], ...] = (
    (b"FLV\x01", "flv"),
    (b"OggS", "ogg"),
    (_ASF, "asf"),
    (b"nut/multimedia container\0", "nut"),
    (b"DKIF", "ivf"),
    (b"\0\0\x01\xba", "mpeg"),
    (b"\0\0\x01\xb3", "mpeg"),
)

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"PK\x03\x04", "an archive"),
    (b"Rar!", "an archive"),
    (b"7z\xbc\xaf\x27\x1c", "an archive"),
    (b"\x1f\x8b", "an archive"),
    (b"\xfd7zXZ", "an archive"),
    (b"BZh", "an archive"),
    (b"%PDF", "a document"),
    (b"\xd0\xcf\x11\xe0", "a document"),
    (b"\x7fELF", "a program"),
)

_TYPES = {
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "avi": "video/x-msvideo",
    "ts": "video/mp2t",
    "flv": "video/x-flv",
    "ogg": "video/ogg",
    "asf": "video/x-ms-asf",
    "mpeg": "video/mpeg",
}


def container(head: bytes) -> str | None:
    """The container that the bytes begin, None where they do not tell."""
    if head[4:8] in _ATOMS:
        return "mov" if head[4:8] == b"ftyp" and head[8:10] == b"qt" else "mp4"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "webm" if b"webm" in head[:64] else "mkv"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    for size, first in ((188, 0), (192, 4), (204, 0)):
        if len(head) > first + size and head[first::size].count(0x47) == len(head[first::size]):
            return "ts"
    return next((name for start, name in _FILMS if head.startswith(start)), None)


def media_type(name: str | None) -> str:
    """The media type of a container."""
    return _TYPES.get(name or "", "application/octet-stream")


def refusal(head: bytes) -> str | None:
    """What the bytes plainly are instead of a film; None where they may be one."""
    if not head or container(head) is not None:
        return None
    for start, what in _OTHERS:
        if head.startswith(start):
            return what
    return "text" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return True
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut.
        return error.start >= len(head) - 3 and len(head) > 8
    return True
