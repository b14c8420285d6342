"""The jailed side of `subtitles.read`: cues of all text tracks in one pass, sent in batches."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av.error
import av.stream

from stereospot.jail import Cell
from stereospot.media.demuxing import packets
from stereospot.media.opener import CODEC_WHITELIST, opened
from stereospot.media.resets import Known, followed
from stereospot.media.subtitles import plain_text

_BATCH = 1000


def read(cell: Cell, request: dict[str, Any]) -> None:
    """Task: sends {stream, cues: [[start, end, text], …]}, times in milliseconds from the origin on."""
    origin = Fraction(request["origin"])
    wanted = set(request["subtitles"])
    held: dict[int, list[tuple[int, int, str]]] = {index: [] for index in wanted}
    with opened(cell.source, request) as container:
        streams: list[Any] = []
        every: list[Any] = list(container.streams)
        for stream in every:
            if stream.index in wanted and stream.codec_context is not None:
                stream.codec_context.options = {"codec_whitelist": CODEC_WHITELIST}
                streams.append(stream)
            else:
                stream.discard = av.stream.Discard.all
        known, time_base = Known(request["resets"]), Fraction(request["time_base"])
        for packet in followed(packets(container, streams), known, time_base):
            if packet.pts is not None:
                _add(cell, held, packet, origin)
    for index, cues in held.items():
        if cues:
            cell.send({"stream": index, "cues": cues})


def _add(cell: Cell, held: dict[int, list[tuple[int, int, str]]], packet: Any, origin: Fraction) -> None:
    try:
        text = plain_text(packet)
    except av.error.FFmpegError:
        return
    start = packet.pts * packet.time_base - origin
    end = start + (packet.duration or 0) * packet.time_base
    cues = held[packet.stream.index]
    if text:
        cues.append((max(0, round(start * 1000)), max(0, round(end * 1000)), text))
    if len(cues) >= _BATCH:
        cell.send({"stream": packet.stream.index, "cues": cues})
        cues.clear()
