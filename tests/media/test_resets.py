"""A clock that is set anew on the way: sound and subtitles stay with the pictures of their own part of the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from stereospot.media import audio, subtitles
from stereospot.media.model import PlanPart, PlanTotal
from stereospot.media.resets import LATE_SECONDS, Finder, Known, Reset, followed
from stereospot.media.source import FileSource
from stereospot.options import Container
from tests.media import films
from tests.media.recordings import (
    BEEP_SECONDS,
    BEEPS_APART_SECONDS,
    PART_SECONDS,
    SECOND,
    beeps,
    heard,
    joined,
    part,
    repeated,
    set_back,
    subtitled,
)
from tests.media.test_audio import played

EIGHT = tuple((10.0, 1.6) for _ in range(8))
TAILS = ((30.0, 2.6), (20.0, 3.9), (10.0, 2.0))
HEADS = ((30.0, 2.0, -0.5), (20.0, 1.9, -0.9), (10.0, 2.0, -0.5))
INSERTS = ((500.0, 1.6), (10.0, 1.9), (502.0, 1.6), (40_000.0, 1.7), (3.0, 2.0), (504.0, 1.5))
IDS = ("eight times the same", "inserts", "tails", "heads")


@pytest.mark.parametrize("container", films.CONTAINERS)
@pytest.mark.parametrize("codec", ["aac", "mp2"])
@pytest.mark.parametrize("parts", [EIGHT, INSERTS, TAILS, HEADS], ids=IDS)
def test_the_sound_of_each_part_stays_with_its_pictures(
    parts: tuple[tuple[float, ...], ...], codec: str, container: Container, tmp_path: Path
) -> None:
    job = films.repaired(joined(tmp_path, codec, *parts), container)
    job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    assert len(job.pts) == 25 * PART_SECONDS * len(parts)
    wanted = [number * PART_SECONDS + BEEP_SECONDS for number in range(len(parts))]
    assert heard(tmp_path / "film") == pytest.approx(wanted, abs=0.05)


def test_program_streams_are_followed_too(tmp_path: Path) -> None:
    job = films.repaired(joined(tmp_path, "mp2", *EIGHT, suffix=".mpg"))
    job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    wanted = [number * PART_SECONDS + BEEP_SECONDS for number in range(len(EIGHT))]
    assert heard(tmp_path / "film") == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("codec", ["aac", "mp2"])
@pytest.mark.parametrize("parts", [EIGHT, INSERTS, TAILS, HEADS], ids=IDS)
def test_the_stream_has_the_sound_of_each_part_with_its_pictures(
    parts: tuple[tuple[float, ...], ...], codec: str, tmp_path: Path
) -> None:
    """It is cut while the scan goes on; how much of the plan is known when makes no difference."""
    job = films.repaired(joined(tmp_path, codec, *parts))
    assert len(job.parts) > 2
    assert any(part.read for part in job.parts)
    chunks = _cut(job, job.parts)
    pcm, rate, start = played(chunks)
    late = float(start - job.pts[0] * job.plan.encode.time_base)
    wanted = [number * PART_SECONDS + BEEP_SECONDS for number in range(len(parts))]
    assert [late + beep for beep in beeps(pcm, rate)] == pytest.approx(wanted, abs=0.05)
    segments = tuple(segment for part in job.parts for segment in part.segments)
    whole = PlanPart(first=0, segments=segments, resets=job.total.resets)
    assert _cut(job, [whole]) == chunks


def _cut(job: films.Job, parts: list[PlanPart]) -> list[audio.AudioChunk]:
    source = FileSource(job.path)
    try:
        return list(audio.cut(source, job.plan.source, job.plan, parts))
    finally:
        source.close()


def test_the_sound_of_a_source_with_an_index_waits_for_no_pictures(tmp_path: Path) -> None:
    """Wherever its packets lie in the file: the clock of another track says nothing about theirs."""
    job = films.repaired(repeated(tmp_path / "repeated.mp4", seconds=12))
    asked: list[PlanPart] = []
    source = FileSource(job.path)
    try:
        parts = (asked.append(part) or part for part in job.parts)
        chunks = audio.cut(source, job.plan.source, job.plan, parts)
        when = {chunk.index: len(asked) for chunk in chunks if chunk.index is not None}
    finally:
        source.close()
    assert when == {number: number + 1 for number in range(len(job.parts))}


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_the_cues_of_each_part_stay_with_its_pictures(container: Container, tmp_path: Path) -> None:
    """In the film and beside it."""
    starts = (30_000, 10_000, 10_000, 3000, 38_000)
    job = films.repaired(subtitled(tmp_path / "joined.mkv", *starts), container)
    job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    wanted = [(30_500 + 2000 * number, f"Cue {number}") for number in range(len(starts))]
    source = FileSource(job.path)
    try:
        (cues,) = subtitles.read(source, job.plan.source, resets=job.total.resets).values()
    finally:
        source.close()
    assert [(cue.start, cue.text) for cue in cues] == wanted
    with av.open(str(tmp_path / "film"), "r") as made:
        packets: list[Any] = [packet for packet in made.demux(made.streams.subtitles[0]) if packet.size > 2]
        found = [(round(packet.pts * packet.time_base * 1000), subtitles.plain_text(packet)) for packet in packets]
    assert found == wanted


def test_pictures_whose_clock_alone_is_set_anew_cost_little_sound(tmp_path: Path) -> None:
    """By their times the sound's packets would be a tail of what was before, or of a later place."""
    path = tmp_path / "alone.ts"
    path.write_bytes(set_back(part(tmp_path / "part.ts", "aac", 100.0, 12.0, seconds=12), 4 * 25, 3))
    job = films.repaired(path)
    assert [reset.shift for reset in job.total.resets] == [3 * SECOND]
    job.assemble(tmp_path / "film")
    wanted = [BEEP_SECONDS, BEEPS_APART_SECONDS + BEEP_SECONDS]
    assert heard(tmp_path / "film") == pytest.approx(wanted, abs=0.05)
    pcm, rate, start = played(_cut(job, job.parts))
    late = float(start - job.pts[0] * job.plan.encode.time_base)
    assert [late + beep for beep in beeps(pcm, rate)] == pytest.approx(wanted, abs=0.05)


def test_a_plan_of_an_older_version_tells_no_resets(tmp_path: Path) -> None:
    """Its film is made as that version made it: the sound goes on from its own end."""
    job = films.repaired(joined(tmp_path, "aac", (10.0, 1.6), (10.0, 1.6)))
    job.total = PlanTotal.model_validate_json(job.total.model_dump_json(exclude={"resets"}))
    job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    assert heard(tmp_path / "film") == pytest.approx([BEEP_SECONDS, 1.6 + BEEP_SECONDS], abs=0.05)


# ---- the rule --------------------------------------------------------------------------------------------
@dataclass
class Packet:
    """As much of a packet as the rule looks at; ten ticks a second."""

    pts: int | None
    pos: int | None
    kind: str = "audio"
    duration: int = 1
    size: int = 1
    dts: int | None = None
    stream_index: int = 1
    time_base: Fraction = Fraction(1, 10)
    stream: Any = field(init=False)

    def __post_init__(self) -> None:
        self.stream = SimpleNamespace(type=self.kind)


def told(packets: Iterator[Packet], *resets: Reset) -> list[int | None]:
    return [packet.pts for packet in followed(packets, Known(resets), Fraction(1, 10))]


def test_a_reset_lies_behind_the_last_picture_of_the_clock_before() -> None:
    """The first picture that is shown by the new clock is the third that comes in the file."""
    finder = Finder()
    for number, pts in enumerate([100, 101, 102, 14, 11, 10]):
        finder.packet(Packet(pts, 1000 * number, "video"))
    assert finder.frame(102, 102, 0) is None
    assert finder.frame(10, 103, 93) == Reset(2000, 93, 103, 3000)
    assert finder.frame(11, 104, 93) is None


def test_late_sound_is_of_the_clock_before() -> None:
    """Broadcasts send sound behind its pictures: what comes behind the last of them may be theirs still."""
    reset = Reset(1000, 20, 120)
    late = [Packet(118, 900), Packet(119, 1100), Packet(120, 1200), Packet(98, 1300), Packet(99, None)]
    new = [Packet(100, 1400), Packet(101, 1500), Packet(118, 2000), Packet(119, 2100)]
    assert told(iter([*late, *new]), reset) == [118, 119, 120, 121, 138, 139], "what has no picture is left out"


def test_one_wrong_time_of_a_picture_costs_no_sound() -> None:
    resets = [Reset(1000, -5000, 100), Reset(1010, 0, 101)]
    assert told((Packet(90 + number, 900 + 20 * number) for number in range(20)), *resets) == list(range(90, 110))


def test_a_sound_whose_clock_is_not_set_anew_with_that_of_the_pictures_stays_where_it_is() -> None:
    """It may be a tail until new pictures have come for longer than sound lies behind its own."""
    resets = [Reset(1000, 80, 100, 1010), Reset(2000, 50, 200, 2010), Reset(3000, 0, 300, 3010), Reset(4000, 90, 400)]
    sound = [Packet(time, 10 * time + 5) for time in range(90, 390)]
    new = [Packet(time, 10 * (time + 90) + 5) for time in range(310, 330)]
    late = 10 * LATE_SECONDS
    kept = [*range(90, 100), *range(101 + late, 390), *range(400, 420)]
    assert told(iter([*sound, *new]), *resets) == kept


def test_a_track_that_is_silent_for_a_part_follows_the_next() -> None:
    resets = [Reset(1000, 500, 600), Reset(2000, 900, 1000)]
    assert told(iter([Packet(10, 500), Packet(110, 2500)]), *resets) == [10, 1010]


def test_subtitles_go_by_their_place_in_the_file_alone() -> None:
    """They are so few that none tells where the others are."""
    cues = [Packet(119, 990, "subtitle", 5), Packet(119, 1010, "subtitle", 5)]
    assert told(iter(cues), Reset(1000, 20, 120)) == [119, 139]
