"""Storage keys: the only place that spells them.

Builders take ids that are already checked; parsers return None for what is not a key and never raise. A key uses
`/` between its parts and only `A-Z a-z 0-9 . _ -` within them, so that it is a safe relative path and a plain S3 key.
Keys of S3 events arrive URL-encoded: parsers decode them first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus

from stereospot.subjects import is_token

_KEY = re.compile(r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*\Z")
_EXTENSION = re.compile(r"^[a-z0-9]{1,8}\Z")
_FILM = re.compile(r"^final(?:-(?:[0-9]+-)?[0-9a-f]{16})?\.(mp4|mov|mkv)\Z")
_SEGMENT = re.compile(r"^(\d{5,9})\.m4s\Z")


TOPS = ("input", "uploads", "jobs", "stream_input", "stream_output")
"""What every key of ours begins with; the last two are for live sessions, which store nothing yet."""


def is_key(text: str) -> bool:
    """Whether `text` is a storage key: no empty part, none that starts with a dot, at most 512 characters."""
    return len(text) <= 512 and _KEY.match(text) is not None


def source(job_id: str, extension: str) -> str:
    """`input/{job}/source.{ext}`; an extension that is not plain becomes `bin`."""
    extension = extension.lower().lstrip(".")
    return f"input/{job_id}/source.{extension if _EXTENSION.match(extension) else 'bin'}"


def input_prefix(job_id: str) -> str:
    return f"input/{job_id}/"


def input_use(input_id: str, job_id: str) -> str:
    """Says that a job reads an input that is another's; an empty object beside it."""
    return f"input/{input_id}/used-by/{job_id}"


def upload_prefix(upload_id: str) -> str:
    """What is kept of an upload beside its bytes."""
    return f"uploads/{upload_id}/"


def upload_record(upload_id: str) -> str:
    """What was announced; written once, before the first byte."""
    return f"uploads/{upload_id}/upload.json"


def upload_result(upload_id: str) -> str:
    """What arrived; written once all of it is stored and checked."""
    return f"uploads/{upload_id}/stored.json"


def job_prefix(job_id: str) -> str:
    return f"jobs/{job_id}/"


def generation_prefix(job_id: str, generation: int) -> str:
    return f"jobs/{job_id}/{generation}/"


def plan(job_id: str, generation: int) -> str:
    """The plan's head: what is fixed for every segment of this generation."""
    return f"jobs/{job_id}/{generation}/plan.json"


def plan_part(job_id: str, generation: int, first: int) -> str:
    """The segments from index `first` on, as far as one part of the scan went."""
    return f"jobs/{job_id}/{generation}/plan/{first:06d}.json"


def plan_total(job_id: str, generation: int) -> str:
    """The end of a plan; once it is stored the plan is whole."""
    return f"jobs/{job_id}/{generation}/plan/total.json"


def init(job_id: str, generation: int, sha256: str) -> str:
    """The init segment, named by its content: two that differ can not overwrite each other."""
    return f"jobs/{job_id}/{generation}/init-{sha256[:16]}.mp4"


def segments_prefix(job_id: str, generation: int) -> str:
    """Fragments, with what was measured on each, and their depth where it is exported."""
    return f"jobs/{job_id}/{generation}/segments/"


def segment(job_id: str, generation: int, index: int) -> str:
    return f"jobs/{job_id}/{generation}/segments/{index:05d}.m4s"


def segment_report(job_id: str, generation: int, index: int) -> str:
    """What the converter measured on a segment: frames, stage times, comfort numbers."""
    return f"jobs/{job_id}/{generation}/segments/{index:05d}.json"


def segment_depth(job_id: str, generation: int, index: int) -> str:
    """The exported depth of a segment."""
    return f"jobs/{job_id}/{generation}/segments/{index:05d}.depth.mkv"


def depth(job_id: str, generation: int) -> str:
    """The exported depth of a whole film; there before the job is completed."""
    return f"jobs/{job_id}/{generation}/depth.mkv"


def remote(job_id: str, generation: int, index: int, exchange: str, name: str) -> str:
    """What is handed to a remote endpoint for one segment, and its answer; removed when the exchange ends."""
    return f"jobs/{job_id}/{generation}/remote/{index:05d}-{exchange}/{name}"


def curve_window(job_id: str, generation: int, index: int) -> str:
    """Samples of near and far depth in one window of a learned engine's curve; windows before time zero have `m`."""
    return f"jobs/{job_id}/{generation}/curves/{'m' if index < 0 else ''}{abs(index):06d}.json"


def audio_prefix(job_id: str, generation: int) -> str:
    """Sound for playback, all tracks."""
    return f"jobs/{job_id}/{generation}/audio/"


def audio_init(job_id: str, generation: int, track: int) -> str:
    return f"jobs/{job_id}/{generation}/audio/{track}/init.mp4"


def audio_segment(job_id: str, generation: int, track: int, index: int) -> str:
    return f"jobs/{job_id}/{generation}/audio/{track}/{index:05d}.m4s"


def subtitles(job_id: str, generation: int, track: int, extension: str) -> str:
    return f"jobs/{job_id}/{generation}/subtitles/{track}.{extension}"


def film(job_id: str, generation: int, extension: str) -> str:
    """The finished film of one generation; readers follow the job's record, never guess this key."""
    return f"jobs/{job_id}/{generation}/final.{extension}"


def film_again(job_id: str, generation: int, attempt: int, sha256: str, extension: str) -> str:
    """A film that a repeated assembly made: named by its content, so that no late writer can change a recorded one, and
    by its attempt, so that none removes what a retry has recorded."""
    return f"jobs/{job_id}/{generation}/final-{attempt}-{sha256[:16]}.{extension}"


def film_alias(job_id: str) -> str:
    """`jobs/{job}/final.mp4`: an alias of the recorded film, for readers that know only the job."""
    return f"jobs/{job_id}/final.mp4"


def poster(job_id: str, generation: int) -> str:
    return f"jobs/{job_id}/{generation}/poster.jpg"


def storyboard(job_id: str, generation: int) -> str:
    """The cues of the scrubber's small pictures; stored after all their sheets."""
    return f"jobs/{job_id}/{generation}/storyboard/index.vtt"


def storyboard_sheet(job_id: str, generation: int, number: int) -> str:
    return f"jobs/{job_id}/{generation}/storyboard/{number}.jpg"


@dataclass(frozen=True, slots=True)
class SourceKey:
    job_id: str
    extension: str


@dataclass(frozen=True, slots=True)
class SegmentKey:
    job_id: str
    generation: int
    index: int


@dataclass(frozen=True, slots=True)
class AudioKey:
    job_id: str
    generation: int
    track: int
    index: int


def _parts(key: str) -> list[str]:
    return unquote_plus(key).split("/")


def parse_source(key: str) -> SourceKey | None:
    parts = _parts(key)
    if len(parts) != 3 or parts[0] != "input" or not is_token(parts[1]):
        return None
    stem, dot, extension = parts[2].partition(".")
    if stem != "source" or not dot or not _EXTENSION.match(extension):
        return None
    return SourceKey(parts[1], extension)


def parse_segment(key: str) -> SegmentKey | None:
    """The segment that a fragment's key names; films, inits and reports are not segments."""
    parts = _parts(key)
    if len(parts) != 5 or parts[0] != "jobs" or parts[3] != "segments" or not is_token(parts[1]):
        return None
    found = _SEGMENT.match(parts[4])
    if found is None or not parts[2].isascii() or not parts[2].isdigit():
        return None
    return SegmentKey(parts[1], int(parts[2]), int(found[1]))


def parse_audio_segment(key: str) -> AudioKey | None:
    """The chunk of sound that a key names; a track's init is none."""
    parts = _parts(key)
    if len(parts) != 6 or parts[0] != "jobs" or parts[3] != "audio" or not is_token(parts[1]):
        return None
    found = _SEGMENT.match(parts[5])
    if found is None or not all(part.isascii() and part.isdigit() for part in (parts[2], parts[4])):
        return None
    return AudioKey(parts[1], int(parts[2]), int(parts[4]), int(found[1]))


def parse_film(key: str) -> tuple[str, int, str] | None:
    """(job id, generation, extension) of a film's key; the alias has no generation and is not a film's key."""
    parts = _parts(key)
    if len(parts) != 4 or parts[0] != "jobs" or not is_token(parts[1]):
        return None
    found = _FILM.match(parts[3])
    if found is None or not parts[2].isascii() or not parts[2].isdigit():
        return None
    return parts[1], int(parts[2]), found[1]
