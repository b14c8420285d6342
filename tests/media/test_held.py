"""Padding that is too large to be kept as decoded frames, and a decoder that finds no memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from stereospot.media import decoding
from stereospot.media import limits as limits_module
from stereospot.media.decoding import RangeDecoder
from tests.media import reading, sources

FILMS = ("h264_mp4", "h264_open_gop_mkv", "vfr_mkv", "h264_ts", "mpeg2_interlaced_ts", "mpeg4_avi", "delayed_mp4")
BEFORE, AFTER = 12, 7
Found = list[tuple[int, int, bytes]]


def ranges(name: str, *, sequential: bool) -> Iterator[Found]:
    """(PTS, pad, luma) of ranges one after the other, the film's first and last among them, with padding."""
    film = reading.planned(name)
    spec = film.spec.model_copy(update={"sequential": sequential})
    request = limits_module.Limits().request() | spec.model_dump(mode="json")
    cuts = [0, 5, 6, 20, len(film.pts) - 4]
    with open(sources.path(name), "rb") as file:
        decoder = RangeDecoder(file, request)  # type: ignore[arg-type]
        for begin, end in zip(cuts, [*cuts[1:], None], strict=True):
            start = film.pts[begin] if begin else None
            items = decoder.range(start, film.pts[end] if end else None, BEFORE, AFTER)
            yield [(item.pts, item.pad, bytes(item.frame.planes[0])) for item in items]
            held = [*decoder._history, *decoder._pending]  # pyright: ignore[reportPrivateUsage]
            assert sum(len(bytes(plane)) for item in held for plane in item.frame.planes) <= decoding.HELD_BYTES
        decoder.close()


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("name", FILMS)
def test_padding_that_is_not_kept_is_the_same(name: str, sequential: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = list(ranges(name, sequential=sequential))
    video = reading.planned(name).info.video
    monkeypatch.setattr(decoding, "HELD_BYTES", 8 * video.width * video.height)  # about five pictures
    found = list(ranges(name, sequential=sequential))
    assert found == kept
    assert [sum(pad < 0 for _, pad, _ in part) for part in found] == [0, 5, 6, BEFORE, BEFORE]
    assert [sum(pad > 0 for _, pad, _ in part) for part in found] == [AFTER, AFTER, AFTER, 4, 0]


def test_a_failure_without_room_is_one_of_memory() -> None:
    """Some decoders say "invalid data" of a failed allocation; skipped, the frame would be lost without a word."""
    code = """
import resource, av.error
from types import SimpleNamespace
from stereospot.media import packets

class Packet:
    stream = SimpleNamespace(codec_context=SimpleNamespace(width=3840, height=2160))

    def decode(self):
        raise av.error.InvalidDataError(1, "damaged")

def said():
    try:
        packets.decode(Packet())
    except (MemoryError, av.error.InvalidDataError) as failure:
        return type(failure).__name__

first = said()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, used + 2**24))
print(first, said())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["InvalidDataError", "MemoryError"]
