"""iw3 (nagadomi's nunif) in a process of its own: `child.py` runs there and imports nothing of ours.

What iw3 does to its process stays in it: stdout swapped while models load, torch.hub's folder, torch's determinism,
stateful models, a `nunif` and an `iw3` at the top of the import path.
"""
