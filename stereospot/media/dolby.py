"""Dolby Vision whose pictures only a Dolby decoder shows: told by its configuration record, since FFmpeg decodes them.

Profiles 7 and 8 have a base layer that is HDR10, HLG or SDR, and are converted as that. Profile 5 and AV1's 10.0 have
their own colour space, and their metadata is needed to leave it: as plain YUV they are green and violet. The record is
in the header of an mp4 and a Matroska. Source: Dolby Vision Streams Within the ISO Base Media File Format, 2.0, 3.1 and
3.2; Matroska's codec mappings, Block Additional Mapping.
"""

from __future__ import annotations

from collections.abc import Iterator

from stereospot.media import boxes, sniff
from stereospot.media.sniff import Read

_RECORDS = (b"dvcC", b"dvvC", b"dvwC")
_RECORD_BYTES = 24
_TRACK_ENTRY, _MAPPING, _MAPPING_TYPE, _MAPPING_DATA = 0xAE, 0x41E4, 0x41E7, 0x41ED


def has_no_base_layer(read: Read, size: int, kind: sniff.Family) -> bool:
    """Whether a track says that its pictures mean nothing without a Dolby decoder."""
    records = _mp4(read, size) if kind == "mov" else _matroska(read, size) if kind == "matroska" else iter(())
    return any(_is_alone(record) for record in records)


def _is_alone(record: bytes) -> bool:
    """dv_profile: seven bits behind the two bytes of the version; dv_bl_signal_compatibility_id: four bits."""
    if len(record) < 5:
        return False
    profile, compatibility = record[2] >> 1, record[4] >> 4
    return profile == 5 or (profile == 10 and compatibility == 0)


def _mp4(read: Read, size: int) -> Iterator[bytes]:
    for entry in sniff.sample_entries(read, size):
        for box in sniff.boxes(read, entry.body + boxes.VISUAL_HEADER, entry.end, limit=100):
            if box.kind in _RECORDS:
                yield read(box.body, min(_RECORD_BYTES, box.end - box.body))


def _matroska(read: Read, size: int) -> Iterator[bytes]:
    for start, end in sniff.matroska_fields(read, size, (_TRACK_ENTRY, _MAPPING)):
        kinds = [read(*span) for span in _spans(read, start, end, _MAPPING_TYPE, 8)]
        if any(kind in _RECORDS for kind in kinds):
            yield from (read(*span) for span in _spans(read, start, end, _MAPPING_DATA, _RECORD_BYTES))


def _spans(read: Read, start: int, end: int, field: int, most: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what the fields of an element hold, no more than so many bytes of each."""
    for body, stop in sniff.fields(read, start, end, (field,)):
        yield body, min(most, stop - body)
