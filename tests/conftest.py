"""What every test may use: a line of its own in the table of faults (`tests/faults/table.py`)."""

from tests.faults.table import pytest_terminal_summary, tell

__all__ = ["pytest_terminal_summary", "tell"]
