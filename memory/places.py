"""Where a document's file lies, as memory remembers it.

Files below the memory's own folder (or in the project whose ``.kernloom`` folder it is in) are kept
relative to it, so that project and memory can be moved or cloned together; all others absolute.
"""

from __future__ import annotations

import os
from pathlib import Path


class Shelf:
    """Turns real paths into what is stored, and back. ``memory`` is the database file, if there is one."""

    def __init__(self, memory: Path | None) -> None:
        self._home = memory.resolve().parent if memory is not None else Path.cwd()
        self._within = self._home.parent if self._home.name == ".kernloom" else self._home
        self._relative = memory is not None

    def place(self, path: Path) -> str:
        """What is stored for a real path."""
        if self._relative and path.is_relative_to(self._within):
            return Path(os.path.relpath(path, self._home)).as_posix()
        return path.as_posix()

    def path(self, place: str) -> Path:
        """The real path of what is stored."""
        return Path(os.path.normpath(self._home / place))
