"""Models that need no provider: one that answers from a script, one that says what it was told.

``-m script:replies.yaml`` and ``-m echo`` on the command line; in a test::

    model = ScriptedModel([call("math.evaluate", expression="6*7"), "It is 42."])
    ...
    model.assert_complete()
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..messages import Message, TextPart, ToolCall, Usage, assistant
from .base import ChatRequest, ChatResponse, Delta, Finished, ModelInfo, TextDelta, ToolCallDelta
from .script_file import read_script

_WORDS = re.compile(r"\S+\s*|\s+")

#: What a scripted answer may be; a function is asked with the request and returns one of the others.
Answer = str | ToolCall | Message | ChatResponse | Exception
Reply = Answer | Callable[[ChatRequest], Answer]


def call(name: str, /, **arguments: Any) -> ToolCall:
    """A call for a script; the model that answers with it gives it its id."""
    return ToolCall(id="", name=name, arguments=json.dumps(arguments))


class ScriptedModel:
    """Answers from a list, in order, and keeps what it was asked.

    A reply is text, a :class:`ToolCall`, a message, a whole :class:`ChatResponse`, an exception to raise,
    or a function from the request to one of those. Calls without an id get ``call_1``, ``call_2`` ….

    Args:
        replies: The answers in order.
        name: What :attr:`info` says.
    """

    def __init__(self, replies: Iterable[Reply] = (), *, name: str = "script") -> None:
        self._replies = list(replies)
        self._answered = 0
        self._calls = 0
        self._info = ModelInfo(name=name, local=True)
        #: Every request so far, in order.
        self.requests: list[ChatRequest] = []

    @classmethod
    def from_file(cls, path: str | Path) -> ScriptedModel:
        """A model that follows a YAML file, see :mod:`kernloom.kernel.models.script_file`.

        Raises:
            ConfigError: the file is missing or is no such list; it says which entry is wrong.
        """
        return cls(read_script(path), name=f"script:{path}")

    @property
    def info(self) -> ModelInfo:
        """Who it is and what it can do."""
        return self._info

    @property
    def left(self) -> int:
        """Replies nobody asked for yet."""
        return len(self._replies) - self._answered

    def add(self, *replies: Reply) -> None:
        """Append to the script."""
        self._replies.extend(replies)

    def assert_complete(self) -> None:
        """Raise ``AssertionError`` unless every reply was asked for."""
        if self.left:
            first = self._replies[self._answered]
            raise AssertionError(
                f"{self.left} of {len(self._replies)} replies were never asked for; next is {first!r}."
            )

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The next reply.

        Raises:
            UsageError: ``script.exhausted`` when the script has no further reply.
        """
        self.requests.append(request)
        if not self.left:
            raise UsageError(
                f"The script of {len(self._replies)} replies is exhausted; it was asked once more: "
                f"{_last_words(request)!r}.",
                code="script.exhausted",
                hint="Add a reply, or find out why the model is asked again.",
            )
        reply = self._replies[self._answered]
        self._answered += 1
        answer = (
            reply
            if isinstance(reply, str | ToolCall | Message | ChatResponse | Exception)
            else reply(request)
        )
        if isinstance(answer, Exception):
            raise answer
        return self._response(answer)

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """The next reply, word by word."""
        for delta in deltas(await self.complete(request)):
            yield delta

    async def aclose(self) -> None:
        """Nothing to give back."""

    def _response(self, answer: str | ToolCall | Message | ChatResponse) -> ChatResponse:
        if isinstance(answer, ChatResponse):
            return answer
        if isinstance(answer, str):
            answer = assistant(answer)
        elif isinstance(answer, ToolCall):
            answer = assistant("", answer)
        if answer.tool_calls:
            parts = tuple(
                self._numbered(part) if isinstance(part, ToolCall) else part for part in answer.parts
            )
            answer = answer.model_copy(update={"parts": parts})
        elif not answer.parts:
            answer = answer.model_copy(update={"parts": (TextPart(text=""),)})
        return ChatResponse(
            message=answer,
            usage=Usage(requests=1),
            finish_reason="tool_calls" if answer.tool_calls else "stop",
            model=self._info.name,
        )

    def _numbered(self, call: ToolCall) -> ToolCall:
        if call.id:
            return call
        self._calls += 1
        return call.model_copy(update={"id": f"call_{self._calls}"})


class EchoModel:
    """Says what the last message of the user said. For trying things out without a model."""

    _info = ModelInfo(name="echo", local=True, functions=False, generative=False)

    @property
    def info(self) -> ModelInfo:
        """Who it is and what it can do."""
        return self._info

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The user's last words."""
        message = assistant(_last_words(request))
        return ChatResponse(message=message, usage=Usage(requests=1), model="echo")

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """The user's last words, one by one."""
        for delta in deltas(await self.complete(request)):
            yield delta

    async def aclose(self) -> None:
        """Nothing to give back."""


def built_in(name: str) -> ScriptedModel | EchoModel | None:
    """``echo`` and ``script:<file>`` by name; None for every other name, which is a provider's.

    Raises:
        ConfigError: the script cannot be read.
    """
    if name == "echo":
        return EchoModel()
    kind, _, path = name.partition(":")
    return ScriptedModel.from_file(path) if kind == "script" and path else None


def deltas(response: ChatResponse) -> Iterable[Delta]:
    """A whole answer as the deltas that make it up: words, then calls, then :class:`Finished`."""
    for word in _WORDS.findall(response.message.text):
        yield TextDelta(text=word)
    for index, one in enumerate(response.message.tool_calls):
        yield ToolCallDelta(index=index, id=one.id, name=one.name)
        yield ToolCallDelta(index=index, arguments=one.arguments)
    yield Finished(response=response)


def _last_words(request: ChatRequest) -> str:
    said = [message for message in request.messages if message.role == "user"]
    return said[-1].text if said else ""
