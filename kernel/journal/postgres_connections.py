"""Connections to the journal's database: a few, kept open, each in one task's hands at a time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, JournalError
from .postgres_rows import ALONE, SCHEMA, SCHEMA_VERSION

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Connections:
    """At most ``most`` connections to ``dsn`` at a time, with the tables of ``schema`` made and checked.

    They belong to the event loop they were opened in; in another one, others are opened.
    """

    def __init__(self, dsn: str, *, schema: str, timeout: float, most: int) -> None:
        self._dsn = dsn
        self._schema = schema
        self._timeout = timeout
        self._most = most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns = asyncio.Semaphore(most)
        self._idle: list[Connection] = []
        self._ready = False
        self._closed = False

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """A connection for a while; what the database complains about becomes a JournalError."""
        import psycopg

        self._enter_loop()
        try:
            async with self._turns:
                connection = await self._taken()
                try:
                    yield connection
                finally:
                    await self._give_back(connection)
        except psycopg.Error as exc:
            raise translated(exc) from exc

    async def close(self) -> None:
        """Close what is idle now, and the others when they are given back."""
        self._closed = True
        self._enter_loop()
        while self._idle:
            await self._idle.pop().close()

    def _enter_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            for connection in self._idle:
                connection.pgconn.finish()
            self._loop, self._idle, self._turns = loop, [], asyncio.Semaphore(self._most)

    async def _taken(self) -> Connection:
        if self._closed:
            raise JournalError("The journal in PostgreSQL was closed.", code="journal.closed")
        return self._idle.pop() if self._idle else await self._opened()

    async def _give_back(self, connection: Connection) -> None:
        """Keep it for the next, unless it was interrupted in the middle of something."""
        from psycopg.pq import TransactionStatus

        if connection.info.transaction_status == TransactionStatus.IDLE and not self._closed:
            self._idle.append(connection)
            return
        if connection.broken:  # and so are, most likely, the others
            while self._idle:
                await self._idle.pop().close()
        await connection.close()

    async def _opened(self) -> Connection:
        import psycopg
        from psycopg import sql

        try:
            connection = await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, connect_timeout=math.ceil(self._timeout)
            )
        except psycopg.ProgrammingError:
            # Its words may quote a password.
            raise ConfigError(
                "What should lead to the journal's database is no PostgreSQL connection string.",
                code="journal.dsn",
                hint="Write postgresql://user@host/database, or host=… dbname=… user=….",
            ) from None
        try:
            schema = sql.Identifier(self._schema)
            await connection.execute(sql.SQL("SET search_path TO {}").format(schema))
            lock_timeout = f"{max(1, round(self._timeout * 1000))}ms"
            await connection.execute("SELECT set_config('lock_timeout', %s, false)", (lock_timeout,))
            if not self._ready:
                await self._prepare(connection, schema)
                self._ready = True
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _prepare(self, connection: Connection, schema: Any) -> None:
        """Make the tables, or see that they are ours."""
        from psycopg import sql

        async with connection.transaction():
            # Of two that make a schema at once one would fail, even with IF NOT EXISTS.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('kernloom'))")
            found = await connection.execute("SELECT to_regnamespace(%s) IS NULL", (f'"{self._schema}"',))
            if (await found.fetchone()) == (True,):
                await connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
            await connection.execute(ALONE)
            found = await connection.execute("SELECT to_regclass('about') IS NULL")
            if (await found.fetchone()) == (True,):
                await connection.execute(SCHEMA)
            found = await connection.execute("SELECT version FROM about")
            version = await found.fetchone()
        if version != (SCHEMA_VERSION,):
            raise JournalError(
                f"The journal in PostgreSQL has schema {version and version[0]!r}, and this release knows"
                f" {SCHEMA_VERSION}.",
                code="journal.newer",
                hint="Upgrade kernloom, or use another journal.",
            )


def translated(exc: psycopg.Error) -> JournalError:
    """The error a caller is told; the SQLSTATE decides, whole or by its class."""
    state = exc.sqlstate or _UNREACHABLE
    code, what, hint = _ERRORS.get(state) or _ERRORS.get(state[:2]) or _OTHER
    return JournalError(f"The journal in PostgreSQL {what}: {exc}.", code=code, hint=hint, sqlstate=state)


_UNREACHABLE = "08000"
_OTHER = ("journal.failed", "failed", None)
_IO = (
    "journal.io",
    "cannot be reached",
    "Look after the server and try again; what was written before is kept.",
)
_LOCKED = (
    "journal.locked",
    "stayed locked",
    "Let the process that holds it finish, or stop it, and try again.",
)
#: By SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
_ERRORS = {
    "08": _IO,
    "57": _IO,
    "58": ("journal.io", "could not be read or written", "Look after the server's disk and try again."),
    "53": (
        "journal.full",
        "has no room",
        "Make room on the server and try again; what was written is kept.",
    ),
    "53300": _IO,
    "XX": ("journal.corrupt", "is damaged", "Restore the database from a backup."),
    "55P03": _LOCKED,
    "57014": _LOCKED,
    "40": _LOCKED,
    "42501": ("journal.unwritable", "cannot be used", "Give the user the rights, or name another schema."),
    "25006": ("journal.unwritable", "may only be read", "Use the primary server, not a replica."),
}
