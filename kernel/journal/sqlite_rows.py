"""What the SQLite store says to its database: every statement, each called within a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any

from .records import corrupt
from .stores import Lease, SessionHead, Snapshot, StoredEvent, conflict, heir, leased, unknown_event

Execute = Callable[..., sqlite3.Cursor]

_SEQ = (1 << 32) - 1

_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

#: One event as one statement, which costs half of what a transaction of four does: for the connection only,
#: since it is not data. It fails if the session does not end where it should.
SHORT_WAY = (
    "CREATE TEMP VIEW one AS SELECT *, 0 AS number, 0 AS seq, 0 AS expected FROM main.events",
    "CREATE TEMP TRIGGER append_one INSTEAD OF INSERT ON one BEGIN"
    " UPDATE sessions SET seq = new.seq, updated = new.at"
    " WHERE number = new.number AND seq = new.expected;"
    " SELECT raise(ABORT, 'conflict') WHERE changes() = 0;"
    " INSERT INTO events VALUES (new.place, new.at, new.actor, new.run, new.kind, new.version,"
    " new.checksum, new.text, new.origin); END",
)
_ONE = "INSERT INTO one VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ADVANCE = "UPDATE sessions SET seq = ?, updated = ? WHERE number = ? AND seq = ?"
_BEGIN = (
    "INSERT INTO sessions (id, seq, created, updated, parent_session, parent_seq, base_session, base_seq)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING number"
)
_HEADS = (
    "SELECT id, seq, created, updated, parent_session, parent_seq, base_session, base_seq FROM sessions"
)
_EVENTS = (
    "SELECT place & 4294967295, at, actor, run, kind, version, checksum, text, coalesce(origin, ?)"
    " FROM events WHERE place > ? AND place <= ?"
)
_HAND_OVER = (
    "UPDATE events SET place = place + ?, origin = coalesce(origin, ?) WHERE place > ? AND place <= ?"
)
_REBASE = "UPDATE sessions SET base_session = ? WHERE base_session = ?"
_REPLACE = (
    "UPDATE events SET at = ?, actor = ?, run = ?, kind = ?, version = ?, checksum = ?, text = ?"
    " WHERE place = ?"
)
_FORGET_SNAPSHOTS = (
    "WITH RECURSIVE sharing (id) AS (VALUES (?) UNION SELECT sessions.id FROM sessions"
    " JOIN sharing ON base_session = sharing.id WHERE base_seq >= ?)"
    " DELETE FROM snapshots WHERE session IN sharing"
)


def append(
    execute: Execute,
    session: str,
    events: Sequence[StoredEvent],
    expected_seq: int,
    parent: tuple[str, int] | None,
    number: int | None,
) -> int:
    """Write ``events``, which are not none, and return the session's number; it may be known already."""
    if number is None or not _advance_known(execute, number, events, expected_seq):
        number = _advance(execute, session, events, expected_seq, parent)
    place = number << 32
    for event in events:
        origin = event[8]
        if origin == session or not origin:
            execute(_INSERT, (place | event[0], *event[1:8], None))
        else:
            execute(_INSERT, (place | event[0], *event[1:]))
    return number


def append_one(execute: Execute, number: int, session: str, event: StoredEvent, expected_seq: int) -> None:
    """Write one event to the session of that ``number``, without a transaction around it.

    Raises:
        sqlite3.Error: it was not written. :func:`append` knows why.
    """
    origin = event[8]
    if origin == session:
        origin = None  # type: ignore[assignment]
    seq = event[0]
    execute(_ONE, (number << 32 | seq, *event[1:8], origin or None, number, seq, expected_seq))


def _advance(
    execute: Execute,
    session: str,
    events: Sequence[StoredEvent],
    expected_seq: int,
    parent: tuple[str, int] | None,
) -> int:
    """Move the session's end over ``events``; return the session's number."""
    known = execute("SELECT seq, number FROM sessions WHERE id = ?", (session,)).fetchone()
    actual = known[0] if known else 0
    if actual != expected_seq:
        raise conflict(session, expected=expected_seq, actual=actual)
    first, last = events[0].at, events[-1].at
    if not known:
        return _begin(execute, SessionHead(session, len(events), first, last, parent))
    if not actual:  # a fork that shares nothing
        execute("UPDATE sessions SET created = ? WHERE number = ?", (first, known[1]))
    _advance_known(execute, known[1], events, expected_seq)
    return int(known[1])


def _advance_known(execute: Execute, number: int, events: Sequence[StoredEvent], expected_seq: int) -> bool:
    """Move the end of the session of that ``number``, if it is where it should be."""
    end = expected_seq + len(events)
    return execute(_ADVANCE, (end, events[-1].at, number, expected_seq)).rowcount == 1


def _begin(execute: Execute, head: SessionHead) -> int:
    nothing = (None, None)
    values = (*head[:4], *(head.parent or nothing), *(head.base or nothing))
    [(number,)] = execute(_BEGIN, values).fetchall()
    return int(number)


def read(
    execute: Execute,
    session: str,
    *,
    after: int,
    limit: int | None,
    kinds: Collection[str] | None,
    newest: bool,
) -> list[StoredEvent]:
    """Events of the session, one part of its chain of bases after the other."""
    chosen = "" if kinds is None else f" AND kind IN ({', '.join('?' * len(kinds))})"
    query = f"{_EVENTS}{chosen} ORDER BY place {'DESC' if newest else 'ASC'} LIMIT ?"
    parts = _parts(execute, session)
    found: list[StoredEvent] = []
    for number, owner, first, last in parts if newest else parts[::-1]:
        left = -1 if limit is None else limit - len(found)
        if max(first, after) < last and left:
            place = number << 32
            values = (owner, place + max(first, after), place + last, *(kinds or ()), left)
            found += map(StoredEvent._make, execute(query, values))
    return found[::-1] if newest else found


def _parts(execute: Execute, session: str) -> list[tuple[int, str, int, int]]:
    """Where a session's events lie, the last of them first: ``(number, id, after, until)``."""
    parts: list[tuple[int, str, int, int]] = []
    last = _SEQ
    while True:
        found = execute(
            "SELECT number, seq, base_session, base_seq FROM sessions WHERE id = ?", (session,)
        ).fetchone()
        if found is None:
            if parts:
                raise corrupt(parts[0][1], last, f"it is shared with {session!r}, which is not there")
            return []
        number, seq, base, first = found
        _check_types(session, (seq, int), *_pair(base, first))
        if base is None:
            return [*parts, (number, session, 0, last)]
        _check_fork(execute, session, number, seq, first)
        parts.append((number, session, first, last))
        session, last = base, min(first, last)


def _check_types(session: object, *values: tuple[object, type]) -> None:
    """That each value is of its type: stored, it says so itself, and damage may have made it another."""
    if not all(isinstance(value, kind) for value, kind in values):
        raise corrupt(str(session), 1, "what the list of sessions holds of it is no such entry")


def _pair(session: object, seq: object) -> tuple[tuple[object, type], ...]:
    """What must be true of a column of session ids and the seq beside it: there, or not, together."""
    return () if session is None and seq is None else ((session, str), (seq, int))


def _check_fork(execute: Execute, session: str, number: int, seq: int, shared: int) -> None:
    """That a fork's own events begin where those it shares end: damage must not choose between the two."""
    place = number << 32
    [(first,)] = execute(
        "SELECT min(place) FROM events WHERE place > ? AND place <= ?", (place, place | _SEQ)
    )
    if (first - place if first else seq + 1) != shared + 1:
        raise corrupt(session, 1, f"{shared!r} events are shared, which leaves a gap or an overlap")


def sessions(
    execute: Execute,
    *,
    prefix: str,
    parent: str | None,
    base: str | None,
    roots: bool,
    limit: int | None,
) -> list[SessionHead]:
    """Heads of sessions, last updated first."""
    query = [
        f"{_HEADS} WHERE id >= :prefix AND substr(id, 1, length(:prefix)) = :prefix",
        "AND parent_session = :parent" if parent is not None else "",
        "AND base_session = :base" if base is not None else "",
        "AND parent_session IS NULL" if roots else "",
        "ORDER BY updated DESC, id DESC LIMIT :limit",
    ]
    limits = -1 if limit is None else limit
    values = {"prefix": prefix, "parent": parent, "base": base, "limit": limits}
    return [_head(row) for row in execute(" ".join(query), values)]


def _head(row: Any) -> SessionHead:
    name, seq, created, updated, parent, parent_seq, base, base_seq = row
    numbers = (seq, int), (created, float), (updated, float)
    _check_types(name, (name, str), *numbers, *_pair(parent, parent_seq), *_pair(base, base_seq))
    return SessionHead(
        name,
        seq,
        created,
        updated,
        None if parent is None else (parent, parent_seq),
        None if base is None else (base, base_seq),
    )


def fork(execute: Execute, session: str, at: int, of: str) -> None:
    """Begin ``session`` as a fork; its events stay where they are."""
    known = execute("SELECT seq FROM sessions WHERE id = ?", (session,)).fetchone()
    if known:
        raise conflict(session, expected=0, actual=known[0])
    row = execute(f"{_HEADS} WHERE id = ?", (of,)).fetchone()
    if row is None or not 0 <= at <= row[1]:
        raise unknown_event(of, at)
    source = _head(row)
    updated = source.created
    if at:
        [last] = read(execute, of, after=at - 1, limit=1, kinds=None, newest=False)
        updated = last.at
    _begin(execute, SessionHead(session, at, source.created, updated, source.parent, (of, at)))


def delete(execute: Execute, session: str) -> None:
    """Remove a session; what its forks share goes to one of them."""
    execute("DELETE FROM leases WHERE session = ?", (session,))
    execute("DELETE FROM snapshots WHERE session = ?", (session,))
    gone = execute(
        "SELECT number, base_session, base_seq FROM sessions WHERE id = ?", (session,)
    ).fetchone()
    if gone is None:
        return
    number, base, shared = gone
    forks = execute(
        "SELECT number, id, base_seq FROM sessions WHERE base_session = ? ORDER BY number", (session,)
    ).fetchall()
    if forks:
        (taker, name), most = heir(((fork[0], fork[1]), fork[2]) for fork in forks)
        place = number << 32
        execute(_HAND_OVER, ((taker - number) << 32, session, place, place + most))
        if base is not None:
            execute(f"{_REBASE} AND base_seq <= ?", (base, session, shared))
        execute(
            "UPDATE sessions SET base_session = ?, base_seq = ? WHERE number = ? AND base_session = ?",
            (base, shared, taker, session),
        )
        execute(_REBASE, (name, session))
    execute("DELETE FROM events WHERE place > ? AND place <= ?", (number << 32, number << 32 | _SEQ))
    execute("DELETE FROM sessions WHERE number = ?", (number,))


def replace(execute: Execute, session: str, seq: int, event: StoredEvent) -> None:
    """Overwrite one event where it lies, and drop the snapshots it stands in."""
    for number, owner, first, last in _parts(execute, session):
        if first < seq <= last and execute(_REPLACE, (*event[1:8], number << 32 | seq)).rowcount == 1:
            execute(_FORGET_SNAPSHOTS, (owner, seq))
            return
    raise unknown_event(session, seq)


def lease(execute: Execute, session: str, holder: str, until: float, now: float) -> None:
    """Take or renew a lease."""
    changed = execute(
        "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (session) DO UPDATE"
        " SET holder = excluded.holder, until = excluded.until"
        " WHERE holder = excluded.holder OR until <= ?",
        (session, holder, until, now),
    )
    if changed.rowcount != 1:
        [row] = execute("SELECT * FROM leases WHERE session = ?", (session,))
        raise leased(Lease._make(row), now=now)


def release(execute: Execute, session: str, holder: str) -> None:
    """End a lease."""
    execute("DELETE FROM leases WHERE session = ? AND holder = ?", (session, holder))


def leases(execute: Execute) -> list[Lease]:
    """Every lease."""
    return [Lease._make(row) for row in execute("SELECT * FROM leases ORDER BY session")]


def put_snapshot(execute: Execute, session: str, kind: str, snapshot: Snapshot) -> None:
    """Keep a snapshot in the place of an earlier one."""
    execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?)", (session, kind, *snapshot))


def get_snapshot(execute: Execute, session: str, kind: str) -> Snapshot | None:
    """The snapshot of a kind."""
    row = execute(
        "SELECT seq, version, text FROM snapshots WHERE session = ? AND kind = ?", (session, kind)
    ).fetchone()
    return row and Snapshot._make(row)
