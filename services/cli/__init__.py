"""The front door: `stereospot …`. Each module holds one command or one family; heavy imports happen inside them."""

from services.cli.app import main

__all__ = ["main"]
