"""The record as it is played: what comes next is taken only when it is what came next.

A run's tasks append whenever they get there; here each waits until its event is the next on record. So the
order of what happened side by side is that of the record, and whatever is decided by that order is decided
as it was.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..journal.diff import Divergence, diff
from ..journal.events import (
    Event,
    EventData,
    FunctionFinished,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunPaused,
    dump_data,
)
from ..journal.journal import SessionLog
from ..journal.leases import Leases
from ..journal.records import pack
from ..journal.store_memory import InMemoryJournalStore
from ..journal.stores import SessionHead
from .stages import HOUSE, Stage, is_cancelled, is_stop

NAMES = ("the record", "the replay")
_Key = tuple[str, str, str | None]


@dataclass(slots=True, eq=False)
class _Turn:
    """Somebody who waits to append."""

    event: Event
    unless: Callable[[], bool] | None
    granted: asyncio.Future[bool]
    #: What is being handled where it waits: why a run is about to end.
    cause: BaseException | None


class Tape:
    """A record, how far it was played, and who waits for a turn."""

    def __init__(self, session: str, record: Sequence[Event]) -> None:
        self.session = session
        self.record = record
        #: How many events were played.
        self.place = 0
        self.divergence: Divergence | None = None
        self._stage: Stage | None = None
        self._waiting: dict[_Key, list[_Turn]] = defaultdict(list)
        self._held: list[asyncio.Future[None]] = []
        self._stopped: set[asyncio.Task[Any] | None] = set()
        self._timeouts: list[asyncio.Timeout] = []

    @property
    def stage(self) -> Stage:
        """What is being played."""
        assert self._stage is not None  # noqa: S101 - the stand-ins act only on a stage
        return self._stage

    @property
    def playing(self) -> bool:
        """Whether a stage is being played."""
        return self._stage is not None

    @property
    def next(self) -> Event | None:
        """The next event of the stage; None at its end."""
        if self._stage is None or self.place >= self._stage.end:
            return None
        return self.record[self.place]

    def enter(self, stage: Stage) -> None:
        """Begin a stage."""
        self._stage = stage
        self._timeouts.clear()

    def leave(self) -> None:
        """End it: whoever still waits is stopped, also who was stopped before and is recording that."""
        self._stage = None
        futures: list[asyncio.Future[Any]] = [*self._held]
        futures += [turn.granted for turns in self._waiting.values() for turn in turns]
        for future in futures:
            future.cancel()
        self._waiting.clear()
        self._held.clear()
        self._stopped.clear()

    def coming(self, *kinds: str, where: Callable[[Event], bool] | None = None) -> Event | None:
        """The next event of the stage, or the next of these kinds, for which ``where`` holds."""
        for place in range(self.place, self.stage.end):
            event = self.record[place]
            if (not kinds or event.kind in kinds) and (where is None or where(event)):
                return event
        return None

    async def hold(self) -> None:
        """Wait for what never came, until whoever waits is stopped."""
        task = asyncio.current_task()
        if self._stage is None or task in self._stopped:
            self._stopped.discard(task)
            raise asyncio.CancelledError
        self._held.append(asyncio.get_running_loop().create_future())
        await self._held[-1]

    async def turn(self, event: Event, unless: Callable[[], bool] | None) -> bool:
        """Wait until ``event`` is next; False when it is not wanted any more.

        Whoever is stopped while waiting for what is on record had got so far before: they are stopped at
        the next thing that is not.
        """
        task, due = asyncio.current_task(), self.next
        while due is None or _key(due) != _key(event):
            if self._stage is None or (task in self._stopped and not self._is_ahead(event)):
                self._stopped.discard(task)
                raise asyncio.CancelledError
            try:
                return await self._wait(event, unless)
            except asyncio.CancelledError:
                if self._stage is None or not self._is_ahead(event):
                    raise
                self._stopped.add(task)
                due = self.next
        return unless is None or not unless()

    async def _wait(self, event: Event, unless: Callable[[], bool] | None) -> bool:
        waiting = self._waiting[_key(event)]
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        turn = _Turn(event, unless, granted, sys.exc_info()[1])
        waiting.append(turn)
        try:
            return await granted
        finally:
            if turn in waiting:
                waiting.remove(turn)

    def _is_ahead(self, event: Event) -> bool:
        """Whether the event is still to come in the stage."""
        wanted = _key(event)
        return any(
            self.record[place].kind == event.kind and _key(self.record[place]) == wanted
            for place in range(self.place, self.stage.end)
        )

    def played(self) -> None:
        """Go on, and give the turn to who waits for it."""
        self.place += 1
        due = self.next
        if due is not None:
            for turn in self._waiting.get(_key(due), ())[:1]:
                if not turn.granted.done():
                    turn.granted.set_result(turn.unless is None or not turn.unless())

    def refuse(self) -> None:
        """Turn away who need not wait any more."""
        for turns in self._waiting.values():
            for turn in turns:
                if turn.unless is not None and not turn.granted.done() and turn.unless():
                    turn.granted.set_result(False)

    def diverge(self, found: Event | None = None, note: str = "") -> None:
        """The stage yields something else: ``found``, or what waits that is most like what is due."""
        if self.divergence is not None:
            return
        due = self.next
        likest = self._likest(due) if found is None else None
        if likest is not None:
            found = likest.event
            if found.actor == HOUSE and likest.cause is not None:
                note = f"The replay was ending with {type(likest.cause).__name__}: {likest.cause}"
        if due is not None and found is not None:
            found = replace(found, seq=due.seq, session=due.session, parent=due.parent, at=due.at)
            parting = diff([due], [found], names=NAMES)
            if parting is not None:
                self.divergence = replace(parting, seq=due.seq, note=note)
                return
        self.divergence = Divergence(self.place + 1, "", due, found, names=NAMES, note=note)

    def timeout(self) -> asyncio.Timeout:
        """A limit on time, to be met when the record says so."""
        self._timeouts.append(asyncio.timeout(None))
        return self._timeouts[-1]

    def run_out(self) -> None:
        """Meet the limits on time."""
        for timeout in self._timeouts:
            timeout.reschedule(asyncio.get_running_loop().time())

    def _likest(self, due: Event | None) -> _Turn | None:
        waiting = [turn for turns in self._waiting.values() for turn in turns]
        if due is None:
            return waiting[0] if waiting else None
        return max(waiting, key=lambda turn: _likeness(turn.event, due), default=None)


class ReplayLog(SessionLog):
    """A fresh session in memory that takes only what is on the tape, with its ids and times."""

    def __init__(self, tape: Tape, *, parent: tuple[str, int] | None) -> None:
        store, head = InMemoryJournalStore(), SessionHead(tape.session, 0, 0.0, 0.0, parent)
        super().__init__(store, head, clock=self._now, leases=Leases(store, clock=self._now))
        self._tape = tape

    @property
    def id(self) -> str:
        """The session's id; on a stage that a fork shares, that of the session it is of."""
        return self._tape.stage.session if self._tape.playing else self._tape.session

    @asynccontextmanager
    async def claim(self, run: str) -> AsyncIterator[None]:
        """Nobody else is here."""
        yield

    async def refresh(self) -> list[Event]:
        """Nobody else writes here."""
        return []

    async def append(
        self,
        *data: EventData,
        actor: str,
        run: str | None = None,
        durable: bool = False,
        unless: Callable[[], bool] | None = None,
    ) -> list[Event]:
        """See :meth:`SessionLog.append`. What is not on record is kept waiting."""
        if not data:
            return []
        if not self._tape.playing:
            raise asyncio.CancelledError  # the stage is over: the process of that time had died here
        events = [self._packed(item, actor, run) for item in data]
        if self._was_not_served(events[0]):
            return []
        if not await self._tape.turn(events[0], unless):
            return []
        for number, event in enumerate(events):
            due = self._tape.next
            if due is not None and _key(due) != _key(event):
                self._tape.diverge(event)
            if due is None or self._tape.divergence is not None:
                await self._tape.hold()
                return []
            events[number] = due
            self._keep(due)
            self._tape.played()
        return events

    def _was_not_served(self, event: Event) -> bool:
        """A call that is stopped here, and had been stopped before anybody could record that."""
        data: Any = event.data
        return is_cancelled(event) and self._tape.stage.given_up(data.result.call_id)

    def give(self, event: Event) -> None:
        """Take an event as it is."""
        self._keep(event)
        self._tape.place += 1

    def _keep(self, event: Event) -> None:
        self._history.apply(event.data)
        self._transcript.apply(event.data)
        self.events.append(event)

    def _packed(self, data: EventData, actor: str, run: str | None) -> Event:
        data = self._as_recorded(data)
        return pack(self._head, self.seq + 1, self._now(), actor, run, data)[0]

    def _as_recorded(self, data: EventData) -> EventData:
        """A result is the record's, in the form it was recorded in; so is that a run was stopped."""
        stage, due = self._tape.stage, self._tape.next
        if isinstance(stage.ending, RunCancelled) and isinstance(data, RunFinished | RunFailed | RunPaused):
            # Stopped when it was about to end; where else it ends by itself, that is not as it was.
            return stage.ending if due is None or is_stop(due) else data
        if isinstance(data, FunctionFinished):
            known = stage.outcomes.get(data.result.call_id)
            if known is not None and isinstance(known.data, FunctionFinished):
                return known.data
        return data

    def _now(self) -> float:
        due = self._tape.next
        return due.at if due is not None else 0.0


def _key(event: Event) -> _Key:
    return dump_data(event.data), event.actor, event.run


def _likeness(event: Event, due: Event) -> tuple[int, ...]:
    about, wanted = event.data.model_dump(), due.data.model_dump()
    same = [name for name in wanted if about.get(name) == wanted[name]]
    return (event.kind == due.kind, event.run == due.run, event.actor == due.actor, len(same))
