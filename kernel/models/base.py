"""The one protocol every language model speaks, whoever makes it.

A provider implements :class:`ChatModel`; a wrapper (fallback, cache, retry) wraps one and is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from ..messages import Frozen, Grounding, Message, ToolCall, Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal"]


class FunctionSpec(Frozen):
    """What a model is told of one function."""

    #: ``plugin.function``; a provider maps it to a wire name by table and back, never by splitting.
    name: str
    description: str
    #: JSON Schema of an object.
    parameters: dict[str, Any]


class ChatRequest(Frozen):
    """One question to a model."""

    messages: tuple[Message, ...]
    functions: tuple[FunctionSpec, ...] = ()
    #: ``auto``: the model may call; ``none``: it must not; ``required``: it must; else a function's name.
    function_choice: str = "auto"
    max_output_tokens: int | None = None
    temperature: float | None = None
    #: What memory found for the last question. The text is in ``messages`` already; a model that
    #: quotes instead of writing (``extractive``) reads it from here.
    grounding: Grounding | None = None
    #: Passed to the provider as they are.
    extra: dict[str, Any] = Field(default_factory=dict)


class ChatResponse(Frozen):
    """One answer: an assistant message, and what it cost."""

    message: Message
    usage: Usage = Usage()
    finish_reason: FinishReason = "stop"
    #: The model that answered, as the provider names it.
    model: str = ""


class TextDelta(Frozen):
    """A piece of the answer's text."""

    kind: Literal["text"] = "text"
    text: str


class ToolCallDelta(Frozen):
    """A piece of a call: ``id`` and ``name`` come with its first piece, ``arguments`` grow."""

    kind: Literal["tool_call"] = "tool_call"
    #: Which call of this answer, counted from 0.
    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Finished(Frozen):
    """The last delta: the whole answer, the same that ``complete`` would have returned."""

    kind: Literal["finished"] = "finished"
    response: ChatResponse


Delta = Annotated[TextDelta | ToolCallDelta | Finished, Field(discriminator="kind")]


class ModelInfo(Frozen):
    """What a model can do. Unknown context sizes are None, never guessed."""

    #: ``provider:model``.
    name: str
    context_tokens: int | None = None
    #: It calls functions natively.
    functions: bool = True
    #: It streams its answer as it is made.
    streaming: bool = True
    #: Nothing it is asked leaves this machine.
    local: bool = False
    #: It writes sentences of its own; False for ``extractive``, which only quotes.
    generative: bool = True


@runtime_checkable
class ChatModel(Protocol):
    """A language model.

    ``complete`` and ``stream`` raise :class:`~kernloom.kernel.errors.ProviderError` and propagate
    cancellation. ``stream`` ends with exactly one :class:`Finished`; a stream cut before it raises.
    """

    @property
    def info(self) -> ModelInfo:
        """Who it is and what it can do."""
        ...

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The whole answer at once."""
        ...

    def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """The answer piece by piece."""
        ...

    async def aclose(self) -> None:
        """Give back connections."""
        ...


__all__ = [
    "ChatModel", "ChatRequest", "ChatResponse", "Delta", "FinishReason", "Finished", "FunctionSpec",
    "ModelInfo", "TextDelta", "ToolCall", "ToolCallDelta",
]  # fmt: skip
