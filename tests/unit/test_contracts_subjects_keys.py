"""Subjects and keys: every builder's output parses back, and nothing else parses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stereospot import keys, subjects

tokens = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")
small = st.integers(0, 99_999)


@given(tokens, small, small)
def test_done_subjects_round_trip(job: str, generation: int, index: int) -> None:
    assert subjects.parse_done(subjects.done_segment(job, generation, index)) == subjects.DoneSubject(
        job, generation, index
    )
    for kind in ("part", "total", "audio"):
        assert subjects.parse_done(subjects.done_plan(job, generation, kind)) == subjects.DoneSubject(
            job, generation, kind
        )


@given(st.text(max_size=80))
def test_parsers_never_raise_and_refuse_what_they_do_not_build(text: str) -> None:
    for parse in (
        keys.parse_source,
        keys.parse_segment,
        keys.parse_audio_segment,
        keys.parse_film,
    ):
        assert parse(text) is None
    assert subjects.parse_done(text) is None
    assert subjects.parse_state_key(text) is None


@pytest.mark.parametrize("bad", ["", "a.b", "a b", "a/b", "ä", "*", ">", "x" * 65, "a\n"])
def test_a_subject_refuses_what_would_change_its_shape(bad: str) -> None:
    with pytest.raises(ValueError, match="token"):
        subjects.convert("cpu", "now", bad, 1, 0)


def test_convert_subjects_match_the_filters_that_purge_and_consume_them() -> None:
    subject = subjects.convert("cpu", "now", "J1", 2, 3)
    assert subject == "stereospot.convert.cpu.now.J1.2.3"
    assert subject.startswith(subjects.convert_filter("cpu", "now").removesuffix(">"))
    assert subjects.convert_filter(job_id="J1") == "stereospot.convert.*.*.J1.>"
    assert subjects.is_urgent(subject)
    assert not subjects.is_urgent(subjects.convert("now", "normal", "now", 2, 3))


@given(tokens, st.integers(1, 999), small)
def test_segment_keys_round_trip(job: str, generation: int, index: int) -> None:
    key = keys.segment(job, generation, index)
    assert keys.is_key(key) or job.startswith("-")
    assert keys.parse_segment(key) == keys.SegmentKey(job, generation, index)
    assert key.startswith(keys.segments_prefix(job, generation))
    assert keys.parse_segment(keys.segment_report(job, generation, index)) is None
    assert keys.parse_segment(keys.film(job, generation, "mp4")) is None
    assert keys.parse_film(keys.film(job, generation, "mkv")) == (job, generation, "mkv")
    assert keys.parse_film(keys.film_alias(job)) is None
    sound = keys.audio_segment(job, generation, 1, index)
    assert sound.startswith(keys.audio_prefix(job, generation))
    assert keys.parse_audio_segment(sound) == keys.AudioKey(job, generation, 1, index)
    assert keys.parse_audio_segment(keys.audio_init(job, generation, 1)) is None
    assert keys.parse_audio_segment(key) is None


def test_source_keys() -> None:
    assert keys.source("J", ".MP4") == "input/J/source.mp4"
    assert keys.source("J", "../../x") == "input/J/source.bin"
    assert keys.parse_source("input/J/source.mp4") == keys.SourceKey("J", "mp4")


def test_s3_events_encode_their_keys() -> None:
    assert keys.parse_segment("jobs%2FJ%2F1%2Fsegments%2F00003.m4s") == keys.SegmentKey("J", 1, 3)


@pytest.mark.parametrize("bad", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.hidden", ".a", "a b", "a\0b", "x" * 513])
def test_what_is_not_a_key(bad: str) -> None:
    assert not keys.is_key(bad)
