"""A journal in a PostgreSQL database, for several machines. Needs the extra ``postgres`` (psycopg 3)."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

from ..errors import MissingExtraError
from . import postgres_rows as sql
from .postgres_connections import Connections
from .stores import (
    Lease,
    SessionHead,
    Snapshot,
    StoredEvent,
    conflict,
    heir,
    leased,
    unknown_event,
)

if TYPE_CHECKING:
    from psycopg import AsyncCursor

    Cursor = AsyncCursor[tuple[Any, ...]]

T = TypeVar("T")


class PostgresJournalStore:
    """A :class:`~kernloom.kernel.journal.stores.JournalStore` in the database that ``dsn`` leads to.

    ``dsn`` is what libpq takes: ``postgresql://user@host/database`` or ``host=… dbname=…``. The tables are
    made at first use, in the schema named ``schema``. ``timeout`` is how many seconds a connection or
    another's lock is waited for, ``connections`` how many are open at most.

    An append is one statement. A durable one waits for the server's disk (``synchronous_commit``); another
    is safe with the server from the death of this process, but may be lost if the server's machine dies.

    Beyond the protocol's codes it raises ``journal.newer`` (tables of a later release),
    ``journal.unwritable`` (not permitted), ``journal.closed``, and ``journal.io`` whenever the server
    cannot be reached.
    """

    def __init__(
        self, dsn: str, *, schema: str = "kernloom", timeout: float = 5.0, connections: int = 4
    ) -> None:
        if importlib.util.find_spec("psycopg") is None:
            raise MissingExtraError("postgres", "A journal in PostgreSQL")
        self._connections = Connections(dsn, schema=schema, timeout=timeout, most=connections)

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
        seqs, ats, actors, runs, kinds, versions, checksums, texts, origins = map(
            list, zip(*events, strict=True)
        )
        values = {
            "session": session,
            "expected": expected_seq,
            "end": expected_seq + len(events),
            "created": events[0].at,
            "updated": events[-1].at,
            "parent_session": parent and parent[0],
            "parent_seq": parent and parent[1],
            "durability": "on" if durable else "off",
            "seqs": seqs,
            "ats": ats,
            "actors": actors,
            "runs": runs,
            "kinds": kinds,
            "versions": versions,
            "checksums": checksums,
            "texts": texts,
            "origins": [None if origin in ("", session) else origin for origin in origins],
        }

        async def work(cursor: Cursor) -> None:
            await cursor.execute(sql.APPEND if expected_seq else sql.BEGIN, values)
            if not cursor.rowcount:
                known = await (await cursor.execute(sql.SEQ, values)).fetchone()
                raise conflict(session, expected=expected_seq, actual=known[0] if known else 0)

        await self._run(work)

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
        chosen = None if kinds is None else list(kinds)
        values = {"session": session, "after": after, "limit": limit, "kinds": chosen}
        found = await self._all(sql.READ_NEWEST if newest else sql.READ_OLDEST, values)
        events = [StoredEvent._make(row) for row in found]
        return events[::-1] if newest else events

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
        values = {"prefix": prefix, "parent": parent, "base": base, "roots": roots, "limit": limit}
        return [_head(row) for row in await self._all(sql.HEADS, values)]

    async def fork(self, session: str, *, at: int, of: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""

        async def work(cursor: Cursor) -> None:
            known = await (await cursor.execute(sql.SEQ, {"session": session})).fetchone()
            if known:
                raise conflict(session, expected=0, actual=known[0])
            row = await (await cursor.execute(sql.HEAD, {"session": of})).fetchone()
            if row is None or not 0 <= at <= row[1]:
                raise unknown_event(of, at)
            source = _head(row)
            updated = source.created
            if at:
                values = {"session": of, "after": at - 1, "limit": 1, "kinds": None}
                await cursor.execute(sql.READ_OLDEST, values)
                updated = StoredEvent._make(await cursor.fetchone() or ()).at
            parent = source.parent or (None, None)
            await cursor.execute(sql.FORK, (session, at, source.created, updated, *parent, of, at))
            if not cursor.rowcount:
                raise conflict(session, expected=0, actual=at)

        await self._alone(work)

    async def delete(self, session: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""

        async def work(cursor: Cursor) -> None:
            values: dict[str, Any] = {"session": session}
            for statement in sql.DELETE_BESIDE:
                await cursor.execute(statement, values)
            gone = await (await cursor.execute(sql.GONE, values)).fetchone()
            if gone is None:
                return
            values["number"], values["base"], values["shared"] = gone
            forks = await (await cursor.execute(sql.FORKS, values)).fetchall()
            if forks:
                await _hand_over(cursor, forks, values)
            for statement in sql.DELETE:
                await cursor.execute(statement, values)

        await self._alone(work)

    async def replace(self, session: str, seq: int, event: StoredEvent) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""

        async def work(cursor: Cursor) -> None:
            await cursor.execute(sql.REPLACE, {**event._asdict(), "session": session, "seq": seq})
            changed = await cursor.fetchone()
            if changed is None:
                raise unknown_event(session, seq)
            await cursor.execute(sql.FORGET_SNAPSHOTS, {"owner": changed[0], "seq": seq})

        await self._alone(work)

    async def compact(self) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`.

        The tables are written anew. The server's write-ahead log, its archives and backups are its own:
        what was deleted stands in them until they are recycled.
        """
        await self._run(lambda cursor: cursor.execute(sql.COMPACT))

    async def lease(self, session: str, holder: str, *, seconds: float, now: float) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        values = {"session": session, "holder": holder, "until": now + seconds, "now": now}

        async def work(cursor: Cursor) -> None:
            while not (await cursor.execute(sql.LEASE, values)).rowcount:
                row = await (await cursor.execute(sql.LEASE_OF, values)).fetchone()
                if row:  # else it was released in between
                    raise leased(Lease._make(row), now=now)

        await self._run(work)

    async def release(self, session: str, holder: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        values = {"session": session, "holder": holder}
        await self._run(lambda cursor: cursor.execute(sql.RELEASE, values))

    async def leases(self) -> list[Lease]:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        return [Lease._make(row) for row in await self._all(sql.LEASES)]

    async def put_snapshot(self, session: str, kind: str, snapshot: Snapshot) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        values = (session, kind, *snapshot)
        await self._run(lambda cursor: cursor.execute(sql.PUT_SNAPSHOT, values))

    async def get_snapshot(self, session: str, kind: str) -> Snapshot | None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        for row in await self._all(sql.GET_SNAPSHOT, (session, kind)):
            return Snapshot._make(row)
        return None

    async def close(self) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`; its use is then ``journal.closed``."""
        await self._connections.close()

    async def _run(self, work: Callable[[Cursor], Awaitable[T]]) -> T:
        """``work``, each statement of which is a transaction."""
        async with self._connections.one() as connection:
            return await work(connection.cursor())

    async def _alone(self, work: Callable[[Cursor], Awaitable[T]]) -> T:
        """``work`` as one transaction, while nobody else changes how sessions hang together."""
        async with self._connections.one() as connection, connection.transaction():
            cursor = connection.cursor()
            await cursor.execute(sql.ALONE)
            return await work(cursor)

    async def _all(self, query: LiteralString, values: Any = None) -> list[tuple[Any, ...]]:
        async def work(cursor: Cursor) -> list[tuple[Any, ...]]:
            return await (await cursor.execute(query, values)).fetchall()

        return await self._run(work)


def _head(row: tuple[Any, ...]) -> SessionHead:
    name, seq, created, updated, parent, parent_seq, base, base_seq = row
    return SessionHead(
        name,
        seq,
        created,
        updated,
        None if parent is None else (parent, parent_seq),
        None if base is None else (base, base_seq),
    )


async def _hand_over(cursor: Cursor, forks: list[tuple[Any, ...]], values: dict[str, Any]) -> None:
    """Give what ``forks`` (number, id, base_seq) share of a session to one of them."""
    (taker, name), most = heir(((number, fork), at) for number, fork, at in forks)
    values = {**values, "taker": taker, "name": name, "most": most}
    await cursor.execute(sql.HAND_OVER, values)
    if values["base"] is not None:
        await cursor.execute(sql.REBASE_EARLY, values)
    await cursor.execute(sql.REBASE_TAKER, values)
    await cursor.execute(sql.REBASE_OTHERS, values)
