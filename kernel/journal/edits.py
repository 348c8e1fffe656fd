"""What a fork may have otherwise: edits for :meth:`.journal.Journal.fork`.

::

    fork = await journal.fork(session, at=4, edit=edit_arguments({"amount": 3}))

An edit is a function from an event's data to what stands in its place; write your own for anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UsageError
from ..functions import as_json, as_text
from ..messages import Message, Part, TextPart, ToolCall, ToolResult
from .events import (
    EventData,
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    FunctionRequested,
    MessageAdded,
    ModelAnswered,
    QuestionAnswered,
    StepFinished,
)

Edit = Callable[[EventData], EventData]


def edit_message(text: str) -> Edit:
    """Another text: of what somebody said, or of a model's answer, whose calls stay."""

    def edit(data: EventData) -> EventData:
        if not isinstance(data, MessageAdded | ModelAnswered):
            raise _misfit(data, "message", "a message or a model's answer")
        calls = data.message.tool_calls
        said: tuple[Part, ...] = (TextPart(text=text),) if text or not calls else ()
        message = data.message.model_copy(update={"parts": (*said, *calls)})
        return data.model_copy(update={"message": message})

    return edit


def edit_answer(answer: str | Message) -> Edit:
    """Another answer of the model: a text without calls, or a whole message."""

    def edit(data: EventData) -> EventData:
        if not isinstance(data, ModelAnswered):
            raise _misfit(data, "answer", "a model's answer")
        message = answer
        if isinstance(message, str):
            message = data.message.model_copy(update={"parts": (TextPart(text=message),)})
        reason = "tool_calls" if message.tool_calls else "stop"
        return data.model_copy(update={"message": message, "finish_reason": reason, "partial": False})

    return edit


def edit_arguments(arguments: Mapping[str, Any], *, call_id: str | None = None) -> Edit:
    """Other arguments of a call, where it was asked for or approved.

    Args:
        arguments: all of them.
        call_id: which, where a model's answer asks for several.
    """
    text = as_text(as_json(dict(arguments)))

    def edit(data: EventData) -> EventData:
        if isinstance(data, FunctionRequested):
            return data.model_copy(update={"call": data.call.model_copy(update={"arguments": text})})
        if isinstance(data, QuestionAnswered):
            return data.model_copy(update={"arguments": as_json(dict(arguments))})
        if not isinstance(data, ModelAnswered) or not data.message.tool_calls:
            raise _misfit(data, "arguments", "a call, an answer with calls or an approval")
        wanted = _one_call(data.message, call_id)
        parts = tuple(
            part.model_copy(update={"arguments": text}) if part is wanted else part
            for part in data.message.parts
        )
        return data.model_copy(update={"message": data.message.model_copy(update={"parts": parts})})

    return edit


def edit_result(value: Any) -> Edit:
    """Another result: of a call, also one that had failed or was in doubt, or of a plan's step."""

    def edit(data: EventData) -> EventData:
        if isinstance(data, StepFinished):
            return data.model_copy(update={"result": as_json(value), "error": None})
        if not isinstance(data, FunctionFinished | FunctionFailedEvent | FunctionInDoubtEvent):
            raise _misfit(data, "result", "the outcome of a call or of a step")
        plain = isinstance(value, str)
        result = ToolResult(call_id=data.result.call_id, name=data.result.name, content=as_text(value))
        return FunctionFinished(result=result, value=None if plain else as_json(value), plain=plain)

    return edit


def _one_call(message: Message, call_id: str | None) -> ToolCall:
    calls = message.tool_calls
    found = [call for call in calls if call_id in (None, call.id)]
    if len(found) != 1:
        raise UsageError(
            f"The answer asks for {len(calls)} calls, {', '.join(call.id for call in calls)}; "
            f"which is meant is not to be seen from {call_id!r}.",
            code="journal.edit",
            hint="Name one of them with call_id.",
        )
    return found[0]


def _misfit(data: EventData, what: str, wanted: str) -> UsageError:
    return UsageError(
        f"A {data.kind!r} event has no {what} to edit.",
        code="journal.edit",
        hint=f"Fork at the event of {wanted}.",
        kind=data.kind,
    )
