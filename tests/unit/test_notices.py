"""Every sentence that the media layer has for users has a code of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from services import notices
from stereospot import media

FOLDER = Path(media.__file__).parent


def sentences() -> Iterator[tuple[str, str]]:
    """What is appended to a list of warnings, with `x` for what is filled in."""
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append"):
                continue
            if "warnings" not in ast.unparse(node.func.value) or not node.args:
                continue
            text = literal(node.args[0])
            if text:
                yield path.name, text


def literal(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return ""


def test_every_sentence_has_a_code() -> None:
    found = list(sentences())
    assert len(found) >= 8
    nameless = [item for item in found if notices.code(item[1]) == notices.NOTE]
    assert not nameless


def test_codes_of_some_sentences() -> None:
    said = {
        "All times were moved by 0.100000 s, since the container cannot hold the source's start.": "TIMES_MOVED",
        "2 bitmap subtitle tracks were left out: they need mkv.": "TRACK_LEFT_OUT",
        "3 packets of the dts sound do not decode and were left out.": "SOUND_DAMAGED",
        "PTS_SYNTHESISED: the packets have no times": "PTS_SYNTHESISED",
        "PICTURE_REDUCED: the film has 8 bits and 4:2:0": "PICTURE_REDUCED",
        "something new": notices.NOTE,
    }
    assert {text: notices.code(text) for text in said} == said


def test_a_warning_is_a_sentence_without_its_code() -> None:
    said = {
        "PTS_SYNTHESISED: the packets have no times": "The packets have no times.",
        "the file ends early: 180 of 377 frames are in it": "The file ends early: 180 of 377 frames are in it.",
        "1 bitmap subtitle track was left out.": "1 bitmap subtitle track was left out.",
    }
    assert {text: notices.notice(text).text for text in said} == said
