"""One session as lines of JSON, out of one journal and into another.

The first line says what it is, then comes one event a line, and the last line is a digest of all before
it. An event's line is its envelope and, last, its data exactly as it is stored, so that its checksum can be
checked by whoever reads it::

    {"kernloom":"session","format":1,"release":"0.1.0","session":"06x…","parent":null,…,"events":2}
    {"seq":1,"at":1700000000.0,"actor":"user","run":null,"kind":"message",…,"data":{"kind":"message",…}}
    …
    {"digest":"sha256:…","lines":3}

Nothing is in it that is not in the journal, and the journal holds references to secrets, never secrets.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..discovery.installed import own_version
from ..errors import InvariantError, JournalError
from .events import checksum
from .history import History
from .journal import Journal
from .records import unpack
from .stores import SessionHead, StoredEvent

#: The format written. Another one is refused.
FORMAT = 1

#: Events read or checked before other tasks get their turn.
_PAGE = 1000
#: What stands before an event's data. Within a JSON string its quotes would be escaped.
_DATA = ',"data":'

T = TypeVar("T")


class _Header(NamedTuple):
    """The first line, after ``kernloom`` and ``format``."""

    release: str
    session: str
    #: ``(session, seq)`` that opened it, for a child session.
    parent: tuple[str, int] | None
    #: ``(session, seq)`` that it was forked from; for the reader, since the shared events are here as well.
    base: tuple[str, int] | None
    events: int


class _Envelope(NamedTuple):
    """An event's line before its data."""

    seq: int
    at: float
    actor: str
    run: str | None
    kind: str
    version: int
    checksum: str
    #: The session it was written in, for what a fork shares.
    session: str


class _End(NamedTuple):
    """The last line."""

    digest: str
    lines: int


_HEADER, _ENVELOPE, _END = TypeAdapter(_Header), TypeAdapter(_Envelope), TypeAdapter(_End)


async def export_session(journal: Journal, session: str) -> AsyncIterator[str]:
    """The session of that id (or the one whose id starts so), line by line, each with its line break.

    What is appended meanwhile is left out.

    Raises:
        NotFoundError: ``journal.unknown_session``; ``journal.ambiguous_session``.
        JournalError: ``journal.corrupt``; nothing damaged is handed on.
    """
    head = await journal.find(session)
    digest, lines = hashlib.sha256(), 0
    async for line in _told(journal, head):
        digest.update(line.encode())
        lines += 1
        yield line
    yield _json(_End(f"sha256:{digest.hexdigest()}", lines)._asdict()) + "\n"


async def import_session(journal: Journal, lines: Iterable[str], *, new_id: bool = False) -> str:
    """Write an exported session into ``journal`` and give back its id. All of it, or nothing.

    Args:
        journal: where to.
        lines: what :func:`export_session` gave, with or without line breaks.
        new_id: make it a session of its own, with a fresh id and no parent, rather than the one it was.

    A session of that id that holds the same events already is left as it is.

    Raises:
        JournalError: ``journal.not_an_export`` and ``journal.export_newer`` for lines of something else,
            ``journal.export_damaged`` and ``journal.export_truncated`` for lines that are not as they were
            written (``details`` name the line), ``journal.version``, ``journal.exists`` for another
            session of that id.
    """
    header, rows = await _read(lines)
    if new_id:
        header = header._replace(session=journal.new_id(), parent=None)
        rows = [_moved(row, header.session) for row in rows]
    elif await _is_there(journal, header, rows):
        return header.session
    await journal.store.append(header.session, rows, expected_seq=0, parent=header.parent, durable=True)
    return header.session


async def _told(journal: Journal, head: SessionHead) -> AsyncIterator[str]:
    header = _Header(own_version(), head.id, head.parent, head.base, head.seq)
    yield _json({"kernloom": "session", "format": FORMAT, **header._asdict()}) + "\n"
    told = 0
    while told < head.seq:
        rows = await journal.store.read(head.id, after=told, limit=min(_PAGE, head.seq - told))
        for row in rows:
            told += 1
            if row.seq != told:
                raise _missing(head, told)
            unpack(head, row)
            envelope = _json(_Envelope(*row[:7], session=row.session)._asdict())
            yield f"{envelope[:-1]}{_DATA}{row.text}}}\n"
        if not rows:
            raise _missing(head, told + 1)
        await asyncio.sleep(0)


def _missing(head: SessionHead, seq: int) -> JournalError:
    return JournalError(
        f"Event {seq} of session {head.id!r} is damaged: it is not there.",
        code="journal.corrupt",
        hint="Restore the journal from a backup; other sessions can still be exported.",
        session=head.id,
        seq=seq,
    )


async def _read(lines: Iterable[str]) -> tuple[_Header, list[StoredEvent]]:
    """Every line checked: each for itself, that it may follow, and that all are there."""
    digest, rows, history = hashlib.sha256(), list[StoredEvent](), History()
    numbered = enumerate((line.rstrip("\r\n") for line in lines), start=1)
    header = _header(digest, numbered)
    head = SessionHead(header.session, header.events, 0.0, 0.0, header.parent, header.base)
    for number, line in numbered:
        if len(rows) == header.events:
            _check_end(line, number, digest.hexdigest())
            _check_over(numbered)
            return header, rows
        rows.append(_event(head, line, number, len(rows) + 1, history))
        digest.update(f"{line}\n".encode(errors="surrogatepass"))
        if number % _PAGE == 0:
            await asyncio.sleep(0)
    raise _truncated(len(rows) + 1, f"{header.events} events and an end were announced")


def _header(digest: Any, numbered: Iterator[tuple[int, str]]) -> _Header:
    line = next(numbered, (1, ""))[1]
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise _foreign() from exc
    if not isinstance(said, dict) or said.pop("kernloom", None) != "session":
        raise _foreign()
    found = said.pop("format", None)
    if found != FORMAT:
        raise JournalError(
            f"The session was exported in format {found!r:.40}, and this release reads format {FORMAT}.",
            code="journal.export_newer",
            hint="Upgrade kernloom, or import it with the release that exported it.",
            line=1,
        )
    digest.update(f"{line}\n".encode(errors="surrogatepass"))
    header = _fits(_HEADER, said, 1)
    if not header.session or header.events < 1:
        raise _damaged(1, "it announces no session or no events")
    return header


def _event(head: SessionHead, line: str, number: int, seq: int, history: History) -> StoredEvent:
    envelope, found, rest = line.partition(_DATA)
    if not found or not rest.endswith("}"):
        if line.startswith('{"digest":'):
            raise _truncated(number, f"{head.seq} events were announced, and {seq - 1} are there")
        raise _damaged(number, "it is no event")
    said = _fits(_ENVELOPE, _parsed(envelope + "}", number), number)
    if said.seq != seq:
        raise _damaged(number, f"event {said.seq} stands where {seq} should")
    row = StoredEvent(*said[:7], text=rest[:-1], session=said.session)
    try:
        history.apply(unpack(head, row).data)
    except (JournalError, InvariantError) as exc:
        if exc.code == "journal.version":
            exc.details["line"] = number
            raise
        raise _damaged(number, exc.message) from exc
    return row


def _check_end(line: str, number: int, digest: str) -> None:
    end = _fits(_END, _parsed(line, number), number)
    if end != (f"sha256:{digest}", number - 1):
        raise _damaged(number, "the digest of the lines before it is another")


def _check_over(numbered: Iterator[tuple[int, str]]) -> None:
    for number, line in numbered:
        if line.strip():
            raise _damaged(number, "it stands behind the end")


async def _is_there(journal: Journal, header: _Header, rows: list[StoredEvent]) -> bool:
    """Whether the journal holds these very events; a session with others is in the way."""
    found = await journal.store.sessions(prefix=header.session)
    head = next((head for head in found if head.id == header.session), None)
    if head is None:
        return False
    if head.seq == len(rows) and head.parent == header.parent and await _same(journal, head, rows):
        return True
    raise JournalError(
        f"The journal has a session {head.id!r} already, and it is not the same: "
        f"it has {head.seq} events, the one to be imported {len(rows)}.",
        code="journal.exists",
        hint="Import it under a new id, or remove the other one first.",
        session=head.id,
    )


async def _same(journal: Journal, head: SessionHead, rows: list[StoredEvent]) -> bool:
    for start in range(0, head.seq, _PAGE):
        if await journal.store.read(head.id, after=start, limit=_PAGE) != rows[start : start + _PAGE]:
            return False
    return True


def _moved(row: StoredEvent, session: str) -> StoredEvent:
    """The row as an event of another session that was opened by nobody."""
    mark = checksum(session, row.seq, row.at, row.actor, row.run, row.version, row.text)
    return row._replace(checksum=mark, session=session)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parsed(text: str, number: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise _damaged(number, "it is no JSON") from exc


def _fits(adapter: TypeAdapter[T], said: Any, number: int) -> T:
    """``said`` as the line it must be: these fields, no others, of these types."""
    try:
        return adapter.validate_python(said)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _damaged(number, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from exc


def _foreign() -> JournalError:
    return JournalError(
        "Line 1 is not the beginning of an exported session.",
        code="journal.not_an_export",
        hint="Give it what `kernloom runs export` wrote.",
        line=1,
    )


def _damaged(number: int, why: str) -> JournalError:
    return JournalError(
        f"Line {number} is not as it was exported: {why}.",
        code="journal.export_damaged",
        hint="Export the session again; nothing was imported.",
        line=number,
    )


def _truncated(number: int, why: str) -> JournalError:
    return JournalError(
        f"The export breaks off before line {number + 1}: {why}.",
        code="journal.export_truncated",
        hint="Export the session again; nothing was imported.",
        line=number,
    )
