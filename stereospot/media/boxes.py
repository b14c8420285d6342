"""The little of ISO base media files (ISO/IEC 14496-12) that is read, written and patched by hand.

Everything here works on bytes of our own making: fragments and init segments of `cmaf` and `audio`, the tables of
`film`. What strangers send is parsed by libavformat, in the jail. Times are integers in the track's timescale.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SYNC = 0x02000000
"""Sample flags of a frame that decodes alone (sample_depends_on = 2)."""
NOT_SYNC = 0x01010000
"""Sample flags of a frame that needs others (sample_depends_on = 1, sample_is_non_sync_sample)."""

_VISUAL = {b"avc1", b"avc3", b"hvc1", b"hev1", b"av01", b"vp09", b"vp08", b"mp4v", b"jpeg", b"apch", b"apcn"}
VISUAL_HEADER = 78
"""Bytes that a visual sample entry has before its boxes."""
_AUDIO_HEADER = 28


@dataclass(frozen=True, slots=True)
class Box:
    """Where a box lies: `start` of its header, `body` of its content, `end` after it."""

    kind: bytes
    start: int
    body: int
    end: int


def box(kind: bytes, *content: bytes) -> bytes:
    """A whole box; content beyond 4 GiB is not meant to go through here."""
    size = 8 + sum(map(len, content))
    return b"".join((struct.pack(">I", size), kind, *content))


def full_box(kind: bytes, version: int, flags: int, *content: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


def walk(data: bytes | memoryview, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes from `start` to `end`, one level; stops at what is not a whole box."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, body)
            body = start + 16
        elif size == 0:
            size = end - start
        if size < body - start or start + size > end:
            return
        yield Box(kind, start, body, start + size)
        start += size


def children(data: bytes | memoryview, parent: Box) -> Iterator[Box]:
    """The boxes inside `parent`, past the fixed fields that some parents have before them."""
    skip = {b"stsd": 8, b"dref": 8, b"meta": 4}.get(parent.kind, 0)
    if parent.kind in _VISUAL:
        skip = VISUAL_HEADER
    return walk(data, parent.body + skip, parent.end)


def find(data: bytes | memoryview, path: str, within: Box | None = None) -> Box | None:
    """The first box at a path like `moov/trak/mdia`."""
    found = within
    for name in path.split("/"):
        level = walk(data) if found is None else children(data, found)
        found = next((item for item in level if item.kind == name.encode()), None)
        if found is None:
            return None
    return found


def split(data: bytes) -> tuple[bytes, bytes]:
    """(init, media) of a fragmented file: `ftyp` and `moov`, then every `moof` and `mdat`; nothing else is kept."""
    parts: dict[bool, list[bytes]] = {True: [], False: []}
    for item in walk(data):
        if item.kind in (b"ftyp", b"moov", b"moof", b"mdat"):
            parts[item.kind in (b"ftyp", b"moov")].append(data[item.start : item.end])
    return b"".join(parts[True]), b"".join(parts[False])


# ---- fragments -------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Sample:
    """One access unit of a fragment; presentation time is `time + offset`."""

    time: int
    offset: int
    duration: int
    size: int
    key: bool
    position: int = 0
    """Where its bytes start in the media segment."""


def write_fragment(samples: Sequence[Sample], payload: Sequence[bytes], track: int = 1) -> bytes:
    """`moof` + `mdat` of one run of samples, with the decode time of the first in `tfdt`."""
    offsets = any(sample.offset for sample in samples)
    rows = bytearray()
    for sample in samples:
        rows += struct.pack(">III", sample.duration, sample.size, SYNC if sample.key else NOT_SYNC)
        if offsets:
            rows += struct.pack(">i", sample.offset)
    flags = 0x701 | (0x800 if offsets else 0)

    def moof(data_offset: int) -> bytes:
        return box(
            b"moof",
            full_box(b"mfhd", 0, 0, struct.pack(">I", 1)),
            box(
                b"traf",
                full_box(b"tfhd", 0, 0x020000, struct.pack(">I", track)),
                full_box(b"tfdt", 1, 0, struct.pack(">Q", samples[0].time)),
                full_box(b"trun", 1, flags, struct.pack(">Ii", len(samples), data_offset), bytes(rows)),
            ),
        )

    head = moof(len(moof(0)) + 8)
    size = 8 + sum(map(len, payload))
    return b"".join((head, struct.pack(">I4s", size, b"mdat"), *payload))


def read_fragment(media: bytes | memoryview) -> list[Sample]:
    """The samples of a media segment of one track (one or more `moof` + `mdat` with default-base-is-moof)."""
    samples: list[Sample] = []
    for moof in walk(media):
        if moof.kind == b"moof":
            for traf in children(media, moof):
                if traf.kind == b"traf":
                    samples += _read_traf(media, moof.start, traf)
    return samples


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What a track fragment's header says of all its samples that say nothing of it themselves."""

    duration: int = 0
    size: int = 0
    flags: int = 0


def _read_traf(media: bytes | memoryview, base: int, traf: Box) -> Iterator[Sample]:
    """The samples of a track's fragment; base: where the `moof` begins that it lies in."""
    defaults, time = _Defaults(), 0
    for item in children(media, traf):
        if item.kind == b"tfhd":
            defaults = _read_tfhd(media, item)
        elif item.kind == b"tfdt":
            time = _read_tfdt(media, item)
        elif item.kind == b"trun":
            for sample in _read_trun(media, base, item, defaults, time):
                yield sample
                time = sample.time + sample.duration


def _read_tfhd(media: bytes | memoryview, header: Box) -> _Defaults:
    (flags,) = struct.unpack_from(">I", media, header.body)
    at = header.body + 8  # version and flags, track
    at += 8 if flags & 0x1 else 0  # a base that is not the `moof`
    at += 4 if flags & 0x2 else 0  # which sample entry
    values: list[int] = []
    for bit in (0x8, 0x10, 0x20):
        value = 0
        if flags & bit:
            (value,) = struct.unpack_from(">I", media, at)
            at += 4
        values.append(value)
    return _Defaults(*values)


def _read_tfdt(media: bytes | memoryview, item: Box) -> int:
    """The decode time of the first sample: of 64 bits in version 1, of 32 in version 0."""
    (version,) = struct.unpack_from(">B", media, item.body)
    (time,) = struct.unpack_from(">Q" if version else ">I", media, item.body + 4)
    return int(time)


def _read_trun(media: bytes | memoryview, base: int, run: Box, defaults: _Defaults, time: int) -> Iterator[Sample]:
    """The samples of one run, which begins at `time`."""
    told, count = struct.unpack_from(">II", media, run.body)
    at = run.body + 8
    position = base
    if told & 0x1:
        position += struct.unpack_from(">i", media, at)[0]
        at += 4
    first_flags: int | None = None
    if told & 0x4:
        (first_flags,) = struct.unpack_from(">I", media, at)
        at += 4
    for index in range(count):
        # The fields that each sample may have of its own, by their flag and in their order.
        row = {0x100: defaults.duration, 0x200: defaults.size, 0x400: defaults.flags, 0x800: 0}
        for bit in row:
            if told & bit:
                (row[bit],) = struct.unpack_from(">i" if bit == 0x800 else ">I", media, at)
                at += 4
        if index == 0 and first_flags is not None:
            row[0x400] = first_flags
        yield Sample(time, row[0x800], row[0x100], row[0x200], not row[0x400] & 0x10000, position)
        time += row[0x100]
        position += row[0x200]


# ---- sample entries --------------------------------------------------------------------------------------
def sample_entry(data: bytes, track: int = 0) -> tuple[list[Box], Box] | None:
    """The first sample entry of the `track`-th track, with its parents from `moov` down."""
    moov = find(data, "moov")
    if moov is None:
        return None
    traks = [item for item in children(data, moov) if item.kind == b"trak"]
    if track >= len(traks):
        return None
    parents = [moov, traks[track]]
    for name in ("mdia", "minf", "stbl", "stsd"):
        found = find(data, name, parents[-1])
        if found is None:
            return None
        parents.append(found)
    entry = next(children(data, parents[-1]), None)
    return None if entry is None else (parents, entry)


def extend_sample_entry(data: bytes, extra: bytes, track: int = 0) -> bytes:
    """`data` with `extra` boxes at the end of a track's sample entry, sizes of all parents mended."""
    found = sample_entry(data, track)
    return _inserted(data, found[1].end, extra, (*found[0], found[1])) if found else data


def begin_later(init: bytes, ticks: int) -> bytes:
    """An init segment of one track whose second 0 is `ticks` behind the 0 of its fragments' decode times.

    An edit list of one edit without an end: what ISO/IEC 23000-19 (7.5.13) has for sound that begins before its film,
    and what players of fragments must know (W3C, ISO BMFF byte stream format, 3).
    """
    moov, trak, header = (find(init, path) for path in ("moov", "moov/trak", "moov/trak/tkhd"))
    if moov is None or trak is None or header is None:
        raise ValueError("no track")
    edit = full_box(b"elst", 0, 0, struct.pack(">IIiI", 1, 0, ticks, 1 << 16))
    return _inserted(init, header.end, box(b"edts", edit), (moov, trak))


def _inserted(data: bytes, place: int, extra: bytes, parents: Sequence[Box]) -> bytes:
    """`data` with `extra` boxes at a place in `parents`, whose sizes are mended.

    For headers without media behind them (init segments, skeletons): chunk offsets are not moved.
    """
    patched = bytearray(data)
    patched[place:place] = extra
    for item in parents:
        (size,) = struct.unpack_from(">I", patched, item.start)
        struct.pack_into(">I", patched, item.start, size + len(extra))
    return bytes(patched)


def timescale(init: bytes, track: int = 0) -> int:
    """Ticks a second of a track (its `mdhd`)."""
    found = sample_entry(init, track)
    header = find(init, "mdhd", found[0][2]) if found else None
    if header is None:
        raise ValueError("no mdhd")
    version = init[header.body]
    (value,) = struct.unpack_from(">I", init, header.body + (20 if version else 12))
    return int(value)


def codec_string(init: bytes, track: int = 0) -> str:
    """The RFC 6381 `codecs` value of a track: avc1.PPCCLL, hvc1.…, av01.…, mp4a.40.2, or the plain fourcc."""
    found = sample_entry(init, track)
    if found is None:
        raise ValueError("no sample entry")
    entry = found[1]
    kind = entry.kind.decode("latin-1")
    header = VISUAL_HEADER if entry.kind in _VISUAL else _AUDIO_HEADER
    for item in walk(init, entry.body + header, entry.end):
        body = init[item.body : item.end]
        if item.kind == b"avcC":
            return f"{kind}.{body[1]:02X}{body[2]:02X}{body[3]:02X}"
        if item.kind == b"hvcC":
            return f"{kind}.{_hevc(body)}"
        if item.kind == b"av1C":
            return f"{kind}.{_av1(init, entry, body)}"
        if item.kind == b"esds":
            return f"{kind}.{_mpeg4_audio(body)}"
    return {"Opus": "opus", "fLaC": "flac"}.get(kind, kind)


def _hevc(config: bytes) -> str:
    """ISO/IEC 14496-15 annex E: profile space and id, compatibility (bits reversed), tier and level, constraints."""
    space = ("", "A", "B", "C")[config[1] >> 6]
    (compatibility,) = struct.unpack_from(">I", config, 2)
    reversed_bits = int(f"{compatibility:032b}"[::-1], 2)
    constraints = config[6:12].rstrip(b"\0")
    parts = [f"{space}{config[1] & 31}", f"{reversed_bits:X}", f"{'H' if config[1] & 32 else 'L'}{config[12]}"]
    return ".".join([*parts, *(f"{byte:X}" for byte in constraints)])


def _av1(init: bytes, entry: Box, config: bytes) -> str:
    """AV1 in ISOBMFF 5: profile.levelTier.depth, then monochrome.chroma.colour only where they are not the default."""
    profile, level, tier = config[1] >> 5, config[1] & 31, "H" if config[2] & 0x80 else "M"
    depth = (12 if config[2] & 0x20 else 10) if config[2] & 0x40 else 8
    text = f"{profile}.{level:02d}{tier}.{depth:02d}"
    colour = next((c for c in walk(init, entry.body + VISUAL_HEADER, entry.end) if c.kind == b"colr"), None)
    if colour is not None and init[colour.body : colour.body + 4] == b"nclx":
        primaries, transfer, matrix = struct.unpack_from(">HHH", init, colour.body + 4)
        full = init[colour.body + 10] >> 7
        if (primaries, transfer, matrix, full) != (1, 1, 1, 0) and 2 not in (primaries, transfer, matrix):
            subsampling = f"{config[2] >> 3 & 1}{config[2] >> 2 & 1}{config[2] & 3 if config[2] & 0xC == 0xC else 0}"
            text += f".0.{subsampling}.{primaries:02d}.{transfer:02d}.{matrix:02d}.{full}"
    return text


def _mpeg4_audio(esds: bytes) -> str:
    """`OTI` and, for MPEG-4 audio, the object type of the AudioSpecificConfig: 40.2 is AAC-LC."""
    at = 4
    oti, kind = 0, 0
    while at + 2 <= len(esds):
        tag, at = esds[at], at + 1
        length = 0
        while at < len(esds):
            byte, at = esds[at], at + 1
            length = length << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        if tag == 3:
            flags = esds[at + 2]
            at += 3 + (2 if flags & 0x80 else 0) + (2 if flags & 0x20 else 0)
            if flags & 0x40:
                at += 1 + esds[at]
        elif tag == 4:
            oti, at = esds[at], at + 13
        elif tag == 5 and length:
            kind = esds[at] >> 3
            if kind == 31:
                kind = 32 + ((esds[at] & 7) << 3 | esds[at + 1] >> 5)
            break
        else:
            at += length
    return f"{oti:02X}.{kind}" if kind else f"{oti:02X}"
