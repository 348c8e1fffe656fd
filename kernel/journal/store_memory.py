"""A journal that lives as long as its process: for tests, scripts and throw-away conversations."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from .stores import Lease, SessionHead, Snapshot, StoredEvent, conflict, heir, leased, unknown_event


@dataclass(slots=True)
class _Session:
    created: float
    updated: float
    parent: tuple[str, int] | None = None
    base: tuple[str, int] | None = None
    #: What it does not share with its base.
    own: list[StoredEvent] = field(default_factory=list)

    @property
    def shared(self) -> int:
        """How many events it has of its base."""
        return self.base[1] if self.base else 0

    @property
    def seq(self) -> int:
        return self.shared + len(self.own)

    def head(self, name: str) -> SessionHead:
        return SessionHead(name, self.seq, self.created, self.updated, self.parent, self.base)


class InMemoryJournalStore:
    """Keeps the same text a file would, so that what comes back is the same too.

    Nothing here outlives the process, and nothing waits: each method is one step of the event loop. See
    :class:`~kernloom.kernel.journal.stores.JournalStore` for what they do.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._leases: dict[str, Lease] = {}
        self._snapshots: dict[str, dict[str, Snapshot]] = {}

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
        known = self._sessions.get(session)
        actual = known.seq if known else 0
        if actual != expected_seq:
            raise conflict(session, expected=expected_seq, actual=actual)
        if known is None:
            known = self._sessions[session] = _Session(0.0, 0.0, parent)
        if not actual:
            known.created = events[0].at
        known.updated = events[-1].at
        known.own.extend([event if event[8] else event._replace(session=session) for event in events])

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
        known = self._sessions.get(session)
        if known is None or limit == 0:
            return []
        found = known.own[max(0, after - known.shared) :]
        if known.base and after < known.shared:
            found = self._upto(*known.base)[after:] + found
        if kinds is not None:
            found = [event for event in found if event.kind in kinds]
        if limit is None:
            return found
        return found[-limit:] if newest else found[:limit]

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
        heads = [known.head(name) for name, known in self._sessions.items() if name.startswith(prefix)]
        if parent is not None:
            heads = [head for head in heads if head.parent is not None and head.parent[0] == parent]
        if base is not None:
            heads = [head for head in heads if head.base is not None and head.base[0] == base]
        if roots:
            heads = [head for head in heads if head.parent is None]
        heads.sort(key=lambda head: (head.updated, head.id), reverse=True)
        return heads if limit is None else heads[:limit]

    async def fork(self, session: str, *, at: int, of: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        if session in self._sessions:
            raise conflict(session, expected=0, actual=self._sessions[session].seq)
        source = self._sessions.get(of)
        if source is None or not 0 <= at <= source.seq:
            raise unknown_event(of, at)
        shared = self._upto(of, at)
        updated = shared[-1].at if shared else source.created
        self._sessions[session] = _Session(source.created, updated, source.parent, (of, at))

    async def delete(self, session: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        self._leases.pop(session, None)
        self._snapshots.pop(session, None)
        gone = self._sessions.get(session)
        if gone is None:
            return
        forks = [(name, fork.shared) for name, fork in self._forks(session)]
        if forks:
            self._bequeath(gone, *heir(forks), dict(forks))
        del self._sessions[session]

    async def replace(self, session: str, seq: int, event: StoredEvent) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        known = self._sessions.get(session)
        if known is None or not 1 <= seq <= known.seq:
            raise unknown_event(session, seq)
        while known.base and seq <= known.shared:
            session = known.base[0]
            known = self._sessions[session]
        index = seq - known.shared - 1
        known.own[index] = event._replace(seq=seq, session=known.own[index].session)
        self._forget_snapshots(session, seq)

    async def compact(self) -> None:
        """Nothing to give back."""

    async def lease(self, session: str, holder: str, *, seconds: float, now: float) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        held = self._leases.get(session)
        if held is not None and held.holder != holder and held.until > now:
            raise leased(held, now=now)
        self._leases[session] = Lease(session, holder, now + seconds)

    async def release(self, session: str, holder: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        held = self._leases.get(session)
        if held is not None and held.holder == holder:
            del self._leases[session]

    async def leases(self) -> list[Lease]:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        return sorted(self._leases.values())

    async def put_snapshot(self, session: str, kind: str, snapshot: Snapshot) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        self._snapshots.setdefault(session, {})[kind] = snapshot

    async def get_snapshot(self, session: str, kind: str) -> Snapshot | None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        return self._snapshots.get(session, {}).get(kind)

    async def close(self) -> None:
        """Nothing to give back; what was kept can still be read."""

    def _upto(self, session: str, end: int) -> list[StoredEvent]:
        """The first ``end`` events of a session."""
        known = self._sessions[session]
        found = known.own[: max(0, end - known.shared)]
        return self._upto(known.base[0], min(end, known.shared)) + found if known.base else found

    def _forks(self, session: str) -> Iterator[tuple[str, _Session]]:
        """The forks of a session, oldest first."""
        for name, known in self._sessions.items():
            if known.base and known.base[0] == session:
                yield name, known

    def _bequeath(self, gone: _Session, name: str, most: int, forks: dict[str, int]) -> None:
        """Hand what forks share of ``gone`` over to the fork ``name``, which shares ``most``."""
        taker = self._sessions[name]
        taker.own[:0] = gone.own[: max(0, most - gone.shared)]
        for fork, at in forks.items():
            if gone.base and at <= gone.shared:
                self._sessions[fork].base = (gone.base[0], at)
            elif fork != name:
                self._sessions[fork].base = (name, at)
            else:
                taker.base = gone.base

    def _forget_snapshots(self, session: str, seq: int) -> None:
        """Drop the snapshots of a session and of the forks that share its event ``seq``."""
        self._snapshots.pop(session, None)
        for name, fork in self._forks(session):
            if seq <= fork.shared:
                self._forget_snapshots(name, seq)
