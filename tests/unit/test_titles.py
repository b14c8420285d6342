"""Which titles somebody would see."""

from __future__ import annotations

import unicodedata

import pytest

from services.gateway.uploads import display_name
from stereospot import titles
from stereospot.messages import SubmitWork

UNSEEN = [
    "", " \t\n", "\u3000\u00a0", "\u200b", "\ufeff", "\u2060", "\u200d", "\u00ad", "\u202e\u2069", "\x00\x1b\x7f",
    "\u034f", "\u115f\u1160", "\u17b4", "\u180e", "\u2065", "\u2800", "\u3164", "\ufe0f", "\uffa0",
    "\U000e0020\U000e0100", " \u200b ", "\ud83d",
]  # fmt: skip
SEEN = [
    "a", "-", "0", "م", "映画", "\u0301", "👨\u200d👩\u200d👧\u200d👦", "❤\ufe0f", "🏴\U000e0067\U000e0062\U000e007f",
    "می\u200cخواهم", "\ue000", "\U0001fae9",
]  # fmt: skip


@pytest.mark.parametrize("text", UNSEEN, ids=ascii)
def test_a_title_of_which_nothing_is_drawn_is_none(text: str) -> None:
    assert titles.shown(text) == ""
    assert SubmitWork(title=text).title == ""


@pytest.mark.parametrize("text", SEEN, ids=ascii)
def test_any_other_is_kept_as_it_is_but_for_blanks_around_it(text: str) -> None:
    assert titles.shown(f" {text}\n") == text
    assert SubmitWork(title=f"\t{text} ").title == text
    assert titles.shown(f"\u200b{text}") == f"\u200b{text}"


def test_every_format_and_control_character_is_one_that_nobody_sees() -> None:
    every = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zs", "Zl", "Zp")]
    assert len(every) > 200
    assert titles.shown("".join(every)) == ""


def test_a_files_name_keeps_what_joins_and_nothing_else_of_the_kind() -> None:
    family, flag = "👨\u200d👩\u200d👧", "🏴\U000e0067\U000e0062\U000e007f"
    assert display_name(f"{family} in {flag}.mp4") == f"{family} in {flag}.mp4"
    assert display_name("\u202egnp\u200b\ufeff.exe") == "gnp.exe"
    assert display_name("\u200d") == "film"
