"""Tables on stdout: what is in them was written by others, so none of it is markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below their heads."""
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    with console.capture() as drawn:
        console.print(table)
    # Not by the console: where nobody reads (`… | head`) that one ends the process with 1.
    print(drawn.get(), end="")
