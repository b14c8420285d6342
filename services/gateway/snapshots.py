"""The JSON of each job's present state, made once for all who read it, and the wire format of event streams."""

from __future__ import annotations

import json
from collections import OrderedDict

from services.gateway.resources import snapshot
from services.gateway.state import Gateway
from services.gateway.table import Row
from services.gateway.tokens import expiry_of

CACHED = 512


class Snapshots:
    """Jobs by id, each with the text of its last state."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._known: OrderedDict[str, tuple[str, bytes]] = OrderedDict()

    async def get(self, job_id: str) -> tuple[str, bytes, Row] | None:
        """(event id, data, row) of a job that exists."""
        gateway = self._gateway
        row = await gateway.index.row(job_id)
        if row is None:
            return None
        live = gateway.index.live(job_id, row.job.generation)
        # Cells change without a revision: they are few, and only while the job runs.
        cells = "" if live is None else ",".join(f"{c.index}{c.state[1]}{c.attempt}" for c in live.cells.values())
        # So does the token, once a day: a text of last week's holds addresses that have expired.
        token = gateway.token(row)
        identity = f"{row.revision}-{live.revision if live else 0}-{hash(cells) & 0xFFFFFF:x}-{expiry_of(token):.0f}"
        known = self._known.get(job_id)
        if known is None or known[0] != identity:
            body = snapshot(row, live, token)
            known = identity, json.dumps(body, separators=(",", ":")).encode()
            self._known[job_id] = known
            while len(self._known) > CACHED:
                self._known.popitem(last=False)
        return *known, row


def event(name: str, identity: str, data: bytes) -> bytes:
    """One event of the wire format; JSON has no line breaks."""
    return f"event: {name}\nid: {identity}\ndata: ".encode() + data + b"\n\n"
