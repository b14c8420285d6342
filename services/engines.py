"""Which engine a job gets, and the head of its plan: every default settled, once a generation, never silently changed."""

from __future__ import annotations
