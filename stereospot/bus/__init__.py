"""JetStream as StereoSpot uses it: nats-py wrapped once, so that nobody above this package sees it.

    connection      Bus: connect, publish with retries, atomic commits
    administration  a base of Bus: look at, purge, pause streams and consumers
    api             one request to the JetStream API, and what its errors mean
    buckets         Bucket: a KV bucket with compare-and-set
    pull            Puller: pull requests to one durable consumer; Delivery is what a handler sees
    tail            Tail: a stream's messages in order from a sequence on, across restarts of the broker

An exception from a write means *unknown*, never *no*: writes carry an id that stays the same over their retries, and
whoever gets BROKER_UNAVAILABLE or Conflict reads again and then decides (`notes` of the lab: on a killed leader 212 of
300 batches whose publisher saw an error had been applied).
"""

from __future__ import annotations

from stereospot.bus.api import Conflict, Refused
from stereospot.bus.buckets import Bucket, Entry, Write
from stereospot.bus.connection import Bus
from stereospot.bus.pull import Delivery, Puller, PullError
from stereospot.bus.tail import Stored, Tail

__all__ = [
    "Bucket",
    "Bus",
    "Conflict",
    "Delivery",
    "Entry",
    "PullError",
    "Puller",
    "Refused",
    "Stored",
    "Tail",
    "Write",
]
