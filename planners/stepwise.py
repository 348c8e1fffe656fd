"""A planner that finds its way: asks a model for the next call, makes it, looks, and goes on.

What it leaves is the plan of what it did, to be read, saved, and run again without a model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..kernel.agents.assistant import AssistantAgent
from ..kernel.agents.limits import Limits
from ..kernel.conversations.conversation import Conversation
from ..kernel.errors import KernloomError, UsageError
from ..kernel.functions import Function
from ..kernel.journal.events import PlanMade
from ..kernel.messages import Usage
from .plan import Plan
from .recorded import plan_of

if TYPE_CHECKING:
    from ..kernel.functions import Context
    from ..kernel.kernel import Kernel
    from ..kernel.models.base import ChatModel

INSTRUCTIONS = """\
Reach the goal by calling functions, step by step. Call functions that do not need each other's results \
together. Pass on what a function returned exactly as it stands; do not compute, convert or recall what a \
function can find out. When a call fails, read why, and correct it or take another way. When the goal is \
reached, say the result in a sentence or two, using the values as the functions returned them. If it \
cannot be reached with these functions, say what is missing."""


@dataclass(frozen=True, slots=True)
class StepwiseResult:
    """What came of a goal."""

    #: The model's last words.
    text: str
    #: What was done to get there.
    plan: Plan
    usage: Usage
    #: The session that recorded it.
    session: str


class StepwisePlanner:
    """Reaches a goal call by call.

    Args:
        model: ``provider:model`` or a model object that can call functions; the configured default if None.
        functions: names, callables or functions it may use; every function there is by default.
        limits: rounds and calls it may take.
        instructions: what the model is told before the goal.

    ::

        planner = StepwisePlanner("openai:gpt-4.1-mini", functions=["math", "text"])
        plan = await planner.plan("What is 17% of 2,340, in words?", kernel=kernel)
        plan.save("share.yaml")
    """

    name = "stepwise"

    def __init__(
        self,
        model: str | ChatModel | None = None,
        *,
        functions: Sequence[str | Callable[..., Any] | Function] | None = None,
        limits: Limits | None = None,
        instructions: str = INSTRUCTIONS,
    ) -> None:
        self._model = model
        self._functions = ["*"] if functions is None else functions
        self._limits = limits
        self._instructions = instructions

    async def plan(self, goal: str, *, kernel: Kernel, context: Context | None = None) -> Plan:
        """Reach ``goal`` and give back the plan of what was done.

        Raises:
            as :meth:`run`.
        """
        return (await self.run(goal, kernel=kernel, context=context)).plan

    async def run(
        self,
        goal: str,
        *,
        kernel: Kernel,
        inputs: Mapping[str, Any] | None = None,
        context: Context | None = None,
    ) -> StepwiseResult:
        """Reach ``goal``.

        It is recorded in the session of ``context`` if it has one (within a call, in a child of it), else
        in a session of its own.

        Args:
            goal: what to reach.
            kernel: whose functions are called, under whose policy.
            inputs: values of this one time; the plan takes them as inputs, with these as defaults.
            context: whom it is done for.

        Raises:
            LimitReached, ApprovalRequired, ProviderError: it got no further; ``error.details["plan"]`` is
                what was done until then, as data.
            UsageError: ``plan.no_function_calling``, the model cannot call functions.
        """
        given = dict(inputs or {})
        agent = AssistantAgent(
            self.name,
            kernel=kernel,
            model=self._model,
            instructions=self._instructions,
            functions=self._functions,
            limits=self._limits,
        )
        if not agent.model.info.functions:
            raise UsageError(
                f"The model {agent.model.info.name!r} cannot call functions.",
                code="plan.no_function_calling",
                hint="Choose a model that can, or write the plan yourself.",
            )
        conversation = await _conversation(kernel, context)
        before = len(conversation.events)

        def done(answer: str | None) -> Plan:
            events = conversation.events[before:]
            return plan_of(events, goal=goal, inputs=given, output=answer, resolve=kernel.function)

        try:
            deps = context.deps if context is not None else None
            reply = await agent.run(_asked(goal, given), session=conversation, deps=deps)
        except KernloomError as exc:
            exc.details["plan"] = done(None).to_dict()
            exc.details["session"] = conversation.id
            raise
        plan = done(reply.text)
        await conversation.add(PlanMade(plan=plan.to_dict()), actor=self.name, run=reply.run)
        return StepwiseResult(text=reply.text, plan=plan, usage=reply.usage, session=reply.session)


async def _conversation(kernel: Kernel, context: Context | None) -> Conversation:
    log = context.log if context is not None else None
    if context is None or log is None:
        return await Conversation.open(kernel)
    if context.call_id is not None:
        log = await kernel.journal.create(parent=(log.id, log.seq))
    return Conversation(log)


def _asked(goal: str, inputs: Mapping[str, Any]) -> str:
    if not inputs:
        return goal
    lines = "\n".join(
        f"- {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in inputs.items()
    )
    return f"{goal}\n\nGiven:\n{lines}"
