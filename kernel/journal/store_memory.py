"""A journal that lives as long as its process: for tests, scripts and throw-away conversations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from .stores import SessionHead, StoredEvent, conflict


@dataclass(slots=True)
class _Session:
    parent: tuple[str, int] | None
    events: list[StoredEvent] = field(default_factory=list)

    def head(self, name: str) -> SessionHead:
        return SessionHead(name, len(self.events), self.events[0].at, self.events[-1].at, self.parent)


class InMemoryJournalStore:
    """Keeps the same text a file would, so that what comes back is the same too."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}

    async def append(
        self,
        session: str,
        events: Sequence[StoredEvent],
        *,
        expected_seq: int,
        parent: tuple[str, int] | None = None,
        durable: bool = False,
    ) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`; nothing here outlives the process."""
        if not events:
            return
        known = self._sessions.get(session)
        actual = len(known.events) if known else 0
        if actual != expected_seq:
            raise conflict(session, expected=expected_seq, actual=actual)
        if known is None:
            known = self._sessions[session] = _Session(parent)
        known.events.extend(events)

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
        found = known.events[after:]
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
        roots: bool = False,
        limit: int | None = None,
    ) -> list[SessionHead]:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        heads = [known.head(name) for name, known in self._sessions.items() if name.startswith(prefix)]
        if parent is not None:
            heads = [head for head in heads if head.parent is not None and head.parent[0] == parent]
        if roots:
            heads = [head for head in heads if head.parent is None]
        heads.sort(key=lambda head: (head.updated, head.id), reverse=True)
        return heads if limit is None else heads[:limit]

    async def close(self) -> None:
        """Nothing to give back; what was kept can still be read."""
