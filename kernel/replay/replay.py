"""Replay: a session's runs again, with everything that is not theirs to decide from the journal.

The same loops run, of the agent or the plan at hand. Answers of models, outcomes of functions, what people
said, what memory found, the time and the ids are those on record, in the order on record; nothing alive is
called. What comes out must be the same events. Where the agent or plan was changed, the first event that
is not says what differs.

The call of a sub-agent or sub-plan is a call: its outcome is on record. Its session is replayed by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ..errors import UsageError
from ..journal.events import RunStarted
from ..journal.journal import SessionLog
from ..kernel import Kernel
from .report import ReplayReport
from .stages import Stage, is_stop, stages
from .stand_ins import ReplayKernel
from .tape import ReplayLog, Tape


class Player(Protocol):
    """Runs a stage again."""

    def __call__(self, stage: Stage, kernel: ReplayKernel, log: ReplayLog, /) -> Awaitable[Any]:
        """Begin or resume the stage's run in ``log``, with what ``kernel`` has."""
        ...


async def replay(
    log: SessionLog, *, kernel: Kernel, owns: Callable[[RunStarted], bool], play: Player
) -> ReplayReport:
    """Play every run in ``log`` that ``owns`` accepts.

    Raises:
        UsageError: ``replay.nothing``, there is no such run; ``replay.forgotten``, a payload is gone.
    """
    record = list(log.events)
    found = stages(record, owns)
    if not found:
        ran = sorted({event.data.name for event in record if isinstance(event.data, RunStarted)})
        raise UsageError(
            f"Session {log.id!r} has no run to replay here; {', '.join(ran) or 'nobody'} ran in it.",
            code="replay.nothing",
            hint="An agent's runs are replayed by an agent of that name, a plan's by Plan.replay.",
        )
    gone = next((event for event in record if event.forgotten is not None), None)
    if gone is not None:
        raise UsageError(
            f"Event {gone.seq} of session {log.id!r} was forgotten; what it said cannot be replayed.",
            code="replay.forgotten",
        )
    tape = Tape(log.id, record)
    theatre = _Theatre(tape, ReplayLog(tape, parent=log.parent), ReplayKernel(kernel, tape), play)
    given = 0
    for stage in found:
        given += theatre.give(stage.start)
        await theatre.play(stage)
        if tape.divergence is not None:
            break
    else:
        given += theatre.give(len(record))
    return ReplayReport(
        session=log.id,
        runs=tuple(dict.fromkeys(stage.run for stage in found if stage.start <= tape.place)),
        replayed=tape.place - given,
        given=given,
        divergence=tape.divergence,
    )


class _Theatre:
    """Plays one stage after the other."""

    def __init__(self, tape: Tape, log: ReplayLog, kernel: ReplayKernel, play: Player) -> None:
        self.tape = tape
        self.log = log
        self.kernel = kernel
        self._play = play
        #: Turns of the loop without an event, after which none comes: between two events a run takes few,
        #: except that a resumed plan passes its finished steps, each of which is on record.
        self._patience = 64 + 8 * len(tape.record)

    def give(self, end: int) -> int:
        """Take what lies before ``end`` as it is."""
        events = self.tape.record[self.tape.place : end]
        for event in events:
            self.log.give(event)
        return len(events)

    async def play(self, stage: Stage) -> None:
        """Play a stage to its end, or to where it takes another way."""
        self.tape.enter(stage)
        run = asyncio.ensure_future(self._play(stage, self.kernel, self.log))
        try:
            await self._follow(run, stage)
        finally:
            self.tape.leave()
            run.cancel()
            await asyncio.wait([run])
            if not run.cancelled():
                run.exception()  # how it ended is on record, or told already

    async def _follow(self, run: asyncio.Future[Any], stage: Stage) -> None:
        place, idle, stopped = self.tape.place, 0, False
        while not run.done() and self.tape.divergence is None:
            await asyncio.sleep(0)
            place, idle = (place, idle + 1) if place == self.tape.place else (self.tape.place, 0)
            if idle % 16 == 15:
                self.tape.refuse()
            if idle < self._patience:
                continue
            due = self.tape.next
            if due is None:
                return  # here it had died, or a fork went another way
            if stopped or not stage.stopped or not is_stop(due):
                self.tape.diverge()
                return
            stopped, idle = True, 0
            if stage.timed_out:
                self.tape.run_out()
            else:
                run.cancel()
        if self.tape.next is not None:
            self.tape.diverge(note=_how_it_ended(run))


def _how_it_ended(run: asyncio.Future[Any]) -> str:
    if not run.done() or run.cancelled() or run.exception() is None:
        return ""
    error = run.exception()
    return f"The replay ended with {type(error).__name__}: {error}"
