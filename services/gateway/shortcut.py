"""The short way of playlists: what hundreds of players ask for every few seconds is sent again as it was.

    player ──asks──> guard ──find──> as before: sent at once          (no await, no parsing, no route)
                       └──────────> else: the route, which makes it, sends it, and keeps it here

An answer is good while all that it was made of is as it was: the job's record, its completion set, its token.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from litestar.types import HTTPScope, Send

from services.gateway.index import Index
from services.gateway.table import Row
from services.gateway.tokens import expiry_of
from stereospot.completion import Completion
from stereospot.media.hls import MEDIA_TYPE

KEPT = 512
HEADERS = {"content-type": MEDIA_TYPE, "cache-control": "no-store"}
"""Of a playlist, whoever sends it."""

_HEADERS = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())


@dataclass(frozen=True, slots=True)
class Answer:
    """A playlist as it was last sent, and what it was made of."""

    route: str
    body: bytes
    job_id: str
    generation: int
    row_revision: int
    state_revision: int
    good_until: float

    async def send(self, send: Send) -> None:
        headers = [*_HEADERS, (b"content-length", str(len(self.body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class Shortcut:
    """Answers by their paths, which hold their token."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def find(self, scope: HTTPScope) -> Answer | None:
        """The same answer as last time, if nothing that it was made of has changed."""
        path = scope["path"]
        if not path.startswith("/v/") or scope["method"] != "GET" or scope["query_string"]:
            return None
        found = self._answers.get(path)
        if found is None:
            return None
        # The path is the one that was asked before, its token with it: only time can make that invalid.
        row = self._index.recent(found.job_id)
        live = self._index.live(found.job_id, found.generation)
        if (
            row is not None
            and live is not None
            and (row.revision, live.revision) == (found.row_revision, found.state_revision)
            and time.time() < found.good_until
        ):
            return found
        del self._answers[path]
        return None

    def keep(self, path: str, body: bytes, *, route: str, token: str, row: Row, state: Completion) -> None:
        """Keep an answer, if it was made of what the index holds now."""
        job_id, generation = row.job.job_id, row.job.generation
        live = self._index.live(job_id, generation)
        if live is None or live.completion is not state:
            return
        self._answers[path] = Answer(route, body, job_id, generation, row.revision, live.revision, expiry_of(token))
        while len(self._answers) > KEPT:
            self._answers.popitem(last=False)
