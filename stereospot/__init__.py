"""What every StereoSpot service speaks: subjects, messages, state machine, keys, errors, bus, storage, media.

This package sits at the bottom of the house: it imports `streams_config` and nothing else of ours.
"""

__version__ = "0.1.0"
