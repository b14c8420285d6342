"""Train the depth network: `python -m inference.training.train --minutes 90 --out folder`.

Place in the flow: starts the trainers (`trainer.py`) that share a run and the
render processes (`stream.py`) that feed each, and ends them together.
`export.py` makes the shipped file of what they leave.

A checkpoint is written every few minutes and on SIGTERM or Ctrl-C; the same
command with `--resume` continues a run that did not finish, in so many
`--minutes`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from multiprocessing import connection
from pathlib import Path

from torch import distributed, multiprocessing

from inference.training.network import parameters
from inference.training.stream import Pool, Stream
from inference.training.trainer import Plan, Trainer

LONGEST_PAUSE = timedelta(days=2)
"""So long trainers wait for one that is stopped; one that has died is noticed at once."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the relief network on rendered scenes.")
    parser.add_argument("--minutes", type=float, required=True, help="working minutes of this call")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--init", type=Path, help="start from an exported .onnx model or a checkpoint .pt")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out, if any")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=Plan.__dataclass_fields__["learning_rate"].default)
    parser.add_argument("--small-until", type=float, default=Plan.__dataclass_fields__["small_until"].default)
    parser.add_argument("--processes", type=int, default=1, help="trainers that share each step, each with renderers")
    parser.add_argument("--renderers", type=int, help="of each trainer (default: one for each core that is left)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each trainer")
    parser.add_argument("--textures", type=int, default=320)
    parser.add_argument("--validation", type=int, default=96, help="pictures in each scoring set")
    given = parser.parse_args(arguments)
    from_scratch = given.init is None
    renderers = given.renderers or max(1, (os.cpu_count() or 2) // given.processes - 1)
    plan = Plan(
        minutes=given.minutes, seed=given.seed, learning_rate=given.learning_rate, small_until=given.small_until,
        renderers=renderers, threads=given.threads, processes=given.processes, textures=given.textures,
        validation=given.validation, edges_from=0.08 if from_scratch else 0.0,
    )  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:  # where they meet
        meeting = Path(folder) / "meeting"
        return _work(plan, given, 0, meeting) if plan.processes == 1 else _supervise(plan, given, meeting)


def _supervise(plan: Plan, given: argparse.Namespace, meeting: Path) -> int:
    """Several trainers as children; where one fails the others, who wait for it, are ended."""
    context = multiprocessing.get_context("spawn")
    trainers = [context.Process(target=_child, args=(plan, given, rank, meeting)) for rank in range(plan.processes)]

    def stop(_signal: int, _frame: object) -> None:
        if trainers[0].is_alive():
            trainers[0].terminate()  # which tells the others at the end of its step

    with _handling(stop):
        try:
            for trainer in trainers:
                trainer.start()
            left = {trainer.sentinel: trainer for trainer in trainers}
            while left and not any(trainer.exitcode for trainer in trainers):
                for sentinel in connection.wait(list(left)):
                    left.pop(sentinel).join()
        finally:
            for trainer in trainers:
                if trainer.is_alive():
                    trainer.kill()
                trainer.join()
    return int(any(trainer.exitcode for trainer in trainers))


def _child(plan: Plan, given: argparse.Namespace, rank: int, meeting: Path) -> None:
    if rank:  # the first one's wish is all that counts
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(_work(plan, given, rank, meeting))


@contextlib.contextmanager
def _group(plan: Plan, rank: int, meeting: Path) -> Iterator[None]:
    """The processes that share a run; also of one, so that all runs go one way."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=plan.processes, timeout=LONGEST_PAUSE
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _work(plan: Plan, given: argparse.Namespace, rank: int, meeting: Path) -> int:
    """One trainer with its renderers."""
    with _group(plan, rank, meeting):
        trainer = Trainer(plan, given.out, rank)
        resumed = given.resume and trainer.resume()
        seed = plan.seed + 17 * trainer.step + 100_003 * rank
        pool, stream = Pool(), Stream(seed, plan.renderers, textures=plan.textures)

        def stop(_signal: int, _frame: object) -> None:
            trainer.asked_to_stop = True

        with _handling(stop) if rank == 0 else contextlib.nullcontext(), contextlib.closing(stream):
            pids = trainer.gathered([os.getpid(), *(p.pid or 0 for p in stream.processes)])
            trainer.log(action="started", plan=asdict(trainer.plan), parameters=parameters(trainer.network), pids=pids)
            least = min(480, 24 + int(400 * given.minutes))
            while len(pool.stills) < least and not trainer.asked_to_stop:
                pool.fill(stream, 5.0)
            if trainer.should_stop():
                trainer.log(action="stopped", step=trainer.step)
                return 0
            if given.init and not resumed:
                trainer.initialise(given.init, pool)
            trainer.agree()
            trainer.run(pool, stream)
    return 0


@contextlib.contextmanager
def _handling(stop: Callable[[int, object], None]) -> Iterator[None]:
    """SIGTERM and Ctrl-C lead to `stop`, and back to what they led to."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
