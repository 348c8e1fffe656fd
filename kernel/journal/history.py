"""The journal's first invariant, as a state machine: every call has exactly one outcome before the next
model call. (The second, that a provider is only sent valid history, is held by :mod:`.transcript`.)

Pure: nothing here reads, writes or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import InvariantError
from ..messages import TextPart, ToolCall, ToolResult
from .events import (
    EventData,
    Forked,
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    FunctionRequested,
    FunctionStarted,
    MessageAdded,
    ModelAnswered,
    ModelFailed,
    ModelRequested,
    QuestionAnswered,
    QuestionAsked,
)

#: Effects that leave the world as it was: a call with no others can be called off without doubt.
_HARMLESS = frozenset({"read"})


@dataclass(slots=True)
class _OpenCall:
    call: ToolCall
    intent: FunctionStarted | None = None


class History:
    """Where a session stands: which model call and which function calls are under way.

    A call opens by standing in a ``model.answered`` (unless that is partial) or by ``function.requested``
    (a plan's step, a person), runs between ``function.started`` and its one outcome, and blocks the next
    ``model.requested`` until then. Several may be open at once. An agent called as a function works in a
    child session, whose history is its own.
    """

    __slots__ = ("_answers", "_asked", "_open", "_questions", "_seen")

    def __init__(self, past: Iterable[EventData] = ()) -> None:
        self._open: dict[str, _OpenCall] = {}
        self._seen: set[str] = set()
        self._asked: ModelRequested | None = None
        self._questions: dict[str, QuestionAsked] = {}
        self._answers: dict[str, QuestionAnswered] = {}
        for data in past:
            self.apply(data)

    @property
    def asked(self) -> ModelRequested | None:
        """The model call that has no answer yet."""
        return self._asked

    def has_seen(self, call_id: str) -> bool:
        """Whether a call of this id was ever asked for in this session."""
        return call_id in self._seen

    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls that have no outcome yet, in the order they were asked for."""
        return tuple(entry.call for entry in self._open.values())

    def intent(self, call_id: str) -> FunctionStarted | None:
        """The last start of a call that has no outcome yet; None before it starts and after its outcome."""
        entry = self._open.get(call_id)
        return entry.intent if entry is not None else None

    def questions(self) -> tuple[QuestionAsked, ...]:
        """What a person was asked and has not answered, in the order it was asked."""
        return tuple(q for q in self._questions.values() if q.question_id not in self._answers)

    def question(self, question_id: str) -> QuestionAsked | None:
        """A question that was asked, answered or not."""
        return self._questions.get(question_id)

    def answer(self, question_id: str) -> QuestionAnswered | None:
        """What a person said to a question."""
        return self._answers.get(question_id)

    def apply(self, data: EventData) -> None:
        """Go one event further.

        Raises:
            InvariantError: ``journal.invariant``; it cannot follow, and the history is as it was.
        """
        rule = _RULES.get(type(data))
        if rule is not None:
            rule(self, data)

    def repair(self) -> list[EventData]:
        """What to append so that a session whose run was given up can go on with another.

        A model call without an answer failed. A function that never started did not run; one that had
        started is in doubt, unless its declared effects are harmless; a question nobody will answer now is
        withdrawn. Only for a session that nobody else is working on: to another writer's eyes its own
        calls look just as abandoned.
        """
        events = self.interrupted()
        events.extend(_verdict(entry) for entry in self._open.values())
        events.extend(
            QuestionAnswered(question_id=question.question_id, answer="withdrawn", by="kernloom")
            for question in self.questions()
        )
        return events

    def interrupted(self) -> list[EventData]:
        """What to append before the model is asked again: its question without an answer has failed."""
        if self._asked is None:
            return []
        return [
            ModelFailed(
                model=self._asked.model,
                code="model.interrupted",
                error="The process stopped before the model's answer was recorded.",
            )
        ]

    def _message(self, data: MessageAdded) -> None:
        if data.message.role == "tool" or any(
            not isinstance(part, TextPart) for part in data.message.parts
        ):
            raise _broken(
                f"A message event of role {data.message.role!r} holds calls or results.",
                hint="Calls are recorded by model.answered, results by the outcomes of functions.",
            )

    def _model_requested(self, data: ModelRequested) -> None:
        if self._open:
            raise _broken(
                f"Model {data.model!r} is asked while calls have no outcome: {', '.join(self._open)}.",
                hint="Append an outcome for each (History.repair() after a crash).",
            )
        if self._asked is not None:
            raise _broken(f"Model {data.model!r} is asked while {self._asked.model!r} has not answered.")
        self._asked = data

    def _model_answered(self, data: ModelAnswered) -> None:
        if self._asked is None:
            raise _broken(f"Model {data.model!r} answered, but nobody had asked.")
        calls = () if data.partial else data.message.tool_calls
        ids = [call.id for call in calls]
        for index, name in enumerate(ids):
            if name in self._seen or name in ids[:index]:
                raise _duplicate(name)
        self._asked = None
        for call in calls:
            self._begin(call)

    def _model_failed(self, data: ModelFailed) -> None:
        if self._asked is None:
            raise _broken(f"Model {data.model!r} failed, but nobody had asked.")
        self._asked = None

    def _function_requested(self, data: FunctionRequested) -> None:
        if data.call.id in self._seen:
            raise _duplicate(data.call.id)
        self._begin(data.call)

    def _function_started(self, data: FunctionStarted) -> None:
        self._find(data.call_id, "started").intent = data

    def _outcome(self, data: FunctionFinished | FunctionFailedEvent | FunctionInDoubtEvent) -> None:
        self._find(data.result.call_id, "has an outcome")
        del self._open[data.result.call_id]

    def _question_asked(self, data: QuestionAsked) -> None:
        if data.question_id in self._questions:
            raise _broken(f"Question {data.question_id!r} was asked before in this session.")
        self._questions[data.question_id] = data

    def _question_answered(self, data: QuestionAnswered) -> None:
        if data.question_id not in self._questions:
            raise _broken(f"Question {data.question_id!r} is answered, but nobody had asked it.")
        if data.question_id in self._answers:
            raise _broken(f"Question {data.question_id!r} already has its answer.")
        self._answers[data.question_id] = data

    def _forked(self, _: Forked) -> None:
        """What was under way goes on elsewhere: here its calls have not begun, and nobody is in doubt."""
        for entry in self._open.values():
            entry.intent = None
        for question in [q.question_id for q in self._questions.values() if q.about == "in_doubt"]:
            if (call := self._questions[question].call) is not None and call.id in self._open:
                del self._questions[question]
                self._answers.pop(question, None)

    def _begin(self, call: ToolCall) -> None:
        self._seen.add(call.id)
        self._open[call.id] = _OpenCall(call)

    def _find(self, call_id: str, what: str) -> _OpenCall:
        entry = self._open.get(call_id)
        if entry is not None:
            return entry
        if call_id in self._seen:
            raise _broken(f"Call {call_id!r} {what}, but it already has its outcome.")
        raise _broken(f"Call {call_id!r} {what}, but nobody had asked for it.")


_RULES: dict[type, Callable[[History, Any], None]] = {
    MessageAdded: History._message,
    ModelRequested: History._model_requested,
    ModelAnswered: History._model_answered,
    ModelFailed: History._model_failed,
    FunctionRequested: History._function_requested,
    FunctionStarted: History._function_started,
    FunctionFinished: History._outcome,
    FunctionFailedEvent: History._outcome,
    FunctionInDoubtEvent: History._outcome,
    QuestionAsked: History._question_asked,
    QuestionAnswered: History._question_answered,
    Forked: History._forked,
}


def _verdict(entry: _OpenCall) -> EventData:
    call = entry.call
    intent = entry.intent
    if intent is None:
        code, said = "function.not_run", "Not run: the process stopped before this call began."
    elif intent.effects is not None and _HARMLESS.issuperset(intent.effects):
        code, said = (
            "function.interrupted",
            "No result: the process stopped during this call; it changed nothing.",
        )
    else:
        said = "In doubt: the process stopped during this call; whether its effect happened is not known."
        return FunctionInDoubtEvent(result=_error(call, said))
    return FunctionFailedEvent(result=_error(call, said), code=code)


def _error(call: ToolCall, said: str) -> ToolResult:
    return ToolResult(call_id=call.id, name=call.name, content=said, error=True)


def _broken(message: str, *, hint: str | None = None) -> InvariantError:
    return InvariantError(message, code="journal.invariant", hint=hint)


def _duplicate(call_id: str) -> InvariantError:
    return _broken(
        f"Call id {call_id!r} was used before in this session.",
        hint="Give each call an id of its own where the provider repeats itself.",
    )
