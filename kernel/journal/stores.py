"""What keeps a journal: the store protocol, and the records it is given.

A store is a plain thing. It keeps rows of text in order, guards each session's tail against a second
writer, and knows nothing of what the text means: meaning, checksums and versions are the journal's
(:mod:`kernloom.kernel.journal.journal`), and so the same in every store. Whoever writes one runs
:class:`kernloom.testing.journal.JournalStoreConformance` over it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from ..errors import JournalError


class StoredEvent(NamedTuple):
    """One event as a store keeps it; the session is named beside it."""

    #: 1-based position in its session; no gaps.
    seq: int
    #: Seconds since the epoch.
    at: float
    actor: str
    run: str | None
    kind: str
    version: int
    #: See :func:`kernloom.kernel.journal.events.checksum`.
    checksum: str
    #: The event's data as JSON.
    text: str


class SessionHead(NamedTuple):
    """What a store knows of a session without reading its events."""

    id: str
    #: The last event's seq, which is also how many there are.
    seq: int
    #: ``at`` of the first and of the last event.
    created: float
    updated: float
    #: ``(session, seq)`` that opened it, for a child session.
    parent: tuple[str, int] | None = None


@runtime_checkable
class JournalStore(Protocol):
    """Sessions of events, each an append-only list.

    Everything raises :class:`~kernloom.kernel.errors.JournalError`: ``journal.locked`` when another
    process holds the store longer than it waits, ``journal.corrupt``, ``journal.full``, ``journal.io``.
    """

    async def append(
        self,
        session: str,
        events: Sequence[StoredEvent],
        *,
        expected_seq: int,
        parent: tuple[str, int] | None = None,
        durable: bool = False,
    ) -> None:
        """Add ``events``, all or none, behind ``expected_seq`` (0: a new session, opened by ``parent``).

        Their seqs follow on ``expected_seq``; no events are no append.

        When it returns, the events survive the death of this process; with ``durable`` also that of
        the machine. If cancelled, it has written all of them or none.

        Raises:
            JournalError: ``journal.conflict`` if the session does not end at ``expected_seq``.
        """
        ...

    async def read(
        self,
        session: str,
        *,
        after: int = 0,
        limit: int | None = None,
        kinds: Collection[str] | None = None,
        newest: bool = False,
    ) -> list[StoredEvent]:
        """The first (or ``newest``) ``limit`` events with ``seq > after``; of ``kinds`` only, if given.

        In the order of ``seq`` either way. An unknown session has none.
        """
        ...

    async def sessions(
        self,
        *,
        prefix: str = "",
        parent: str | None = None,
        roots: bool = False,
        limit: int | None = None,
    ) -> list[SessionHead]:
        """Sessions whose id starts with ``prefix``, last updated first (then by id, greatest first).

        ``parent`` keeps the children of one session, ``roots`` those that are no child.
        """
        ...

    async def close(self) -> None:
        """Give back files and connections. May be called twice."""
        ...


def conflict(session: str, *, expected: int, actual: int) -> JournalError:
    """The error of an append whose session does not end where its writer believed."""
    return JournalError(
        f"Session {session!r} ends at event {actual}, not at {expected}: another writer was there.",
        code="journal.conflict",
        hint="Read what was added (refresh) and decide again.",
        session=session,
        expected=expected,
        actual=actual,
    )
