"""Requests as Chat Completions takes them: messages and functions to bytes.

A message is frozen, so it is serialised once and its bytes are reused for as long as it lives: a long
conversation costs each turn what that turn adds. Nothing here does I/O or needs the ``openai`` package.
"""

from __future__ import annotations

import hashlib
import json
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from ...kernel.errors import UsageError
from ...kernel.messages import Message, Part, ToolCall, ToolResult
from ...kernel.models.base import ChatRequest, FunctionSpec

K = TypeVar("K", bound=object)
V = TypeVar("V")

#: The longest function name OpenAI accepts, and what it may not contain.
_NAME_LIMIT = 64
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")
#: What the ``name`` of a message's author may not contain.
_NOT_IN_AN_AUTHOR = re.compile(r"[\s<|\\/>]+")


class PerObject(Generic[K, V]):
    """A value computed once for each object and forgotten with it.

    Keyed by identity: hashing a frozen model would walk all of it on every look-up.
    """

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._entries: dict[int, tuple[weakref.ref[K], V]] = {}

    def __call__(self, key: K) -> V:
        entry = self._entries.get(id(key))
        if entry is not None and entry[0]() is key:
            return entry[1]
        value = self._make(key)
        entries, ident = self._entries, id(key)
        entries[ident] = (weakref.ref(key, lambda _: entries.pop(ident, None) and None), value)
        return value

    def __len__(self) -> int:
        return len(self._entries)


class WireNames:
    """The table between ``plugin.function`` and the names the wire allows; never split, never guessed.

    A dot becomes a hyphen. Two names that would meet, and names that are too long, end in a digest.
    """

    def __init__(self) -> None:
        self._wire: dict[str, str] = {}
        self._own: dict[str, str] = {}

    def wire(self, name: str) -> str:
        """The name ``name`` goes by on the wire; the same for as long as this table lives."""
        known = self._wire.get(name)
        if known is not None:
            return known
        wire = _NOT_IN_A_NAME.sub("_", name.replace(".", "-")) or "_"
        if len(wire) > _NAME_LIMIT or wire in self._own:
            digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
            size = next(n for n in (8, 16, 32, 62) if _tagged(wire, digest[:n]) not in self._own)
            wire = _tagged(wire, digest[:size])
        self._wire[name] = wire
        self._own[wire] = name
        return wire

    def own(self, wire: str) -> str:
        """The function's own name; an unknown wire name is kept, for the caller to answer."""
        return self._own.get(wire, wire)


def _tagged(wire: str, digest: str) -> str:
    return f"{wire[: _NAME_LIMIT - len(digest) - 1]}-{digest}"


class Written(NamedTuple):
    """A message as bytes, and the ids of the calls it asks for."""

    data: bytes
    call_ids: tuple[str, ...]


class Outgoing(NamedTuple):
    """A request's body, and the call ids its history has used up."""

    body: bytes
    call_ids: frozenset[str]


class RequestWriter:
    """Writes the bodies of one model's requests."""

    def __init__(
        self,
        model: str,
        names: WireNames,
        *,
        limit_field: str = "max_completion_tokens",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = dump(model)
        self._names = names
        self._limit_field = limit_field
        self._extra = dict(extra or {})
        self._message: PerObject[Message, Written] = PerObject(self._write_message)
        self._function: PerObject[FunctionSpec, bytes] = PerObject(self._write_function)

    def write(self, request: ChatRequest, *, stream: bool) -> Outgoing:
        """The body of ``request``. ``extra`` wins over every field; a None in it removes the field.

        Raises:
            UsageError: no messages, or a ``function_choice`` that is not offered.
        """
        if not request.messages:
            raise UsageError("A request without messages cannot be sent.", code="model.no_messages")
        written = [self._message(message) for message in request.messages]
        fields = {"model": self._model, "messages": b"[%b]" % b",".join([one.data for one in written])}
        if request.functions:
            fields["tools"] = b"[%b]" % b",".join([self._function(spec) for spec in request.functions])
            choice = self._choice(request)
            if choice is not None:
                fields["tool_choice"] = choice
        if request.max_output_tokens is not None:
            fields[self._limit_field] = dump(request.max_output_tokens)
        if request.temperature is not None:
            fields["temperature"] = dump(request.temperature)
        if stream:
            fields["stream"] = b"true"
            fields["stream_options"] = b'{"include_usage":true}'
        for key, value in {**self._extra, **request.extra}.items():
            if value is None:
                fields.pop(key, None)
            else:
                fields[key] = dump(value)
        body = b"{%b}" % b",".join([b'"%b":%b' % (key.encode(), value) for key, value in fields.items()])
        return Outgoing(body, frozenset(id for one in written for id in one.call_ids))

    def _choice(self, request: ChatRequest) -> bytes | None:
        choice = request.function_choice
        if choice == "auto":
            return None
        if choice in ("none", "required"):
            return dump(choice)
        if all(spec.name != choice for spec in request.functions):
            raise UsageError(
                f"The function {choice!r} is required but not among those offered.",
                code="model.function_choice",
                hint=f"Offered: {', '.join(spec.name for spec in request.functions)}.",
            )
        return dump({"type": "function", "function": {"name": self._names.wire(choice)}})

    def _write_function(self, spec: FunctionSpec) -> bytes:
        function = {
            "name": self._names.wire(spec.name),
            "description": spec.description,
            "parameters": spec.parameters,
        }
        return dump({"type": "function", "function": function})

    def _write_message(self, message: Message) -> Written:
        if message.role == "tool":
            return Written(b",".join(dump(one) for one in _tool_messages(message.parts)), ())
        wire: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.name and message.role != "system":
            wire["name"] = _NOT_IN_AN_AUTHOR.sub("_", message.name)[:_NAME_LIMIT]
        calls = message.tool_calls
        if calls and message.role == "assistant":
            wire["content"] = wire["content"] or None
            wire["tool_calls"] = [self._call(call) for call in calls]
        return Written(dump(wire), tuple(call.id for call in calls))

    def _call(self, call: ToolCall) -> dict[str, Any]:
        function = {"name": self._names.wire(call.name), "arguments": _sendable(call.arguments)}
        return {"id": call.id, "type": "function", "function": function}


def _tool_messages(parts: Iterable[Part]) -> list[dict[str, Any]]:
    results = [part for part in parts if isinstance(part, ToolResult)]
    if not results:
        raise UsageError("A tool message must hold the results of calls.", code="model.no_results")
    return [{"role": "tool", "tool_call_id": one.call_id, "content": one.content} for one in results]


def _sendable(arguments: str) -> str:
    """Arguments as a server takes them back: several refuse a history whose arguments do not parse."""
    try:
        if isinstance(json.loads(arguments or "{}"), dict):
            return arguments or "{}"
    except (ValueError, RecursionError):
        pass
    return json.dumps({"malformed_arguments": arguments})


def dump(value: object) -> bytes:
    """Compact UTF-8 JSON.

    Raises:
        UsageError: the value is no JSON.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can carry
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as exc:
        raise UsageError(
            f"A request holds something that is not JSON: {exc}.", code="model.not_json"
        ) from exc
