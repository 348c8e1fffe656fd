"""Answers as Chat Completions gives them, read with patience: servers differ in what they leave out."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from ...kernel.errors import ProviderError
from ...kernel.messages import Message, TextPart, ToolCall, Usage
from ...kernel.models.base import ChatResponse, FinishReason
from .openai_wire import WireNames

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
}


class CallIds:
    """Gives every call of an answer an id its conversation has not used."""

    def __init__(self, taken: Iterable[str], new_id: Callable[[], str]) -> None:
        self._taken = set(taken)
        self._new_id = new_id

    def claim(self, id: str) -> str:
        """``id`` itself, or a new one when it is empty or was used before."""
        while not id or id in self._taken:
            id = self._new_id()
        self._taken.add(id)
        return id


def new_call_id() -> str:
    """An id for a call whose provider gave it none."""
    return f"call_{uuid.uuid4().hex[:24]}"


def read_answer(data: object, *, names: WireNames, ids: CallIds) -> ChatResponse:
    """The answer in a ``chat.completion`` object.

    Raises:
        ProviderError: ``provider.invalid_response`` when there is no answer in it.
    """
    body = data if isinstance(data, dict) else {}
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise invalid_response(f"it has no choices[0].message: {str(data)[:200]!r}")
    text = mend(text_of(message.get("content")))
    refusal = message.get("refusal")
    calls = tuple(_read_calls(message, names, ids))
    if isinstance(refusal, str) and refusal and not text:
        text = mend(refusal)
    return ChatResponse(
        message=answer_message(text, calls),
        usage=read_usage(body.get("usage")),
        finish_reason=finish_reason(choice.get("finish_reason"), calls=bool(calls), refused=bool(refusal)),
        model=mend(text_of(body.get("model"))),
    )


def _read_calls(message: Mapping[str, Any], names: WireNames, ids: CallIds) -> Iterable[ToolCall]:
    raw = message.get("tool_calls") or ()
    legacy = message.get("function_call")
    if not raw and isinstance(legacy, dict):
        raw = ({"function": legacy},)
    for one in raw:
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict):
            raise invalid_response(f"a tool call has no function: {str(one)[:200]!r}")
        name = mend(text_of(function.get("name")))
        yield ToolCall(
            id=ids.claim(mend(text_of(one.get("id")))),
            name=names.own(name),
            arguments=mend(arguments_text(function.get("arguments"))) or "{}",
        )


def answer_message(text: str, calls: tuple[ToolCall, ...]) -> Message:
    """An assistant's message of text and calls; never without a part."""
    if text or not calls:
        return Message(role="assistant", parts=(TextPart(text=text), *calls))
    return Message(role="assistant", parts=calls)


def text_of(value: object) -> str:
    """Text that may come as a string, as null or as a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(text_of(part.get("text")) for part in value if isinstance(part, dict))
    return ""


def arguments_text(value: object) -> str:
    """Arguments as text; some servers send the object itself."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def read_usage(usage: object) -> Usage:
    """The usage object as :class:`Usage`; zeros where the provider did not say."""
    if not isinstance(usage, dict):
        return Usage(requests=1)
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens") or _count(
        usage.get("prompt_cache_hit_tokens")
    )
    return Usage(
        input=_count(usage.get("prompt_tokens")),
        output=_count(usage.get("completion_tokens")),
        cached=cached,
        reasoning=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
        requests=1,
    )


def _detail(usage: Mapping[str, Any], group: str, key: str) -> int:
    details = usage.get(group)
    return _count(details.get(key)) if isinstance(details, dict) else 0


def _count(value: object) -> int:
    return max(0, int(value)) if isinstance(value, int | float) else 0


def finish_reason(raw: object, *, calls: bool, refused: bool) -> FinishReason:
    """The provider's reason in our words. Some say ``stop`` (or nothing) with calls in hand."""
    reason = _FINISH.get(raw, "stop") if isinstance(raw, str) else "stop"
    if reason == "stop":
        if calls:
            return "tool_calls"
        if refused:
            return "refusal"
    return reason


def mend(text: str) -> str:
    """``text`` with surrogate halves joined where they meet and replaced where they do not.

    Servers that cut UTF-16 text into chunks send halves; no half is valid in UTF-8.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def parse(text: bytes | str) -> dict[str, Any]:
    """A JSON object from the provider.

    Raises:
        ProviderError: ``provider.invalid_response``.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise invalid_response(f"{exc}: {text[:200]!r}") from exc
    if not isinstance(value, dict):
        raise invalid_response(f"it is a JSON {type(value).__name__}, not an object")
    return cast(dict[str, Any], value)


def invalid_response(why: str) -> ProviderError:
    """The error for an answer that is not Chat Completions."""
    return ProviderError(
        f"The provider's answer cannot be read: {why}.",
        code="provider.invalid_response",
        hint="Check that the base URL is an OpenAI-compatible API (it often ends in /v1).",
    )
