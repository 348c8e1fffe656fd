"""A scripted answer as Chat Completions puts it on the wire: one body, or chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import Call, Reply

_CREATED = 1_700_000_000


def answer_body(reply: Reply, calls: Sequence[tuple[str, Call]], model: str) -> bytes:
    """The whole ``chat.completion`` object."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": reply.refusal}
    if calls:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for id, call in calls
        ]
    body: dict[str, Any] = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": _CREATED,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply)}],
    }
    if reply.usage is not None:
        body["usage"] = dict(reply.usage)
    return json.dumps(body).encode()


def answer_chunks(
    reply: Reply, calls: Sequence[tuple[str, Call]], pieces: Sequence[str], model: str, *, usage: bool
) -> Iterator[bytes]:
    """The ``chat.completion.chunk`` objects in OpenAI's order; the usage chunk last, when asked for."""
    yield _chunk(model, {"role": "assistant", "content": "" if reply.text is not None else None})
    for piece in pieces:
        yield _chunk(model, {"content": piece})
    if reply.refusal is not None:
        yield _chunk(model, {"refusal": reply.refusal})
    for index, (id, call) in enumerate(calls):
        arguments = _arguments(call)
        first: Any = arguments if call.as_object else ""
        function = {"name": call.name, "arguments": first}
        yield _chunk(
            model, {"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}
        )
        if isinstance(arguments, str):
            for start in range(0, len(arguments), 12):
                part = {"index": index, "function": {"arguments": arguments[start : start + 12]}}
                yield _chunk(model, {"tool_calls": [part]})
    yield _chunk(model, {}, finish_reason=_finish(reply))
    if usage and reply.usage is not None:
        yield _dump({**_head(model), "choices": [], "usage": dict(reply.usage)})


def _finish(reply: Reply) -> str | None:
    if reply.finish_reason is not None:
        return reply.finish_reason or None
    return "tool_calls" if reply.calls else "stop"


def _arguments(call: Call) -> Any:
    if isinstance(call.arguments, str) or call.as_object:
        return call.arguments
    return json.dumps(dict(call.arguments))


def _head(model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": _CREATED, "model": model}


def _chunk(model: str, delta: dict[str, Any], *, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _dump({**_head(model), "choices": [choice]})


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()
