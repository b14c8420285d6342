"""A converter stays as large as it is: many segments in one process, decoder in the jail, engine, warp and encoder."""

from __future__ import annotations

import gc
import os
from fractions import Fraction
from pathlib import Path

from bench import bare
from inference import backends
from stereospot.media.cmaf import FragmentEncoder
from stereospot.media.frames import Decoder
from stereospot.media.model import EncodeSpec
from stereospot.media.source import FileSource
from stereospot.options import Codec, Options
from tests.unit import clips

FRAMES, LENGTH = 60, 10
WARM_LAPS, LAPS = 3, 8
MOST_MIB = 12
"""Pictures that are kept would add 25 MiB in the laps that count, encoders that are not closed more."""


def resident_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_film(path: Path) -> None:
    spec = EncodeSpec(
        codec=Codec.X264, pixel_format="yuv420p", width=320, height=180, time_base=Fraction(1, 24000),
        rate=Fraction(24000, 1001), crf=20, preset="ultrafast", key_seconds=0.4,
    )  # fmt: skip
    encoder = FragmentEncoder(spec)
    for index, planes in enumerate(clips.pictures(FRAMES, 320, 180, cuts=(25,))):
        encoder.write(planes, index * clips.TICKS)
    found = encoder.finish(FRAMES * clips.TICKS)
    path.write_bytes(found.init + found.media)


def test_memory_does_not_grow_with_the_film(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4")
    source = FileSource(tmp_path / "film.mp4")
    try:
        head, whole = bare.plan(source, "relief", Options())
        assert (whole.start, whole.frames) == (0, FRAMES)
        backend = backends.load("local", engine="relief")
        sizes: list[float] = []
        with Decoder(source, head.decode, head.source) as decoder:
            for _ in range(LAPS):
                for first in range(0, FRAMES, LENGTH):
                    part = clips.segment(first // LENGTH, first, first + LENGTH)
                    assert backend.convert(decoder=decoder, plan=head, segment=part).finish().frames == LENGTH
                sizes.append(resident_mib())
        backend.close()
    finally:
        source.close()
    assert max(sizes[WARM_LAPS:]) - sizes[WARM_LAPS - 1] < MOST_MIB, sizes
