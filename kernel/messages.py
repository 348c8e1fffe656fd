"""What people, agents and models say to each other: messages made of parts.

All of it is frozen pydantic and JSON, so that a message means the same in a request, in the journal
and on a page. ``ToolCall`` and ``ToolResult`` keep the wire's words; everything else says *function*.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from .errors import ModelRetry

Role = Literal["system", "user", "assistant", "tool"]


class Frozen(BaseModel):
    """The base of everything that crosses a boundary: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class TextPart(Frozen):
    """Plain text."""

    kind: Literal["text"] = "text"
    text: str


class ToolCall(Frozen):
    """A model asks for a function to be called."""

    kind: Literal["tool_call"] = "tool_call"
    #: Unique within its session; the provider's id, made unique where the provider repeats itself.
    id: str
    #: The function's own name, ``plugin.function``; a provider's wire name is translated back first.
    name: str
    #: The arguments exactly as the model wrote them: JSON text, possibly malformed.
    arguments: str = "{}"

    @classmethod
    def of(cls, name: str, arguments: Mapping[str, object], *, call_id: str) -> ToolCall:
        """A call made by a plan or a person, in the form of a model's calls."""
        return cls(id=call_id, name=name, arguments=to_json(arguments, fallback=str).decode())

    def parsed(self) -> dict[str, object]:
        """The arguments as a dict.

        Raises:
            ModelRetry: the text is not a JSON object; the message says where it broke.
        """
        try:
            value = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError) as exc:
            raise ModelRetry(
                f"The arguments of {self.name} are not valid JSON: {exc}.",
                code="function.arguments_malformed",
                hint="Send one JSON object with the parameters of the function.",
            ) from exc
        if not isinstance(value, dict):
            raise ModelRetry(
                f"The arguments of {self.name} are a JSON {type(value).__name__}, not an object.",
                code="function.arguments_malformed",
                hint="Send one JSON object with the parameters of the function.",
            )
        return value


class ToolResult(Frozen):
    """What came of a :class:`ToolCall`; exactly one for each."""

    kind: Literal["tool_result"] = "tool_result"
    call_id: str
    name: str
    #: What the model reads: text as it is, anything else as JSON.
    content: str
    error: bool = False


Part = Annotated[TextPart | ToolCall | ToolResult, Field(discriminator="kind")]


class Message(Frozen):
    """One message. ``name`` is the agent or person who said it."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The function calls this message asks for, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


def system(text: str) -> Message:
    """A system message."""
    return Message(role="system", parts=(TextPart(text=text),))


def user(text: str, *, name: str | None = None) -> Message:
    """A user message."""
    return Message(role="user", parts=(TextPart(text=text),), name=name)


def assistant(text: str = "", *calls: ToolCall, name: str | None = None) -> Message:
    """An assistant message: text, calls, or both."""
    parts: tuple[Part, ...] = (TextPart(text=text), *calls) if text else calls
    return Message(role="assistant", parts=parts, name=name)


def tool(*results: ToolResult) -> Message:
    """The results of one round of calls, as one message."""
    return Message(role="tool", parts=results)


class Usage(Frozen):
    """Tokens of one call, or of many added up; ``input`` includes ``cached``, ``output`` ``reasoning``."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    #: Model calls that were made.
    requests: int = 0

    @property
    def total(self) -> int:
        """Input and output tokens together."""
        return self.input + self.output

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input=self.input + other.input,
            output=self.output + other.output,
            cached=self.cached + other.cached,
            reasoning=self.reasoning + other.reasoning,
            requests=self.requests + other.requests,
        )


def line_range(first: int, last: int) -> str:
    """Lines as a place names them: ``41-47``, or ``41`` for a single one."""
    return str(first) if first == last else f"{first}-{last}"


class Passage(Frozen):
    """A piece of a stored document, as memory found it, with the place it came from."""

    #: The chunk's id in its memory.
    id: str
    #: The document's id in its memory: the caller's own, or the path relative to what was added.
    document: str
    #: Where a person finds it: a path or a URL.
    source: str
    #: The exact text of ``source[start:end]`` as stored.
    text: str
    #: Character offsets into the stored document, end exclusive.
    start: int
    end: int
    #: 1-based lines of the stored document, both inclusive.
    line_start: int
    line_end: int
    #: The headings above it, outermost first, joined with `` > ``.
    title: str = ""
    #: The fused score (see ``kernloom.memory.fusion``); higher is better, comparable within one search.
    score: float = 0.0
    keyword_rank: int | None = None
    vector_rank: int | None = None
    #: ``[label]`` by which the answer cites it: ``"1"``, ``"2"`` … in the order packed.
    label: str = ""

    @property
    def place(self) -> str:
        """``travel.md:41-47``, as an editor or a person reads it."""
        return f"{self.source}:{line_range(self.line_start, self.line_end)}"


class Grounding(Frozen):
    """What memory found for one question, packed to a token budget."""

    query: str
    passages: tuple[Passage, ...] = ()
    #: False when nothing stored seems to hold the answer: say so rather than guess.
    found: bool = False
    #: Why ``found`` is what it is, with the figures it was decided on.
    reason: str = ""


class Citation(Frozen):
    """A claim's source. ``verified`` means the quote stands, character for character, at its span."""

    label: str
    document: str
    source: str
    quote: str
    start: int
    end: int
    line_start: int
    line_end: int
    verified: bool

    @property
    def place(self) -> str:
        """``travel.md:41-47``, as an editor or a person reads it."""
        return f"{self.source}:{line_range(self.line_start, self.line_end)}"
