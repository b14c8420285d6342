"""The history checker: the ten promises of docs/guarantees.md, asserted on what a run left behind (`history`).

    History ─> check() ─> Verdict {violations, figures}

`check` is pure, so the checker itself is tested with histories that break one promise each.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from stereospot import errors, keys
from stereospot.completion import Completion
from stereospot.jobs import TRANSITIONS, Job, Phase
from stereospot.messages import Failure
from tests.faults.history import History, Playlist, SegmentRevision

CLOCK_SECONDS = 0.05
"""Clocks of one host, read by two processes."""

CANCEL_SECONDS = 10.0
OFFER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise (1 to 10; 0: the table of transitions) and how it was broken."""

    promise: int
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. `extra` counts computations of a segment beyond its first; `recovery` is the longest time from
    a worker's death to the next beginning of a segment that it held."""

    violations: tuple[Violation, ...]
    jobs: int
    lost: int
    duplicated: int
    extra: int
    recovery: float | None

    def promises(self) -> set[int]:
        return {item.promise for item in self.violations}

    def __str__(self) -> str:
        return "\n".join(f"promise {item.promise}: {item.text}" for item in self.violations) or "all promises kept"


def check(history: History, *, ack_wait_seconds: float = 20.0, slack_seconds: float = OFFER_SECONDS) -> Verdict:
    """Every promise on a run that has come to rest."""
    recovery, late = _offered_again(history, ack_wait_seconds + slack_seconds)
    found = [
        *_legal(history), *_survived(history), *_published_once(history), *_one_trigger(history), *late,
        *_nothing_named_early(history), *_not_again(history), *_webhooks(history), *_own_job(history),
        *_cancelled(history), *_named(history),
    ]  # fmt: skip
    return Verdict(
        violations=tuple(found),
        jobs=len(history.last),
        lost=sum(item.promise in (1, 2, 8) for item in found),
        duplicated=sum(item.promise == 3 for item in found),
        extra=extra_computations(history),
        recovery=recovery,
    )


def extra_computations(history: History) -> int:
    """How often a segment was begun beyond the first time."""
    begun: dict[tuple[str, int, int], int] = defaultdict(int)
    for item in history.segments:
        begun[item.place] += item.event.state == "running"
    return sum(count - 1 for count in begun.values() if count > 1)


def _legal(history: History) -> list[Violation]:
    """0: a record only ever moves along the table."""
    found: list[Violation] = []
    before: dict[str, Job] = {}
    for revision in history.jobs:
        job, old = revision.job, before.pop(revision.job_id, None)
        if job is None:
            continue
        before[revision.job_id] = job
        if old is None:
            continue
        if job.phase is not old.phase and job.phase not in TRANSITIONS[old.phase]:
            found.append(Violation(0, f"{job.job_id} went from {old.phase} to {job.phase}"))
        if (job.generation, job.attempt) < (old.generation, old.attempt):
            found.append(Violation(0, f"{job.job_id} went back to an older generation or attempt"))
    return found


def _survived(history: History) -> list[Violation]:
    """1: what was accepted is there, and at its end; what was acknowledged is in its stream."""
    found: list[Violation] = []
    last = history.last
    deleted = {item.job_id for item in history.jobs if item.job is not None and item.job.phase is Phase.DELETED}
    for job_id in sorted(history.accepted):
        job = last.get(job_id)
        if job is None:
            if job_id not in deleted:
                found.append(Violation(1, f"{job_id} was accepted and has no record"))
        elif job.is_active:
            found.append(Violation(1, f"{job_id} was accepted and stays {job.phase}"))
    for line in history.lines:
        if line["kind"] != "publish":
            continue
        stream = str(line["stream"])
        if line["sequence"] > history.last_sequences.get(stream, line["sequence"]):
            found.append(
                Violation(1, f"{line['subject']} was acknowledged as {line['sequence']} and is not in {stream}")
            )
    return found


def _published_once(history: History) -> list[Violation]:
    """2: a film has every segment of its plan once; what is done stays done."""
    found: list[Violation] = []
    known: dict[tuple[str, int], Completion] = {}
    for revision in history.states:
        state = revision.state
        name = state.job_id, state.generation
        before = known.get(name)
        known[name] = state
        mask = -1 if state.total is None else (1 << state.total) - 1
        if before is not None and before.done & ~state.done & mask:
            found.append(Violation(2, f"{name}: a segment that was done is not done any more"))
    for job in filter(None, history.last.values()):
        if job.phase is Phase.COMPLETED and job.film is not None:
            found += _film_is_whole(history, job, known.get((job.job_id, job.generation)))
    return found


def _film_is_whole(history: History, job: Job, state: Completion | None) -> list[Violation]:
    name = f"{job.job_id}.{job.generation}"
    if state is None or state.total is None or not state.is_complete:
        return [Violation(2, f"{name} has a film and no complete set")]
    found: list[Violation] = []
    frames = 0
    for index in range(state.total):
        report = history.reports.get((job.job_id, job.generation, index))
        stored = history.objects.get(keys.segment(job.job_id, job.generation, index))
        if report is None or stored is None:
            found.append(Violation(2, f"segment {name}.{index} is counted and not stored"))
            continue
        frames += report.frames
        if stored.size != report.size_bytes:
            found.append(Violation(2, f"segment {name}.{index} is not the one that was reported"))
        if report.init_sha256 != state.init:
            found.append(Violation(2, f"segment {name}.{index} has another header than its film"))
    assert job.film is not None
    if not found and not frames == job.film.frames == (job.frames or frames):
        found.append(Violation(2, f"{name}: {frames} frames in segments, {job.film.frames} in the film"))
    return found


def _one_trigger(history: History) -> list[Violation]:
    """3: one trigger an attempt, one recorded film a generation, and the film is the recorded one."""
    found: list[Violation] = []
    count: dict[tuple[str, int, int], int] = defaultdict(int)
    for revision in history.triggers:
        trigger = revision.trigger
        count[trigger.job_id, trigger.generation, trigger.attempt] += 1
    found += [Violation(3, f"{place} was triggered {times} times") for place, times in count.items() if times > 1]
    films: dict[tuple[str, int, int], set[tuple[str, str]]] = defaultdict(set)
    for revision in history.jobs:
        job = revision.job
        if job is not None and job.phase is Phase.COMPLETED and job.film is not None:
            films[job.job_id, job.generation, job.attempt].add((job.film.key, job.film.sha256))
    found += [Violation(3, f"{place} has {len(made)} recorded films") for place, made in films.items() if len(made) > 1]
    for job in filter(None, history.last.values()):
        if job.phase is not Phase.COMPLETED or job.film is None:
            continue
        if not count[job.job_id, job.generation, job.attempt]:
            found.append(Violation(3, f"{job.job_id} is completed and was never triggered"))
        stored = history.objects.get(job.film.key)
        if stored is None or stored.sha256 != job.film.sha256:
            found.append(Violation(3, f"{job.film.key} is not the film that was recorded"))
        alias = history.objects.get(keys.film_alias(job.job_id))
        if job.film.container == "mp4" and (alias is None or alias.sha256 != job.film.sha256):
            found.append(Violation(3, f"the alias of {job.job_id} is not its film"))
    return found


def _offered_again(history: History, limit: float) -> tuple[float | None, list[Violation]]:
    """4: a segment in a dead worker's hands begins anew within the limit, unless it was stored before the death."""
    finished = history.finished()
    by_place: dict[tuple[str, int, int], list[SegmentRevision]] = defaultdict(list)
    for item in history.segments:
        by_place[item.place].append(item)
    longest: float | None = None
    found: list[Violation] = []
    for death in history.deaths:
        for place, items in by_place.items():
            mine = [item for item in items if item.pid == death.pid and item.at <= death.at + CLOCK_SECONDS]
            if not mine or mine[-1].event.state != "running":
                continue
            again = next(
                (i.at for i in items if i.at > death.at and i.pid != death.pid and i.event.state == "running"), None
            )
            done = finished.get(place)
            if again is None and done is None:
                found.append(Violation(4, f"{place} was in the hands of {death.pid} and never begun again"))
                continue
            waited = min(at for at in (again, done) if at is not None) - death.at
            longest = max(longest or 0.0, waited)
            if waited > limit:
                found.append(Violation(4, f"{place} waited {waited:.1f} s after the death of {death.pid}"))
    return longest, found


def _nothing_named_early(history: History) -> list[Violation]:
    """5: playlists name what is stored and only grow; a set counts a segment after its fragment was put."""
    found: list[Violation] = []
    before: dict[str, Playlist] = {}
    for playlist in history.playlists:
        old = before.get(playlist.session)
        before[playlist.session] = playlist
        if playlist.missing:
            found.append(Violation(5, f"{playlist.session} names {playlist.missing[0]}, which is not stored"))
        if old is not None and playlist.names[: len(old.names)] != old.names:
            found.append(Violation(5, f"{playlist.session} changed what it had said"))
        if old is not None and old.ended and playlist.names != old.names:
            found.append(Violation(5, f"{playlist.session} grew after its end"))
        if playlist.ended and playlist.total is not None and len(playlist.names) < playlist.total:
            found.append(Violation(5, f"{playlist.session} ended before its last segment"))
    puts = history.puts()
    if not puts:
        return found
    for (job_id, generation, index), at in history.finished().items():
        for key in (keys.segment(job_id, generation, index), keys.segment_report(job_id, generation, index)):
            if not any(put <= at + CLOCK_SECONDS for put in puts.get(key, [])):
                # A worker that was killed between a put and its line has stored it all the same.
                if key in history.objects and not puts.get(key):
                    continue
                found.append(Violation(5, f"{key} was counted before it was stored"))
    return found


def _not_again(history: History) -> list[Violation]:
    """6: nothing begins on a segment that is done."""
    finished = history.finished()
    return [
        Violation(6, f"{item.place} was begun again {item.at - finished[item.place]:.2f} s after it was done")
        for item in history.segments
        if item.event.state == "running" and item.at > finished.get(item.place, item.at) + CLOCK_SECONDS
    ]


def _webhooks(history: History) -> list[Violation]:
    """7: every event of a job at every endpoint, first deliveries in the events' order."""
    found: list[Violation] = []
    wanted: dict[str, list[int]] = defaultdict(list)
    for sequence, event in history.events:
        wanted[event.job_id].append(sequence)
    for endpoint in history.endpoints:
        for job_id, sequences in wanted.items():
            got = list(dict.fromkeys(c.sequence for c in history.calls if (c.endpoint, c.job_id) == (endpoint, job_id)))
            if set(sequences) - set(got):
                found.append(
                    Violation(7, f"{endpoint} did not hear of {len(set(sequences) - set(got))} events of {job_id}")
                )
            if any(a > b for a, b in pairwise(got)):
                found.append(Violation(7, f"{endpoint} heard of {job_id} out of order"))
    return found


def _own_job(history: History) -> list[Violation]:
    """8: every job ends as it would have ended alone."""
    last = history.last
    found: list[Violation] = []
    for job_id, phase in history.expected.items():
        job = last.get(job_id)
        if job is None or job.phase is not phase:
            reason = job.failure.code if job is not None and job.failure is not None else ""
            found.append(Violation(8, f"{job_id} is {job and job.phase} {reason}, not {phase}"))
    return found


def _cancelled(history: History) -> list[Violation]:
    """9: ten seconds after a cancel nothing is begun or stored for that job."""
    found: list[Violation] = []
    for position, revision in enumerate(history.jobs):
        if revision.job is None or revision.job.phase not in (Phase.CANCELLED, Phase.DELETED):
            continue
        later = [item.at for item in history.jobs[position + 1 :] if item.job_id == revision.job_id]
        until = later[0] if later else float("inf")
        work = [i.at for i in history.segments if i.event.job_id == revision.job_id and i.event.state == "running"]
        prefix = keys.job_prefix(revision.job_id)
        work += [line["at"] for line in history.lines if line["kind"] == "put" and line["key"].startswith(prefix)]
        late = [at for at in work if revision.at + CANCEL_SECONDS < at < until]
        if late:
            found.append(
                Violation(9, f"{revision.job_id} was worked on {late[0] - revision.at:.1f} s after its cancel")
            )
    return found


def _named(history: History) -> list[Violation]:
    """10: every failure has a code of the catalogue, a sentence and an advice."""
    found: list[Violation] = []
    failures: list[tuple[str, Failure]] = [(letter.dead_id, letter.failure) for letter in history.letters]
    for revision in history.jobs:
        job = revision.job
        if job is not None and job.phase is Phase.FAILED and job.failure is None:
            found.append(Violation(10, f"{job.job_id} failed without a reason"))
        elif job is not None and job.failure is not None:
            failures.append((job.job_id, job.failure))
    failures += [(str(item.place), item.event.failure) for item in history.segments if item.event.failure is not None]
    for where, failure in failures:
        if failure.code not in errors.CATALOGUE or not failure.sentence or not failure.advice:
            found.append(Violation(10, f"{where}: {failure.code!r} without a stable code, reason or advice"))
    return found
