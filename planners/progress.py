"""What a run of a plan has on record: where a resumed one goes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..kernel.journal.events import (
    Event,
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    Outcome,
    PlanMade,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    StepFailed,
    StepFinished,
    StepSkipped,
    StepStarted,
)
from ..kernel.outcomes import remembered


@dataclass(slots=True)
class Progress:
    """One run, as its session's events tell it."""

    started: RunStarted | None = None
    made: PlanMade | None = None
    begun: set[str] = field(default_factory=set)
    #: The steps that are over for good.
    over: dict[str, StepFinished | StepSkipped] = field(default_factory=dict)
    #: The steps whose failure is the run's.
    failed: dict[str, StepFailed] = field(default_factory=dict)
    #: By call id.
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    ending: RunFinished | RunFailed | RunCancelled | None = None

    @classmethod
    def of(cls, run: str | None, events: Iterable[Event]) -> Progress:
        """The run of that id."""
        progress = cls()
        for event in events:
            if event.run == run:
                progress._apply(event.data)
        return progress

    def _apply(self, data: Any) -> None:
        if isinstance(data, RunStarted):
            self.started = data
        elif isinstance(data, PlanMade):
            self.made = data
        elif isinstance(data, StepStarted):
            self.begun.add(data.step)
        elif isinstance(data, StepFinished | StepSkipped):
            self.over[data.step] = data
        elif isinstance(data, StepFailed):
            self.failed[data.step] = data
        elif isinstance(data, FunctionFinished | FunctionFailedEvent | FunctionInDoubtEvent):
            self.outcomes[data.result.call_id] = data
        elif isinstance(data, RunFinished | RunFailed | RunCancelled):
            self.ending = data


def recall(outcome: Outcome) -> Any:
    """What the call of a recorded outcome returned.

    Raises:
        KernloomError: what it raised, in the words on record.
    """
    if isinstance(outcome, FunctionFinished):
        return outcome.returned
    raise remembered(outcome)
