"""A session's record, cut into what is to be played: each start of a run, and each time it was resumed.

Pure: nothing here reads, writes or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..journal.events import (
    Event,
    Forked,
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    FunctionStarted,
    ModelAnswered,
    ModelFailed,
    QuestionAnswered,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
)

_OUTCOMES = (FunctionFinished, FunctionFailedEvent, FunctionInDoubtEvent)
_ENDINGS = (RunFinished, RunFailed, RunCancelled, RunPaused)
#: Who records what becomes of calls whose run was given up.
HOUSE = "kernloom"


@dataclass(slots=True)
class Stage:
    """One stretch of a run, without a break: ``record[start:end]``."""

    run: str
    #: How the run began, here or in an earlier stage.
    started: RunStarted
    #: Whether this stage goes on with a run that had begun.
    resumed: bool
    start: int
    end: int
    #: The session it was recorded in, which its keys are made of: in a fork, that it was forked from.
    session: str = ""
    #: How the stage ended; None if the process died, or a fork went another way.
    ending: RunFinished | RunFailed | RunCancelled | RunPaused | None = None
    #: By call id: the intent recorded in this stage, and the outcome.
    starts: dict[str, FunctionStarted] = field(default_factory=dict)
    outcomes: dict[str, Event] = field(default_factory=dict)
    #: By question: what a person said in this stage.
    answers: dict[str, QuestionAnswered] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        """Whether it did not end by itself: it was cancelled, ran out of time, or its process died."""
        return self.ending is None or isinstance(self.ending, RunCancelled) or self.timed_out

    def given_up(self, call_id: str) -> bool:
        """Whether the call came to no end of its own: what became of it was said when its run ended."""
        outcome = self.outcomes.get(call_id)
        return outcome is None or outcome.actor == HOUSE

    @property
    def timed_out(self) -> bool:
        """Whether a plan's limit on its time ended it."""
        return isinstance(self.ending, RunFailed) and self.ending.code == "limit.seconds"


def stages(record: Sequence[Event], owns: Callable[[RunStarted], bool]) -> list[Stage]:
    """The stages of the runs that ``owns`` accepts; what lies between them is given."""
    found: list[Stage] = []
    runs: dict[str, RunStarted] = {}
    place = 0
    while place < len(record):
        first = _after_mending(record, place)
        data, run = (record[first].data, record[first].run) if first < len(record) else (None, None)
        if run is not None and isinstance(data, RunStarted) and owns(data):
            runs[run] = data
            found.append(_stage(record, place, first, run, data, resumed=False))
            place = found[-1].end
        elif first == place and isinstance(data, RunResumed) and run in runs:
            found.append(_stage(record, place, first, run, runs[run], resumed=True))
            place = found[-1].end
        else:
            place += 1
    return found


def is_stop(event: Event) -> bool:
    """Whether the event comes of a run's being stopped from outside."""
    data = event.data
    if event.actor == HOUSE or isinstance(data, RunCancelled):
        return True
    if isinstance(data, ModelAnswered):
        return data.partial
    if isinstance(data, RunFailed):
        return data.code == "limit.seconds"
    return (isinstance(data, ModelFailed) and data.code == "run.cancelled") or is_cancelled(event)


def is_cancelled(event: Event) -> bool:
    """Whether an outcome is that of a call that was stopped while it ran."""
    data = event.data
    if isinstance(data, FunctionInDoubtEvent):
        return data.result.content == "The call was cancelled."
    return isinstance(data, FunctionFailedEvent) and data.code == "function.cancelled"


def _after_mending(record: Sequence[Event], place: int) -> int:
    """The end of what stands there of a run that was given up; a new run begins with it."""
    while place < len(record) and record[place].actor == HOUSE and record[place].run is None:
        place += 1
    return place


def _stage(
    record: Sequence[Event], start: int, first: int, run: str, started: RunStarted, *, resumed: bool
) -> Stage:
    stage = Stage(run, started, resumed, start, first + 1, record[first].session)
    for place in range(first + 1, len(record)):
        event = record[place]
        if event.run != run or isinstance(event.data, RunStarted | RunResumed) or _is_edit(record, place):
            break
        stage.end = place + 1
        _note(stage, event)
        if stage.ending is not None:
            break
    keys = (intent.key.partition("/")[0] for intent in stage.starts.values() if "/" in intent.key)
    stage.session = next(keys, stage.session)
    return stage


def _note(stage: Stage, event: Event) -> None:
    data = event.data
    if isinstance(data, FunctionStarted):
        stage.starts[data.call_id] = data
    elif isinstance(data, _OUTCOMES):
        stage.outcomes[data.result.call_id] = event
    elif isinstance(data, QuestionAnswered) and event.actor != HOUSE:
        stage.answers[data.question_id] = data
    elif isinstance(data, _ENDINGS):
        stage.ending = data


def _is_edit(record: Sequence[Event], place: int) -> bool:
    """Whether the event is a fork's own in the place of one of the run's."""
    after = record[place + 1].data if place + 1 < len(record) else None
    return isinstance(after, Forked) and after.edited
