"""Forgetting what a person said, or what is said of them, while the sessions stay.

The payload of each event that holds it becomes a tombstone (:mod:`.tombstones`), in the session it was
written in and so in every fork that shares it; then the store is compacted, and the bytes are gone.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import JournalError, UsageError
from .events import Event, EventData, MessageAdded, QuestionAnswered, RunCancelled
from .journal import Journal
from .records import bury, unpack
from .retention import Families, held, unfinished
from .stores import SessionHead, StoredEvent
from .tombstones import FORGOTTEN, named, said, tombstone

#: Where the same data may be, and is not looked for.
NOT_COVERED = (
    "Memory: documents that were added, their passages and vectors.",
    "Exports, backups and copies of the journal made before now.",
    "What functions did with it, and what models' providers keep of what they were sent.",
    "Answers that tell it in other words: name those words as text.",
)

#: What somebody said is looked for in other events from this length on; shorter, only as a text of its own.
_TELLING = 12
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Forgotten:
    """An event whose payload is gone."""

    session: str
    seq: int
    kind: str


@dataclass(frozen=True, slots=True)
class Touched:
    """A fork that shares forgotten events, and so has lost them too."""

    session: str
    #: The session it was forked from.
    base: str
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What :func:`forget` did, or would do."""

    events: tuple[Forgotten, ...]
    forks: tuple[Touched, ...]
    #: Events that still name it where a name holds the history together: a function's, a run's, a call's.
    left: tuple[Forgotten, ...]
    #: Sessions whose run has not ended and lost something it would need: it was given up.
    given_up: tuple[str, ...]
    not_covered: tuple[str, ...]
    dry_run: bool


async def forget(
    journal: Journal,
    *,
    person: str | None = None,
    text: str | None = None,
    session: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> ForgetReport:
    """Replace payloads by tombstones, for good.

    Args:
        journal: in which.
        person: all that they said, by their name as actor, as a message's name or as who answered; and
            where others repeat it word for word.
        text: every payload with these words in it, in any case; within JSON too.
        session: only in this session, what it opened and what was forked from it. Alone: all of these.
        force: also in runs that have not ended. They are given up first, as cancelled: resumed, they would
            make their calls with what is left of the arguments.
        dry_run: only say what would be done.

    A session that somebody is at work in is refused before anything is changed; what is said elsewhere
    meanwhile is not searched. Stopped half-way, it can be done again. Whoever has a session open in
    another process keeps what they have read.

    Raises:
        UsageError: ``journal.forget_what``, nothing was given.
        NotFoundError: the session is not there.
        JournalError: ``journal.unfinished``, a run it is in has not ended; ``journal.leased``;
            ``journal.corrupt``, an event cannot be read and so not searched.
    """
    person, text = (person or "").strip() or None, (text or "").strip() or None
    if person is None and text is None and session is None:
        raise UsageError(
            "Nothing was said of what to forget.",
            code="journal.forget_what",
            hint="Give a person, a text or a session.",
        )
    families = Families(await journal.store.sessions())
    only = None if session is None else (await journal.find(session)).id
    plan = _Plan()
    for group in _groups(families, only):
        await _search(journal, group, _Wanted(person, text), only, plan)
    changed = _changed(families, plan)
    going_on = await _going_on(journal, changed, plan)
    if plan.changes and not dry_run:
        async with held(journal, changed):
            await _give_up(journal, going_on, force=force)
            await _rewrite(journal, changed, plan)
    return ForgetReport(
        events=tuple(Forgotten(row.session, row.seq, row.kind) for _, row, _, _ in plan.changes),
        forks=tuple(_touched(families, plan)),
        left=tuple(plan.left),
        given_up=tuple(going_on),
        not_covered=NOT_COVERED,
        dry_run=dry_run,
    )


class _Change(NamedTuple):
    #: The session through which the event was found.
    head: SessionHead
    row: StoredEvent
    #: What is left of it.
    data: EventData
    actor: str


@dataclass(slots=True)
class _Plan:
    """What is to be done, found before any of it is."""

    changes: list[_Change] = field(default_factory=list)
    left: list[Forgotten] = field(default_factory=list)


@dataclass(slots=True)
class _Wanted:
    """What is looked for, and what those looked for have said."""

    person: str | None
    text: str | None
    #: What they said, where it is telling; and the lengths of it, by how it begins.
    said: set[str] = field(default_factory=set)
    lengths: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    #: What they said in short, by session.
    short: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def everything(self) -> bool:
        return self.person is None and self.text is None

    def is_person(self, name: str | None) -> bool:
        return self.person is not None and name is not None and name.casefold() == self.person.casefold()

    def names(self, name: str) -> bool:
        """Whether a name is to go."""
        return self.is_person(name) or (self.text is not None and self.text.casefold() in name.casefold())

    def said_by(self, event: Event) -> bool:
        return self.is_person(event.actor) or self.is_person(_speaker(event.data))

    def listen(self, event: Event) -> None:
        """Remember what they said, to know it again where it is repeated."""
        if self.person is None or event.forgotten is not None or not self.said_by(event):
            return
        for words in map(str.strip, _words(event.data)):
            if len(words) >= _TELLING:
                self.said.add(words)
                self.lengths[words[:_TELLING]].add(len(words))
            elif words:
                self.short[event.session].add(words)

    def holds(self, event: Event) -> bool:
        """Whether the event's payload is to go."""
        if self.everything() or self.said_by(event):
            return True
        found = list(said(event.data))
        if self.text is not None and any(map(self.mentions, found)):
            return True
        short = self.short.get(event.session, ())
        return any(words.strip() in short or self.repeats(words) for words in found)

    def repeats(self, words: str) -> bool:
        """Whether something telling stands in ``words``, however much was said: one look a character."""
        if not self.said:
            return False
        return any(
            words[at : at + length] in self.said
            for at in range(len(words) - _TELLING + 1)
            for length in self.lengths.get(words[at : at + _TELLING], ())
        )

    def mentions(self, words: str) -> bool:
        return self.text is not None and self.text.casefold() in words.casefold()


async def _search(
    journal: Journal, group: list[SessionHead], wanted: _Wanted, only: str | None, plan: _Plan
) -> None:
    """Find what must go in sessions that belong together; first what was said, then who repeats it."""
    if wanted.person is not None:
        for head in group:
            async for _, event in _events(journal, head, whole=head.id == only):
                wanted.listen(event)
    for head in group:
        async for row, event in _events(journal, head, whole=head.id == only):
            _decide(head, row, event, wanted, plan)


def _decide(head: SessionHead, row: StoredEvent, event: Event, wanted: _Wanted, plan: _Plan) -> None:
    actor = FORGOTTEN if wanted.names(event.actor) else event.actor
    data = tombstone(event.data) if wanted.holds(event) else event.data
    if data != event.data or actor != event.actor:
        plan.changes.append(_Change(head, row, data, actor))
    if any(map(wanted.names, [*named(data), event.run or ""])):
        plan.left.append(Forgotten(row.session, row.seq, row.kind))


def _changed(families: Families, plan: _Plan) -> list[str]:
    """The sessions that will not be what they were, forks that share what is changed among them."""
    changed = {change.head.id for change in plan.changes}
    changed |= {_owner(families, change.head, change.row.seq) for change in plan.changes}
    return sorted(changed.union(families.forks(changed)))


async def _going_on(journal: Journal, changed: list[str], plan: _Plan) -> dict[str, str | None]:
    """The sessions whose last run has not ended and is to lose something, with that run."""
    runs = {change.row.run for change in plan.changes}
    found: dict[str, str | None] = {}
    for session in changed:
        last = await unfinished(journal.store, session)
        if last is not None and last.run in runs:
            found[session] = last.run
    return found


async def _give_up(journal: Journal, going_on: dict[str, str | None], *, force: bool) -> None:
    if going_on and not force:
        names = list(going_on)
        raise JournalError(
            f"The last run of {', '.join(names[:5])} has not ended, and what it needs would be forgotten.",
            code="journal.unfinished",
            hint="Resume it to its end, or force it to be given up.",
            sessions=names,
        )
    for session, run in going_on.items():
        log = await journal.open(session)
        await log.append(*log.history.repair(), RunCancelled(), actor="kernloom", run=run)


async def _rewrite(journal: Journal, changed: list[str], plan: _Plan) -> None:
    """Put the tombstones in place."""
    at = journal.now()
    for head, row, data, actor in plan.changes:
        await journal.store.replace(head.id, row.seq, bury(head, row, data, actor=actor, at=at))
    for session in changed:
        journal.let_go(session)
    await journal.store.compact()


def _groups(families: Families, only: str | None) -> Iterable[list[SessionHead]]:
    """Sessions that belong together, parents and bases before what came of them; of one, if named."""
    below: dict[str, list[str]] = defaultdict(list)
    roots: list[str] = []
    for head in families.heads.values():
        origins = {origin[0] for origin in (head.parent, head.base) if origin} & families.heads.keys()
        for origin in origins:
            below[origin].append(head.id)
        if not origins:
            roots.append(head.id)
    for root in roots if only is None else [only]:
        group = dict.fromkeys([root])
        waiting = [root]
        while waiting:
            new = [name for name in below[waiting.pop()] if name not in group]
            group.update(dict.fromkeys(new))
            waiting += new
        yield [families.heads[name] for name in group]


def _touched(families: Families, plan: _Plan) -> Iterable[Touched]:
    gone: dict[str, set[int]] = defaultdict(set)
    for head, row, _, _ in plan.changes:
        gone[_owner(families, head, row.seq)].add(row.seq)
    seqs = sorted(set().union(*gone.values()))
    for head in families.heads.values():
        if head.base is None:
            continue
        shared = [seq for seq in seqs if seq <= head.base[1] and seq in gone[_owner(families, head, seq)]]
        if shared:
            yield Touched(head.id, head.base[0], tuple(shared))


def _owner(families: Families, head: SessionHead, seq: int) -> str:
    """The session that keeps the event ``seq`` of ``head``."""
    while head.base is not None and seq <= head.base[1]:
        head = families.heads[head.base[0]]
    return head.id


async def _events(
    journal: Journal, head: SessionHead, *, whole: bool
) -> AsyncIterator[tuple[StoredEvent, Event]]:
    """The session's own events; ``whole``: also those it shares with what it was forked from."""
    after = head.base[1] if head.base and not whole else 0
    while rows := await journal.store.read(head.id, after=after, limit=_PAGE):
        for row in rows:
            yield row, unpack(head, row)
        after = rows[-1].seq
        await asyncio.sleep(0)


def _speaker(data: EventData) -> str | None:
    if isinstance(data, MessageAdded):
        return data.message.name
    return data.by if isinstance(data, QuestionAnswered) else None


def _words(data: EventData) -> list[str]:
    """What somebody said in their own words."""
    if isinstance(data, MessageAdded):
        return [data.message.text]
    return [data.answer] if isinstance(data, QuestionAnswered) else []
