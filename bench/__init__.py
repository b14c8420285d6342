"""Benchmarks that print the figures of docs/benchmarks.md, each beside its counterpart, measured in turn in one call.

python -m bench b1 b3 b6        # or none for all
"""

import os

# A shell may forbid compiled modules; an installed program has them, so what is measured may write them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
