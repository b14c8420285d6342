"""The catalogue: every code is usable, pickles, and reads well."""

from __future__ import annotations

import pickle

import pytest

from stereospot import errors
from stereospot.messages import Failure


@pytest.mark.parametrize("entry", errors.CATALOGUE.values(), ids=lambda entry: entry.code)
def test_every_entry_has_a_sentence_an_advice_and_a_class(entry: errors.Entry) -> None:
    error = errors.error(entry.code, "because", frames=3)
    assert entry.sentence.endswith(".")
    assert entry.advice.endswith(".")
    assert entry.code == entry.code.upper()
    assert isinstance(error, errors.Transient) == (entry.kind in ("transient", "resource"))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, again.detail, again.details) == (type(error), entry.code, "because", {"frames": 3})


def test_codes_are_unique() -> None:
    assert len(errors.CATALOGUE) == len(errors._ENTRIES)  # pyright: ignore[reportPrivateUsage]


def test_an_unknown_exception_becomes_a_failure_with_a_name() -> None:
    failure = Failure.of(ValueError("odd"), segment_index=3, attempts=2)
    assert (failure.code, failure.detail, failure.segment_index) == ("INTERNAL", "ValueError: odd", 3)


def test_a_code_of_a_newer_version_still_reads() -> None:
    assert errors.entry("SOMETHING_OF_2027").code == "INTERNAL"
