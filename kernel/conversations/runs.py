"""A run as its session's events tell it: where it stands, and what it has used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..journal.events import (
    Event,
    FunctionFailedEvent,
    FunctionRequested,
    MessageAdded,
    ModelAnswered,
    Retrieval,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
)
from ..messages import Grounding, Usage


@dataclass(slots=True)
class RunView:
    """One run, kept up to date event by event."""

    id: str
    started: RunStarted | None = None
    question: MessageAdded | None = None
    retrieval: Grounding | None = None
    #: The last whole answer.
    answer: ModelAnswered | None = None
    #: Answers of the model, and function calls asked for.
    rounds: int = 0
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    #: The outcome of a call since the last answer that was to stop the run.
    limit: FunctionFailedEvent | None = None
    ending: RunFinished | RunFailed | RunCancelled | None = None

    @classmethod
    def of(cls, run: str, events: Iterable[Event]) -> RunView:
        """The run of that id as ``events`` tell it."""
        view = cls(run)
        for event in events:
            if event.run == run:
                view.apply(event.data)
        return view

    def apply(self, data: Any) -> None:
        """Go one event of the run further."""
        if isinstance(data, RunStarted):
            self.started = data
        elif isinstance(data, MessageAdded):
            self.question = self.question or data
        elif isinstance(data, Retrieval):
            self.retrieval = data.grounding
        elif isinstance(data, ModelAnswered):
            self.usage += data.usage
            if not data.partial:
                self.answer, self.limit = data, None
                self.rounds += 1
                self.calls += len(data.message.tool_calls)
        elif isinstance(data, FunctionRequested):
            self.calls += 1
        elif isinstance(data, FunctionFailedEvent) and data.branch == "LimitReached":
            self.limit = data
        elif isinstance(data, RunFinished | RunFailed | RunCancelled):
            self.ending = data


def last_run(events: Iterable[Event]) -> str | None:
    """The id of the session's last run, ended or not; None where nobody ran."""
    last: str | None = None
    for event in events:
        if isinstance(event.data, RunStarted):
            last = event.run
    return last
