"""Completion as a set: one value per generation in the bucket `state`, changed by one compare-and-set a batch.

A count would count a redelivered completion twice; a set cannot. Everything that decides "is it complete?" is in the
value itself, so the write that completes it can carry the one reassembly trigger in the same atomic batch.
Pure: the collector does the I/O.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from stereospot import errors
from stereospot import spans as packing
from stereospot.messages import Message, Pool, Spans


def _integer(value: object) -> int:
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return int.from_bytes(base64.b64decode(value), "little")
    raise ValueError("a bitmap is base64 text")


def _text(value: int) -> str:
    return base64.b64encode(value.to_bytes((value.bit_length() + 7) // 8, "little")).decode()


Bitmap = Annotated[int, BeforeValidator(_integer), PlainSerializer(_text, return_type=str)]
"""A set of small integers as the bits of one integer; travels as base64 of its little-endian bytes."""


def bits(bitmap: int) -> Iterator[int]:
    """The members of a bitmap, ascending."""
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low


def bitmap_of(members: Iterable[int]) -> int:
    result = 0
    for member in members:
        result |= 1 << member
    return result


MAX_SEGMENTS = 200_000
"""An index beyond this is not a segment of ours; it bounds the value at 33 kB a bitmap."""


AHEAD = 256
"""Waiting segments of one job whose windows are looked at: more than any pool is sent at a time."""


class Completion(Message):
    """What is planned, sent, done of one generation."""

    job_id: str
    generation: int
    attempt: int = 1
    pool: Pool = "cpu"
    total: int | None = Field(default=None, description="known once the whole plan is")
    planned: int = Field(default=0, description="segments 0 … planned-1 may be dispatched")
    parts: tuple[int, ...] = Field(default=(), description="first index of each plan part, ascending")
    done: Bitmap = 0
    sent: Bitmap = 0
    init: str | None = Field(default=None, description="sha256 of the init segment that the first stored fragment has")
    audio: bool = Field(default=False, description="whether sound belongs to this job; known with `total`")
    silent: bool = Field(default=False, description="known with the first part: the source has no sound")
    audio_ready: int = Field(default=0, description="sound of segments 0 … audio_ready-1 is stored")
    sound: Bitmap = Field(default=0, description="segments from `audio_ready` on whose sound is stored, too")
    resends: int = Field(default=0, description="how often a sent segment was offered again; it salts message ids")
    spans: dict[int, Spans] = Field(
        default={}, description="by a part's first index: windows that its segments need; empty: the engine needs none"
    )
    windows: Bitmap = Field(default=0, description="stored windows of the curve, counted from the plan's first")

    @property
    def count(self) -> int:
        return self.done.bit_count()

    @property
    def is_complete(self) -> bool:
        """Every segment of a known total is stored. Sound is not needed: the assembler takes it from the source."""
        return self.total is not None and self.total > 0 and self.done == (1 << self.total) - 1

    def is_done(self, index: int) -> bool:
        return bool(self.done >> index & 1)

    def prefix(self, start: int = 0) -> int:
        """The first index from `start` on that is not done: the contiguous run is `start … prefix-1`."""
        rest = ~(self.done >> start)
        return start + (rest & -rest).bit_length() - 1

    def sound_prefix(self, start: int) -> int:
        """The first index from `start` on whose sound is not stored."""
        rest = ~(self.sound >> max(start, self.audio_ready))
        return max(start, self.audio_ready) + (rest & -rest).bit_length() - 1

    def expects_sound(self, is_active: bool) -> bool:
        """Whether the stream waits for sound; `is_active`: its job goes on, so more may come.

        Nobody has said that there is none: then it may have some.
        """
        if self.silent or (self.total is not None and not self.audio):
            return False
        return self.audio_ready > 0 or is_active

    def waiting(self) -> int:
        """Bitmap of segments that are planned, not sent and not done."""
        return ((1 << self.planned) - 1) & ~(self.sent | self.done)

    def ahead(self, start: int = 0, count: int = AHEAD) -> tuple[int, tuple[int, ...]]:
        """What may be sent of the next `count` waiting segments, from `start` on and then from the beginning.

        Returns their bitmap, and the windows that the others still lack, in the order in which they are needed.
        Without a curve that is everything that waits, and none.
        """
        waiting = self.waiting()
        if not self.spans or not waiting:
            return waiting, ()
        opened, base = 0, self._first_window
        lacking: dict[int, None] = {}
        rest = waiting >> start << start
        for index in itertools.islice(itertools.chain(bits(rest), bits(waiting ^ rest)), count):
            missing = self._missing(index, base)
            if missing:
                lacking.update(dict.fromkeys(missing))
            elif missing is not None:
                opened |= 1 << index
        return opened, tuple(lacking)

    def has_window(self, window: int) -> bool:
        place = window - self._first_window
        return place >= 0 and bool(self.windows >> place & 1)

    def _missing(self, index: int, base: int) -> list[int] | None:
        """Windows that a segment needs and that are not stored; None while nobody has said which it needs."""
        part = self.part_of(index)
        known = packing.unpack(self.spans.get(part, ""))
        if not 0 <= index - part < len(known):
            return None
        first, last = known[index - part]
        return [window for window in range(first, last + 1) if not self.windows >> max(0, window - base) & 1]

    @property
    def _first_window(self) -> int:
        """What bit 0 of `windows` stands for: segments follow each other, so the first part's first one begins it."""
        return packing.unpack(self.spans[min(self.spans)])[0][0] if self.spans else 0

    def part_of(self, index: int) -> int:
        """First index of the plan part that holds `index`."""
        return max((first for first in self.parts if first <= index), default=0)

    # ---- changes: each returns self when there is nothing to change -------------------------------------
    def with_done(self, index: int, init: str | None) -> Completion:
        """Add a stored segment. One with another init than the job's is not counted and is offered again.

        The collector takes many in one step; this is the reference that `with_done_set` is tested against.
        """
        if not 0 <= index < MAX_SEGMENTS or (self.total is not None and index >= self.total):
            return self
        if self.init is not None and init is not None and init != self.init:
            return self.with_reoffer((index,))
        if self.is_done(index):
            return self
        return self._with(
            done=self.done | 1 << index,
            sent=self.sent | 1 << index,
            init=self.init if init is None else self.init or init,
        )

    def with_done_set(self, members: int, init: str | None) -> Completion:
        """`with_done` for every member of a bitmap, in one step; they share one init."""
        members &= (1 << (MAX_SEGMENTS if self.total is None else self.total)) - 1
        if self.init is not None and init is not None and init != self.init:
            return self.with_reoffer(bits(members))
        if not members & ~self.done:
            return self
        return self._with(
            done=self.done | members, sent=self.sent | members, init=self.init if init is None else self.init or init
        )

    def with_part(
        self, first: int, count: int, attempt: int, pool: str, spans: str = "", *, silent: bool = False
    ) -> Completion:
        """Open segments for dispatch; a higher attempt first forgets what was sent and not done."""
        base = self.with_attempt(attempt).with_spans({first: spans} if spans else {})
        if silent and not base.silent:
            base = base._with(silent=True)
        if count <= 0 or first + count > MAX_SEGMENTS:
            return base
        parts = base.parts if first in base.parts else tuple(sorted((*base.parts, first)))
        planned = max(base.planned, first + count)
        if (parts, planned, pool) == (base.parts, base.planned, base.pool):
            return base
        return base._with(parts=parts, planned=planned, pool=pool)

    def with_total(
        self, total: int, parts: tuple[int, ...], attempt: int, pool: str, audio: bool,
        spans: Mapping[int, str] | None = None,
    ) -> Completion:  # fmt: skip
        """Fix the total; a repeated message changes nothing."""
        base = self.with_attempt(attempt).with_spans(spans or {})
        if not 0 < total <= MAX_SEGMENTS:
            return base
        merged = tuple(sorted({*base.parts, *parts}))
        changed = {"total": total, "planned": total, "parts": merged, "pool": pool, "audio": audio}
        if all(getattr(base, name) == value for name, value in changed.items()):
            return base
        mask = (1 << total) - 1
        return base._with(**changed, done=base.done & mask, sent=base.sent & mask)

    def with_attempt(self, attempt: int) -> Completion:
        """A retry: keep what is done, offer the rest again."""
        return self if attempt <= self.attempt else self._with(attempt=attempt, sent=self.done)

    def with_sent(self, indices: Iterable[int]) -> Completion:
        sent = self.sent | bitmap_of(indices)
        return self if sent == self.sent else self._with(sent=sent)

    def with_reoffer(self, indices: Iterable[int]) -> Completion:
        """Forget that these were sent, except those that are done: the dispatcher sends them once more."""
        lost = bitmap_of(indices) & self.sent & ~self.done
        return self._with(sent=self.sent & ~lost, resends=self.resends + 1) if lost else self

    def with_spans(self, spans: Mapping[int, str]) -> Completion:
        """Say which windows the segments of some parts need."""
        merged = dict(sorted({**self.spans, **spans}.items()))
        if merged == self.spans:
            return self
        after = self._with(spans=merged)
        # A part that came before the first one has counted from its own first window.
        moved = self._first_window - after._first_window if self.windows else 0
        return after._with(windows=self.windows << moved) if moved > 0 else after

    def with_windows(self, windows: Iterable[int]) -> Completion:
        """Add stored windows; those that no segment needs do not count."""
        if not self.spans:
            return self
        base = self._first_window
        last = packing.unpack(self.spans[max(self.spans)])[-1][1]
        known = [window - base for window in windows if base <= window <= last]
        after = self.windows | bitmap_of(known)
        return self if after == self.windows else self._with(windows=after)

    def with_audio(self, ready: int, first: int = 0) -> Completion:
        """Add the sound of segments `first … ready-1`; what hangs together from the beginning on is one number."""
        if not 0 <= first < ready <= MAX_SEGMENTS:
            return self
        sound = self.sound if first == 0 else self.sound | (1 << ready) - (1 << first)
        reached = ready if first == 0 else 0
        after = self._with(audio_ready=max(self.audio_ready, reached), sound=sound)
        end = after.sound_prefix(after.audio_ready)
        after = after._with(audio_ready=end, sound=sound >> end << end)
        return self if (after.audio_ready, after.sound) == (self.audio_ready, self.sound) else after

    def _with(self, **changes: object) -> Completion:
        return self.model_copy(update=changes)


def encode(completion: Completion) -> bytes:
    return completion.body()


def decode(value: bytes) -> Completion:
    """The set that was stored; raises RECORD_UNREADABLE for one that is none here."""
    try:
        return Completion.model_validate_json(value)
    except ValidationError as problem:
        raise errors.error("RECORD_UNREADABLE", f"A completion set: {errors.first_of(problem, 'set')}") from problem


def readable(value: bytes) -> Completion | None:
    """The same; None for a set that is none here."""
    try:
        return decode(value)
    except errors.Misconfigured:
        return None
