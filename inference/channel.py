"""What joins the threads of a conversion: bounded channels that all give way when any part fails or is told to stop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from stereospot import errors

T = TypeVar("T")

_POLL_SECONDS = 0.1


class Halt:
    """Shared by the parts of one conversion: the first failure, and the stop event from outside."""

    def __init__(self, stop: threading.Event | None) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self.failure: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Remember the first failure; every channel then raises."""
        with self._lock:
            if self.failure is None and not isinstance(error, Halted):
                self.failure = error

    @property
    def is_set(self) -> bool:
        return self.failure is not None or (self._stop is not None and self._stop.is_set())

    def check(self) -> None:
        """Raise Halted when the conversion is to end."""
        if self.is_set:
            raise Halted

    def reraise(self) -> None:
        """Raise what ended the conversion: CANCELLED, or the first failure."""
        if self._stop is not None and self._stop.is_set():
            raise errors.error("CANCELLED") from self.failure
        if self.failure is not None:
            raise self.failure

    def run(self, work: Callable[[], None]) -> None:
        """Body of a thread: do the work, and remember its failure."""
        try:
            work()
        except BaseException as error:
            self.fail(error)


class Halted(Exception):
    """Another part of the conversion has failed or was told to stop."""


class Channel(Generic[T]):
    """A queue of at most `size` items from one thread to another."""

    def __init__(self, size: int, halt: Halt) -> None:
        self._size = size
        self._halt = halt
        self._items: deque[T] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Add an item, waiting for room; raises Halted."""
        with self._changed:
            while len(self._items) >= self._size:
                self._halt.check()
                self._changed.wait(_POLL_SECONDS)
            self._halt.check()
            self._items.append(item)
            self._changed.notify_all()

    def close(self) -> None:
        """No more items follow."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drain(self) -> list[T]:
        """What nobody took."""
        with self._changed:
            left = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return left

    def __iter__(self) -> Iterator[T]:
        """Items in order until the channel is closed; raises Halted."""
        while True:
            with self._changed:
                while not self._items:
                    self._halt.check()
                    if self._closed:
                        return
                    self._changed.wait(_POLL_SECONDS)
                self._halt.check()
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
