"""Learned engines: curves sampled, keys in batches, the rest carried, two segments in flight on one device.

borrowed engine ─> samples (near/far) ─> keys inferred ─> carried, normalised ─> the stages of `inference.convert`
"""
