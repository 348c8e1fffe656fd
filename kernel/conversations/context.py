"""What a model is sent for one turn: a projection of the transcript, never the transcript itself."""

from __future__ import annotations

from collections.abc import Sequence

from ..grounding import render_passages
from ..messages import Grounding, Message, ToolResult, tool, user


class TurnContext:
    """Builds the messages of each request of one run.

    Messages are passed on as the same objects wherever nothing was added to them, so that a provider can
    reuse what it has already serialised and a provider's prompt cache stays warm.

    Args:
        instructions: the agent's system message, if any.
        grounding: what memory found for this turn's question.
        result_chars: longer results of functions are cut, with a note of what was left out.
    """

    def __init__(
        self, *, instructions: Message | None, grounding: Grounding | None, result_chars: int
    ) -> None:
        self._head = () if instructions is None else (instructions,)
        self._grounding = grounding
        self._result_chars = result_chars
        self._grounded: Message | None = None
        #: By the identity of the message, which is kept beside its cut so that no other can take its id.
        self._cut: dict[int, tuple[Message, Message]] = {}

    def messages(self, history: Sequence[Message]) -> tuple[Message, ...]:
        """Instructions, then the transcript; the last question carries the passages found for it."""
        sent = [self._shortened(message) if message.role == "tool" else message for message in history]
        if self._grounding is not None:
            for index in range(len(sent) - 1, -1, -1):
                if sent[index].role == "user":
                    sent[index] = self._with_passages(sent[index], self._grounding)
                    break
        return (*self._head, *sent)

    def _with_passages(self, question: Message, grounding: Grounding) -> Message:
        if self._grounded is None:
            passages = render_passages(grounding)
            self._grounded = user(f"{passages}\n\n{question.text}", name=question.name)
        return self._grounded

    def _shortened(self, message: Message) -> Message:
        limit = self._result_chars
        if all(not isinstance(p, ToolResult) or len(p.content) <= limit for p in message.parts):
            return message
        if id(message) not in self._cut:
            cut = tool(*(_cut(part, limit) for part in message.parts if isinstance(part, ToolResult)))
            self._cut[id(message)] = message, cut
        return self._cut[id(message)][1]


def _cut(result: ToolResult, limit: int) -> ToolResult:
    left_out = len(result.content) - limit
    if left_out <= 0:
        return result
    note = f"\n… [{left_out} more characters were left out; ask for a narrower part]"
    return result.model_copy(update={"content": result.content[:limit] + note})
