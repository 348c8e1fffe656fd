"""What the floors above implement. The kernel knows memory and planners only by these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .messages import Citation, Grounding

if TYPE_CHECKING:
    from .functions import Context
    from .kernel import Kernel


@runtime_checkable
class Grounder(Protocol):
    """Finds passages for a question and checks what an answer cites. Memory is one."""

    async def ground(self, query: str, *, tokens: int = 1200) -> Grounding:
        """Passages that may hold the answer, labelled ``1``, ``2`` …, within ``tokens``."""
        ...

    async def cite(self, answer: str, grounding: Grounding) -> tuple[Citation, ...]:
        """The citations of ``answer`` (``[1]``, ``[2]`` …), each verified against stored text."""
        ...


@runtime_checkable
class RunnablePlan(Protocol):
    """A plan, as far as the kernel needs to know."""

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-able data."""
        ...

    async def run(self, kernel: Kernel, inputs: Mapping[str, object], context: Context) -> object:
        """Run it and return its output."""
        ...


@runtime_checkable
class Planner(Protocol):
    """Turns a goal into a plan, or into a plan of what it did on the way to the goal."""

    name: str

    async def plan(self, goal: str, *, kernel: Kernel, context: Context | None = None) -> RunnablePlan:
        """A plan for ``goal`` out of the kernel's functions."""
        ...
