"""Playback."""

HANDLERS = ()
