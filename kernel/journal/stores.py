"""What keeps a journal: the store protocol, and the records it is given.

A store is a plain thing. It keeps rows of text in order, guards each session's tail against a second
writer, and knows nothing of what the text means: meaning, checksums and versions are the journal's
(:mod:`kernloom.kernel.journal.journal`), and so the same in every store. Whoever writes one runs
:class:`kernloom.testing.journal.JournalStoreConformance` over it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from ..errors import JournalError

T = TypeVar("T")


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
    #: The session it was written in, which its checksum covers: another one for what a fork shares.
    #: Read, it is always there; appended without, it becomes the session appended to.
    session: str = ""


class SessionHead(NamedTuple):
    """What a store knows of a session without reading its events."""

    id: str
    #: The last event's seq, which is also how many there are.
    seq: int
    #: ``at`` of the first and of the last event.
    created: float
    updated: float
    #: ``(session, seq)`` that opened it, for a child session. A fork has the parent of what it forks.
    parent: tuple[str, int] | None = None
    #: ``(session, seq)``, for a fork: its first ``seq`` events are those of ``session``.
    base: tuple[str, int] | None = None


class Lease(NamedTuple):
    """Who may work on a session, and until when (seconds since the epoch)."""

    session: str
    holder: str
    until: float


class Snapshot(NamedTuple):
    """A projection of a session's first ``seq`` events, as text that its maker can read."""

    seq: int
    #: The version of the text's format.
    version: int
    text: str


@runtime_checkable
class JournalStore(Protocol):
    """Sessions of events, each an append-only list; leases on them, forks of them, snapshots beside them.

    Everything raises :class:`~kernloom.kernel.errors.JournalError`: ``journal.locked`` when another
    process holds the store longer than it waits, ``journal.corrupt``, ``journal.full``, ``journal.io``.
    Whatever changes something does so wholly or not at all, also when the process is killed meanwhile.
    After ``journal.io`` alone the caller must look which of the two it was.
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

        Their seqs follow on ``expected_seq``, which counts what a fork shares; no events are no append.

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

        In the order of ``seq`` either way. An unknown session has none. A fork's begin with those it
        shares, each of which names the session it was written in.
        """
        ...

    async def sessions(
        self,
        *,
        prefix: str = "",
        parent: str | None = None,
        base: str | None = None,
        roots: bool = False,
        limit: int | None = None,
    ) -> list[SessionHead]:
        """Sessions whose id starts with ``prefix``, last updated first (then by id, greatest first).

        ``parent`` keeps the children of one session, ``base`` the forks of one, ``roots`` those that are
        no child.
        """
        ...

    async def fork(self, session: str, *, at: int, of: str) -> None:
        """Begin ``session`` with the first ``at`` events of ``of`` (0: none), shared and not copied.

        ``of`` may be a fork itself. What either of them appends from now on is its own.

        Raises:
            JournalError: ``journal.conflict`` if there is such a session already,
                ``journal.unknown_event`` if ``of`` does not reach to ``at``, or is not there.
        """
        ...

    async def delete(self, session: str) -> None:
        """Remove a session, its lease and its snapshots; nothing, if it is not there.

        What forks of it share goes to the one that shares most (the oldest of several); the others are
        from now on forks of that one, or of what the session itself was a fork of. Their events stay as
        they are, :attr:`StoredEvent.session` included.
        """
        ...

    async def replace(self, session: str, seq: int, event: StoredEvent) -> None:
        """Put ``event`` in the place of one already written, of which only the owning session stays.

        Whoever shares the event has the new one too. The snapshots of all of them are dropped.

        Raises:
            JournalError: ``journal.unknown_event``.
        """
        ...

    async def compact(self) -> None:
        """Give back unused space; what was deleted or replaced is then gone from the storage."""
        ...

    async def lease(self, session: str, holder: str, *, seconds: float, now: float) -> None:
        """Let ``holder`` work on ``session`` (there yet, or not) until ``now + seconds``; again, to renew.

        Of several that try at once one wins. A lease whose end is not after ``now`` is none.

        Raises:
            JournalError: ``journal.leased``, another has it; ``details`` name ``holder`` and ``until``.
        """
        ...

    async def release(self, session: str, holder: str) -> None:
        """End a lease; nothing, if ``holder`` does not have it."""
        ...

    async def leases(self) -> list[Lease]:
        """Every lease that was not released, in the order of session ids; some may be over."""
        ...

    async def put_snapshot(self, session: str, kind: str, snapshot: Snapshot) -> None:
        """Keep ``snapshot`` in the place of an earlier one of that ``kind``.

        Only the holder of the lease may: a snapshot made while its events are replaced would bring back
        what was to be gone. Snapshots are not truth, and may be lost at any time.
        """
        ...

    async def get_snapshot(self, session: str, kind: str) -> Snapshot | None:
        """The last one put, if it is still valid."""
        ...

    async def close(self) -> None:
        """Give back files and connections. May be called twice."""
        ...


def unknown_event(session: str, seq: int) -> JournalError:
    """The error of a fork or a replacement that refers to an event nobody wrote."""
    return JournalError(
        f"There is no event {seq} in session {session!r}.",
        code="journal.unknown_event",
        hint="Look how far the session goes: kernloom runs show.",
        session=session,
        seq=seq,
    )


def leased(lease: Lease, *, now: float) -> JournalError:
    """The error of whoever wants a session that another has."""
    end = datetime.fromtimestamp(lease.until, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return JournalError(
        f"Session {lease.session!r} is in the hands of {lease.holder!r} until {end},"
        f" {lease.until - now:.0f} s from now.",
        code="journal.leased",
        hint="Wait until it is released or over; it is prolonged as long as its holder lives.",
        session=lease.session,
        holder=lease.holder,
        until=lease.until,
    )


def heir(forks: Iterable[tuple[T, int]]) -> tuple[T, int]:
    """Who takes over what forks share when their base goes: ``(fork, at)`` of the one that shares most.

    ``forks`` are not none, and in the order of their age.
    """
    return max(forks, key=lambda fork: fork[1])


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
