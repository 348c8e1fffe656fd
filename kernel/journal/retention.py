"""How long sessions are kept: pruning by age and by name.

Forgetting what somebody said while the session stays is :mod:`.forgetting`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from ..errors import JournalError, UsageError
from .journal import Journal
from .leases import Leases, died_here
from .stores import JournalStore, SessionHead, StoredEvent

_GOING_ON = frozenset({"run.started", "run.resumed", "run.paused"})
_RUN_KINDS = _GOING_ON | {"run.finished", "run.failed", "run.cancelled"}


@dataclass(frozen=True, slots=True)
class Kept:
    """A session that was to be pruned and was not."""

    session: str
    reason: str


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What :func:`prune` did, or would do."""

    #: Ids of the sessions that are gone, children before those that opened them.
    pruned: tuple[str, ...]
    kept: tuple[Kept, ...]
    #: Sessions that were forked from pruned ones. They stay, and keep what they shared.
    forks: tuple[str, ...]
    #: Events that are gone; what a fork keeps is not.
    events: int
    dry_run: bool


async def prune(
    journal: Journal,
    *,
    older_than: float | None = None,
    sessions: Sequence[str] = (),
    force: bool = False,
    dry_run: bool = False,
) -> PruneReport:
    """Remove sessions for good, with the child sessions they opened, and give their space back.

    Args:
        journal: from which.
        older_than: every session in which nothing happened for so many seconds, its children included.
        sessions: these as well, by id or the beginning of one.
        force: also sessions whose last run has not ended. What another process is at work in is kept
            even so.
        dry_run: only say what would be done.

    Raises:
        UsageError: ``journal.prune_what``, neither an age nor a session was given.
        NotFoundError: a session is not there.
    """
    if older_than is None and not sessions:
        raise UsageError(
            "Nothing was said of what to prune.",
            code="journal.prune_what",
            hint="Give an age (older_than, in seconds) or sessions.",
        )
    named = [await journal.find(session) for session in sessions]
    families = Families(await journal.store.sessions())
    chosen = {head.id: families.of(head) for head in named}
    if older_than is not None:
        before = journal.now() - older_than
        for head in families.roots():
            family = families.of(head)
            if all(member.updated < before for member in family):
                chosen.setdefault(head.id, family)
    return await _prune(journal, families, chosen, force=force, dry_run=dry_run)


class Families:
    """Which sessions belong together: those a session opened go where it goes; forks go their own way."""

    def __init__(self, heads: Iterable[SessionHead]) -> None:
        self.heads = {head.id: head for head in heads}
        self._children: dict[str, list[SessionHead]] = {}
        for head in self.heads.values():
            if not self._is_root(head) and head.parent is not None:
                self._children.setdefault(head.parent[0], []).append(head)

    def roots(self) -> Iterator[SessionHead]:
        """Sessions that nobody opened who is still there."""
        return (head for head in self.heads.values() if self._is_root(head))

    def of(self, head: SessionHead) -> list[SessionHead]:
        """A session and all below it, the lowest first."""
        below = [found for child in self._children.get(head.id, ()) for found in self.of(child)]
        return [*below, head]

    def forks(self, gone: Iterable[str]) -> list[str]:
        """Who shares events with the sessions ``gone``, at any remove, and is none of them."""
        sharing = set(gone)
        found: list[str] = []
        while more := [
            head.id for head in self.heads.values()
            if head.base is not None and head.base[0] in sharing and head.id not in sharing
        ]:  # fmt: skip
            sharing.update(more)
            found += more
        return found

    def _is_root(self, head: SessionHead) -> bool:
        return head.parent is None or head.base is not None or head.parent[0] not in self.heads


async def unfinished(store: JournalStore, session: str) -> StoredEvent | None:
    """Where the session's last run began, or waits, if it has not ended."""
    rows = await store.read(session, kinds=_RUN_KINDS, newest=True, limit=1)
    return rows[0] if rows and rows[0].kind in _GOING_ON else None


@asynccontextmanager
async def held(journal: Journal, sessions: Iterable[str]) -> AsyncIterator[None]:
    """Hold every one of ``sessions``, so that nobody works in them meanwhile; or none, and raise.

    Raises:
        JournalError: ``journal.leased``.
    """
    # In a name of its own: the journal's runs of this very process are to be kept out as well.
    leases = Leases(journal.store, clock=journal.now)
    async with AsyncExitStack() as stack:
        for session in sessions:
            await stack.enter_async_context(leases.hold(session))
        yield


async def _prune(
    journal: Journal,
    families: Families,
    chosen: dict[str, list[SessionHead]],
    *,
    force: bool,
    dry_run: bool,
) -> PruneReport:
    pruned: dict[str, SessionHead] = {}
    kept: list[Kept] = []
    for name, family in chosen.items():
        reason = None if force else await _unfinished(journal.store, family)
        if reason is None:
            reason = await (_busy if dry_run else _remove)(journal, family)
        if reason is None:
            pruned.update({head.id: head for head in family})
        else:
            kept.append(Kept(name, reason))
    if pruned and not dry_run:
        await journal.store.compact()
    forks = families.forks(pruned)
    return PruneReport(
        pruned=tuple(pruned),
        kept=tuple(item for item in kept if item.session not in pruned),
        forks=tuple(fork for fork in forks if fork not in pruned),
        events=_lost(families, pruned),
        dry_run=dry_run,
    )


async def _unfinished(store: JournalStore, family: list[SessionHead]) -> str | None:
    for head in family:
        last = await unfinished(store, head.id)
        if last is not None:
            ends = "waits for a person" if last.kind == "run.paused" else "has not ended"
            return f"the last run of {head.id} {ends}"
    return None


async def _busy(journal: Journal, family: list[SessionHead]) -> str | None:
    members = {head.id for head in family}
    now = journal.now()
    for lease in await journal.store.leases():
        if lease.session in members and lease.until > now and not died_here(lease.holder):
            return _at_work(lease.holder, lease.session)
    return None


async def _remove(journal: Journal, family: list[SessionHead]) -> str | None:
    """Remove them all, the lowest first: stopped half-way, it can be done again from the top."""
    try:
        async with held(journal, [head.id for head in family]):
            for head in family:
                await journal.store.delete(head.id)
                journal.let_go(head.id)
    except JournalError as exc:
        if exc.code != "journal.leased":
            raise
        return _at_work(exc.details["holder"], exc.details["session"])
    return None


def _at_work(holder: object, session: object) -> str:
    return f"{holder} is at work in {session}"


def _lost(families: Families, pruned: dict[str, SessionHead]) -> int:
    """Events of the pruned sessions that no fork keeps."""
    lost = 0
    for head in pruned.values():
        start = head.base[1] if head.base else 0
        inherited = [
            families.heads[fork].base[1]  # type: ignore[index]
            for fork in families.forks([head.id])
            if fork not in pruned
        ]
        lost += head.seq - max([start, *inherited])
    return lost
