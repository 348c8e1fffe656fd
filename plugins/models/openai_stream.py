"""A streamed Chat Completions answer: lines of server-sent events in, deltas and one answer out.

Parsing is by hand, and no model object is built per chunk: that is most of what a stream costs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ...kernel.errors import ProviderError
from ...kernel.messages import ToolCall, Usage
from ...kernel.models.base import ChatResponse, Delta, TextDelta, ToolCallDelta
from .openai_answer import (
    CallIds,
    answer_message,
    arguments_text,
    finish_reason,
    invalid_response,
    mend,
    read_usage,
    text_of,
)
from .openai_wire import WireNames


class EventLines:
    """Cuts a byte stream into the data of its server-sent events, wherever the network cut it.

    Follows the event stream format of the HTML standard, less what Chat Completions never uses
    (``id``, ``retry``, a lone carriage return as line end).
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The events that are complete with ``piece``."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if not line:
                yield from self._flush()
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])

    def end(self) -> Iterator[bytes]:
        """What is left when the stream ends; some servers leave out the last blank line."""
        yield from self.feed(b"\n\n")

    def _flush(self) -> Iterator[bytes]:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            self._data = []
            yield data


class Halves:
    """Text that arrives in pieces, some of which may end in half a character."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, piece: str) -> str:
        """The piece, whole: a trailing high surrogate waits for its other half."""
        if not self._half and piece.isascii():
            return piece
        piece, self._half = self._half + piece, ""
        if "\ud800" <= piece[-1:] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        return mend(piece)


@dataclass(slots=True)
class _Call:
    """A call that is still arriving."""

    index: int
    raw_id: str
    id: str
    raw_name: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    halves: Halves = field(default_factory=Halves)
    #: Arguments that came before the name; a delta's first piece carries the name.
    held: str = ""

    @property
    def text(self) -> str:
        return "".join(self.arguments)

    def complete(self) -> bool:
        """Whether the arguments so far are whole JSON."""
        try:
            json.loads(self.text)
        except (ValueError, RecursionError):
            return False
        return True


class Answer:
    """An answer as it arrives, chunk by chunk."""

    def __init__(self, names: WireNames, ids: CallIds) -> None:
        self._names = names
        self._ids = ids
        self._text: list[str] = []
        self._halves = Halves()
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._finish: str | None = None
        self._refused = False
        self._usage: object = None
        self._model = ""

    @property
    def finished(self) -> bool:
        """Whether the provider said why it stopped."""
        return self._finish is not None

    @property
    def received(self) -> int:
        """Characters of text so far."""
        return sum(map(len, self._text))

    def feed(self, chunk: dict[str, Any]) -> Iterator[Delta]:
        """Take one ``chat.completion.chunk`` and yield what it adds."""
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        if not self._model:
            self._model = mend(text_of(chunk.get("model")))
        choices = chunk.get("choices")
        if not choices:
            return
        choice = choices[0]
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(delta, dict | None):
            raise invalid_response(f"a chunk has no delta: {str(chunk)[:200]!r}")
        if delta:
            yield from self._feed_delta(delta)
        if choice.get("finish_reason"):
            self._finish = str(choice["finish_reason"])

    def _feed_delta(self, delta: dict[str, Any]) -> Iterator[Delta]:
        content = delta.get("content")
        if delta.get("refusal"):
            self._refused = True
            content = content or delta["refusal"]
        if content:
            text = self._halves.feed(text_of(content))
            if text:
                self._text.append(text)
                yield TextDelta(text=text)
        legacy = delta.get("function_call")
        for one in delta.get("tool_calls") or ((({"function": legacy}),) if legacy else ()):
            yield from self._feed_call(one)

    def _feed_call(self, piece: object) -> Iterator[Delta]:
        function = piece.get("function") if isinstance(piece, dict) else None
        if not isinstance(piece, dict) or not isinstance(function, dict | None):
            raise invalid_response(f"a piece of a tool call has no function: {str(piece)[:200]!r}")
        function = function or {}
        raw_id, name = text_of(piece.get("id")), text_of(function.get("name"))
        arguments = arguments_text(function.get("arguments"))
        index = piece.get("index")
        call = self._slot(index if isinstance(index, int) else -1, raw_id, name, arguments)
        arguments = call.halves.feed(arguments)
        if arguments:
            call.arguments.append(arguments)
        if call.name:
            if arguments:
                yield ToolCallDelta(index=call.index, arguments=arguments)
        elif name:
            call.raw_name, call.name = name, self._names.own(mend(name))
            held, call.held = call.held + arguments, ""
            yield ToolCallDelta(index=call.index, id=call.id, name=call.name, arguments=held)
        else:
            call.held += arguments

    def _slot(self, index: int, raw_id: str, name: str, arguments: str) -> _Call:
        """The call a piece belongs to. Some servers number every call 0, or none."""
        call = self._by_index.get(index)
        if call is None or _begins_another(call, raw_id, name, arguments):
            call = _Call(len(self._calls), raw_id, self._ids.claim(mend(raw_id)))
            self._calls.append(call)
            self._by_index[index] = call
        return call

    def response(self) -> ChatResponse:
        """The whole answer, the same that one body would have held."""
        calls = tuple(
            ToolCall(id=call.id, name=call.name, arguments=call.text or "{}") for call in self._calls
        )
        return ChatResponse(
            message=answer_message("".join(self._text), calls),
            usage=read_usage(self._usage) if self._usage else Usage(requests=1),
            finish_reason=finish_reason(self._finish, calls=bool(calls), refused=self._refused),
            model=self._model,
        )


def _begins_another(call: _Call, raw_id: str, name: str, arguments: str) -> bool:
    """Whether a piece with the number of a known call is the next call all the same."""
    if not name or not call.name:
        return False
    if (raw_id and raw_id != call.raw_id) or name != call.raw_name:
        return True
    return arguments.lstrip().startswith("{") and call.complete()


def stream_cut(received: int, why: str = "") -> ProviderError:
    """The error for a stream that ended before its answer did."""
    return ProviderError(
        f"The answer was cut off after {received} characters{f': {why}' if why else ''}.",
        code="provider.stream_cut",
        hint="Ask again; what arrived is incomplete.",
        received=received,
    )
