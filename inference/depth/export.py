"""Depth written out: what the warp used, as a film of 16-bit grey pictures (FFV1 in Matroska), lossless.

    codes of a segment ─ Writer ─> part;    parts in order ─ join ─> depth.mkv

Pictures have the size of the disparity grid. Given back to a job as its depth they make the same film, bit for bit.
Every picture stands alone, and pictures count: the times are those of a film at a constant rate.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

_OPTIONS = {"level": "3", "g": "1", "slicecrc": "1"}
_NARROW = {"level": "1", "g": "1"}
"""For pictures of one column: FFV1 of level 3 cuts them into slices, two beside each other at least."""
_MUXER = {"fflags": "+bitexact"}


class Writer:
    """The part of one segment; not thread-safe."""

    def __init__(self, columns: int, rows: int, rate: Fraction) -> None:
        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format="matroska", options=_MUXER)
        self._stream = self._container.add_stream("ffv1", rate=rate, options=_OPTIONS if columns > 1 else _NARROW)
        self._stream.width, self._stream.height, self._stream.pix_fmt = columns, rows, "gray16le"
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.time_base = 1 / rate
        self._count = 0

    def write(self, codes: NDArray[np.uint16]) -> None:
        """Add a picture: [rows, columns] uint16, 0 far to 65535 near."""
        frame = av.VideoFrame(self._stream.width, self._stream.height, "gray16le")
        plane: Any = frame.planes[0]
        np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)[: codes.shape[0], : codes.shape[1]] = codes
        frame.pts, frame.time_base = self._count, 1 / self._stream.codec_context.framerate
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """The part, a film by itself."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()


def join(parts: Iterable[bytes], path: Path, rate: Fraction) -> int:
    """Write the film of all parts to `path`, without decoding anything; returns the number of pictures. Blocking."""
    count = 0
    with av.open(str(path), "w", format="matroska", options=_MUXER) as out:
        stream: Any = None
        for part in parts:
            with av.open(io.BytesIO(part), "r") as container:
                source = container.streams.video[0]
                stream = stream or out.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.size == 0:
                        continue
                    packet.stream = stream
                    packet.time_base = 1 / rate
                    packet.pts = packet.dts = count
                    packet.duration = 1
                    out.mux(packet)
                    count += 1
    return count
