"""The memory's database file: how it is opened, what is in it, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from ..kernel.errors import MemoryStoreError

#: Kept in ``PRAGMA user_version``; grows when a table changes.
SCHEMA_VERSION = 1
#: Kept in ``PRAGMA application_id`` ("klmm"), so that no other database, nor our journal, is taken for a
#: memory.
APPLICATION_ID = 0x6B6C6D6D

# Chunks hold spans, not text: the document's text is the one copy, and a span cannot disagree with it.
# AUTOINCREMENT, because an index may still remember a deleted chunk by its key.
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 0);
CREATE TABLE documents (
    key INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    characters INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    root TEXT,
    origin TEXT,
    metadata TEXT NOT NULL,
    added_at TEXT NOT NULL,
    UNIQUE (namespace, id),
    UNIQUE (namespace, origin)
);
CREATE TABLE chunks (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents (key) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    line_start INTEGER NOT NULL,
    line_end INTEGER NOT NULL,
    title TEXT NOT NULL,
    hash BLOB NOT NULL,
    UNIQUE (document, ordinal)
);
CREATE INDEX chunks_by_hash ON chunks (hash);
CREATE TABLE embedders (key INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dimensions INTEGER NOT NULL);
CREATE TABLE vectors (
    key INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    embedder INTEGER NOT NULL REFERENCES embedders (key),
    vector BLOB NOT NULL,
    UNIQUE (hash, embedder)
);
"""


def open_database(path: Path | None) -> tuple[sqlite3.Connection, bool]:
    """A connection to the memory at ``path`` (made when missing; None: in this process only).

    Returns the connection and whether it can write.

    Raises:
        MemoryStoreError: ``memory.corrupt``, ``memory.foreign``, ``memory.newer`` or ``memory.unreadable``.
    """
    with database_errors(path), file_errors(path):
        if path is None:
            connection, writable = _connect(":memory:"), True
        else:
            connection, writable = _open_file(path)
        try:
            _prepare(connection, path, writable)
        except BaseException:
            connection.close()
            raise
    return connection, writable


@contextmanager
def database_errors(path: Path | None) -> Iterator[None]:
    """Errors of SQLite become :class:`MemoryStoreError` with a code and a hint."""
    try:
        yield
    except sqlite3.Error as exc:
        code, what, hint = _MEANING.get(
            getattr(exc, "sqlite_errorcode", 0) & 0xFF, ("memory.failed", "failed", None)
        )
        raise _error(path, what, code, hint, exc) from exc


@contextmanager
def file_errors(path: Path | None) -> Iterator[None]:
    """Errors of the file system become :class:`MemoryStoreError` as well."""
    try:
        yield
    except OSError as exc:
        raise _error(path, "cannot be opened", "memory.unreadable", _ACCESS, exc) from exc


_ACCESS = "Check that the folder exists and that you may write there."
_DAMAGED = "Move the file away and add the documents again; the file was left as it is."
_MEANING: dict[int, tuple[str, str, str | None]] = {
    sqlite3.SQLITE_NOTADB: ("memory.corrupt", "is not a database", _DAMAGED),
    sqlite3.SQLITE_CORRUPT: ("memory.corrupt", "is damaged", _DAMAGED),
    sqlite3.SQLITE_READONLY: ("memory.readonly", "cannot be written", _ACCESS),
    sqlite3.SQLITE_CANTOPEN: ("memory.unreadable", "cannot be opened", _ACCESS),
    sqlite3.SQLITE_FULL: ("memory.full", "has no room on its disk", "Free some space and add again."),
    sqlite3.SQLITE_IOERR: ("memory.io", "could not be read or written", "Check the disk, then try again."),
    sqlite3.SQLITE_BUSY: ("memory.locked", "is being written by another process", "Try again shortly."),
}


def _error(path: Path | None, what: str, code: str, hint: str | None, exc: Exception) -> MemoryStoreError:
    name = repr(str(path)) if path else "in this process"
    return MemoryStoreError(f"The memory {name} {what} ({exc}).", code=code, hint=hint, path=str(path))


def _open_file(path: Path) -> tuple[sqlite3.Connection, bool]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made by us first: SQLite would use the umask, and its -wal and -shm copy the mode of this file.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return _connect(str(path)), True
    # In a folder nobody may write, WAL cannot make its shared memory; without a log the file is complete.
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    return _connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True), False


def _connect(name: str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(name, timeout=5.0, isolation_level=None, check_same_thread=False, uri=uri)


def _prepare(connection: sqlite3.Connection, path: Path | None, writable: bool) -> None:
    """Check whose file it is before anything is changed, then set it up when it is new."""
    version = _owned_version(connection, path)
    connection.execute("PRAGMA foreign_keys = ON")
    if not writable:
        if not version:
            raise _error(path, "is empty", "memory.readonly", _ACCESS, ValueError("and may not be written"))
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # what was removed is gone from the file too
    if version:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _owned_version(connection, path):  # else another process was quicker
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _owned_version(connection: sqlite3.Connection, path: Path | None) -> int:
    """The schema version of our file, 0 when it is new and empty."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise MemoryStoreError(
            f"{str(path)!r} is a database, but not a memory of kernloom.",
            code="memory.foreign",
            hint="Choose another path for the memory; this file was left as it is.",
            path=str(path),
        )
    if version > SCHEMA_VERSION:
        raise MemoryStoreError(
            f"The memory {str(path)!r} was made by a newer kernloom (schema {version}; this one reads "
            f"{SCHEMA_VERSION}).",
            code="memory.newer",
            hint="Upgrade: pip install --upgrade kernloom.",
            path=str(path),
            schema=version,
        )
    return int(version) if tables else 0
