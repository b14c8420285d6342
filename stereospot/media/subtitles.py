"""Text subtitles: for the page player as WebVTT, and as ASS with each cue once per eye.

A cue drawn once over a side-by-side picture lies half in one eye and half in the other. The ASS beside the film says
each cue twice, once in the middle of each eye's half and at the same place there, which puts the text at the screen
plane.
"""

from __future__ import annotations

import html
import itertools
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from stereospot import errors
from stereospot.jail import Jail
from stereospot.media.carried import name_of
from stereospot.media.limits import Limits
from stereospot.media.model import ClockReset, SourceInfo
from stereospot.media.source import Source
from stereospot.options import Layout

TEXT_CODECS = frozenset(("mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text"))

_OVERRIDES = re.compile(r"(\{[^}]*\})")
"""Of ASS: there nothing in braces is said."""
_STYLES = re.compile(r"(\{\\[^}]*\})")
"""Elsewhere words may stand in braces; what is a style, or libavcodec made of one, begins with a backslash."""
_DRAWING = re.compile(r"\\p\s*\(?\s*(\d+)")
"""`\\p1` and more in an override: what follows, up to `\\p0`, is a shape's outline and no text."""
_TAGS = re.compile(r"</?(?:b|i|u|s|font)(?:\s+[\w-]+\s*=[^<>]*)?\s*>", re.IGNORECASE)
"""Those that SubRip has; `<Narrator>` is a word."""
_MICRODVD = re.compile(r"\{[CFPSYcfopsy]:[^{}]*\}")
_LINE_END = re.compile(r"<br\s*/?>|\\N")
_ESCAPED = (("\\N", "\n"), ("\\h", " "), ("\\{{}", "{"), ("\\\u2060", "\\"))
_ESCAPES = {
    "ass": (("\\N", "\n"), ("\\n", "\n"), ("\\h", " ")),
    "webvtt": _ESCAPED,
    "text": _ESCAPED,
}
"""What libavcodec writes for line ends, spaces that do not break, braces and backslashes; others have line ends alone:
a backslash of theirs is one (`C:\\new`)."""

_AT_ONCE = 32
"""Texts that are said at once at most: more cannot be read, and a file that means harm has thousands."""


@dataclass(frozen=True, slots=True)
class Cue:
    """A text from `start` to `end` in milliseconds; `data` as a track's bytes, or the text in UTF-8."""

    start: int
    end: int
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


def plain_text(packet: Any) -> str:
    """The text of a packet of any text codec, without styles; lines joined by newlines."""
    codec = {"ssa": "ass"}.get(name := name_of(packet.stream), name)
    if codec == "subrip":
        return _subrip(bytes(packet).decode(errors="replace"))
    lines = [line for item in packet.decode() if (line := _dialogue(getattr(item, "ass", b""), codec))]
    return "\n".join(lines)


def _subrip(text: str) -> str:
    """As it is written: libavcodec would take every `<…>` for a tag."""
    text = _MICRODVD.sub("", "".join(_spoken(text.partition("\0")[0], _STYLES)))
    lines = _LINE_END.sub("\n", _TAGS.sub("", text)).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def _dialogue(ass: bytes, codec: str) -> str:
    """The text field of an ASS event as libavcodec gives it: eight fields before it."""
    text = ass.decode(errors="replace").split(",", 8)[-1]
    if codec == "ass":
        text = "".join(_spoken(text, _OVERRIDES))
    for written, meant in _ESCAPES.get(codec, (("\\N", "\n"),)):
        text = text.replace(written, meant)
    if codec != "ass":
        text = "".join(_spoken(text, _STYLES))
    if codec not in ("mov_text", "webvtt"):  # the one has no tags, of the other libavcodec took them out
        text = _TAGS.sub("", text)
    return text.strip()


def _spoken(text: str, overrides: re.Pattern[str]) -> Iterator[str]:
    """The text between the overrides, but for what is drawn."""
    drawn = False
    for number, part in enumerate(overrides.split(text)):
        if number % 2:
            scales = _DRAWING.findall(part)
            drawn = int(scales[-1]) > 0 if scales else drawn
        elif not drawn:
            yield part


def in_turn(cues: Iterable[Cue]) -> Iterator[Cue]:
    """The same words with one cue at any time: where several are to be read at once, one with the texts of all.

    Cues are cut wherever another begins or ends meanwhile; texts are joined by newlines in the order of their starts,
    then of their ends, then as given. A text that is there several times at once (a line and its shadow) is said once.
    A cue that overlaps no other comes out as it is. Of more than `_AT_ONCE` at a time the first are said.
    """
    rest = sorted((cue for cue in cues if cue.start < cue.end), key=lambda cue: (cue.start, cue.end))
    leaving = sorted(range(len(rest)), key=lambda place: rest[place].end)
    active: dict[int, Cue] = {}
    begun = left = 0
    for now, after in itertools.pairwise(sorted({time for cue in rest for time in (cue.start, cue.end)})):
        while begun < len(rest) and rest[begun].start == now:
            active[begun] = rest[begun]
            begun += 1
        while rest[leaving[left]].end == now:
            del active[leaving[left]]
            left += 1
        if active:
            texts = dict.fromkeys(cue.data for cue in itertools.islice(active.values(), _AT_ONCE))
            yield Cue(now, after, b"\n".join(texts))


def read(
    source: Source,
    info: SourceInfo,
    *,
    origin: Fraction = Fraction(0),
    resets: Sequence[ClockReset] = (),
    limits: Limits | None = None,
    stop: threading.Event | None = None,
) -> dict[int, list[Cue]]:
    """The cues of every text track, by the track's place among the source's subtitles; one pass, blocking.

    origin: the source's second that is 0 in the film (`clocks`); resets: those of the plan. Times are the film's.
    Tracks of pictures and tracks without a cue are left out. Raises what the source raises, CANCELLED, DECODER_CRASHED,
    DECODE_STALLED, CORRUPT_INPUT.
    """
    text = {track.stream_index: place for place, track in enumerate(info.subtitles) if not track.bitmap}
    if not text:
        return {}
    limits = limits or Limits()
    request = limits.request() | {
        "subtitles": sorted(text),
        "origin": str(origin),
        "time_base": str(info.video.time_base),
        "resets": [item.row() for item in resets],
    }
    found: dict[int, list[Cue]] = {}
    with Jail(
        "stereospot.media.subtitle_child:read", request, sources=[source], limits=limits.jail(), stop=stop
    ) as jail:
        for message in jail.messages():
            try:
                place = text[message.body["stream"]]
                cues = [Cue(int(start), int(end), str(words).encode()) for start, end, words in message.body["cues"]]
            except (KeyError, TypeError, ValueError) as failure:
                raise errors.error("CORRUPT_INPUT", "The subtitles make no sense.") from failure
            found.setdefault(place, []).extend(cue for cue in cues if 0 <= cue.start < cue.end)
    return {place: sorted(cues, key=lambda cue: (cue.start, cue.end)) for place, cues in sorted(found.items())}


def webvtt(cues: Iterable[Cue]) -> str:
    """A WebVTT file; arrows and markup in the text are escaped, empty lines taken out (they would end the cue)."""
    parts = ["WEBVTT\n"]
    for cue in cues:
        lines = [line for line in cue.text.splitlines() if line.strip()]
        text = html.escape("\n".join(lines), quote=False)
        parts.append(f"{_clock(cue.start)} --> {_clock(cue.end)}\n{text}\n")
    return "\n".join(parts)


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}"


_BESIDE = ((0, 0, 2, 1), (1, 0, 2, 1))
_BELOW = ((0, 0, 1, 2), (0, 1, 1, 2))
_EYES: dict[Layout, tuple[tuple[int, int, int, int], ...]] = {
    Layout.HALF_SBS: _BESIDE,
    Layout.FULL_SBS: _BESIDE,
    Layout.CROSS_EYED: _BESIDE,
    Layout.HALF_TB: _BELOW,
    Layout.FULL_TB: _BELOW,
    Layout.DEPTH: _BESIDE[:1],  # nothing is to be read over the depth
}
"""Where words go, as (column, row, columns, rows) of the picture; once in the middle where a layout is not named."""


def is_in_parts(layout: Layout) -> bool:
    """Whether words must not lie in the middle of the picture, where every player would put them."""
    return layout in _EYES


def ass(cues: Sequence[Cue], layout: Layout, width: int, height: int) -> str:
    """An ASS file for a picture of `width` x `height`: once per eye where there are two beside or below each other.

    Half layouts squeeze each eye, so the text is squeezed the same way and looks right once unpacked. Long lines wrap
    within an eye (the margins leave room for one, and `\\pos` places it), and nothing is drawn outside of it.
    """
    places = _EYES.get(layout, ((0, 0, 1, 1),))
    eye_width, eye_height = width // places[0][2], height // places[0][3]
    scale_x = 50 if layout is Layout.HALF_SBS else 100
    scale_y = 50 if layout is Layout.HALF_TB else 100
    shown = (eye_width * 100 // scale_x, eye_height * 100 // scale_y)
    size = max(8, min(shown) // 18)
    below, aside = round(eye_height * 0.05), (width - round(eye_width * 0.94)) // 2
    lines = [
        "[Script Info]", "ScriptType: v4.00+", f"PlayResX: {width}", f"PlayResY: {height}",
        "ScaledBorderAndShadow: yes", "WrapStyle: 0", "", "[V4+ Styles]",
        "Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, "
        "Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, "
        "MarginR, MarginV, Encoding",
        f"Style: Eye,Arial,{size},&H00FFFFFF,&H00FFFFFF,&H00000000,&H80000000,0,0,0,0,{scale_x},{scale_y},0,0,1,"
        f"{max(1, size // 16)},0,2,{aside},{aside},0,1",
        "", "[Events]", "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text",
    ]  # fmt: skip
    for cue in in_turn(cues):
        # ASS has no escape for a backslash; one that a word joiner follows is shown as it is.
        text = cue.text.replace("\\", "\\\u2060").replace("{", "(").replace("}", ")").replace("\n", "\\N")
        for column, row, _, _ in places:
            left, top = column * eye_width, row * eye_height
            right, bottom = left + eye_width, top + eye_height
            place = f"{{\\an2\\pos({(left + right) // 2},{bottom - below})\\clip({left},{top},{right},{bottom})}}"
            lines.append(f"Dialogue: 0,{_ass_clock(cue.start)},{_ass_clock(cue.end)},Eye,,0,0,0,,{place}{text}")
    return "\n".join(lines) + "\n"


def _ass_clock(milliseconds: int) -> str:
    hundredths = (milliseconds + 5) // 10
    seconds, rest = divmod(hundredths, 100)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:02d}"
