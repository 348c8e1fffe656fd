"""The journal's second invariant: what a provider is sent is always valid history.

No call without its result, no result without its call, whatever the events are. Pure: nothing here reads,
writes or waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..messages import Message, Part, TextPart, ToolCall, ToolResult
from .events import (
    Event,
    EventData,
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    MessageAdded,
    ModelAnswered,
)


@dataclass(slots=True)
class _Round:
    """An answer that asked for calls, and the results so far."""

    answer: Message
    results: dict[str, ToolResult]

    @property
    def complete(self) -> bool:
        return len(self.results) == len({call.id for call in self.answer.tool_calls})


class Transcript:
    """The conversation as a provider may be sent it, kept up to date event by event.

    User, system and answered messages in order; a partial answer as its text; each answer that called
    functions followed at once by one ``tool`` message with their results, in the order of the calls. What
    has no counterpart yet (a call still open) is left out, and with it a message that has nothing left to
    say. A message, once settled, is the same object in every view, so a provider serialises it once.
    """

    __slots__ = ("_settled", "_unsettled", "_waiting")

    def __init__(self, past: Iterable[EventData] = ()) -> None:
        self._settled: list[Message] = []
        #: From the first round that lacks a result; everything before it never changes again.
        self._unsettled: list[Message | _Round] = []
        self._waiting: dict[str, _Round] = {}
        for data in past:
            self.apply(data)

    def apply(self, data: EventData) -> None:
        """Go one event further."""
        if isinstance(data, MessageAdded):
            if data.message.role != "tool":
                self._unsettled.append(data.message)
        elif isinstance(data, ModelAnswered):
            calls = () if data.partial else data.message.tool_calls
            if calls:
                around = _Round(data.message, {})
                self._unsettled.append(around)
                self._waiting.update((call.id, around) for call in calls)
            else:
                self._unsettled.append(data.message)
        elif isinstance(data, FunctionFinished | FunctionFailedEvent | FunctionInDoubtEvent):
            found = self._waiting.pop(data.result.call_id, None)
            if found is not None:
                found.results[data.result.call_id] = data.result
        else:
            return
        self._settle()

    def messages(self) -> list[Message]:
        """The messages so far."""
        return [*self._settled, *(message for item in self._unsettled for message in _told(item))]

    def _settle(self) -> None:
        while self._unsettled:
            first = self._unsettled[0]
            if isinstance(first, _Round) and not first.complete:
                return
            self._settled.extend(_told(self._unsettled.pop(0)))


def messages(events: Iterable[Event]) -> list[Message]:
    """The conversation of ``events`` as a provider may be sent it (see :class:`Transcript`)."""
    return Transcript(event.data for event in events).messages()


def _told(item: Message | _Round) -> list[Message]:
    if isinstance(item, Message):
        plain = _keep(item, {})
        return [plain] if plain.parts else []
    answer = _keep(item.answer, item.results)
    if not answer.parts:
        return []
    results = tuple(item.results[call.id] for call in answer.tool_calls)
    return [answer, Message(role="tool", parts=results)] if results else [answer]


def _keep(message: Message, answered: dict[str, ToolResult]) -> Message:
    """``message`` with its text and, once each, the calls that are answered."""
    left = dict.fromkeys(answered)
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            if part.text:
                parts.append(part)
        elif isinstance(part, ToolCall) and part.id in left:
            del left[part.id]
            parts.append(part)
    if len(parts) == len(message.parts):
        return message
    return message.model_copy(update={"parts": tuple(parts)})
