"""Messages of a queue that no consumer's filter takes: nobody hears of them, and they stay.

    names of a queue's subjects ─ those that a filter takes ─> Unheard {stream, subject, messages}, summed up

Segments of a pool that was never provisioned, work of a kind that this version does not know, a subject with a slip in
it. Only names are read, as the janitor reads them at every sweep; a queue of which one filter takes all is not asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from stereospot import subjects
from stereospot.bus import Bus, Refused

SHOWN = 8
"""Sums of one queue that are told one by one, the largest first; the others are told as one."""

DEPTH = 3
"""Tokens by which subjects are summed up in a queue without consumers: `stereospot.live.open.>`."""


@dataclass(frozen=True, slots=True)
class Unheard:
    """So many messages of a subject, or of all that match a pattern; "" where it is what is left. `seconds` is how long
    the queue keeps them; None: for ever."""

    stream: str
    subject: str
    messages: int
    seconds: float | None

    @property
    def text(self) -> str:
        what = self.subject or "other subjects"
        kept = "" if self.seconds is None else f"; they are forgotten after {self.seconds:.0f} s"
        return f"{self.stream} holds {self.messages} of {what}, which no consumer takes{kept}"

    @property
    def advice(self) -> str:
        if self.seconds is not None:
            return "See who publishes them: nothing of this version takes them."
        which = f" --subject '{self.subject}'" if self.subject else " --subject SUBJECT"
        remove = f"`nats stream purge {self.stream}{which}` removes them."
        if self.stream == subjects.CONVERT:
            return (
                f"Provision their pool (`STEREOSPOT_POOL=NAME stereospot provision`) and run its converter; or {remove}"
            )
        return f"See who publishes them, perhaps another version; {remove}"


async def find(bus: Bus) -> list[Unheard]:
    """What every queue holds for nobody, the most of each first."""
    found: list[Unheard] = []
    for stream in subjects.QUEUES:
        try:
            found += await _of(bus, stream)
        except Refused:
            continue  # no such stream: that is another check's finding
    return found


async def _of(bus: Bus, stream: str) -> list[Unheard]:
    filters = [
        pattern for consumer in await bus.consumers(stream) for pattern in subjects.filters_of(consumer["config"])
    ]
    config = (await bus.stream_info(stream))["config"]
    if any(all(subjects.matches(taken, pattern) for taken in config["subjects"]) for pattern in filters):
        return []
    counted = await bus.subjects(stream)
    unheard = {
        subject: messages
        for subject, messages in counted.items()
        if not any(subjects.matches(subject, pattern) for pattern in filters)
    }
    seconds = config["max_age"] / 1e9 if config.get("max_age") else None
    sums = _sums(unheard, max((_depth(pattern) for pattern in filters), default=DEPTH)).most_common()
    told = [Unheard(stream, subject, messages, seconds) for subject, messages in sums[:SHOWN]]
    left = sum(messages for _, messages in sums[SHOWN:])
    return [*told, Unheard(stream, "", left, seconds)] if left else told


def _sums(counted: Mapping[str, int], depth: int) -> Counter[str]:
    """Messages by the first tokens of their subjects; one that is alone there keeps its name."""
    sums: Counter[str] = Counter()
    names: dict[str, list[str]] = {}
    for subject, messages in counted.items():
        tokens = subject.split(".")
        pattern = subject if len(tokens) <= depth else ".".join([*tokens[:depth], ">"])
        sums[pattern] += messages
        names.setdefault(pattern, []).append(subject)
    return Counter({(found[0] if len(found) == 1 else pattern): sums[pattern] for pattern, found in names.items()})


def _depth(pattern: str) -> int:
    """Tokens of a filter before its first wildcard."""
    tokens = pattern.split(".")
    return next((place for place, token in enumerate(tokens) if token in ("*", ">")), len(tokens))
