"""Who shares a process: as many segments as come, but one that may have ended a worker is alone in it.

A segment that takes its process along (out of memory, a crash in an encoder) takes along whatever that process holds,
and each of those loses a try for nothing; offered again at the same moment they would meet again, until all of them are
given up. So from its second try on a segment waits until nothing else is at work here, and nothing else begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Company:
    """For one event loop."""

    def __init__(self) -> None:
        self._present = 0
        self._suspect = False
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def visit(self, *, alone: bool) -> AsyncGenerator[bool]:
        """From the first step of a segment's work to the last; False for what had better be elsewhere by now."""
        if self._suspect:
            yield False
            return
        if alone:
            self._suspect = True
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not alone or self._present == 0)
            self._present += 1
            try:
                yield True
            finally:
                self._present -= 1
        finally:
            if alone:
                self._suspect = False
            async with self._changed:
                self._changed.notify_all()
