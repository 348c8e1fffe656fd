"""A journal in one SQLite file, which several processes may share.

Write-ahead logging: readers never wait, and a commit is a write to the log. A plain append is made on
the event loop, since it costs less than handing it to a thread would; a durable one waits for the disk in
a thread. Locks are waited for by the event loop, never by blocking it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import JournalError
from .sqlite_file import connection_to, is_busy, open_journal, refused, translated
from .stores import SessionHead, StoredEvent, conflict

T = TypeVar("T")

#: The log is written back into the database after this much text, in a thread.
_CHECKPOINT_CHARS = 4_000_000


class SqliteJournalStore:
    """A :class:`~kernloom.kernel.journal.stores.JournalStore` in the SQLite file ``path``.

    The file and its folders are made at first use, for this user alone (0600). ``timeout`` is how many
    seconds a lock of another process is waited for.

    Beyond the protocol's codes it raises ``journal.not_a_journal`` (another kind of file),
    ``journal.newer`` (written by a later release), ``journal.unwritable`` and ``journal.closed``.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 5.0) -> None:
        self.path = Path(path)
        self._timeout = timeout
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        #: Writes, and waits for the disk: switching the other one over would cost more than a write.
        self._syncer: sqlite3.Connection | None = None
        #: Held while a writer's connection is in use, on the loop or in a thread.
        self._mutex = threading.Lock()
        self._closed = False
        #: Characters written since the log was last written back.
        self._logged = 0

    async def append(
        self,
        session: str,
        events: Sequence[StoredEvent],
        *,
        expected_seq: int,
        parent: tuple[str, int] | None = None,
        durable: bool = False,
    ) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        if not events:
            return
        if self._writer is None:
            await self._open()
        self._logged += sum([len(event.text) for event in events])
        to_disk = durable or self._logged > _CHECKPOINT_CHARS
        work = partial(self._append, session, events, expected_seq, parent, durable)
        await self._patiently(partial(self._exclusively, work), in_thread=to_disk)

    async def read(
        self,
        session: str,
        *,
        after: int = 0,
        limit: int | None = None,
        kinds: Collection[str] | None = None,
        newest: bool = False,
    ) -> list[StoredEvent]:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        query = [
            "SELECT place & 4294967295, at, actor, run, kind, version, checksum, text",
            "FROM (SELECT number << 32 AS base FROM sessions WHERE id = ?), events",
            "WHERE place > base + ? AND place <= base + 4294967295",
            "" if kinds is None else f"AND kind IN ({', '.join('?' * len(kinds))})",
            f"ORDER BY place {'DESC' if newest else 'ASC'} LIMIT ?",
        ]
        rows = await self._select(query, [session, after, *(kinds or ()), -1 if limit is None else limit])
        found = [StoredEvent._make(row) for row in rows]
        return found[::-1] if newest else found

    async def sessions(
        self,
        *,
        prefix: str = "",
        parent: str | None = None,
        roots: bool = False,
        limit: int | None = None,
    ) -> list[SessionHead]:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        query = [
            "SELECT id, seq, created, updated, parent_session, parent_seq FROM sessions",
            "WHERE id >= :prefix AND substr(id, 1, length(:prefix)) = :prefix",
            "AND parent_session = :parent" if parent is not None else "",
            "AND parent_session IS NULL" if roots else "",
            "ORDER BY updated DESC, id DESC LIMIT :limit",
        ]
        values = {"prefix": prefix, "parent": parent, "limit": -1 if limit is None else limit}
        return [
            SessionHead(name, seq, created, updated, None if opener is None else (opener, at))
            for name, seq, created, updated, opener, at in await self._select(query, values)
        ]

    async def close(self) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`; its use is then ``journal.closed``."""
        self._closed = True
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        await self._patiently(partial(self._exclusively, self._close_writers), in_thread=True)

    async def _select(self, query: list[str], values: Sequence[object] | Mapping[str, object]) -> list[Any]:
        def work() -> list[Any]:
            if self._reader is None:
                raise self._is_closed()
            return self._reader.execute(" ".join(query), values).fetchall()

        if self._reader is None:
            await self._open()
        return await self._patiently(work)

    async def _open(self) -> None:
        await self._patiently(partial(self._exclusively, self._connect), in_thread=True)

    async def _patiently(self, work: Callable[[], T], *, in_thread: bool = False) -> T:
        """``work()``, again and again while others hold the lock, for at most ``timeout`` seconds."""
        deadline, pause = 0.0, 0.001
        while True:
            try:
                return await _in_thread(work) if in_thread else work()
            except _Busy:
                pass
            except (sqlite3.Error, UnicodeDecodeError) as exc:
                if not is_busy(exc):
                    raise translated(self.path, exc) from exc
            now = time.monotonic()
            deadline = deadline or now + self._timeout
            if now >= deadline:
                raise JournalError(
                    f"The journal {str(self.path)!r} stayed locked for {self._timeout:g} s.",
                    code="journal.locked",
                    hint="Let the process that holds it finish, or stop it, and try again.",
                    path=str(self.path),
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)

    def _exclusively(self, work: Callable[[], T]) -> T:
        """``work`` while nobody else writes; another task's turn counts as a lock."""
        if not self._mutex.acquire(blocking=False):
            raise _Busy
        try:
            return work()
        finally:
            self._mutex.release()

    def _connect(self) -> None:
        if self._closed:
            raise self._is_closed()
        if self._writer is None:
            self._writer, self._reader = open_journal(self.path)

    def _close_writers(self) -> None:
        for connection in (self._syncer, self._writer):
            if connection is not None:
                connection.close()
        self._syncer = self._writer = None

    def _append(
        self,
        session: str,
        events: Sequence[StoredEvent],
        expected_seq: int,
        parent: tuple[str, int] | None,
        durable: bool,
    ) -> None:
        if self._writer is None:
            raise self._is_closed()
        if durable and self._syncer is None:
            self._syncer = connection_to(self.path, synchronous="FULL")
        connection = self._syncer if durable and self._syncer else self._writer
        execute = connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            base = _advance(execute, session, events, expected_seq, parent) << 32
            for event in events:
                execute(_INSERT, (base | event[0], *event[1:]))
            execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                execute("ROLLBACK")
            raise
        if self._logged > _CHECKPOINT_CHARS:
            self._logged = 0
            # The events are safe in the log; what cannot be written back now will be next time.
            with suppress(sqlite3.Error):
                execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _is_closed(self) -> JournalError:
        return refused(self.path, "journal.closed", "was closed")


class _Busy(Exception):  # noqa: N818 - a signal within this module, never seen outside
    """Another task of this process is writing."""


_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_BEGIN_SESSION = (
    "INSERT INTO sessions (id, seq, created, updated, parent_session, parent_seq) VALUES (?, ?, ?, ?, ?, ?)"
    " RETURNING number"
)
_ADVANCE_SESSION = "UPDATE sessions SET seq = ?, updated = ? WHERE id = ? AND seq = ? RETURNING number"


def _advance(
    execute: Callable[..., sqlite3.Cursor],
    session: str,
    events: Sequence[StoredEvent],
    expected_seq: int,
    parent: tuple[str, int] | None,
) -> int:
    """Move the session's end over ``events``, which are not none; return the session's number."""
    end, at = expected_seq + len(events), events[-1].at
    if expected_seq:
        numbers = execute(_ADVANCE_SESSION, (end, at, session, expected_seq)).fetchall()
        if numbers:
            return int(numbers[0][0])
    known = execute("SELECT seq FROM sessions WHERE id = ?", (session,)).fetchone()
    actual = known[0] if known else 0
    if known or expected_seq:
        raise conflict(session, expected=expected_seq, actual=actual)
    opener = parent or (None, None)
    [(number,)] = execute(_BEGIN_SESSION, (session, end, events[0].at, at, *opener)).fetchall()
    return int(number)


async def _in_thread(work: Callable[[], T]) -> T:
    """``work()`` in a thread. A commit cannot be called back: cancelled, this waits for its end first."""
    future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        if not future.cancelled():
            future.exception()
        raise
