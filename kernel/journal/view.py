"""Time travel: what a session was, as of any of its events.

A :class:`View` is a projection like any other and changes with nothing; get one with
:meth:`.journal.SessionLog.at`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from ..messages import Message, ToolCall, Usage
from .events import (
    Event,
    ModelAnswered,
    QuestionAsked,
    StepFailed,
    StepFinished,
    StepSkipped,
    StepStarted,
)
from .history import History
from .transcript import Transcript

RunStatus = Literal["none", "unfinished", "waiting", "finished", "failed", "cancelled", "damaged"]
StepStatus = Literal["started", "finished", "failed", "skipped"]

#: What an event of this kind says of how its session's last run stands.
RUN_STATUS: dict[str, RunStatus] = {
    "run.started": "unfinished",
    "run.resumed": "unfinished",
    "run.paused": "waiting",
    "run.finished": "finished",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
}
_STEP_STATUS: dict[type, StepStatus] = {
    StepStarted: "started",
    StepFinished: "finished",
    StepFailed: "failed",
    StepSkipped: "skipped",
}


@dataclass(frozen=True, slots=True)
class View:
    """A session as of one event."""

    session: str
    #: The last event it tells of; 0: before the first.
    seq: int
    #: Seconds since the epoch: when that was; None before the first.
    at: float | None
    #: What a model would have been sent.
    messages: tuple[Message, ...]
    #: The calls without an outcome, in the order they were asked for.
    open_calls: tuple[ToolCall, ...]
    #: What a person was asked and had not answered, oldest first.
    questions: tuple[QuestionAsked, ...]
    #: Tokens of the whole session until then.
    usage: Usage
    #: The run that stood last, and how.
    run: str | None
    status: RunStatus
    #: The steps of that run, if it is a plan's, by id.
    steps: Mapping[str, StepStatus] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, session: str, events: Iterable[Event]) -> View:
        """What ``events``, the beginning of ``session``, come to."""
        history, transcript, usage = History(), Transcript(), Usage()
        last: Event | None = None
        run: str | None = None
        status: RunStatus = "none"
        steps: dict[str, StepStatus] = {}
        for last in events:
            history.apply(last.data)
            transcript.apply(last.data)
            if last.kind in RUN_STATUS:
                status = RUN_STATUS[last.kind]
                if last.run != run or last.kind == "run.started":
                    run, steps = last.run, {}
            if isinstance(last.data, ModelAnswered):
                usage += last.data.usage
            elif isinstance(last.data, StepStarted | StepFinished | StepFailed | StepSkipped):
                steps[last.data.step] = _STEP_STATUS[type(last.data)]
        return cls(
            session=session,
            seq=last.seq if last is not None else 0,
            at=last.at if last is not None else None,
            messages=tuple(transcript.messages()),
            open_calls=history.open_calls(),
            questions=history.questions(),
            usage=usage,
            run=run,
            status=status,
            steps=MappingProxyType(steps),
        )
