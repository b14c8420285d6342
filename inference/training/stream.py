"""Rendered samples, streamed from render processes into a replay pool in memory.

Place in the flow: `train.py` opens a `Stream`, lets `Pool.fill` take what has
arrived before each step, and draws its batches from the pool. A sample is
used several times, each time augmented differently, and is overwritten by
newer ones in turn; nothing is written to disk.

Each process has its own seed, so the samples of a run are reproducible; how
many have arrived by a given step depends on the machine.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.training.render import BACK, HEIGHT, WIDTH, Clip, Frame

CHUNK_STILLS, CHUNK_CLIPS = 16, 8
"""A chunk is what a process sends at once; the same mix as a batch of the trainer."""
STEADY_KINDS = ("plain_ground", "traffic", "traffic", "traffic", "above", "above", "room", "wall", "table_top")
CHUNKS_PER_ATLAS = 160
"""Then the process paints new textures."""


def _render(seed: int, textures: int, out: multiprocessing.Queue) -> None:
    """A render process: chunks of stills and clips, until its trainer ends it or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all; the trainer still needs what is on its way
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # trainers that ignore it hand that down
    out.cancel_join_thread()  # what nobody takes any more would keep this process for ever
    from inference.training import render
    from inference.training.textures import make_atlas

    parent, rng, chunk = multiprocessing.parent_process(), np.random.default_rng(seed), 0
    assert parent is not None
    atlas = make_atlas(seed, textures)
    while parent.is_alive():
        chunk += 1
        if chunk % CHUNKS_PER_ATLAS == 0:
            atlas = make_atlas(seed + 7919 * chunk, textures)
        stills = [render.still(rng, atlas) for _ in range(CHUNK_STILLS)]
        # More often than by their weight: grounds that must not move when something enters.
        clips = [
            render.clip(rng, atlas, str(rng.choice(STEADY_KINDS)) if rng.random() < 0.5 else None)
            for _ in range(CHUNK_CLIPS)
        ]
        while parent.is_alive():
            try:
                out.put((stills, clips), timeout=5)
                break
            except queue.Full:
                continue


class Stream:
    """Render processes and the bounded queue they write to."""

    def __init__(self, seed: int, processes: int, *, textures: int = 320) -> None:
        context = multiprocessing.get_context("spawn")
        self._queue = context.Queue(maxsize=4 * processes)
        self.processes = [
            context.Process(target=_render, args=(seed + 1000 * i, textures, self._queue), daemon=True)
            for i in range(processes)
        ]
        for process in self.processes:
            process.start()

    def take(self, timeout_seconds: float) -> tuple[list[Frame], list[Clip]] | None:
        """The next chunk, or None when there is none yet."""
        try:
            return self._queue.get(timeout=timeout_seconds) if timeout_seconds else self._queue.get_nowait()
        except queue.Empty:
            if not all(process.is_alive() for process in self.processes):
                raise RuntimeError("a render process has died; its error is above") from None
            return None

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()
        self._queue.close()
        self._queue.cancel_join_thread()


@dataclass(slots=True)
class Ring:
    """Fixed arrays that are overwritten from the start when full."""

    rgb: NDArray[np.uint8]
    inverse: NDArray[np.float16]
    back: NDArray[np.float16]
    flow: NDArray[np.float16] | None
    written: int = 0

    def __len__(self) -> int:
        return min(self.written, len(self.rgb))


class Pool:
    """Recent stills, and recent clips with their flow."""

    def __init__(self, stills: int = 12_000, clips: int = 3_000) -> None:
        # np.empty takes memory only as it is filled.
        self.stills = Ring(
            np.empty((stills, HEIGHT, WIDTH, 3), np.uint8),
            np.empty((stills, HEIGHT, WIDTH), np.float16),
            np.empty((stills, HEIGHT // BACK, WIDTH // BACK), np.float16),
            None,
        )
        self.clips = Ring(
            np.empty((clips, 2, HEIGHT, WIDTH, 3), np.uint8),
            np.empty((clips, 2, HEIGHT, WIDTH), np.float16),
            np.empty((clips, 2, HEIGHT // BACK, WIDTH // BACK), np.float16),
            np.empty((clips, HEIGHT, WIDTH, 2), np.float16),
        )

    @property
    def frames(self) -> int:
        """Frames ever received."""
        return self.stills.written + 2 * self.clips.written

    def fill(self, stream: Stream, timeout_seconds: float = 0.0) -> bool:
        """Take all chunks that wait (or wait for one); True when something came."""
        came = False
        while (chunk := stream.take(timeout_seconds)) is not None:
            came, timeout_seconds = True, 0.0
            stills, clips = chunk
            for frame in stills:
                at = self.stills.written % len(self.stills.rgb)
                self.stills.rgb[at], self.stills.inverse[at], self.stills.back[at] = (
                    frame.rgb,
                    frame.inverse,
                    frame.back,
                )
                self.stills.written += 1
            for clip in clips:
                at = self.clips.written % len(self.clips.rgb)
                for which, frame in enumerate((clip.first, clip.second)):
                    self.clips.rgb[at, which], self.clips.inverse[at, which] = frame.rgb, frame.inverse
                    self.clips.back[at, which] = frame.back
                assert self.clips.flow is not None
                self.clips.flow[at] = clip.flow
                self.clips.written += 1
        return came

    def draw(
        self, rng: np.random.Generator, stills: int, clips: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]]:
        """rgb [n, h, w, 3], inverse [n, h, w], back [n, h / 4, w / 4], flow [clips, h, w, 2]; n = stills + 2 clips,

        stills first, then the first frames of the clips, then their second frames.
        """
        a = rng.integers(0, len(self.stills), stills)
        b = rng.integers(0, len(self.clips), clips)
        assert self.clips.flow is not None
        rgb = np.concatenate([self.stills.rgb[a], self.clips.rgb[b, 0], self.clips.rgb[b, 1]])
        inverse = np.concatenate([self.stills.inverse[a], self.clips.inverse[b, 0], self.clips.inverse[b, 1]])
        back = np.concatenate([self.stills.back[a], self.clips.back[b, 0], self.clips.back[b, 1]])
        return rgb, inverse, back, self.clips.flow[b]
