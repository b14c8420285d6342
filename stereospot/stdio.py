"""stdout and stderr of a process that was started without them, or that can no longer write there."""

from __future__ import annotations

import os
import sys


def open_closed() -> None:
    """Nowhere, in place of a stdout or stderr that was closed before the start (`2>&-`).

    Else they are None, and the next file to be opened has their number. To be called first of all by what runs.
    """
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            drop(descriptor)
            os.set_inheritable(descriptor, True)  # also where it was the lowest number that was free
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def drop(descriptor: int) -> None:
    """What still waits to be written there goes nowhere; else the interpreter ends with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
