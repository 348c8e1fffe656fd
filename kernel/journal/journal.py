"""The journal: sessions of events, each one log that only grows.

A :class:`Journal` opens sessions in a store; a :class:`SessionLog` is one of them, read into memory and
appended to. Nothing is written that would break the invariants of :mod:`kernloom.kernel.journal.history`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice, takewhile
from types import TracebackType

from ..errors import InvariantError, JournalError, NotFoundError, not_found
from ..messages import Message
from .edits import Edit
from .events import Event, EventData, Forked, MessageAdded, RunStarted
from .history import History
from .leases import Leases
from .records import corrupt, pack, unpack
from .stores import JournalStore, SessionHead, StoredEvent, unknown_event
from .transcript import Transcript
from .view import RUN_STATUS, RunStatus, View

#: Sessions kept open for whoever goes on with them; the next turn then reads only what is new.
_KEPT = 64

#: Sessions of one prefix that are looked at before all of them are.
_NEAR = 20

#: Events read at a time: between two pages other tasks get their turn.
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as a list shows it."""

    id: str
    #: Seconds since the epoch: its first and its last event.
    created: float
    updated: float
    #: How many events it has.
    events: int
    #: The first line a user said, at most 80 characters; empty if nobody said anything.
    title: str
    #: Who ran last: an agent's or a plan's name; empty if nobody ran.
    agent: str
    #: How the last run ended. ``unfinished``: it is still running, or died without a word.
    #: ``damaged``: what the list needed of it could not be read.
    status: RunStatus
    #: ``(session, seq)`` that opened it, for a child session.
    parent: tuple[str, int] | None = None


class Journal:
    """Sessions in one store.

    ::

        async with Journal(SqliteJournalStore("journal.db")) as journal:
            log = await journal.create()
            await log.append(MessageAdded(message=user("Hello")), actor="ann")
            again = await journal.open(log.id)
            again.messages()
    """

    def __init__(
        self,
        store: JournalStore,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id or (lambda: new_session_id(clock()))
        self._leases = Leases(store, clock=clock)
        self._open: OrderedDict[str, SessionLog] = OrderedDict()

    @property
    def store(self) -> JournalStore:
        """What keeps it."""
        return self._store

    def now(self) -> float:
        """The time by its clock, in seconds since the epoch."""
        return self._clock()

    def let_go(self, session: str) -> None:
        """Keep a session open no longer: its events were changed or removed beneath it."""
        self._open.pop(session, None)

    def new_id(self) -> str:
        """A fresh id that sorts by time, for a session or a run."""
        return self._new_id()

    async def create(self, *, parent: tuple[str, int] | None = None) -> SessionLog:
        """A new session, the child of event ``(session, seq)`` if ``parent`` says so.

        It is in the store from its first event on.
        """
        head = SessionHead(self._new_id(), 0, 0.0, 0.0, parent)
        return self._keep(self._log(head))

    async def child(self, parent: SessionLog | None, call_id: str | None) -> SessionLog:
        """The session of the sub-agent or sub-plan that serves a call; named after it.

        So whoever makes the call again after a crash finds what was done in it. Without a parent or a
        call it is a new session.
        """
        if parent is None or call_id is None:
            return await self.create()
        name = f"{parent.id}.{hashlib.blake2s(call_id.encode(), digest_size=5).hexdigest()}"
        if (log := self._open.get(name)) is not None:  # maybe without an event: the first was not written
            await log.refresh()
            return self._keep(log)
        if await self._store.sessions(prefix=name, limit=1):
            return await self.open(name)
        return self._keep(self._log(SessionHead(name, 0, 0.0, 0.0, (parent.id, parent.seq))))

    async def open(self, session: str) -> SessionLog:
        """The session of that id, or the one whose id starts so, with all its events.

        Opened twice in one process it is the same object, brought up to date.

        Raises:
            NotFoundError: ``journal.unknown_session``; ``journal.ambiguous_session`` if several fit.
            JournalError: ``journal.corrupt``, ``journal.version`` or what the store says.
        """
        log = self._open.get(session)
        if log is None or not log.seq:
            head = await self._find(session)
            log = self._open.get(head.id) or self._log(head)
        await log.refresh()
        return self._keep(log)

    async def fork(
        self, session: str, *, at: int, edit: Edit | None = None, by: str = "code"
    ) -> SessionLog:
        """A new session that shares the first ``at`` events of ``session`` and goes its own way from there.

        Resume what was under way then (``agent.resume(fork.id)``, ``Plan.resume(kernel, fork.id)``), or say
        something new (``agent.run(text, session=fork.id)``). The original stays as it is. Calls that were
        open are made anew in the fork, under idempotency keys of its own: what the original did after event
        ``at``, sub-agents included, the fork does again. What a call asked for and was allowed before that
        stays allowed.

        Args:
            session: which; it may be a fork, and a run may be at work in it.
            at: the last event to share; 0: none.
            edit: replaces event ``at``, of which the fork then has its own; see :mod:`.edits`.
            by: who forks it.

        Raises:
            NotFoundError: the session is not there.
            JournalError: ``journal.unknown_event``.
            UsageError: ``journal.edit``, the event cannot be edited so.
            InvariantError: the edited event cannot follow on those before it.
        """
        log = await self.open(session)
        if not (0 if edit is None else 1) <= at <= log.seq:
            raise unknown_event(log.id, at)
        edited = None if edit is None else edit(log.events[at - 1].data)
        name, shared = self._new_id(), at if edit is None else at - 1
        forked = Forked(of=log.id, at=at, edited=edit is not None)
        tried = History(event.data for event in log.events[:shared])
        if edited is not None:
            tried.apply(edited)
        await self._store.fork(name, at=shared, of=log.id)
        fork = await self.open(name)
        if edited is not None:
            event = log.events[at - 1]
            await fork.append(edited, actor=event.actor, run=event.run)
        await fork.append(forked, actor=by)
        return fork

    async def find(self, session: str) -> SessionHead:
        """What the store knows of the session of that id, or of the one whose id starts so.

        Raises:
            NotFoundError: ``journal.unknown_session``; ``journal.ambiguous_session`` if several fit.
        """
        return await self._find(session)

    async def info(self, session: str) -> SessionInfo:
        """The session of that id (or the one whose id starts so) as a list shows it.

        Raises:
            NotFoundError: ``journal.unknown_session``; ``journal.ambiguous_session`` if several fit.
        """
        return await self._describe(await self._find(session))

    def _log(self, head: SessionHead) -> SessionLog:
        return SessionLog(self._store, head, clock=self._clock, leases=self._leases)

    def _keep(self, log: SessionLog) -> SessionLog:
        self._open[log.id] = log
        self._open.move_to_end(log.id)
        if (over := len(self._open) - _KEPT) > 0:
            # A session that a run is at work in stays: opened again, it must be the same that is claimed.
            idle = (name for name, kept in self._open.items() if not kept.claimed)
            for name in list(islice(idle, over)):
                del self._open[name]
        return log

    async def sessions(
        self, *, limit: int | None = 50, children: bool = False, parent: str | None = None
    ) -> list[SessionInfo]:
        """The sessions, last used first.

        Those that were opened by another are left out, unless ``children`` asks for all or ``parent`` for
        the children of one session.
        """
        heads = await self._store.sessions(
            limit=limit, parent=parent, roots=not children and parent is None
        )
        return [await self._describe(head) for head in heads]

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _find(self, session: str) -> SessionHead:
        wanted = session.strip()
        heads = await self._store.sessions(prefix=wanted, limit=_NEAR) if wanted else []
        if len(heads) == _NEAR and all(head.id != wanted for head in heads):
            # The ids of children begin with their parent's: it may be older than many of them.
            heads = await self._store.sessions(prefix=wanted)
        for head in heads:
            if head.id == wanted:
                return head
        roots = [head for head in heads if head.parent is None]
        if len(heads) == 1 or len(roots) == 1:
            return roots[0] if roots else heads[0]
        if heads:
            names = [head.id for head in heads]
            raise NotFoundError(
                f"{len(names)} sessions start with {wanted!r}: {', '.join(names[:5])}.",
                code="journal.ambiguous_session",
                hint="Type more of the id.",
                near=names,
            )
        known = await self._store.sessions(limit=500)
        raise not_found("session", wanted, [head.id for head in known], code="journal.unknown_session")

    async def _describe(self, head: SessionHead) -> SessionInfo:
        title, agent = "", ""
        status: RunStatus = "damaged"
        with suppress(JournalError):  # one damaged session must not hide the others
            title, agent, status = await self._summary(head)
        return SessionInfo(
            id=head.id,
            created=head.created,
            updated=head.updated,
            events=head.seq,
            title=title,
            agent=agent,
            status=status,
            parent=head.parent,
        )

    async def _summary(self, head: SessionHead) -> tuple[str, str, RunStatus]:
        read = self._store.read
        said = await read(head.id, kinds={"message"}, limit=3)
        ran = await read(head.id, kinds={"run.started"}, newest=True, limit=1)
        ended = await read(head.id, kinds=RUN_STATUS.keys(), newest=True, limit=1)
        started = unpack(head, ran[0]).data if ran else None
        return (
            _title(unpack(head, row).data for row in said),
            started.name if isinstance(started, RunStarted) else "",
            RUN_STATUS[ended[0].kind] if ended else "none",
        )


class SessionLog:
    """One session: what happened, and the only way to add to it.

    Several tasks may append at once; they take turns. Other processes may append as well: then
    :meth:`append` raises ``journal.conflict``, and :meth:`refresh` reads what they wrote. Call it before
    a run, and a conversation can be carried on from two terminals in turn.
    """

    def __init__(
        self, store: JournalStore, head: SessionHead, *, clock: Callable[[], float], leases: Leases
    ) -> None:
        self._store = store
        self._leases = leases
        self._clock = clock
        self._head = head
        self._history = History()
        self._transcript = Transcript()
        #: Every event so far, as a reader of the store sees it. Append with :meth:`append` only.
        self.events: list[Event] = []
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsure = False
        self._holder: str | None = None

    @property
    def id(self) -> str:
        """The session's id."""
        return self._head.id

    @property
    def parent(self) -> tuple[str, int] | None:
        """``(session, seq)`` that opened it, for a child session."""
        return self._head.parent

    @property
    def seq(self) -> int:
        """The last event's seq; 0 before the first."""
        return len(self.events)

    @property
    def history(self) -> History:
        """Which calls are open, and how to repair them. To be read only."""
        return self._history

    @property
    def claimed(self) -> bool:
        """Whether a run of this process is at work in it."""
        return self._holder is not None

    def messages(self) -> list[Message]:
        """What a model is sent of this session (see :class:`.transcript.Transcript`)."""
        return self._transcript.messages()

    def at(self, seq: int) -> View:
        """The session as it was when event ``seq`` had just happened; 0: before the first.

        Raises:
            JournalError: ``journal.unknown_event``.
        """
        if not 0 <= seq <= self.seq:
            raise unknown_event(self.id, seq)
        return View.of(self.id, islice(self.events, seq))

    def as_of(self, time: float) -> View:
        """The session as it was at ``time``, in seconds since the epoch: before its first later event."""
        return View.of(self.id, takewhile(lambda event: event.at <= time, self.events))

    @asynccontextmanager
    async def claim(self, run: str) -> AsyncIterator[None]:
        """Hold the session for one run, and read what others appended before.

        Two runs at once would answer each other's calls; so of two, in one process or in several, one is
        refused.

        Raises:
            JournalError: ``journal.busy``, another run of this process is at work in it;
                ``journal.leased``, another process is.
        """
        if self._holder is not None:
            raise JournalError(
                f"Session {self.id!r} is in the middle of run {self._holder!r}.",
                code="journal.busy",
                hint="Wait until that run is over, or start another session.",
            )
        self._holder = run
        try:
            async with self._leases.hold(self.id):
                await self.refresh()
                yield
        finally:
            self._holder = None

    async def append(
        self,
        *data: EventData,
        actor: str,
        run: str | None = None,
        durable: bool = False,
        unless: Callable[[], bool] | None = None,
    ) -> list[Event]:
        """Write ``data`` as one batch, all or nothing, and return the events they became.

        ``unless`` is asked when their turn has come: if it says yes they are not written. So what is
        decided by what was recorded before is decided in the order of the record.

        When it returns they survive the death of the process; with ``durable`` also that of the machine.
        Several at once cost less than one by one.

        Raises:
            InvariantError: ``journal.invariant``, what was to be written cannot follow.
            UsageError: ``journal.not_json``, a value in it is no JSON.
            JournalError: ``journal.conflict``, another process has appended; or what the store says.
        """
        async with self._turn():
            if unless is not None and unless():
                return []
            if self._unsure:
                await self._catch_up()
            at, before = self._clock(), len(self.events)
            events: list[Event] = []
            rows: list[StoredEvent] = []
            try:
                for seq, item in enumerate(data, start=before + 1):
                    event, row = pack(self._head, seq, at, actor, run, item)
                    self._history.apply(event.data)
                    events.append(event)
                    rows.append(row)
                await self._write(rows, durable=durable)
            except BaseException:
                if events:
                    self._history = History(event.data for event in self.events)
                raise
            self.events.extend(events)
            for event in events:
                self._transcript.apply(event.data)
            return events

    async def refresh(self) -> list[Event]:
        """Read what other writers have appended, and return it."""
        async with self._turn():
            return await self._catch_up()

    async def be_sure(self) -> None:
        """Look what became of an append that was cut short, if one was; costs nothing else."""
        if self._unsure:
            await self.refresh()

    async def _write(self, rows: Sequence[StoredEvent], *, durable: bool) -> None:
        try:
            await self._store.append(
                self.id, rows, expected_seq=len(self.events), parent=self.parent, durable=durable
            )
        except BaseException as exc:
            # Cancelled, or worse, in mid-air: whether it was written is seen by looking, next time.
            self._unsure = not isinstance(exc, JournalError) or exc.code == "journal.io"
            raise

    async def _catch_up(self) -> list[Event]:
        before = len(self.events)
        while True:
            rows = await self._store.read(self.id, after=len(self.events), limit=_PAGE)
            for row in rows:
                self._take(row)
            if len(rows) < _PAGE:
                break
            await asyncio.sleep(0)
        if len(self.events) < self._head.seq:
            raise corrupt(self.id, len(self.events) + 1, f"it is missing, {self._head.seq} were written")
        self._unsure = False
        return self.events[before:]

    def _take(self, row: StoredEvent) -> None:
        expected = len(self.events) + 1
        if row.seq != expected:
            raise corrupt(self.id, expected, f"{row.seq!r} stands in its place")
        event = unpack(self._head, row)
        try:
            self._history.apply(event.data)
        except InvariantError as exc:
            raise corrupt(self.id, expected, exc.message) from exc
        self._transcript.apply(event.data)
        self.events.append(event)

    def _turn(self) -> asyncio.Lock:
        """One append at a time. asyncio's locks belong to a loop, a log may outlive one (``run_sync``)."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock


def new_session_id(at: float) -> str:
    """16 characters that sort by time: milliseconds since the epoch (45 bits), then 35 random bits.

    Lower-case Crockford base 32, which has no i, l, o or u to misread.
    """
    number = (int(at * 1000) & (1 << 45) - 1) << 35 | int.from_bytes(os.urandom(5)) >> 5
    return "".join(_BASE32[number >> shift & 31] for shift in range(75, -1, -5))


_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


def _title(said: Iterable[EventData]) -> str:
    for data in said:
        if isinstance(data, MessageAdded) and data.message.role == "user" and data.message.text.strip():
            line = data.message.text.strip().splitlines()[0].rstrip()
            return line if len(line) <= 80 else line[:79] + "…"
    return ""
