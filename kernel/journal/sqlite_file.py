"""The file behind :class:`~kernloom.kernel.journal.store_sqlite.SqliteJournalStore`.

How it is made, recognised and upgraded, and what SQLite's errors mean for whoever reads them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ..errors import JournalError
from .sqlite_schema import PAGE_SIZE, SCHEMA, SCHEMA_VERSION, UPGRADES

#: ``PRAGMA application_id``: "klom", by which a file is known to be a journal.
APPLICATION_ID = 0x6B6C6F6D


def open_journal(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Two connections to the journal at ``path``, one to write and one to read; made if it is not there.

    Raises:
        JournalError: it is something else, of a later release, or cannot be written.
        sqlite3.Error: anything :func:`translated` has words for, a lock among it.
    """
    try:
        _make_file(path)
        writer = connection_to(path)
        try:
            _prepare(path, writer)
            return writer, connection_to(path)
        except BaseException:
            writer.close()
            raise
    except OSError as exc:
        raise refused(path, "journal.unwritable", f"cannot be opened: {exc}") from exc


def connection_to(path: Path) -> sqlite3.Connection:
    """A connection whose commits reach the system at once, and the disk when the system likes.

    It never waits for locks, that is the event loop's business; threads are kept apart by the store. What
    it deletes it overwrites.
    """
    connection = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def is_busy(exc: Exception) -> bool:
    """Whether waiting helps: another connection holds the lock."""
    number = getattr(exc, "sqlite_errorcode", None)
    return number is not None and number & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def translated(path: Path, exc: Exception) -> JournalError:
    """The error a caller is told; its low byte decides, the rest is detail."""
    number = getattr(exc, "sqlite_errorcode", None)
    # Text that is no UTF-8 is the module's own complaint, not SQLite's, and has no number.
    code, what = _ERRORS.get(sqlite3.SQLITE_CORRUPT if number is None else number & 0xFF, _OTHER)
    return refused(path, code, f"{what}: {exc}")


def refused(path: Path, code: str, what: str) -> JournalError:
    """The error of a journal that cannot be used as it is."""
    return JournalError(
        f"The journal {str(path)!r} {what}.", code=code, hint=_HINTS.get(code), path=str(path)
    )


def _make_file(path: Path) -> None:
    """Make the file for this user alone; SQLite gives its companions the same permissions.

    An existing file is not opened here: closing it again would drop the locks that other connections of
    this process hold on it (POSIX).
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _prepare(path: Path, writer: sqlite3.Connection) -> None:
    """Make the tables of a new file, upgrade an older one; refuse what is no journal or a later one."""
    with transaction(writer, "DEFERRED"):
        new = _is_new(path, writer)
        version = SCHEMA_VERSION if new else _version(path, writer)
    if new:
        writer.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    mode = _pragma(writer, "journal_mode = WAL")
    if mode != "wal":
        raise refused(
            path, "journal.unwritable", f"cannot use write-ahead logging (it is in mode {mode!r})"
        )
    if new or version < SCHEMA_VERSION:
        _make_tables(path, writer)


def _make_tables(path: Path, writer: sqlite3.Connection) -> None:
    with transaction(writer, "IMMEDIATE"):
        # Another process may have been quicker between our look and our lock.
        if _is_new(path, writer):
            _execute_all(writer, SCHEMA)
            writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        else:
            version = _version(path, writer)
            if version < SCHEMA_VERSION:
                _back_up(path, backup_of(path, version))
            for step in range(version, SCHEMA_VERSION):
                _execute_all(writer, UPGRADES[step])
        writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _execute_all(writer: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
        writer.execute(statement)


def backup_of(path: Path, version: int) -> Path:
    """Where the file is kept as it was before its upgrade from schema ``version``."""
    return path.with_name(f"{path.name}.v{version}-backup")


def _back_up(path: Path, backup: Path) -> None:
    """Copy the journal as it is, the log included; under ``backup`` it is whole or not there at all."""
    unfinished = backup.with_name(f"{backup.name}.part")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as copy:
        source.backup(copy)
        # As one file, which needs no companions to be read.
        copy.execute("PRAGMA journal_mode = DELETE")
    os.replace(unfinished, backup)


def _version(path: Path, connection: sqlite3.Connection) -> int:
    version = _pragma(connection, "user_version")
    if not isinstance(version, int) or version not in (SCHEMA_VERSION, *UPGRADES):
        raise refused(
            path, "journal.newer", f"has schema {version!r}, and this release knows {SCHEMA_VERSION}"
        )
    return version


def _is_new(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether the database is empty; within a transaction, or another's tables might come in between."""
    if _pragma(connection, "application_id") == APPLICATION_ID:
        return False
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
        raise refused(path, "journal.not_a_journal", "is a database of something else")
    return True


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """``kind`` is ``IMMEDIATE`` to write, ``DEFERRED`` to read the same state several times."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _pragma(connection: sqlite3.Connection, what: str) -> object:
    with closing(connection.execute(f"PRAGMA {what}")) as rows:
        value: object = rows.fetchone()[0]
        return value


_OTHER = ("journal.failed", "failed")
_ERRORS = {
    sqlite3.SQLITE_NOTADB: ("journal.not_a_journal", "is no database"),
    sqlite3.SQLITE_CORRUPT: ("journal.corrupt", "is damaged"),
    sqlite3.SQLITE_FULL: ("journal.full", "could not grow"),
    sqlite3.SQLITE_IOERR: ("journal.io", "could not be read or written"),
    sqlite3.SQLITE_READONLY: ("journal.unwritable", "cannot be written"),
    sqlite3.SQLITE_CANTOPEN: ("journal.unwritable", "cannot be opened"),
    sqlite3.SQLITE_PERM: ("journal.unwritable", "cannot be opened"),
    sqlite3.SQLITE_AUTH: ("journal.unwritable", "cannot be opened"),
}
_HINTS = {
    "journal.not_a_journal": "Choose another path for the journal; nothing was changed in this file.",
    "journal.newer": "Upgrade kernloom, or use another journal.",
    "journal.corrupt": "Restore it from a backup, or move it away to begin a new one.",
    "journal.full": "Make room and try again; what was written before is kept.",
    "journal.io": "Look after the disk and try again; what was written before is kept.",
    "journal.unwritable": "Check the path and its permissions.",
}
