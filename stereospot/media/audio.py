"""Sound for playback while the pictures are still being converted: AAC fragments, cut where the segments are cut.

    source --child: demuxed once, AAC passed on, all else encoded--> AudioChunk… : per track an init, then 0, 1, 2, …

Every track becomes one unbroken run of AAC frames over the whole film, silence where the source has none, so that every
segment has a chunk of every track and a player never waits for sound that does not exist. `tfdt` counts as that of the
pictures does, but for a first frame that begins before 0: then an edit list in the init says by how much. The film
itself takes its sound from the source (`assemble`), not from here.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

from stereospot import errors
from stereospot.jail import Jail
from stereospot.media import boxes
from stereospot.media.limits import Limits
from stereospot.media.model import AudioTrack, Plan, PlanPart, SourceInfo
from stereospot.media.source import Source

PASSED_CHANNELS = (1, 2, 6)
"""What browsers play of AAC, which is passed on then."""


def chunk_channels(track: AudioTrack) -> int:
    """How many channels the chunks of a track have: what is not passed on becomes stereo."""
    return track.channels if track.codec == "aac" and track.channels in PASSED_CHANNELS else 2


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """`track` counts the source's audio tracks from 0; `index` is the segment, None for the track's init."""

    track: int
    index: int | None
    data: bytes = field(repr=False)


def cut(
    source: Source,
    info: SourceInfo,
    plan: Plan,
    parts: Iterable[PlanPart],
    *,
    origin: int | None = None,
    limits: Limits | None = None,
    stop: threading.Event | None = None,
) -> Generator[AudioChunk]:
    """The sound of segments, as it is read: per track first the init, then one chunk a segment in order; blocking.

    parts: of the plan, in order, with a segment each at least; the next one is taken when it is needed.
    origin: where the film begins, in ticks, if `parts` begin later. Then the source is sought, and there are no inits;
        a segment's chunk is the one that a cut from the beginning makes, byte for byte where its times are exact and
        its decoder gives the same after a seek. No chunk at all where the source does not let itself be sought, or its
        times are wrong.

    A track that cannot be decoded is silent. Raises what the source raises, CANCELLED, DECODER_CRASHED, DECODE_STALLED,
    CORRUPT_INPUT.
    """
    waiting = iter(parts)
    part = next(waiting, None)
    if not info.audio or part is None:
        return
    segments = list(part.segments)
    if plan.decode.synthesised and origin not in (None, segments[0].start):
        return  # the source's times do not tell where a segment lies
    limits = limits or Limits()
    request = limits.request() | {
        "audio": [track.stream_index for track in info.audio],
        "time_base": str(plan.encode.time_base),
        "video": info.video.stream_index,
        "origin": segments[0].start if origin is None else origin,
        "zero": plan.encode.origin,
        **_told(part),
    }
    following = [-1 if origin in (None, segments[0].start) else 0] * len(info.audio)
    whole = False
    with Jail("stereospot.media.audio_child:cut", request, sources=[source], limits=limits.jail(), stop=stop) as jail:
        for message in jail.messages():
            if "more" in message.body and not whole:
                part = next(waiting, None)
                whole = part is None
                segments += part.segments if part is not None else ()
                jail.send(_told(part))
                continue
            if "unable" in message.body and origin is not None:
                return
            track, index = message.body.get("track"), message.body.get("index")
            expected = following[track] if isinstance(track, int) and 0 <= track < len(following) else None
            kinds = [box.kind for box in boxes.walk(message.blob)]
            wanted = [b"ftyp", b"moov"] if index == -1 else [b"moof", b"mdat"]
            if expected is None or index != expected or kinds != wanted or expected >= len(segments):
                raise errors.error("CORRUPT_INPUT", "The sound came out in no order.")
            assert isinstance(track, int)
            following[track] += 1
            yield AudioChunk(track, None if index == -1 else segments[expected].index, message.blob)
    if any(count != len(segments) for count in following):
        raise errors.error("CORRUPT_INPUT", "The sound does not reach the end of the film.")


def _told(part: PlanPart | None) -> dict[str, Any]:
    """What the child is told of a part; of none that there are no more."""
    segments, resets = (part.segments, part.resets) if part is not None else ((), ())
    return {
        "starts": [segment.start for segment in segments],
        "ends": [segment.start + segment.duration for segment in segments],
        "resets": [item.row() for item in resets],
        "read": part.read if part is not None else None,
    }
