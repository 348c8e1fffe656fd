"""What a run gives back, and what it lets be seen on the way."""

from __future__ import annotations

from dataclasses import dataclass

from ..journal.events import Event
from ..messages import Citation, Grounding, Message, Usage
from ..models.base import FinishReason, TextDelta, ToolCallDelta


@dataclass(frozen=True, slots=True)
class Reply:
    """An agent's answer."""

    #: What it said, with ``[1]``, ``[2]`` … where it cites.
    text: str
    #: One for each label in the text, checked against stored text.
    citations: tuple[Citation, ...]
    #: Tokens of this run, all its model calls added up.
    usage: Usage
    #: The session's id: pass it as ``session=`` to go on.
    session: str
    #: This run's id within the session.
    run: str
    #: The whole last message.
    message: Message
    #: What memory found, when the agent has one.
    grounding: Grounding | None = None
    #: Why the model stopped; ``length`` means the text is cut short.
    finish_reason: FinishReason = "stop"


#: What :meth:`AssistantAgent.stream` yields: pieces of text and calls as they arrive, every event as it
#: is recorded, and at the end the reply.
StreamItem = TextDelta | ToolCallDelta | Event | Reply
