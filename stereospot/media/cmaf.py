"""One segment's pictures in, one CMAF fragment out: the last step of a converter.

    planes, pts --FragmentEncoder--> Fragment(init, media)

The init segment is made from the encoder's header alone, before any picture, so it is byte-identical for every
fragment of a job on every worker with the same build. The media segment is one `moof` + `mdat` that we write ourselves:
`tfdt` plus the sum of durations is the source's own presentation time (no B-frames, so decode order is presentation
order), and the last frame's duration reaches exactly to the next segment. The track's timescale is the denominator of
the source's time base; times are `(pts - origin) * numerator`, where the origin is 0 but for a film that begins before.

The pixels are our own, so this runs outside the jail. `write` holds the GIL only while it copies rows.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from stereospot import errors
from stereospot.media import boxes, encoders, signalling, threads
from stereospot.media.model import EncodeSpec
from stereospot.options import Codec

Planes = tuple[NDArray[Any], ...]

_INTRA = 1
"""AV_PICTURE_TYPE_I; with `forced-idr` the encoders make it an IDR."""

_MUXER = {"movflags": "empty_moov+default_base_moof+cmaf", "fflags": "+bitexact"}


@dataclass(frozen=True, slots=True)
class Fragment:
    """What a converter stores: `media` alone is the segment; `init` is shared by all of a generation."""

    init: bytes
    media: bytes
    init_sha256: str
    frames: int
    pts: list[int] = field(repr=False)


_calls: dict[int, float] = {}
"""When each thread that is inside an encoder went in."""


def call_seconds(thread: int) -> float:
    """How long a thread has been inside an encoder with one picture, or with its last ones; 0 where it is not."""
    since = _calls.get(thread)
    return 0.0 if since is None else time.monotonic() - since


class FragmentEncoder:
    """Encodes one segment; made fresh for each, so that nothing of one segment can leak into another.

    `write` and `finish` are called from one thread at a time; any thread will do.
    """

    def __init__(self, spec: EncodeSpec) -> None:
        self.spec = spec
        self._context, self.init = _open(spec)
        self._key_ticks = max(1, round(spec.key_seconds / spec.time_base))
        if spec.codec is Codec.SVTAV1 and spec.crf == 0 and spec.pixel_format.endswith("10le"):
            self._key_ticks = 1  # SVT-AV1 4.1: with 10 bits only intra frames are really lossless (measured)
        # Encoders take their own copy of a frame before they return, so one is enough for every picture that comes in
        # planes of another's; those that are drawn on a canvas are in a frame already.
        self._frame, self._rows = _frame(spec)
        self._canvases: dict[int, tuple[av.VideoFrame, Planes]] = {}
        self._pts: list[int] = []
        self._last_key = 0
        self._packets: list[tuple[int, bool, bytes]] = []

    def canvas(self) -> Planes:
        """Y, U, V of the spec's size, contiguous, to draw pictures on: `write` takes this very tuple without a copy."""
        frame, rows = _frame(self.spec)
        if not all(plane.flags.c_contiguous for plane in rows):
            return tuple(np.empty_like(plane, order="C") for plane in rows)
        self._canvases[id(rows)] = frame, rows
        return rows

    def write(self, planes: Sequence[NDArray[Any]], pts: int) -> None:
        """Encode one picture.

        planes: Y, U, V as [height, width] uint8, or uint16 for 10 bits, of the spec's size; any strides.
        pts: in ticks of the spec's time base, higher than the one before.
        """
        if self._pts and pts <= self._pts[-1]:
            raise ValueError(f"presentation times must increase: {pts} after {self._pts[-1]}")
        frame, own = self._canvases.get(id(planes), (self._frame, None))
        for target, plane in zip(self._rows, planes if own is None else (), strict=own is None):
            if plane.shape != target.shape or plane.dtype != target.dtype:
                raise ValueError(f"a plane is {plane.shape} {plane.dtype}, not {target.shape} {target.dtype}")
            np.copyto(target, plane)
        key = not self._pts or pts - self._last_key >= self._key_ticks
        if key:
            self._last_key = pts
        frame.pts = pts
        frame.pict_type = _INTRA if key else 0
        self._pts.append(pts)
        self._take(frame)

    def _take(self, frame: av.VideoFrame | None) -> None:
        thread = threading.get_ident()
        _calls[thread] = time.monotonic()
        try:
            packets = self._context.encode(frame)
        finally:
            del _calls[thread]
        for packet in packets:
            if packet.pts is None:
                raise errors.error("INTERNAL", f"{self.spec.codec} gave a packet without a time.")
            self._packets.append((packet.pts, packet.is_keyframe, bytes(packet)))

    def finish(self, end_pts: int) -> Fragment:
        """Flush the encoder; `end_pts` is where the last frame's duration ends: the next segment's first PTS."""
        if not self._pts:
            raise ValueError("a fragment holds at least one frame")
        if end_pts <= self._pts[-1]:
            raise ValueError(f"the segment ends at {end_pts}, before its last frame at {self._pts[-1]}")
        self._take(None)
        if [pts for pts, _, _ in self._packets] != self._pts or not self._packets[0][1]:
            raise errors.error(
                "INTERNAL",
                f"{self.spec.codec} took {len(self._pts)} frames and gave {len(self._packets)} packets.",
            )
        return Fragment(
            init=self.init,
            media=self._media(end_pts),
            init_sha256=hashlib.sha256(self.init).hexdigest(),
            frames=len(self._pts),
            pts=self._pts,
        )

    def _media(self, end_pts: int) -> bytes:
        scale, origin = self.spec.time_base.numerator, self.spec.origin
        # Decode times cannot be negative. Where a picture lies before the origin the offset carries the difference.
        shift = min(0, self._pts[0] - origin)
        ends = [*self._pts[1:], end_pts]
        samples: list[boxes.Sample] = []
        payload: list[bytes] = []
        for (pts, key, packet), end in zip(self._packets, ends, strict=True):
            data = _sample(packet, self.spec.codec)
            payload.append(data)
            samples.append(
                boxes.Sample((pts - origin - shift) * scale, shift * scale, (end - pts) * scale, len(data), key)
            )
        return boxes.write_fragment(samples, payload)


def _open(spec: EncodeSpec) -> tuple[av.VideoCodecContext, bytes]:
    """An open encoder with its init segment, which libavformat writes from the encoder's header."""
    chosen = encoders.settings(spec)
    file = io.BytesIO()
    options = {**_MUXER, "video_track_timescale": str(spec.time_base.denominator)}
    try:
        with av.open(file, "w", format="mp4", options=options) as container:
            stream = container.add_stream(chosen.name, rate=spec.rate)
            assert isinstance(stream, av.VideoStream)
            context = stream.codec_context
            encoders.configure(context, spec, chosen)
            stream.time_base = spec.time_base
            with threads.ordinary():
                container.start_encoding()
    except (av.error.FFmpegError, ValueError) as error:
        if spec.codec in encoders.HARDWARE and not encoders.usable(spec.codec):
            raise encoders.unavailable(spec.codec) from error
        raise errors.error("INVALID_OPTIONS", f"The encoder {chosen.name} refuses these settings: {error}") from error
    init, _ = boxes.split(file.getvalue())
    extra = signalling.hdr_boxes(spec.colour) + signalling.stereo_boxes(spec.layout, swapped=spec.swapped)
    return context, boxes.extend_sample_entry(init, extra)


def _frame(spec: EncodeSpec) -> tuple[av.VideoFrame, Planes]:
    """A frame of the encoder's, and its planes as arrays."""
    frame = av.VideoFrame(spec.width, spec.height, spec.pixel_format)
    frame.time_base = spec.time_base
    return frame, tuple(_rows(plane, spec) for plane in frame.planes)


def _rows(plane: Any, spec: EncodeSpec) -> NDArray[Any]:
    """A plane of a frame as a writable [height, width] array without the padding at the end of its rows."""
    kind = np.dtype(np.uint16 if spec.pixel_format.endswith("10le") else np.uint8)
    rows = np.frombuffer(plane, kind, count=plane.height * plane.line_size // kind.itemsize)
    return rows.reshape(plane.height, -1)[:, : plane.width]


def _sample(packet: bytes, codec: Codec) -> bytes:
    """A packet as a sample: NAL units with lengths in place of start codes; AV1 without temporal delimiters."""
    if codec is Codec.SVTAV1:
        return packet[2:] if packet.startswith(b"\x12\x00") else packet
    parts: list[bytes] = []
    start = packet.find(b"\0\0\1")
    while start >= 0:
        start += 3
        following = packet.find(b"\0\0\1", start)
        unit = packet[start:following] if following >= 0 else packet[start:]
        if following >= 0:
            unit = unit.rstrip(b"\0")  # the first zero of a four-byte start code; a NAL unit never ends with zero
        parts += (len(unit).to_bytes(4, "big"), unit)
        start = following
    return b"".join(parts)
