"""Sound with holes, with a clock that is set anew, and in a form that changes: it stays where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stereospot.media.sound_clock import Gaps
from stereospot.media.source_clock import LONGEST_PAUSE_SECONDS, SourceClock
from stereospot.media.tracks import carry_audio
from stereospot.options import Container
from tests.media import films, sources

SECONDS = 4


# ---- the rule --------------------------------------------------------------------------------------------
def test_a_clock_that_is_set_anew_is_followed_from_there_on() -> None:
    clock = SourceClock(48000)
    assert clock.at(50_000, 48_000) == 50_000, "a pause"
    assert clock.at(20_000, 60_000) == 20_000, "an overlap"
    assert clock.at(0, 480_000) == 480_000, "set back"
    assert clock.at(1000, 481_000) == 481_000
    assert clock.at(3000, 482_000) == 483_000, "a pause after that"
    ahead = LONGEST_PAUSE_SECONDS * 48000 + 500_000
    assert clock.at(ahead, 490_000) == 490_000, "set ahead"
    assert clock.at(ahead + 1000, 491_000) == 491_000


def test_a_clock_that_is_back_is_in_step_again() -> None:
    """Main film, insert, main film: the sound of each part ends a tenth of a second early."""
    clock = SourceClock(1000)
    assert clock.at(10_000, 9_900) == 10_000
    assert clock.at(100, 13_900) == 13_900, "the insert"
    assert clock.at(18_000, 17_800) == 18_000, "not by the insert's offset"
    assert clock.at(48_000, 19_000) == 48_000, "a pause after that"
    assert clock.at(148_000, 50_000) == 50_000, "no pause any more"


def test_a_clock_of_milliseconds_makes_no_gap() -> None:
    """A sound that begins at 1.23 ms, in frames of 1152 samples, with times that are rounded down."""
    gaps = Gaps(Fraction(1, 1000), 44100)
    times = [int(1.23 + number * 1152 * 1000 / 44100) for number in range(2000)]
    assert {gaps.before(time, 1152, number * 1152) for number, time in enumerate(times)} == {0}


def test_a_lost_packet_is_a_gap_and_a_repeated_one_is_too_much() -> None:
    gaps = Gaps(Fraction(1, 48000), 48000)
    assert gaps.before(9000, 1152, 0) == 0, "the first one says where all others lie"
    assert gaps.before(9000 + 2 * 1152, 1152, 1152) == 1152
    assert gaps.before(9000 + 2 * 1152, 1152, 3 * 1152) == -1152
    assert gaps.before(None, 1152, 3 * 1152) == 0


# ---- holes in what is packed without loss ----------------------------------------------------------------
def without(path: Path, target: Path, lost: Callable[[int], bool]) -> Path:
    """The film without those packets of its sound."""
    number = 0
    with av.open(str(path), "r") as source, av.open(str(target), "w") as output:
        streams = {one.index: output.add_stream_from_template(one, opaque=True) for one in source.streams}
        for packet in source.demux():
            if packet.size:
                number += packet.stream.type == "audio"
                if packet.stream.type != "audio" or not lost(number):
                    packet.stream = streams[packet.stream_index]
                    output.mux(packet)
    return target


def hole(number: int) -> bool:
    return 10 < number < 25


def damage(number: int) -> bool:
    return number % 7 == 3


@pytest.mark.parametrize(
    ("codec", "rate", "suffix", "lost", "containers"),
    [
        ("mp2", 48000, ".ts", hole, ("mp4", "mov")),
        ("mp2", 48000, ".ts", damage, ("mp4", "mov")),
        ("pcm_s16le", 32000, ".mkv", hole, ("mp4", "mov")),
        ("pcm_s16le", 32000, ".mkv", damage, ("mp4", "mov")),
        ("pcm_bluray", 48000, ".m2ts", hole, ("mkv",)),
    ],
)
def test_what_follows_a_hole_stays_where_it_was(
    codec: str, rate: int, suffix: str, lost: Callable[[int], bool], containers: tuple[Container, ...], tmp_path: Path
) -> None:
    full = tmp_path / f"full{suffix}"
    sources.write(sources.Film(suffix, frames=24 * SECONDS, size=(64, 48), audio=(sources.Audio(codec, rate),)), full)
    path = without(full, tmp_path / f"holed{suffix}", lost)
    whole, rest = films.sounds(full)[0].pcm, films.sounds(path)[0].pcm
    for container in containers:
        films.job(path, container).assemble(tmp_path / "film")
        found = films.sounds(tmp_path / "film")[0].pcm
        assert rest.shape[1] < found.shape[1]
        assert abs(found.shape[1] - whole.shape[1]) < rate // 10, "only what was lost at the end is not made up for"
        length = min(found.shape[1], whole.shape[1])
        differing = (np.abs(level(found)[:, :length] - level(whole)[:, :length]) > 0.03).any(axis=0)
        assert differing.sum() < 1.5 * (whole.shape[1] - rest.shape[1]), "a decoder needs a while to find its feet"
        silent = (found == 0).all(axis=0).sum()
        assert silent > 0.9 * (found.shape[1] - rest.shape[1]), "what is lost is silent"


def test_an_hour_of_nothing_takes_no_memory() -> None:
    """PCM that begins again an hour later: given in pieces, each of a second at most."""
    pieces: list[tuple[int, int]] = []
    with av.open(str(sources.path_of("prores_mov")), "r") as source:
        stream = source.streams.audio[0]
        name, rate = stream.codec_context.name, stream.codec_context.sample_rate
        one = carry_audio(stream, "mov", Fraction(0))
        packets = [packet for packet in source.demux(stream) if packet.size]
        for packet in packets[len(packets) // 2 :]:
            assert packet.pts is not None
            assert packet.time_base is not None
            packet.pts += int(3600 / packet.time_base)
        for packet in packets:
            one.take(packet, lambda _, data, count: pieces.append((len(data), count)))
    assert name.startswith("pcm")
    assert sum(count for _, count in pieces) == one.track.samples
    assert one.track.samples / rate > 3600
    assert max(count for _, count in pieces) <= rate


# ---- forms -----------------------------------------------------------------------------------------------
def encoded(codec: str, layout: str, rate: int, start: float, seconds: float) -> Iterator[Any]:
    """Packets of a tone on all channels, with times of a 90 kHz clock."""
    kind = "s16" if codec == "mp2" else "fltp"
    context: Any = av.CodecContext.create(codec, "w")
    context.layout, context.sample_rate, context.format, context.bit_rate = layout, rate, kind, 128_000
    context.time_base = Fraction(1, rate)
    context.open()
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    samples = np.ascontiguousarray(np.stack([wave] * av.AudioLayout(layout).nb_channels), np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    made = [done for piece in av.AudioResampler(format=kind).resample(frame) for done in context.encode(piece)]
    for packet in [*made, *context.encode(None)]:
        copy = av.Packet(bytes(packet))
        copy.time_base = Fraction(1, 90000)
        copy.pts = copy.dts = round((start + float(packet.pts * packet.time_base)) * 90000)
        yield copy


def part(path: Path, codec: str, layout: str, rate: int, first: int, frames: int) -> bytes:
    """A transport stream of pictures from number `first` on, at ten seconds and 25 a second, with its sound."""
    with av.open(str(path), "w", format="mpegts") as output:
        video: Any = output.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream(codec, rate=rate)
        sound.codec_context.layout = layout
        output.start_encoding()
        packets: list[Any] = []
        for number in range(first, first + frames):
            frame = sources.frame(number, 64, 48)
            frame.pts, frame.time_base = 250 + number, Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode(None)
        for packet in encoded(codec, layout, rate, 10 + first / 25, frames / 25):
            packet.stream = sound
            packets.append(packet)
        packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        output.mux(packets)
    return path.read_bytes()


def changing(tmp_path: Path, codec: str, *forms: tuple[str, int]) -> Path:
    """Two seconds of each form, (layout, rate), one after the other."""
    path = tmp_path / "source.ts"
    parts = [part(tmp_path / f"{n}.ts", codec, *form, 50 * n, 50) for n, form in enumerate(forms)]
    path.write_bytes(b"".join(parts))
    return path


def level(pcm: Any) -> Any:
    """The samples with a full scale of 1."""
    return pcm / {"int16": 1 << 15, "int32": 1 << 31}.get(pcm.dtype.name, 1)


def loudness(pcm: Any, rate: int) -> list[float]:
    """Of each half second, of the first channel."""
    step = rate // 2
    return [float(np.abs(level(pcm)[0, at : at + step]).mean()) for at in range(0, pcm.shape[1] - step + 1, step)]


@pytest.mark.parametrize("forms", [(("stereo", 48000), ("mono", 48000)), (("mono", 48000), ("stereo", 44100))])
@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_a_form_that_changes_is_brought_to_one(container: Container, forms: Any, tmp_path: Path) -> None:
    job = films.job(changing(tmp_path, "mp2", *forms), container)
    report = job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    sound = films.sounds(tmp_path / "film")[0]
    with av.open(str(tmp_path / "film"), "r") as film:
        rate = film.streams.audio[0].rate
    assert sound.pcm.shape[1] / rate == pytest.approx(4.0, abs=0.1)
    assert min(loudness(sound.pcm, rate)) > 0.05
    assert not [text for text in report.warnings if "decode" in text]


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_aac_whose_form_changes_is_decoded_to_its_widest(container: Container, tmp_path: Path) -> None:
    job = films.job(changing(tmp_path, "aac", ("stereo", 48000), ("5.1", 48000)), container)
    job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    sound = films.sounds(tmp_path / "film")[0]
    assert sound.codec == ("pcm_f32le" if container == "mov" else "flac")
    assert sound.pcm.shape[0] == 6
    assert sound.pcm.shape[1] / 48000 == pytest.approx(4.0, abs=0.1)
    assert min(loudness(sound.pcm, 48000)) > 0.05
    quiet = np.abs(level(sound.pcm)[2, 24000:72000]).mean()
    assert quiet < 0.001, "stereo has nothing in the middle"


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_a_damaged_header_of_aac_is_one_packet(container: Container, tmp_path: Path) -> None:
    path = tmp_path / "source.ts"
    data = bytearray(part(path, "aac", "stereo", 48000, 0, 50))
    data[data.index(b"\xff\xf1", len(data) // 2) + 3] ^= 0xC0
    path.write_bytes(data)
    job = films.job(path, container)
    report = job.assemble(tmp_path / "film")
    sound = films.sounds(tmp_path / "film")[0]
    assert sound.codec == "aac"
    assert loudness(sound.pcm, 48000)[-1] > 0.1
    assert any("do not decode" in text for text in report.warnings) == (container != "mkv")


@pytest.mark.parametrize(("container", "kept"), [("mp4", False), ("mov", True), ("mkv", True)])
def test_more_channels_than_flac_has(container: Container, kept: bool, tmp_path: Path) -> None:
    path = tmp_path / "source.mov"
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=24, options={"preset": "ultrafast", "bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream("pcm_s16le", rate=48000)
        sound.codec_context.layout = "7.1.4"
        output.start_encoding()
        for number in range(24):
            frame = sources.frame(number, 64, 48)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            output.mux(video.encode(frame))
            made = av.AudioFrame.from_ndarray(np.full((1, 12 * 2000), number, np.int16), format="s16", layout="7.1.4")
            made.sample_rate, made.pts, made.time_base = 48000, number * 2000, Fraction(1, 48000)
            output.mux(sound.encode(made))
        output.mux(video.encode(None))
    job = films.job(path, container)
    report = job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    assert [sound.pcm.shape for sound in films.sounds(tmp_path / "film")] == ([(12, 48000)] if kept else [])
    assert len([text for text in report.warnings if "left out" in text]) == (0 if kept else 1)
