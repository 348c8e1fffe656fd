"""A journal in one SQLite file, which several processes may share.

Write-ahead logging: readers never wait, a commit is a write to the log. A plain append is made on the
event loop, since it costs less than handing it to a thread would; a durable one waits for the disk in a
thread. Locks are waited for by the event loop, never by blocking it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import JournalError
from .stores import SessionHead, StoredEvent, conflict

T = TypeVar("T")

#: What ``PRAGMA user_version`` says of the tables below.
SCHEMA_VERSION = 1
#: ``PRAGMA application_id``: "klom", by which a file is known to be a journal.
_APPLICATION = 0x6B6C6F6D
#: The log is written back to the database after this much text, in a thread.
_CHECKPOINT_CHARS = 4_000_000

# An event's place is session number * 2^32 + seq: one integer key, so that a session lies together and
# an append touches one page of one tree. sessions.seq is known twice on purpose: a lost tail shows.
_SCHEMA = """
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    seq INTEGER NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    parent_session TEXT,
    parent_seq INTEGER
);
CREATE INDEX sessions_parent ON sessions (parent_session) WHERE parent_session IS NOT NULL;
CREATE TABLE events (
    place INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    run TEXT,
    kind TEXT NOT NULL,
    version INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE VIEW journal AS
    SELECT id AS session, place & 4294967295 AS seq, datetime(at, 'unixepoch') AS at, actor, run, kind, text
    FROM events JOIN sessions ON number = place >> 32;
"""


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
        #: Held while the writer's connection is in a transaction, on the loop or in a thread.
        self._mutex = threading.Lock()
        self._closed = False
        self._unchecked = 0

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
        self._unchecked += sum(len(event.text) for event in events)
        checkpoint = self._unchecked > _CHECKPOINT_CHARS
        if checkpoint:
            self._unchecked = 0

        def work() -> None:
            with self._writing() as connection:
                if durable:
                    connection.execute("PRAGMA synchronous = FULL")
                try:
                    _append(connection, session, events, expected_seq, parent)
                finally:
                    if durable:
                        connection.execute("PRAGMA synchronous = NORMAL")
                if checkpoint:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

        await self._patiently(work, in_thread=durable or checkpoint)

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
        chosen = "" if kinds is None else f" AND kind IN ({', '.join('?' * len(kinds))})"
        query = (
            "SELECT place & 4294967295, at, actor, run, kind, version, checksum, text"
            " FROM (SELECT number << 32 AS base FROM sessions WHERE id = ?), events"
            f" WHERE place > base + ? AND place <= base + 4294967295{chosen}"
            f" ORDER BY place {'DESC' if newest else 'ASC'} LIMIT ?"
        )
        values = [session, after, *(kinds or ()), -1 if limit is None else limit]
        rows = await self._patiently(lambda: self._reading().execute(query, values).fetchall())
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
        query = (
            "SELECT id, seq, created, updated, parent_session, parent_seq FROM sessions"
            " WHERE id >= :prefix AND substr(id, 1, length(:prefix)) = :prefix"
            f"{' AND parent_session = :parent' if parent is not None else ''}"
            f"{' AND parent_session IS NULL' if roots else ''}"
            " ORDER BY updated DESC, id DESC LIMIT :limit"
        )
        values = {"prefix": prefix, "parent": parent, "limit": -1 if limit is None else limit}
        rows = await self._patiently(lambda: self._reading().execute(query, values).fetchall())
        return [
            SessionHead(name, seq, created, updated, None if opener is None else (opener, at))
            for name, seq, created, updated, opener, at in rows
        ]

    async def close(self) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`; afterwards it is ``journal.closed``."""

        def work() -> None:
            with self._exclusive():
                self._closed = True
                for connection in (self._reader, self._writer):
                    if connection is not None:
                        connection.close()
                self._reader = self._writer = None

        if not self._closed:
            await self._patiently(work, in_thread=True, connect=False)

    async def _patiently(
        self, work: Callable[[], T], *, in_thread: bool = False, connect: bool = True
    ) -> T:
        """``work()``, again and again while others hold the lock, for at most ``timeout`` seconds."""
        if connect and self._writer is None:
            await self._patiently(self._connect, in_thread=True, connect=False)
        deadline, pause = 0.0, 0.001
        while True:
            try:
                return await _in_thread(work) if in_thread else work()
            except _Busy:
                pass
            except sqlite3.Error as exc:
                if not _is_busy(exc):
                    raise self._translated(exc) from exc
            now = time.monotonic()
            deadline = deadline or now + self._timeout
            if now >= deadline:
                raise JournalError(
                    f"The journal {str(self.path)!r} was locked by another process for {self._timeout:g} s.",
                    code="journal.locked",
                    hint="Let the other process finish, or stop it, and try again.",
                    path=str(self.path),
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """The writer's connection for oneself; another loop's or thread's turn counts as a lock."""
        if not self._mutex.acquire(blocking=False):
            raise _Busy
        try:
            yield
        finally:
            self._mutex.release()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._exclusive():
            if self._writer is None:
                raise self._is_closed()
            yield self._writer

    def _reading(self) -> sqlite3.Connection:
        if self._reader is None:
            raise self._is_closed()
        return self._reader

    def _connect(self) -> None:
        with self._exclusive():
            if self._closed:
                raise self._is_closed()
            if self._writer is not None:
                return
            try:
                _create(self.path)
                writer = _connection(self.path)
            except OSError as exc:
                raise self._refused("journal.unwritable", f"cannot be opened: {exc}") from exc
            try:
                self._prepare(writer)
                self._reader = _connection(self.path)
            except BaseException:
                writer.close()
                raise
            self._writer = writer

    def _prepare(self, writer: sqlite3.Connection) -> None:
        """Make the tables of a new file; refuse a file that is no journal or of a later release."""
        (application,) = writer.execute("PRAGMA application_id").fetchone()
        if application != _APPLICATION:
            if writer.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
                raise self._refused("journal.not_a_journal", "is a database of something else")
            writer.execute("PRAGMA page_size = 2048")
        (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise self._refused("journal.unwritable", f"cannot use write-ahead logging (it is {mode!r})")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        if application != _APPLICATION:
            _make_tables(writer)
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"The journal {str(self.path)!r} has schema {version}; this release knows {SCHEMA_VERSION}.",
                code="journal.newer",
                hint="Upgrade kernloom, or use another journal.",
                path=str(self.path),
                version=version,
            )

    def _translated(self, exc: sqlite3.Error) -> JournalError:
        number = getattr(exc, "sqlite_errorcode", None)
        # The module's own complaint about text that is no UTF-8 has no number.
        code, what = _ERRORS.get(sqlite3.SQLITE_CORRUPT if number is None else number & 0xFF, _OTHER)
        return self._refused(code, f"{what}: {exc}")

    def _refused(self, code: str, what: str) -> JournalError:
        hint = _HINTS.get(code)
        return JournalError(
            f"The journal {str(self.path)!r} {what}.", code=code, hint=hint, path=str(self.path)
        )

    def _is_closed(self) -> JournalError:
        return self._refused("journal.closed", "was closed")


class _Busy(Exception):  # noqa: N818 - a signal within this module, never seen outside
    """Another task of this process holds the writer's connection."""


_OTHER = ("journal.failed", "failed")
_ERRORS = {
    sqlite3.SQLITE_NOTADB: ("journal.not_a_journal", "is no database"),
    sqlite3.SQLITE_CORRUPT: ("journal.corrupt", "is damaged"),
    sqlite3.SQLITE_FULL: ("journal.full", "could not grow, the disk is full"),
    sqlite3.SQLITE_IOERR: ("journal.io", "could not be read or written"),
    sqlite3.SQLITE_READONLY: ("journal.unwritable", "cannot be written"),
    sqlite3.SQLITE_CANTOPEN: ("journal.unwritable", "cannot be opened"),
    sqlite3.SQLITE_PERM: ("journal.unwritable", "cannot be opened"),
    sqlite3.SQLITE_AUTH: ("journal.unwritable", "cannot be opened"),
}
_HINTS = {
    "journal.not_a_journal": "Choose another path for the journal; nothing was changed in this file.",
    "journal.corrupt": "Restore it from a backup, or move it away to begin a new one.",
    "journal.full": "Make room and try again; what was written before is kept.",
    "journal.io": "Look after the disk and try again; what was written before is kept.",
    "journal.unwritable": "Check the path and its permissions.",
}


def _append(
    connection: sqlite3.Connection,
    session: str,
    events: Sequence[StoredEvent],
    expected_seq: int,
    parent: tuple[str, int] | None,
) -> None:
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    try:
        base = _advance(connection, session, events, expected_seq, parent) << 32
        for seq, *rest in events:
            execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (base | seq, *rest))
        execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            execute("ROLLBACK")
        raise


def _advance(
    connection: sqlite3.Connection,
    session: str,
    events: Sequence[StoredEvent],
    expected_seq: int,
    parent: tuple[str, int] | None,
) -> int:
    """Move the session's end over ``events`` and return the session's number."""
    if events and expected_seq:
        found = connection.execute(
            "UPDATE sessions SET seq = ?, updated = ? WHERE id = ? AND seq = ? RETURNING number",
            (expected_seq + len(events), events[-1].at, session, expected_seq),
        ).fetchall()
        if found:
            return int(found[0][0])
    known = connection.execute("SELECT number, seq FROM sessions WHERE id = ?", (session,)).fetchone()
    actual = known[1] if known else 0
    if actual != expected_seq:
        raise conflict(session, expected=expected_seq, actual=actual)
    if known or not events:
        return known[0] if known else 0
    number = connection.execute(
        "INSERT INTO sessions (id, seq, created, updated, parent_session, parent_seq) VALUES (?, ?, ?, ?, ?, ?)",
        (session, len(events), events[0].at, events[-1].at, *(parent or (None, None))),
    ).lastrowid
    assert number is not None  # noqa: S101 - sqlite3 types it as optional for statements that insert nothing
    return number


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been quicker between our look and our lock.
        if connection.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _create(path: Path) -> None:
    """Make the file for this user alone; SQLite gives its companions the same permissions.

    An existing file is not touched: opening and closing it would drop the locks other connections of
    this process hold on it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass


def _connection(path: Path) -> sqlite3.Connection:
    # Waiting (timeout) is the event loop's business; the mutex and SQLite's own keep threads apart.
    connection = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


async def _in_thread(work: Callable[[], T]) -> T:
    """``work()`` in a thread. A commit cannot be called back: cancelled, this waits for its end first."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        if not future.cancelled():
            future.exception()
        raise


def _is_busy(exc: sqlite3.Error) -> bool:
    number = getattr(exc, "sqlite_errorcode", None)
    return number is not None and number & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
