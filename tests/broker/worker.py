"""A process of its own for the crash tests: one actor that records, completes, announces; run with `python -m`.

python -m tests.broker.worker NATS_URL
"""

from __future__ import annotations

import asyncio
import sys

from stereospot import errors, log, subjects
from stereospot.actor import Actor
from stereospot.bus import Bus, Conflict, Delivery, Write
from stereospot.completion import Completion
from stereospot.messages import PlanWork, Trigger
from stereospot.outcome import Ack, Outcome
from stereospot.settings import Settings


def worker(bus: Bus) -> Actor:
    """Handles `work.plan`: a record, a completion set with its trigger, a done message; job `bad` is rejected."""

    async def handle(delivery: Delivery) -> Outcome:
        work = delivery.parse(PlanWork)
        if work.job_id == "bad":
            raise errors.error("CORRUPT_INPUT")
        await bus.bucket(subjects.JOBS).put(work.job_id, delivery.data)
        state = Completion(job_id=work.job_id, generation=1, total=1, done=1)
        trigger = Trigger(job_id=work.job_id, generation=1, total=1)
        pair = (
            Write(subjects.STATE, subjects.state_key(work.job_id, 1), state.body(), 0),
            Write(subjects.STATE, subjects.trigger_key(work.job_id, 1), trigger.body(), 0),
        )
        try:
            await bus.commit(pair)
        except Conflict:
            found = await bus.bucket(subjects.STATE).get(pair[0].key)
            assert found is not None
        subject = subjects.done_segment(work.job_id, 1, 0)
        await bus.publish(subject, b"{}", msg_id=subject)
        return Ack()

    return Actor(bus, subjects.WORK, "work-plan", handle, name="worker", ack_wait=1.0, backoff_seconds=0.05)


async def main() -> None:
    log.configure()
    bus = await Bus.connect(Settings(nats_url=sys.argv[1]), name="worker")
    await worker(bus).run()


if __name__ == "__main__":
    asyncio.run(main())
