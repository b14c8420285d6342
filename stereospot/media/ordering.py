"""Inside the jail: whether a film's times are good but for their order, as in an AVI whose frames are reordered.

Such a file has a time for every frame, all of them different: it counts its packets as they lie, and the places between
them that it left empty. Those keep the pictures with the sound, and frames that are counted lose them. `times.Order`
gives the times out in the order of showing; a film is told by it if its first frames come out right.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from stereospot.jail import Cell
from stereospot.media import opener, packets, scanning
from stereospot.media.times import LONGEST_WAIT, Order, follows, longest_pause


def child(cell: Cell, request: dict[str, Any]) -> None:
    """Messages {"reordered": bool}: signs of life that say no, then the answer."""
    with opener.opened(cell.source, request) as container:
        stream = opener.video_stream(container, request["stream_index"])
        opener.prepare(stream, request, request["thread_type"], request["thread_count"])
        pause = longest_pause(stream.time_base)
        order = Order()
        own: list[int] = []
        ordered: list[int | None] = []
        until: int | None = None
        for frame in packets.raw_frames(container, stream, order.packet):
            if frame.pts is None:
                return
            if until is None and not follows(frame.pts, own[-1] if own else None, pause):
                until = len(own) + 1 + scanning.LOOKED_AT_FRAMES
            own.append(frame.pts)
            ordered.append(order.next(frame.pts))
            cell.send({"reordered": False})
            if len(own) == (until or scanning.LOOKED_AT_FRAMES):
                break
        else:
            until = None
        cell.send({"reordered": are_reordered(own, ordered, pause, is_whole=until is None)})


def are_reordered(own: list[int], ordered: list[int | None], pause: int, *, is_whole: bool) -> bool:
    """Whether too many of a film's first frames have times out of order, and all have good ones once put in order.

    `Order` has to find most of these: it is late for a while behind a packet that does not decode, and always where a
    frame is of two packets.

    own, ordered: their times, and what `Order` makes of them. is_whole: there are no more, else the last of them may
    have given theirs to later ones. pause: the longest step from one time to the next.
    """
    bad = sum(not follows(later, earlier, pause) for earlier, later in pairwise(own))
    wanted = sorted(own)[: len(own) if is_whole else -LONGEST_WAIT]
    increasing = all(follows(later, earlier, pause) for earlier, later in pairwise(wanted))
    right = sum(found == time for found, time in zip(ordered, wanted, strict=False))
    return bad > scanning.FEW * len(own) and increasing and 2 * right >= len(wanted)
