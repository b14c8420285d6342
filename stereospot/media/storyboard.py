"""Small pictures of a film at even distances, for a player's scrubber: keyframes only, so a long film takes seconds.

    source ──jail: seek, decode one keyframe, shrink──> tiles ──> sheets (RGB) + WebVTT cues with #xywh=

The untrusted bytes stay in the jail; what leaves it are tiles of a size that was fixed before. A place is shown by the
keyframe at or before it, which is the picture that a seek to it would begin with in most players.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from stereospot.errors import error
from stereospot.jail import Cell, Jail
from stereospot.media import keyframes, opener
from stereospot.media.limits import Limits
from stereospot.media.model import DecodeSpec, SourceInfo
from stereospot.media.source import Source

LONGER_SIDE = 192
"""Pixels of a tile; sides are even."""

STILL_SIDE = 640
STILL_PLACES = (0.06, 0.12, 0.2, 0.3, 0.42, 0.55, 0.7)
"""Parts of a film where its poster may lie: not its first black, and not its end."""

COLUMNS, ROWS = 5, 5
MOST_TILES = 100
FEWEST_SECONDS = 2.0
"""Between two tiles of a short film."""

WALL_SECONDS = 120.0

_SMOOTH = Interpolation.AREA


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture for the seconds of film from `start` to `end`: [h, w, 3] uint8 RGB."""

    start: float
    end: float
    pixels: NDArray[np.uint8]


def tile_size(info: SourceInfo, longer_side: int = LONGER_SIDE) -> tuple[int, int]:
    """(width, height) of a tile, at the film's display aspect."""
    video = info.video
    wide, high = float(video.width * video.sample_aspect), float(video.height)
    scale = longer_side / max(wide, high)
    return max(2, round(wide * scale / 2) * 2), max(2, round(high * scale / 2) * 2)


def places(duration_seconds: float) -> list[float]:
    """Seconds of film at which tiles are taken: even distances, at most MOST_TILES."""
    step = max(FEWEST_SECONDS, duration_seconds / MOST_TILES)
    return [number * step for number in range(max(1, int(duration_seconds / step)))]


def tiles(
    source: Source,
    info: SourceInfo,
    spec: DecodeSpec,
    *,
    first_pts: int,
    duration_seconds: float,
    limits: Limits,
    wanted: Sequence[float] | None = None,
    longer_side: int = LONGER_SIDE,
    stop: threading.Event | None = None,
) -> list[Tile]:
    """One tile a place, in order; a place that does not decode shows the one before it. Blocking.

    first_pts: where the film's zero lies; wanted: places in seconds of film, `places` if not given. Raises what the
    jail raises; an empty list where nothing decodes.
    """
    wanted = places(duration_seconds) if wanted is None else wanted
    width, height = tile_size(info, longer_side)
    base = info.video.time_base
    targets = [first_pts + int(Fraction(seconds) / base) for seconds in wanted]
    # Damaged films and those whose times are made up are not sought in: they have a picture of their beginning.
    if spec.synthesised or spec.sequential:
        del targets[1:]
    request = {
        **limits.request(),
        "stream_index": spec.stream_index,
        "targets": targets,
        "width": width,
        "height": height,
        "turns": spec.rotation // 90 % 4,
        "mirrored": spec.mirrored,
        "crop": spec.crop,
        "coded": (info.video.coded_width, info.video.coded_height),
    }
    found: dict[int, NDArray[np.uint8]] = {}
    bounds = limits.jail(wall_seconds=WALL_SECONDS)
    with Jail("stereospot.media.storyboard:child", request, sources=[source], limits=bounds, stop=stop) as jail:
        for message in jail.messages():
            number = message.body.get("number")
            if not isinstance(number, int) or not 0 <= number < len(wanted):
                raise error("DECODER_CRASHED", "The child's picture makes no sense.")
            if len(message.blob) != width * height * 3:
                raise error("DECODER_CRASHED", "The child's picture has another size.")
            found[number] = np.frombuffer(message.blob, np.uint8).reshape(height, width, 3)
    ends = [*wanted[1:], duration_seconds]
    result: list[Tile] = []
    for number, (start, end) in enumerate(zip(wanted, ends, strict=True)):
        pixels = found.get(number, result[-1].pixels if result else None)
        if pixels is not None:
            result.append(Tile(start, end, pixels))
    return result


def still(
    source: Source, info: SourceInfo, spec: DecodeSpec, *, first_pts: int, duration_seconds: float, limits: Limits
) -> NDArray[np.uint8] | None:
    """The most telling of a few pictures of the film, [h, w, 3] RGB; None where nothing decodes. Blocking."""
    found = tiles(
        source, info, spec, first_pts=first_pts, duration_seconds=duration_seconds, limits=limits,
        wanted=[duration_seconds * part for part in STILL_PLACES], longer_side=STILL_SIDE,
    )  # fmt: skip
    return max((tile.pixels for tile in found), key=lambda pixels: float(pixels[::4, ::4].std()), default=None)


def sheets(found: Sequence[Tile]) -> Iterator[NDArray[np.uint8]]:
    """The tiles as sheets of COLUMNS x ROWS, [h, w, 3]; the last one is as high as it has to be."""
    if not found:
        return
    height, width = found[0].pixels.shape[:2]
    for first in range(0, len(found), COLUMNS * ROWS):
        part = found[first : first + COLUMNS * ROWS]
        sheet = np.zeros((-(-len(part) // COLUMNS) * height, COLUMNS * width, 3), np.uint8)
        for number, tile in enumerate(part):
            row, column = divmod(number, COLUMNS)
            sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile.pixels
        yield sheet


def cues(found: Sequence[Tile], address: str = "storyboard/{}.jpg") -> str:
    """WebVTT: where each tile lies on its sheet; `address` is relative to the text's own."""
    lines = ["WEBVTT", ""]
    for number, tile in enumerate(found):
        height, width = tile.pixels.shape[:2]
        sheet, place = divmod(number, COLUMNS * ROWS)
        row, column = divmod(place, COLUMNS)
        box = f"#xywh={column * width},{row * height},{width},{height}"
        lines += [f"{_clock(tile.start)} --> {_clock(tile.end)}", address.format(sheet) + box, ""]
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


# ---- inside the jail ----------------------------------------------------------------------------------------------


def child(cell: Cell, request: dict[str, Any]) -> None:
    """One message a place: its number, and the tile's RGB bytes; a place that has no keyframe is left out."""
    with opener.opened(cell.source, request) as container:
        stream = opener.video_stream(container, request["stream_index"])
        opener.prepare(stream, request, "none", 1)
        known: tuple[int | None, bytes] | None = None
        for number, target in enumerate(request["targets"]):
            frame = keyframes.keyframe(container, stream, target)
            if frame is None:
                continue
            if known is None or frame.pts is None or known[0] != frame.pts:
                known = (frame.pts, _shrunk(frame, request))
            cell.send({"number": number}, known[1])


def _shrunk(frame: VideoFrame, request: dict[str, Any]) -> bytes:
    """A tile's RGB bytes, upright."""
    width, height = request["width"], request["height"]
    if request["turns"] % 2:
        width, height = height, width
    left, top, right, bottom = request["crop"]
    if left or top or right or bottom:
        # Of the size that the edges count in, and cut before it is scaled: of a large picture little may be left.
        across, down = request["coded"]
        whole: NDArray[Any] = frame.reformat(across, down, format="rgb24", interpolation=_SMOOTH).to_ndarray()
        shown: NDArray[Any] = np.ascontiguousarray(whole[top : down - bottom, left : across - right])
        frame = VideoFrame.from_ndarray(shown, format="rgb24")
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation=_SMOOTH)
    pixels: NDArray[Any] = small.to_ndarray()
    if request["mirrored"]:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, -request["turns"])).tobytes()
