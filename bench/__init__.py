"""Benchmarks that print the figures of docs/benchmarks.md, each beside its counterpart, measured in turn in one call.

python -m bench b1 b3 b6        # or none for all
"""
