"""Sounds whose form (rate, channels) a film's header cannot take from the source's: these are decoded for the film.

Broadcasts change the form of AAC on the way, where mp4, Matroska and HLS tell it once, so that packets of another one
decode nowhere; and a track that begins late is opened without a form. Runs in the jail.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import av
import av.error
import av.stream

from stereospot.media import adts
from stereospot.media.carried import known_layout, name_of
from stereospot.media.demuxing import packets
from stereospot.media.opener import CODEC_WHITELIST

LASTING_PACKETS = 8
"""A form of AAC that does not last so long is a damaged header."""


class Form(NamedTuple):
    """What a decoded sound is brought to."""

    sample_format: str
    layout: str
    rate: int


def may_be_needed(container: Any, request: dict[str, Any]) -> bool:
    """Whether an opened source has what `needed` reads it for, after which it has to be opened anew."""
    return any(_is_uncertain(container, stream) for stream in container.streams if stream.index in request["audio"])


def needed(container: Any, request: dict[str, Any]) -> dict[int, Form]:
    """The forms of such sounds by their index, the widest where it changes; one that never sounds has none.

    The container is read, to its end if it is a transport stream with AAC, else until late tracks have begun.
    """
    wanted = set(request["audio"])
    streams: dict[int, Any] = {}
    late: set[int] = set()
    for stream in container.streams:
        if stream.index in wanted and _is_uncertain(container, stream):
            stream.codec_context.options = {"codec_whitelist": CODEC_WHITELIST}
            streams[stream.index] = stream
            late |= set() if is_known(stream) else {stream.index}
        else:
            stream.discard = av.stream.Discard.all
    found: dict[int, Form] = {}
    changes = {index: Changes() for index, stream in streams.items() if name_of(stream) == "aac"}
    for packet in packets(container, list(streams.values())):
        index = packet.stream_index
        if index in changes:
            changes[index].add(bytes(packet))
        if index in late and (form := _heard(packet)) is not None:
            found[index] = form
            late.remove(index)
        if not late and not changes:
            break
    for index, change in changes.items():
        if len(change.lasting) > 1:
            form = found.get(index) or Form("fltp", "", streams[index].codec_context.sample_rate)
            found[index] = form._replace(layout=change.widest)
    return found


def is_known(stream: Any) -> bool:
    """Whether the opened source tells the form of a sound; what is no sound has none to tell."""
    context = stream.codec_context
    return stream.type != "audio" or context is None or bool(context.channels and context.sample_rate)


def _is_uncertain(container: Any, stream: Any) -> bool:
    return not is_known(stream) or (container.format.name == "mpegts" and name_of(stream) == "aac")


def _heard(packet: Any) -> Form | None:
    try:
        frames = packet.decode()
    except (av.error.FFmpegError, ValueError):
        return None
    return Form(frames[0].format.name, known_layout(frames[0].layout), frames[0].sample_rate) if frames else None


class Changes:
    """The forms of one track of AAC that last."""

    def __init__(self) -> None:
        self.lasting: set[bytes] = set()
        self._form: bytes | None = None
        self._count = 0

    def add(self, data: bytes) -> None:
        form = adts.form(data)
        if form is None:
            return
        self._count = self._count + 1 if form == self._form else 1
        self._form = form
        if self._count == LASTING_PACKETS:
            self.lasting.add(form)

    @property
    def widest(self) -> str:
        return max((adts.layout(form) for form in self.lasting), key=lambda name: av.AudioLayout(name).nb_channels)
