"""A film without its media: libavformat writes the headers of all tracks, tags and chapters once, in memory.

Every track gives one or a few packets, since some headers are made from them (AC-3, E-AC-3) and since libavformat
leaves out tracks that are empty. `film.header` then puts the real tables in place of the few samples.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

import av

from stereospot.media import boxes
from stereospot.media.carried import Carried

_NOT_COPIED = frozenset(
    ("major_brand", "minor_version", "compatible_brands", "encoder", "creation_time", "handler_name", "vendor_id",
     "duration", "rotate", "timecode", "variant_bitrate", "bps", "number_of_frames", "number_of_bytes", "stereo_mode",
     "_statistics_writing_app", "_statistics_writing_date_utc", "_statistics_tags"),
)  # fmt: skip
"""Tags that say something about the old file or the old stream; those of a language (`BPS-eng`) alike."""


def kept_tags(tags: dict[str, str]) -> dict[str, str]:
    """The tags that are still true of the film."""
    return {key: value for key, value in tags.items() if key.lower().partition("-")[0] not in _NOT_COPIED}


def track_tags(tags: dict[str, str]) -> dict[str, str]:
    """The same of one track. libavformat reads a track's title from mp4 and mov as `name`, and writes it nowhere so."""
    kept = kept_tags(tags)
    name = kept.pop("name", "")
    return kept if kept.get("title") or not name else kept | {"title": name}


def write(
    container: str,
    init: bytes,
    fragment: bytes,
    carried: Sequence[Carried],
    *,
    tags: dict[str, str],
    video_tags: dict[str, str],
    chapters: Sequence[dict[str, Any]],
    timescales: tuple[int, int],
) -> bytes:
    """The skeleton as a whole small file; `timescales` of the movie and of the video track.

    Raises ValueError or av.FFmpegError when libavformat refuses a track.
    """
    file = io.BytesIO()
    options = {
        "movie_timescale": str(timescales[0]),
        "video_track_timescale": str(timescales[1]),
        "fflags": "+bitexact",
        "avoid_negative_ts": "make_zero",
        "strict": "experimental",
    }
    with (
        av.open(io.BytesIO(init + fragment), "r") as sample,
        av.open(file, "w", format=container, options=options) as output,
    ):
        source = sample.streams.video[0]
        refused = container == "mov" and source.codec_context.codec.canonical_name == "av1"
        video: Any = _stand_in(output, source) if refused else output.add_stream_from_template(source, opaque=True)
        video.metadata.update(video_tags)
        streams = [one.template(output) for one in carried]
        for one, stream in zip(carried, streams, strict=True):
            describe(one.stream, stream)
        output.metadata.update(tags)
        if chapters:
            output.set_chapters(cast(Any, list(chapters)))
        first = next(packet for packet in sample.demux(source) if packet.size)
        first.pts = first.dts = 0
        first.stream = video
        output.mux(first)
        for one, stream in zip(carried, streams, strict=True):
            _mux_heads(output, one, stream)
    tracks = [video_tags, *(one.stream.metadata for one in carried)]
    return _with_languages(file.getvalue(), [tags.get("language", "und") for tags in tracks])


_UNSPECIFIED = b"\x7f\xff"


def _with_languages(data: bytes, languages: Sequence[str]) -> bytes:
    """Give tracks their languages that libavformat did not write: into a mov it writes those of the Macintosh alone.

    QuickTime reads three letters as mp4 has them, too: five bits each, from 0x60 (QuickTime File Format, Language Code
    Values; ISO/IEC 14496-12 8.4.2.3).
    """
    changed = bytearray(data)
    moov = boxes.find(data, "moov")
    tracks = [] if moov is None else [item for item in boxes.children(data, moov) if item.kind == b"trak"]
    for trak, language in zip(tracks, languages, strict=False):  # behind them is libavformat's track of chapters
        mdhd = boxes.find(data, "mdia/mdhd", trak)
        if mdhd is None or language == "und" or not re.fullmatch("[a-z]{3}", language):
            continue
        at = mdhd.body + (32 if data[mdhd.body] else 20)
        if data[at : at + 2] == _UNSPECIFIED:
            first, second, third = (ord(letter) - 0x60 for letter in language)
            struct.pack_into(">H", changed, at, first << 10 | second << 5 | third)
    return bytes(changed)


def _stand_in(output: Any, source: Any) -> Any:
    """libavformat refuses AV1 in mov, which players take: any codec will do, since the sample entry is replaced."""
    stream = output.add_mux_stream("mjpeg", width=source.width, height=source.height)
    stream.time_base = source.time_base
    return stream


def describe(source: Any, target: Any) -> None:
    """Language, title and the like, and what kind of track it is."""
    target.metadata.update(track_tags(source.metadata))
    target.disposition = source.disposition


def _mux_heads(output: Any, one: Carried, stream: Any) -> None:
    for number, head in enumerate(one.heads):
        copy = av.Packet(bytes(head))
        copy.time_base = Fraction(1, one.track.timescale)
        copy.pts = copy.dts = number * 1024
        copy.duration = 1024
        copy.is_keyframe = True
        copy.stream = stream
        output.mux(copy)
