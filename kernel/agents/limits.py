"""How far one run of an agent may go."""

from __future__ import annotations

from pydantic import Field

from ..messages import Frozen


class Limits(Frozen):
    """Bounds of one run; reaching one raises ``LimitReached`` and leaves the conversation valid."""

    #: Answers of the model.
    rounds: int = Field(default=20, ge=1)
    #: Function calls.
    calls: int = Field(default=60, ge=0)
    #: Characters of one function's result that the model is sent; the journal keeps all of it.
    result_chars: int = Field(default=40_000, ge=200)
    #: Tokens of passages that memory may add to a question.
    passage_tokens: int = Field(default=1_200, ge=0)
    #: Agents and plans that may stand above a run.
    depth: int = Field(default=8, ge=1)
    #: The most the model may write in one answer; None leaves it to the provider.
    output_tokens: int | None = Field(default=None, ge=1)
