"""Every kind of thing that can happen, one frozen model each.

An :class:`Event` is an envelope (where, when, by whom) around one of the ``…`` data models below.
Data is JSON only. A data model's fields may be added with a default; anything else is a new version
with a migration (:mod:`.migrations`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from ..messages import Frozen, Grounding, Message, ToolCall, ToolResult, Usage

#: The errors that a call may fail with, by class; anything else kernloom raises is a ``KernloomError``.
Branch = Literal[
    "FunctionFailed", "FunctionTimeout", "FunctionDenied", "ModelRetry", "LimitReached", "KernloomError"
]


class RunStarted(Frozen):
    """``run()`` began: who runs (an agent, a plan) and with what."""

    kind: Literal["run.started"] = "run.started"
    name: str
    #: ``agent`` or ``plan``.
    what: str = "agent"
    input: Any = None
    #: What the face needs to make the runner again in another process: model, functions, memory.
    spec: dict[str, Any] | None = None


class RunResumed(Frozen):
    """A run that had stopped (a crash, a question to a person) goes on."""

    kind: Literal["run.resumed"] = "run.resumed"


class RunPaused(Frozen):
    """A run waits for a person; it goes on when the question is answered and it is resumed."""

    kind: Literal["run.paused"] = "run.paused"
    #: The questions it waits for.
    questions: tuple[str, ...] = ()


class RunFinished(Frozen):
    """``run()`` came to its end."""

    kind: Literal["run.finished"] = "run.finished"
    output: Any = None
    usage: Usage = Usage()


class RunFailed(Frozen):
    """``run()`` ended in an error."""

    kind: Literal["run.failed"] = "run.failed"
    code: str
    error: str


class RunCancelled(Frozen):
    """Somebody stopped the run; what was said until then stands."""

    kind: Literal["run.cancelled"] = "run.cancelled"


class MessageAdded(Frozen):
    """Somebody said something. Answers of models and results of functions are events of their own."""

    kind: Literal["message"] = "message"
    message: Message


class ModelRequested(Frozen):
    """A model is about to be asked. ``messages`` counts what it is sent; the projection can be rebuilt."""

    kind: Literal["model.requested"] = "model.requested"
    model: str
    messages: int
    functions: tuple[str, ...] = ()


class ModelAnswered(Frozen):
    """A model's whole answer."""

    kind: Literal["model.answered"] = "model.answered"
    model: str
    message: Message
    usage: Usage = Usage()
    finish_reason: str = "stop"
    #: The answer was cut short (Ctrl-C, a lost connection); what had arrived is kept.
    partial: bool = False


class ModelFailed(Frozen):
    """A model gave no answer."""

    kind: Literal["model.failed"] = "model.failed"
    model: str
    code: str
    error: str


class FunctionRequested(Frozen):
    """A call was asked for, by a model, a plan's step or a person."""

    kind: Literal["function.requested"] = "function.requested"
    call: ToolCall


class FunctionStarted(Frozen):
    """The intent: a call passed validation and policy and is about to run.

    On disk before a changing function begins. After a crash, an intent without an outcome is settled by
    what the function declares (see ``kernloom.kernel.invocation``).
    """

    kind: Literal["function.started"] = "function.started"
    call_id: str
    name: str
    #: What the function declares to do (``read``, ``write``, ``network`` …); None: not known.
    effects: tuple[str, ...] | None = None
    #: The function receives it in its ``Context``; the same for every attempt at this call.
    key: str = ""
    #: First 16 hex digits of SHA-256 over the arguments it is called with, as canonical JSON.
    digest: str = ""
    #: 1, and one more for each time the call is made again after a crash.
    attempt: int = 1


class FunctionFinished(Frozen):
    """A call's outcome: a result."""

    kind: Literal["function.finished"] = "function.finished"
    result: ToolResult
    #: The value itself as JSON, when it is not text.
    value: Any = None
    #: The value is the text of the result.
    plain: bool = False

    @property
    def returned(self) -> Any:
        """What the function returned, as JSON."""
        return self.result.content if self.plain else self.value


class FunctionFailedEvent(Frozen):
    """A call's outcome: an error, in the words the model was told."""

    kind: Literal["function.failed"] = "function.failed"
    result: ToolResult
    code: str
    #: The branch of the error tree it is of: who acts next.
    branch: Branch = "FunctionFailed"


class FunctionInDoubtEvent(Frozen):
    """A call's outcome: nobody knows whether its effect happened."""

    kind: Literal["function.in_doubt"] = "function.in_doubt"
    result: ToolResult


class QuestionAsked(Frozen):
    """A person is asked: approval, review, clarification, or what became of a call in doubt."""

    kind: Literal["question.asked"] = "question.asked"
    question_id: str
    about: Literal["approval", "review", "clarification", "in_doubt"]
    text: str
    call: ToolCall | None = None


class QuestionAnswered(Frozen):
    """What the person said."""

    kind: Literal["question.answered"] = "question.answered"
    question_id: str
    #: For an approval ``allow | deny``; for a call in doubt ``done | not_done | abandon``; else free text.
    answer: str
    by: str = ""
    #: For an approval: the arguments to call with instead.
    arguments: dict[str, Any] | None = None
    #: For a call that was done after all: what it returned.
    result: Any = None


class Retrieval(Frozen):
    """What memory found for a question."""

    kind: Literal["retrieval"] = "retrieval"
    grounding: Grounding


class PlanMade(Frozen):
    """A plan, as data (see ``kernloom.planners.plan``)."""

    kind: Literal["plan.made"] = "plan.made"
    plan: dict[str, Any]


class StepStarted(Frozen):
    """A plan's step began."""

    kind: Literal["step.started"] = "step.started"
    step: str
    call: str
    arguments: Any = None


class StepFinished(Frozen):
    """A plan's step is done."""

    kind: Literal["step.finished"] = "step.finished"
    step: str
    result: Any = None
    #: What went wrong where ``on_error`` made up for it.
    error: str | None = None


class StepFailed(Frozen):
    """A plan's step failed."""

    kind: Literal["step.failed"] = "step.failed"
    step: str
    code: str
    error: str


class StepSkipped(Frozen):
    """A plan's step was not run, and why."""

    kind: Literal["step.skipped"] = "step.skipped"
    step: str
    reason: str


class Forked(Frozen):
    """The session is a fork: what stands before this is shared with another, and it goes its own way."""

    kind: Literal["forked"] = "forked"
    #: The session it was forked from.
    of: str
    #: The last event of that one which is its own as well, or which was edited.
    at: int
    #: The event ``at`` is not as it was there; it stands right before this.
    edited: bool = False


EventData = Annotated[
    RunStarted | RunResumed | RunPaused | RunFinished | RunFailed | RunCancelled
    | MessageAdded
    | ModelRequested | ModelAnswered | ModelFailed
    | FunctionRequested | FunctionStarted | FunctionFinished | FunctionFailedEvent | FunctionInDoubtEvent
    | QuestionAsked | QuestionAnswered
    | Retrieval
    | PlanMade | StepStarted | StepFinished | StepFailed | StepSkipped
    | Forked,
    Field(discriminator="kind"),
]  # fmt: skip

#: The data model of every kind.
MODELS: dict[str, type[Frozen]] = {
    model.model_fields["kind"].default: model for model in get_args(get_args(EventData)[0])
}

#: The events that give a call its one outcome.
Outcome = FunctionFinished | FunctionFailedEvent | FunctionInDoubtEvent


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal."""

    #: 1-based position in its session; no gaps.
    seq: int
    session: str
    #: Seconds since the epoch, by the journal's clock.
    at: float
    #: The agent, person or part of kernloom that did it.
    actor: str
    data: EventData
    #: The run within the session, if any.
    run: str | None = None
    #: ``(session, seq)`` of the event that opened this session, for a child session.
    parent: tuple[str, int] | None = None
    #: Of its kind's data as it was written; what is read is always brought up to date.
    version: int = 1
    #: When its payload was replaced by a tombstone, in seconds since the epoch (see :mod:`.retention`).
    forgotten: float | None = None

    @property
    def kind(self) -> str:
        """The data's kind, e.g. ``"model.answered"``."""
        return self.data.kind


def dump_data(data: EventData) -> str:
    """The data as the JSON text a store keeps."""
    return data.model_dump_json(exclude_defaults=False)


def checksum(
    session: str,
    seq: int,
    at: float,
    actor: str,
    run: str | None,
    version: int,
    text: str,
    *,
    parent: tuple[str, int] | None = None,
) -> str:
    """The first 16 hex digits of SHA-256 over the envelope and the data's text, kept beside them."""
    head = f"{session}\x00{seq}\x00{at!r}\x00{actor}\x00{run or ''}\x00{version}\x00"
    if parent is not None:
        head += f"{parent[0]}\x00{parent[1]}\x00"
    return hashlib.sha256((head + text).encode()).hexdigest()[:16]
