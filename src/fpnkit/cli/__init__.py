"""The command line: one file a verb. Parsers are built without importing torch, so that --help is instant."""

from .main import main

__all__ = ["main"]
