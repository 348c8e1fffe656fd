"""A SQLite store in which a process dies, or its disk fails, at a point that was chosen beforehand."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from kernloom.kernel.errors import JournalError
from kernloom.kernel.journal import SqliteJournalStore
from kernloom.kernel.journal.stores import StoredEvent


class DyingStore(SqliteJournalStore):
    """Counts the points before and after everything it makes last; at one of them the process is killed.

    Args:
        path: the journal's file.
        die_at: SIGKILL at this point (1: before the first append or lease).
        fail_at: raise ``journal.io`` there instead, and at every further point until ``fails`` are over:
            what was to be written stands there or not, as the point is after the write or before it.
    """

    def __init__(
        self, path: Path, *, die_at: int | None = None, fail_at: int | None = None, fails: int = 1
    ) -> None:
        super().__init__(path)
        self.points = 0
        #: Events that were written and acknowledged.
        self.written = 0
        self._die_at = die_at
        self._fails = range(fail_at, fail_at + fails) if fail_at is not None else range(0)

    async def append(
        self,
        session: str,
        events: Sequence[StoredEvent],
        *,
        expected_seq: int,
        parent: tuple[str, int] | None = None,
        durable: bool = False,
    ) -> None:
        self._point()
        await super().append(session, events, expected_seq=expected_seq, parent=parent, durable=durable)
        self.written += len(events)
        self._point()

    async def lease(self, session: str, holder: str, *, seconds: float, now: float) -> None:
        self._point()
        await super().lease(session, holder, seconds=seconds, now=now)
        self._point()

    async def release(self, session: str, holder: str) -> None:
        self._point()
        await super().release(session, holder)
        self._point()

    def _point(self) -> None:
        self.points += 1
        if self.points == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.points in self._fails:
            raise JournalError("The disk failed.", code="journal.io")
