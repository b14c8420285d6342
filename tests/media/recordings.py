"""Recordings whose clock is set anew on the way: transport streams that are joined, with a beep in each."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.media import sources

RATE = 48_000
SECOND = 90_000
PART_SECONDS = 2
BEEP_SECONDS = 0.8
"""Where each part sounds, from its first picture on."""
BEEPS_APART_SECONDS = 9
"""Where one that lasts so long sounds again."""

_CLUSTER = b"\x1f\x43\xb6\x75"


def sound(codec: str, seconds: float, begin: float) -> Iterator[Any]:
    """Packets of silence with a beep of a fifth of a second; from `begin` on, 0 being the part's first picture."""
    kind = "s16" if codec == "mp2" else "fltp"
    context: Any = av.CodecContext.create(codec, "w")
    context.layout, context.sample_rate, context.format, context.bit_rate = "stereo", RATE, kind, 128_000
    context.time_base = Fraction(1, RATE)
    context.open()
    times = begin + np.arange(round((seconds - begin) * RATE)) / RATE
    loud = abs(times % BEEPS_APART_SECONDS - BEEP_SECONDS - 0.1) < 0.1
    wave = np.where(loud, 0.5 * np.sin(2 * np.pi * 1000 * times), 0)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    made = [done for piece in av.AudioResampler(format=kind).resample(frame) for done in context.encode(piece)]
    for packet in [*made, *context.encode(None)]:
        copy = av.Packet(bytes(packet))
        copy.time_base = Fraction(1, SECOND)
        copy.pts = copy.dts = round((begin + float(packet.pts * packet.time_base)) * SECOND)
        copy.duration = round(float(packet.duration * packet.time_base) * SECOND)
        yield copy


def part(
    path: Path, codec: str, start: float, sounding: float, begin: float = 0, *, seconds: int = PART_SECONDS
) -> bytes:
    """Some seconds of a recording whose clock shows `start` at its first picture.

    path: a transport stream `.ts` or a program stream `.mpg`; its sound lasts from `begin` to `sounding`.
    """
    kind, pictures = ("mpegts", "libx264") if path.suffix == ".ts" else ("vob", "mpeg2video")
    with av.open(str(path), "w", format=kind) as output:
        options = {"preset": "ultrafast"} if path.suffix == ".ts" else {}
        video: Any = output.add_stream(pictures, rate=25, options={"bf": "2", "g": "25"} | options)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track: Any = output.add_stream(codec, rate=RATE)
        track.codec_context.layout = "stereo"
        output.start_encoding()
        ordered: list[tuple[float, Any]] = []
        for number in range(25 * seconds):
            frame = sources.frame(number, 64, 48)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            ordered += [(float(packet.dts * packet.time_base), packet) for packet in video.encode(frame)]
        ordered += [(float(packet.dts * packet.time_base), packet) for packet in video.encode(None)]
        for packet in sound(codec, sounding, begin):
            packet.stream = track
            ordered.append((float(packet.dts * packet.time_base), packet))
        for _, packet in sorted(ordered, key=lambda item: item[0]):
            packet.pts += round(start / packet.time_base)
            packet.dts += round(start / packet.time_base)
            output.mux_one(packet)
    return path.read_bytes()


def set_back(data: bytes, place: int, seconds: int) -> bytes:
    """A transport stream whose pictures' clock is set back from its `place`th picture on, and not that of its sound."""
    made = bytearray(data)
    pictures = 0
    for at in range(0, len(made), 188):
        if made[at + 1] & 0x40 == 0:  # no PES packet begins
            continue
        head = at + 4 + (1 + made[at + 4] if made[at + 3] & 0x20 else 0)
        if bytes(made[head : head + 3]) != b"\0\0\1" or made[head + 3] & 0xF0 != 0xE0:
            continue
        pictures += 1
        for field in range(head + 9, head + 9 + made[head + 8], 5) if pictures > place else ():
            bits = int.from_bytes(made[field : field + 5])
            time = (bits >> 33 & 7) << 30 | (bits >> 17 & 0x7FFF) << 15 | bits >> 1 & 0x7FFF
            time -= seconds * SECOND
            bits = (bits >> 36 << 36) | (time >> 30) << 33 | (time >> 15 & 0x7FFF) << 17 | (time & 0x7FFF) << 1
            made[field : field + 5] = (bits | 1 << 32 | 1 << 16 | 1).to_bytes(5)
    return bytes(made)


def joined(tmp_path: Path, codec: str, *parts: tuple[float, ...], suffix: str = ".ts") -> Path:
    """Recordings one behind the other: `part`'s start, sounding and begin of each."""
    path = tmp_path / f"joined{suffix}"
    made = {item: part(tmp_path / f"part{suffix}", codec, *item) for item in dict.fromkeys(parts)}
    path.write_bytes(b"".join(made[item] for item in parts))
    return path


def repeated(path: Path, seconds: int) -> Path:
    """An mp4 with sound, of whose pictures one has the time of the one before."""
    with av.open(str(path), "w", format="mp4") as output:
        video: Any = output.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "0", "g": "25"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track: Any = output.add_stream("aac", rate=RATE)
        track.codec_context.layout = "stereo"
        output.start_encoding()
        frames = [sources.frame(number, 64, 48) for number in range(25 * seconds)]
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 25)
        made = [packet for frame in [*frames, None] for packet in video.encode(frame)]
        for number, packet in enumerate(made):
            tick = round(Fraction(1, 25) / packet.time_base)
            packet.pts, packet.dts = (number + (2 if number != 30 else 1)) * tick, number * tick
        for packet in sound("aac", seconds, 0):
            packet.stream = track
            made.append(packet)
        for packet in made:
            output.mux_one(packet)
    return path


def beeps(pcm: Any, rate: int) -> list[float]:
    """Seconds at which it begins to sound, after a pause."""
    steps = rate // 200
    heard = np.abs(pcm[0, : pcm.shape[1] // steps * steps].astype(np.float64))
    loud = heard.reshape(-1, steps).max(axis=1) > 0.1 * heard.max()
    return [at / 200 for at in np.flatnonzero(loud) if not loud[max(0, at - 20) : at].any()]


def heard(path: Path) -> list[float]:
    """Beeps of the first sound by the times of the file, which may have holes."""
    placed: dict[int, Any] = {}
    with av.open(str(path), "r") as film:
        stream: Any = film.streams.audio[0]
        for frame in film.decode(stream):
            samples = np.atleast_2d(frame.to_ndarray())[:1]
            if not frame.format.is_planar:
                samples = samples[:, :: len(frame.layout.channels)]
            placed[round(frame.time * stream.rate)] = samples
    pcm = np.zeros((1, max(at + samples.shape[1] for at, samples in placed.items())))
    for at, samples in placed.items():
        pcm[:, max(0, at) : at + samples.shape[1]] = samples[:, max(0, -at) :]
    return beeps(pcm, stream.rate)


def subtitled(path: Path, *starts: int) -> Path:
    """Matroska as senders write it, joined: two seconds each whose clock shows `starts` milliseconds at first.

    Each has a cue from half a second on, for half a second, that tells its number.
    """
    for number, start in enumerate(starts):
        cue = (start + 500, start + 1000, f"Cue {number}")
        film = sources.Film(
            ".mkv", frames=25 * PART_SECONDS, rate=Fraction(25), time_base=Fraction(1, 1000), size=(64, 48),
            pts=[start + 40 * at for at in range(25 * PART_SECONDS)], subtitles="subrip", cues=(cue,),
            container_options={"live": "1"},
        )  # fmt: skip
        sources.write(film, path.with_name("part.mkv"))
        data = path.with_name("part.mkv").read_bytes()
        with path.open("ab") as file:
            file.write(data[data.index(_CLUSTER) :] if number else data)
    return path
