"""Films whose own times are no list: one slip costs one frame a tick, and no other frame its time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from stereospot.media import plan
from stereospot.media.frames import Decoder
from stereospot.media.model import DecodeSpec, SourceInfo
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from stereospot.media.times import Times
from tests.media import reading
from tests.media.writing import Film, write
from tests.media.zoo import interlaced

MILLISECOND = Fraction(1, 1000)
HOUR = 3_600_000
VARIABLE = [*range(0, 3000, 100), *range(3000, 4980, 33)]
"""10 frames a second for three seconds, then 30."""


def told(own: list[int | None], *, step: Fraction = Fraction(40), repaired: bool = True) -> list[int]:
    times = Times(7, step, MILLISECOND, repaired=repaired)
    return [times.next(pts) for pts in own]


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ([0, 40, 40, 120], [0, 40, 41, 120]),
        ([0, 40, 40, 40, 41, 120], [0, 40, 41, 42, 43, 120]),
        ([0, 900, 500, 600, 1000], [0, 900, 901, 902, 1000]),  # a slip: in step with the sound again as soon as it can
        ([0, 5000, 100, 140, 100], [0, 5000, 5040, 5080, 5081]),  # the clock was set anew
        ([0, 5000, 100, 9000, 40], [0, 5000, 5040, 13940, 13980]),  # and once more
        ([10_000, 10_040, 200, 240, 10_160], [10_000, 10_040, 10_080, 10_120, 10_160]),  # an insert is over
        ([0, 40, 30 * HOUR, 30 * HOUR + 40, 160], [0, 40, 80, 120, 160]),  # what was set back is read as a wrap
        ([0, 5 * HOUR, 5 * HOUR + 40, 12 * HOUR], [0, 5 * HOUR, 5 * HOUR + 40, 5 * HOUR + 80]),
        ([5000, 100, 40_000, 9 * HOUR], [5000, 5040, 44_940, 44_980]),  # once it was set, an hour is no pause
        ([None, None, 100, None, None, 220], [7, 47, 100, 140, 180, 220]),
    ],
)
def test_own_times_are_repaired(own: list[int | None], found: list[int]) -> None:
    assert told(own) == found


def test_counted_frames_drift_by_no_fraction_of_a_tick() -> None:
    step = Fraction(1001, 30)
    assert told([5, 3, None] * 100, step=step, repaired=False) == [7 + int(number * step) for number in range(300)]


def repeating(path: Path, origin: Path, at: int) -> None:
    """The same film with one frame at the time of the one before it."""
    with av.open(str(origin)) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream, opaque=True)
        pts = 0
        for number, packet in enumerate(source.demux(stream)):
            if not packet.size:
                continue
            if number == at:
                packet.pts = packet.dts = pts
            pts = packet.pts or 0
            packet.stream = copy
            output.mux(packet)


def scanned(source: FileSource, info: SourceInfo) -> tuple[DecodeSpec, list[plan.FrameBatch]]:
    with pytest.raises(plan.Untrusted) as caught:
        list(plan.scan(source, info))
    assert caught.value.repairable
    spec = plan.decode_spec(info).model_copy(
        update={
            "synthesised": True, "repaired": True, "first_pts": info.video.first_pts,
            "frame_seconds": 1 / info.video.average_rate,
        }
    )  # fmt: skip
    return spec, list(plan.decode_scan(source, info, repaired=True))


@pytest.mark.parametrize("woven", [False, True], ids=["progressive", "interlaced"])
def test_a_repeated_time_moves_its_frame_by_a_tick_and_no_other(tmp_path: Path, woven: bool) -> None:
    """A film of variable rate, which no count of frames can be true to; also through the deinterlacer."""
    fields = {"x264-params": "keyint=30:bframes=0:bff=1:scenecut=0"} if woven else {"g": "30", "bf": "0"}
    film = Film(
        ".mkv", frames=len(VARIABLE), pts=VARIABLE, time_base=MILLISECOND, rate=Fraction(30), size=(176, 144),
        options={"preset": "ultrafast"} | fields,
    )  # fmt: skip
    if woven:
        film.picture = interlaced
    write(film, tmp_path / "good.mkv")
    repeating(tmp_path / "bad.mkv", tmp_path / "good.mkv", 20)
    wanted = [*VARIABLE[:20], VARIABLE[19] + 1, *VARIABLE[21:]]
    source = FileSource(tmp_path / "bad.mkv")
    try:
        info = probe(source)
        assert info.video.average_rate < 40
        assert info.video.interlaced == ("bottom" if woven else "no")
        spec, batches = scanned(source, info)
        assert [pts for batch in batches for pts in batch.pts] == wanted
        end = batches[-1].end_pts
        assert end is not None
        assert VARIABLE[-1] < end <= VARIABLE[-1] + 100
        with Decoder(source, spec, info) as decoder:
            serial = reading.collect(decoder, None, None)
            assert [pts for pts, _, _ in serial] == wanted
            reading.check_ranges(decoder, serial, (60, 15, 21, 20))  # back and forth, so that each begins anew
    finally:
        source.close()


@pytest.mark.parametrize(
    "starts",
    [(10, 1), (1000, 990, 1004), (10, 36_010)],
    ids=["back", "an insert", "hours ahead"],
)
def test_a_clock_that_is_set_anew_goes_on_a_frame_later(starts: tuple[int, ...], tmp_path: Path) -> None:
    joined = tmp_path / "joined.ts"
    with joined.open("wb") as file:
        for number, start in enumerate(starts):
            pts = [90_000 * start + 3600 * frame for frame in range(50)]
            film = Film(".ts", frames=50, rate=Fraction(25), time_base=Fraction(1, 90_000), pts=pts, size=(176, 144))
            write(film, tmp_path / f"{number}.ts")
            file.write((tmp_path / f"{number}.ts").read_bytes())
    source = FileSource(joined)
    try:
        info = probe(source)
        spec, batches = scanned(source, info)
        pts = [value for batch in batches for value in batch.pts]
        assert pts == [pts[0] + 3600 * number for number in range(50 * len(starts))]
        with Decoder(source, spec, info) as decoder:
            serial = reading.collect(decoder, None, None)
            assert [value for value, _, _ in serial] == pts
        with Decoder(source, spec, info) as decoder:
            assert reading.collect(decoder, pts[70], pts[80]) == serial[70:80]
    finally:
        source.close()
