"""A segment that was sent for somebody who has jumped on since: it steps back behind what they wait for now.

    now: 40 41 42 43 | 80 81 82 83      playhead 80: 42 and 43 rest for a second, 80 to 83 come first, then 42 and 43

A queue gives its messages out in their order, and the lane `now` is never so short that a second jump finds it empty.
The message stays in the queue, given back untried, so nothing is lost, sent or counted anew whatever dies when; and it
is given back only where the lane holds more, so that no worker idles for it: the last of a lane is never overtaken.
"""

from __future__ import annotations

from stereospot import subjects
from stereospot.bus import Delivery
from stereospot.jobs import Job
from stereospot.messages import SegmentTask
from stereospot.outcome import Return
from stereospot.schedule import PLAYHEAD_RUN

REST_SECONDS = 1.0
"""Not long: they may come back."""

RESTS = 20
"""So often at most; then it is converted whoever waits."""


def step_back(delivery: Delivery, task: SegmentTask, job: Job) -> Return | None:
    """Give the message back if nobody watches there any more and others wait; None: convert it. Pure."""
    if not subjects.is_urgent(delivery.subject) or job.playhead is None or job.options.samples is not None:
        return None
    is_near = 0 <= task.index - job.playhead < PLAYHEAD_RUN
    if is_near or delivery.pending == 0 or delivery.excused >= RESTS:
        return None
    return Return(REST_SECONDS, reason="nobody watches there any more, and others wait")
