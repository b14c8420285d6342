"""Looking after streams and consumers: what `Bus` offers to operators, the janitor and tests beyond messages."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from stereospot import errors
from stereospot.bus import api
from stereospot.bus.api import Refused


class Administration:
    """The JetStream API by name; each call raises Refused or BROKER_UNAVAILABLE."""

    @abstractmethod
    async def api(
        self, path: str, body: Mapping[str, Any] | None = None, *, patience_seconds: float = 5.0
    ) -> dict[str, Any]:
        """One request to `$JS.API.<path>`, repeated within the patience; raises Refused or BROKER_UNAVAILABLE."""

    async def stream_info(self, stream: str, *, subjects_filter: str | None = None) -> dict[str, Any]:
        """`config`, `state` and, with a filter, `state.subjects` = {subject: messages}."""
        return await self.api(
            f"STREAM.INFO.{stream}", {"subjects_filter": subjects_filter} if subjects_filter else None
        )

    async def subjects(self, stream: str, pattern: str = ">") -> dict[str, int]:
        """The subjects of a stream that match, with the number of their messages: 100,000 a request. Names that come
        or go between two requests may be missed."""
        found: dict[str, int] = {}
        offset = 0
        while True:
            info = await self.api(f"STREAM.INFO.{stream}", {"subjects_filter": pattern, "offset": offset})
            page: dict[str, int] = info["state"].get("subjects") or {}
            found |= page
            offset += len(page)
            if not page or offset >= int(info.get("total", 0)):
                return found

    async def consumers(self, stream: str) -> list[dict[str, Any]]:
        """What `consumer_info` says, of all consumers of a stream: 256 a request.

        Raises BROKER_UNAVAILABLE where a cluster names some whose leader does not answer: none is left out.
        """
        found: list[dict[str, Any]] = []
        while True:
            answer = await self.api(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
            if silent := [*(answer.get("missing") or ()), *(answer.get("offline") or ())]:
                raise errors.error("BROKER_UNAVAILABLE", f"Of {stream}, {', '.join(sorted(silent))} did not answer.")
            page: list[dict[str, Any]] = answer.get("consumers") or []
            found += page
            if not page or len(found) >= int(answer.get("total", 0)):
                return found

    async def consumer_info(self, stream: str, consumer: str) -> dict[str, Any]:
        """`config`, `num_pending`, `num_ack_pending`, `num_redelivered`, `num_waiting`, `paused`."""
        return await self.api(f"CONSUMER.INFO.{stream}.{consumer}")

    async def purge(self, stream: str, subject: str | None = None) -> int:
        """Remove a stream's messages, or those of the subjects that match; returns how many."""
        answer = await self.api(
            f"STREAM.PURGE.{stream}", {"filter": subject} if subject else None, patience_seconds=15.0
        )
        return int(answer.get("purged", 0))

    async def remove(self, stream: str, sequence: int) -> bool:
        """Remove one message; False when it was not there."""
        try:
            answer = await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
        except Refused as problem:
            if problem.err_code in api.NOT_THERE:
                return False
            raise
        return bool(answer.get("success"))

    async def pause(self, stream: str, consumer: str, seconds: float) -> None:
        """Deliver nothing for `seconds`; the server resumes by itself."""
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        await self.api(f"CONSUMER.PAUSE.{stream}.{consumer}", {"pause_until": until.isoformat().replace("+00:00", "Z")})

    async def resume(self, stream: str, consumer: str) -> None:
        await self.api(f"CONSUMER.PAUSE.{stream}.{consumer}", {})
