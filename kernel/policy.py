"""What may happen without a person saying so.

By default reading is allowed, and writing, network, execution and spending ask. A call that a
developer wrote as a line of code was decided by writing it; only an explicit ``deny`` stops it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field

from .functions import Effect, Function, Origin, Verdict
from .messages import Frozen


def _defaults() -> dict[Effect, Verdict]:
    return {"read": "allow", "write": "ask", "network": "ask", "exec": "ask", "spend": "ask"}


class Policy(Frozen):
    """Rules by effect and by function; a function's rule wins over its effects' rules."""

    #: One verdict per effect; effects left out keep the default.
    effects: dict[Effect, Verdict] = Field(default_factory=_defaults)
    #: Patterns over ``plugin.function``, e.g. ``{"files.*": "ask"}``; the longest that matches wins.
    functions: dict[str, Verdict] = Field(default_factory=dict)

    def decide(self, function: Function, *, origin: Origin = "model") -> Verdict:
        """``allow``, ``ask`` or ``deny`` for one call of ``function``."""
        verdict = self._rule(function.name)
        if verdict is None:
            verdict = function.options.approval
        if verdict is None:
            defaults = _defaults()
            found = {self.effects.get(effect, defaults[effect]) for effect in function.effects}
            verdict = "deny" if "deny" in found else "ask" if "ask" in found else "allow"
        return "allow" if verdict == "ask" and origin == "code" else verdict

    def _rule(self, name: str) -> Verdict | None:
        matching = [pattern for pattern in self.functions if fnmatchcase(name, pattern)]
        return self.functions[max(matching, key=len)] if matching else None


class ApprovalRequest(Frozen):
    """What a person is asked to allow."""

    function: str
    arguments: dict[str, Any]
    effects: tuple[Effect, ...]
    #: Who wants to call: the agent's or plan's name.
    actor: str
    #: The question's id in its session.
    question: str = ""


class Approval(Frozen):
    """What a person said to an :class:`ApprovalRequest`."""

    allow: bool
    #: Call with these instead.
    arguments: dict[str, Any] | None = None
    #: Who said it.
    by: str = "person"


#: Asks a person; True, or an :class:`Approval`, allows this one call.
Approver = Callable[[ApprovalRequest], Awaitable[bool | Approval]]
