"""The command line: ``kernloom`` and ``python -m kernloom``.

One file per group of commands; each loads when its command is used.
"""

from __future__ import annotations

from .app import main

__all__ = ["main"]
