"""B1 and B3: the main job against a plain transcode, and against one bare conversion call.

B1  `stereospot convert` (the whole daemon: broker, planner, jail, converter, collector, assembler) over a plain PyAV
    transcode with the same encoder settings; frames a second over frames a second, so 1.0 would be free stereo.
B3  the daemon with one worker over one bare `inference.convert` call on the same film, same jail; time over time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType

from bench import clips, first_frame, measure


def daemon(film: Path, *, engine: str | None, layout: str = "half-sbs", workers: int | None = None) -> dict[str, float]:
    """Convert `film` by the command; returns the JSON it prints, plus `wall` seconds of the whole command."""
    folder = Path(tempfile.mkdtemp(prefix="stereospot-bench-"))
    command = [sys.executable, "-m", "services.cli", "convert", str(film), "-o", str(folder / "out.mp4"), "--json"]
    command += ["--data", str(folder / "data"), "--layout", layout]
    command += ["--engine", engine] if engine else []
    command += ["--workers", str(workers)] if workers else []
    try:
        found: dict[str, float] = {}

        def work() -> None:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found.update(json.loads(done.stdout))

        return {"wall": measure.timed(work)} | found
    finally:
        shutil.rmtree(folder)


def transcode(film: Path) -> float:
    """Seconds of a plain PyAV decode and encode with the encoder settings of our fragments: veryfast, crf 20, bf 0."""

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder, av.open(str(film)) as source:
            stream = source.streams.video[0]
            stream.thread_type = "AUTO"
            with av.open(str(Path(folder) / "out.mp4"), "w") as out:
                rate = stream.average_rate or Fraction(24)
                target = out.add_stream(
                    "libx264",
                    rate=rate,
                    options={
                        "preset": "veryfast",
                        "crf": "20",
                        "bf": "0",
                        "g": str(round(2 * rate)),
                        "sc_threshold": "0",
                    },
                )
                target.width, target.height, target.pix_fmt = stream.width, stream.height, "yuv420p"
                target.codec_context.time_base = stream.time_base or 1 / rate
                for frame in source.decode(stream):
                    frame.pict_type = PictureType.NONE
                    out.mux(target.encode(frame))
                out.mux(target.encode(None))

    return measure.timed(work)


def b1(pairs: int = 3, seconds: int = 60, engine: str | None = None) -> str:
    """Frames a second of the whole command (its start-up left in) over those of the plain transcode."""
    film = clips.film(seconds)
    runs: list[dict[str, float]] = []

    def ours() -> float:
        runs.append(daemon(film, engine=engine))
        return runs[-1]["wall"]

    daemon(clips.film(4), engine=engine)  # compiles the kernels into their cache, as any first use does
    result = measure.in_turn(lambda: transcode(film), ours, pairs)
    frames = runs[0]["frames"]
    rows = [
        ["plain transcode", frames / min(result.a), frames / sorted(result.a)[len(result.a) // 2]],
        [
            f"stereospot convert ({runs[0]['engine']})",
            frames / min(result.b),
            frames / sorted(result.b)[len(result.b) // 2],
        ],
    ]
    head = ["what", "fps, best", "fps, median"]
    return measure.table(f"B1: fps ratio {result.describe()}; target 0.80 (first landing 0.50)", head, rows)


def b3(pairs: int = 3, seconds: int = 60) -> str:
    """Time of a warm daemon with one worker, from the job's creation to its recorded film, over one bare conversion."""
    from bench import bare

    film = clips.film(seconds)
    with first_frame.daemon("--slots", "1") as (client, _):
        first_frame.whole_film(client, clips.film(4))
        result = measure.in_turn(lambda: first_frame.whole_film(client, film), lambda: bare.convert(film), pairs)
    rows = [
        ["daemon, one worker", min(result.a), sorted(result.a)[pairs // 2]],
        ["bare call", min(result.b), sorted(result.b)[pairs // 2]],
    ]
    return measure.table(f"B3: time ratio {result.describe()}; target <= 1.05", ["what", "s, best", "s, median"], rows)
