"""Films to measure on: the real clip that lies beside the checkout, scaled up, or else the demo's own drawing.

Each is made once and kept in the system's temporary folder, named by what it is.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType

from services.cli import clip

FOLDER = Path(tempfile.gettempdir()) / "stereospot-bench"
REAL = Path(__file__).resolve().parents[2] / "shared" / "media" / "big-buck-bunny-480p-30s.mp4"


def film(seconds: int = 60, width: int = 1920, height: int = 1080, gop: int = 250, suffix: str = "mp4") -> Path:
    """H.264 (x264 veryfast, crf 20, the given GOP) with AAC, `seconds` long; real pictures where they are at hand."""
    kind = "bunny" if REAL.exists() else "drawn"
    path = FOLDER / f"{kind}-{seconds}s-{width}x{height}-g{gop}.{suffix}"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    source = REAL if REAL.exists() else FOLDER / "drawn.mp4"
    if not source.exists():
        clip.write_clip(source, 30)
    part = path.with_suffix(f".part.{suffix}")
    _loop(source, part, seconds, width, height, gop)
    part.rename(path)
    return path


def repeated(minute: Path, seconds: int, suffix: str = "mp4") -> Path:
    """`minute` (60 s) over and over by copying its packets, in the given container."""
    path = minute.with_name(f"{minute.stem}-repeated-{seconds}s.{suffix}")
    if path.exists():
        return path
    part = path.with_suffix(f".part.{suffix}")
    with av.open(str(part), "w") as out, av.open(str(minute)) as first:
        targets = {
            stream.index: out.add_stream_from_template(stream)
            for stream in (first.streams.video[0], first.streams.audio[0])
        }
        last = dict.fromkeys(targets, -1 << 62)
        for turn in range(seconds // 60):
            with av.open(str(minute)) as source:
                for packet in source.demux(*[source.streams[index] for index in targets]):
                    if packet.dts is None or packet.pts is None:
                        continue
                    shift = int(Fraction(60 * turn) / packet.time_base)
                    packet.pts += shift
                    packet.dts += shift
                    if packet.dts <= last[packet.stream.index]:
                        continue  # sound is a little longer than the minute
                    last[packet.stream.index] = packet.dts
                    packet.stream = targets[packet.stream.index]
                    out.mux(packet)
    part.rename(path)
    return path


def _loop(source: Path, target: Path, seconds: int, width: int, height: int, gop: int) -> None:
    """Scale `source` and repeat it until `seconds` are full; sound repeats with it."""
    options = {"preset": "veryfast", "crf": "20", "g": str(gop), "sc_threshold": "0"}
    with av.open(str(target), "w") as out:
        with av.open(str(source)) as first:
            rate = first.streams.video[0].average_rate or Fraction(24)
        video = out.add_stream("libx264", rate=rate, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = 1 / rate
        audio = out.add_stream("aac", rate=48_000, layout="stereo")
        frames, samples = round(seconds * rate), seconds * 48_000
        number, heard = 0, 0
        resampler = av.AudioResampler("fltp", "stereo", 48_000)
        while number < frames or heard < samples:
            with av.open(str(source)) as again:
                for frame in again.decode(again.streams.video[0], again.streams.audio[0]):
                    if isinstance(frame, av.VideoFrame) and number < frames:
                        scaled = frame.reformat(width, height, "yuv420p")
                        scaled.pts, scaled.time_base, scaled.pict_type = (
                            number,
                            1 / rate,
                            PictureType.NONE,
                        )
                        out.mux(video.encode(scaled))
                        number += 1
                    elif isinstance(frame, av.AudioFrame) and heard < samples:
                        for piece in resampler.resample(frame):
                            piece.pts, piece.time_base = heard, Fraction(1, 48_000)
                            heard += piece.samples
                            out.mux(audio.encode(piece))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
