"""A journal in one SQLite file, which several processes may share.

Write-ahead logging: readers never wait, and a commit is a write to the log. It is made on the event loop,
since it costs less than handing it to a thread would; only the wait for the disk, for what is durable,
is a thread's, and whatever takes long. Locks are waited for by the event loop, never by blocking it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..errors import JournalError
from . import sqlite_rows as rows
from .sqlite_file import backup_of, is_busy, open_journal, refused, transaction, translated
from .sqlite_schema import UPGRADES
from .stores import Lease, SessionHead, Snapshot, StoredEvent
from .syncing import FileSyncer

T = TypeVar("T")

#: The log is written back into the database after about this many bytes, in a thread. Then it begins anew
#: at its first byte: to overwrite a file is a third of the work for the disk that it is to make it grow.
_CHECKPOINT_BYTES = 1_000_000
#: What a commit writes besides the text: two pages, or what is left of them.
_COMMIT_BYTES = 4_000
#: How many sessions' numbers are remembered.
_NUMBERS = 10_000


class SqliteJournalStore:
    """A :class:`~kernloom.kernel.journal.stores.JournalStore` in the SQLite file ``path``.

    The file and its folders are made at first use, for this user alone (0600). One that an earlier release
    wrote is upgraded then, and kept beside as it was (``journal.db.v1-backup``) until :meth:`compact`.
    ``timeout`` is how many seconds a lock of another process is waited for.

    Beyond the protocol's codes it raises ``journal.not_a_journal`` (another kind of file),
    ``journal.newer`` (written by a later release), ``journal.unwritable`` and ``journal.closed``.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 5.0) -> None:
        self.path = Path(path)
        self._timeout = timeout
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        #: Held while the writer's connection is in use, on the loop or in a thread.
        self._mutex = threading.Lock()
        #: Held while the reader's is, which is on a loop only; several threads may have one.
        self._reading = threading.Lock()
        self._disk = FileSyncer(self.path.with_name(f"{self.path.name}-wal"))
        #: The disk once refused what is in the log: it is sound again when all of that is in the database.
        self._suspect = False
        self._closed = False
        #: Sessions' numbers in the database, which are never given twice.
        self._numbers: dict[str, int] = {}
        #: Bytes written since the log was last written back.
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
        if len(events) > 1 or not self._append_one(session, events[0], expected_seq):
            if len(self._numbers) > _NUMBERS:
                self._numbers.clear()
            number = self._numbers.get(session)
            self._numbers[session] = await self._write(
                lambda execute: rows.append(execute, session, events, expected_seq, parent, number)
            )
        self._logged += sum([len(event.text) for event in events], _COMMIT_BYTES)
        if durable:
            await self._to_disk()
        if self._logged > _CHECKPOINT_BYTES:
            # The events are safe in the log; what cannot be written back now will be next time.
            with suppress(JournalError):
                await self._off_loop(self._write_back)

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
        return await self._read(
            partial(rows.read, session=session, after=after, limit=limit, kinds=kinds, newest=newest)
        )

    async def sessions(
        self,
        *,
        prefix: str = "",
        parent: str | None = None,
        base: str | None = None,
        roots: bool = False,
        limit: int | None = None,
    ) -> list[SessionHead]:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        return await self._read(
            partial(rows.sessions, prefix=prefix, parent=parent, base=base, roots=roots, limit=limit)
        )

    async def fork(self, session: str, *, at: int, of: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._write(lambda execute: rows.fork(execute, session, at, of))

    async def delete(self, session: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._write(lambda execute: rows.delete(execute, session), in_thread=True)

    async def replace(self, session: str, seq: int, event: StoredEvent) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._write(lambda execute: rows.replace(execute, session, seq, event))

    async def compact(self) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`.

        The file is written anew, which takes as much room again for a while, and has to wait until no
        other process reads. What was kept of it before an upgrade is removed.
        """
        await self._open()
        await self._off_loop(self._compact)

    async def lease(self, session: str, holder: str, *, seconds: float, now: float) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._write(lambda execute: rows.lease(execute, session, holder, now + seconds, now))

    async def release(self, session: str, holder: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._write(lambda execute: rows.release(execute, session, holder))

    async def leases(self) -> list[Lease]:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        return await self._read(rows.leases)

    async def put_snapshot(self, session: str, kind: str, snapshot: Snapshot) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._write(lambda execute: rows.put_snapshot(execute, session, kind, snapshot))
        self._logged += len(snapshot.text)

    async def get_snapshot(self, session: str, kind: str) -> Snapshot | None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        return await self._read(lambda execute: rows.get_snapshot(execute, session, kind))

    async def close(self) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`; its use is then ``journal.closed``."""
        self._closed = True
        await self._off_loop(self._disconnect)

    def _append_one(self, session: str, event: StoredEvent, expected_seq: int) -> bool:
        """Whether the event could be written the short way; the long way finds out why not."""
        number = self._numbers.get(session)
        if number is None or self._writer is None or not self._mutex.acquire(blocking=False):
            return False
        try:
            rows.append_one(self._writer.execute, number, session, event, expected_seq)
        except sqlite3.Error:
            return False
        finally:
            self._mutex.release()
        return True

    async def _write(self, work: Callable[[rows.Execute], T], *, in_thread: bool = False) -> T:
        """``work`` in a transaction of its own."""

        def whole() -> T:
            if self._writer is None:
                raise self._is_closed()
            execute = self._writer.cursor().execute
            execute("BEGIN IMMEDIATE")
            try:
                done = work(execute)
                execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    execute("ROLLBACK")
                raise
            return done

        if self._writer is None:
            await self._open()
        return await (self._off_loop(whole) if in_thread else self._patiently(whole))

    async def _read(self, work: Callable[[rows.Execute], T]) -> T:
        """``work`` on one state of the journal."""

        def whole() -> T:
            with self._reading:
                if self._reader is None:
                    raise self._is_closed()
                with transaction(self._reader, "DEFERRED"):
                    return work(self._reader.execute)

        if self._reader is None:
            await self._open()
        return await self._patiently(whole, alone=False)

    async def _to_disk(self) -> None:
        """Wait until the log, and so everything that was written, is on the disk."""
        try:
            if self._suspect:
                await self._off_loop(self._write_back)
                self._suspect = False
            else:
                await self._disk.sync()
        except (OSError, JournalError) as exc:
            self._suspect = True
            raise refused(
                self.path, "journal.io", f"was written to, but the disk did not take it: {exc}"
            ) from exc

    async def _open(self) -> None:
        await self._off_loop(self._connect)

    async def _off_loop(self, work: Callable[[], T]) -> T:
        """``work()`` in a thread, while nobody else is at work."""
        return await self._patiently(work, in_thread=True)

    async def _patiently(self, work: Callable[[], T], *, in_thread: bool = False, alone: bool = True) -> T:
        """``work()``, again and again while others hold the lock, for at most ``timeout`` seconds."""
        deadline, pause = 0.0, 0.001
        if alone:
            work = partial(self._exclusively, work)
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
            writer, self._reader = open_journal(self.path)
            writer.execute("PRAGMA temp_store = MEMORY")
            for statement in rows.SHORT_WAY:
                writer.execute(statement)
            self._writer = writer

    def _disconnect(self) -> None:
        self._disk.close()
        with self._reading:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None

    def _write_back(self) -> None:
        """Copy the log into the database, as much of it as others let."""
        if self._writer is None:
            raise self._is_closed()
        self._logged = 0
        kind = "FULL" if self._suspect else "PASSIVE"
        [(blocked, _, _)] = self._writer.execute(f"PRAGMA wal_checkpoint({kind})")
        if blocked and self._suspect:
            raise _Busy

    def _compact(self) -> None:
        if self._writer is None:
            raise self._is_closed()
        self._empty_log(self._writer)
        self._writer.execute("VACUUM")
        self._empty_log(self._writer)
        for version in UPGRADES:
            backup_of(self.path, version).unlink(missing_ok=True)

    def _empty_log(self, writer: sqlite3.Connection) -> None:
        """Write the log back and cut it to nothing; others may neither read nor write meanwhile."""
        [(blocked, _, _)] = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if blocked:
            raise _Busy

    def _is_closed(self) -> JournalError:
        return refused(self.path, "journal.closed", "was closed")


class _Busy(Exception):  # noqa: N818 - a signal within this module, never seen outside
    """Another task of this process, or another process, is at work."""


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
