"""What every handler of the gateway is given."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from litestar.di import NamedDependency

from services.context import Context
from services.gateway.index import Index
from services.gateway.metrics import Metrics
from services.gateway.table import Row
from services.gateway.tokens import Tokens
from services.intake import Intake
from services.plans import Plans


@dataclass(slots=True)
class Gateway:
    """One gateway: the way outside, the read model, what signs and what counts."""

    context: Context
    index: Index
    plans: Plans
    tokens: Tokens
    metrics: Metrics
    intake: Intake
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    store_good_until: float = 0.0

    def stop(self) -> None:
        """End event streams and long polls now; other answers go on."""
        self.stopping.set()
        self.index.wake()

    def token(self, row: Row) -> str:
        return self.tokens.issue(row.job.job_id)


Given = NamedDependency[Gateway]
"""The gateway as a handler's argument."""
