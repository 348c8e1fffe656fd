"""The one gate: validation, policy, the record of the intent, the function, and its one outcome.

A call that a log has open is served so that its effect happens once. Before a changing function begins, its
intent is on disk; after it, its outcome. When a crash left an intent without an outcome, the function's
declaration settles it: what only reads, or is ``idempotent``, is called again with the same key;
``reconcile(key)`` is asked whether the call was done; else a person is.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_core import to_json

from .errors import (
    ApprovalRequired,
    FunctionDenied,
    FunctionInDoubt,
    KernloomError,
    LimitReached,
    PersonRequired,
    ResolutionRequired,
)
from .functions import Context, Function, as_json, as_text
from .journal.events import (
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    FunctionStarted,
    QuestionAnswered,
    QuestionAsked,
)
from .messages import ToolCall, ToolResult
from .outcomes import branch_of
from .policy import Approval, ApprovalRequest


class Served(NamedTuple):
    """What came of a recorded call."""

    #: In the words a model reads.
    result: ToolResult
    #: The function's own value; None after an error.
    value: Any = None
    #: Why there is no value.
    error: KernloomError | None = None


async def invoke(function: Function, arguments: Mapping[str, Any], context: Context) -> Any:
    """Validate, ask the policy, run; give back the function's own value."""
    validated = function.signature.validate(arguments)
    verdict = context.kernel.policy.decide(function, origin=context.origin)
    if verdict == "allow":
        return await function.run(validated, context)
    question = context.kernel.journal.new_id()
    allowed = await _permission(function, verdict, arguments, context, question=question, call=None)
    return await function.run(function.signature.validate(allowed), context)


async def serve(
    call: ToolCall,
    context: Context,
    *,
    resolve: Callable[[str], Function],
    key: str | None = None,
) -> Served:
    """Answer a call that the log has open, with exactly one outcome, also when it is cancelled.

    Args:
        call: what was asked for.
        context: who asks, and the log that keeps the outcome.
        resolve: the function of a name, among those this caller may use.
        key: unique in the session to the effect that is wanted; by default the call's id. A second call
            for the same effect (a plan's retry) passes the first one's.

    Raises:
        PersonRequired: somebody must say yes, or what became of the call; it stays open until then.
        LimitReached: a limit stopped the function; the outcome is recorded first.
    """
    whole = f"{context.session}/{key or call.id}" if context.log is not None else None
    return await _Service(call, context.with_(call_id=call.id, idempotency_key=whole), resolve).serve()


@dataclass(slots=True)
class _Service:
    """One call on its way through the gate."""

    call: ToolCall
    context: Context
    resolve: Callable[[str], Function]
    function: Function | None = None

    async def serve(self) -> Served:
        try:
            function = self.function = self.resolve(self.call.name)
            intent = self._intent()
            if intent is None:
                arguments = await self._permitted(function)
            else:
                settled = await self._settled(function)
                if settled is not None:
                    return settled
                arguments = self._arguments()
            validated = function.signature.validate(arguments)
            await self._start(function, arguments, intent)
            value = await function.run(validated, self.context)
        except asyncio.CancelledError:
            in_doubt = self._intent() is not None and self.function is not None and self.function.changes
            await self._error("The call was cancelled.", "function.cancelled", in_doubt=in_doubt)
            raise
        except PersonRequired:
            raise  # the call stays open: it is answered when the run is resumed
        except LimitReached as exc:
            await self._error(str(exc), exc.code, error=exc)
            raise
        except KernloomError as exc:
            in_doubt = isinstance(exc, FunctionInDoubt)
            return Served(await self._error(str(exc), exc.code, error=exc, in_doubt=in_doubt), error=exc)
        return Served(await self._value(value, durable=function.changes), value=value)

    def _intent(self) -> FunctionStarted | None:
        log = self.context.log
        return log.history.intent(self.call.id) if log is not None else None

    def _arguments(self) -> dict[str, Any]:
        """What the model wrote, or what a person put in its place."""
        said = self._answer(self.call.id)
        if said is not None and said.arguments is not None:
            return said.arguments
        return self.call.parsed()

    def _answer(self, question: str) -> QuestionAnswered | None:
        log = self.context.log
        return log.history.answer(question) if log is not None else None

    async def _permitted(self, function: Function) -> Mapping[str, Any]:
        """The arguments to call with, after whoever must has said yes."""
        arguments = self._arguments()
        function.signature.validate(arguments)  # nobody is asked to approve what cannot be called
        verdict = self.context.kernel.policy.decide(function, origin=self.context.origin)
        if verdict == "allow":
            return arguments
        return await _permission(
            function, verdict, arguments, self.context, question=self.call.id, call=self.call
        )

    async def _start(
        self, function: Function, arguments: Mapping[str, Any], before: FunctionStarted | None
    ) -> None:
        if self.context.log is None:
            return
        started = FunctionStarted(
            call_id=self.call.id,
            name=self.call.name,
            effects=tuple(sorted(function.effects)),
            key=self.context.idempotency_key or "",
            digest=_digest(arguments),
            attempt=1 if before is None else before.attempt + 1,
        )
        await self.context.log.append(
            started, actor=self.context.actor, run=self.context.run, durable=function.changes
        )

    async def _settled(self, function: Function) -> Served | None:
        """What became of a call that a crash left without an outcome; None: call it again."""
        if not function.changes or function.options.idempotent:
            return None
        key = self.context.idempotency_key or ""
        if function.options.reconcile is not None:
            done = await function.reconcile(key)
            if done is None:
                return None
            return Served(await self._value(done.result, durable=True), value=done.result)
        question = f"{self.call.id}/doubt"
        said = self._answer(question)
        if said is None:
            await self._ask_what_became(function, question)
        elif said.answer == "done":
            return Served(await self._value(said.result, durable=True), value=said.result)
        elif said.answer != "not_done":
            words = "In doubt: whether its effect happened was never found out."
            return Served(
                await self._error(words, "function.in_doubt", in_doubt=True),
                error=FunctionInDoubt(words, function=function.name),
            )
        return None

    async def _ask_what_became(self, function: Function, question: str) -> None:
        words = f"The process stopped while {function.name} was running. Was it done?"
        await _ask(self.context, question, about="in_doubt", text=words, call=self.call)
        raise ResolutionRequired(
            f"The process stopped in the middle of {function.name} (call {self.call.id}); whether its "
            "effect happened is not known.",
            hint="Find out, then answer done, not_done or abandon (kernloom runs resolve) and resume.",
            question=question,
            session=self.context.session,
            function=function.name,
            key=self.context.idempotency_key,
        )

    async def _value(self, value: Any, *, durable: bool) -> ToolResult:
        result = ToolResult(call_id=self.call.id, name=self.call.name, content=as_text(value))
        if self.context.log is not None:
            plain = isinstance(value, str)
            finished = FunctionFinished(result=result, value=None if plain else as_json(value), plain=plain)
            await self._record(finished, durable=durable)
        return result

    async def _error(
        self, words: str, code: str, *, error: KernloomError | None = None, in_doubt: bool = False
    ) -> ToolResult:
        result = ToolResult(call_id=self.call.id, name=self.call.name, content=words, error=True)
        if self.context.log is not None:
            failed = FunctionFailedEvent(result=result, code=code, branch=branch_of(error))
            await self._record(FunctionInDoubtEvent(result=result) if in_doubt else failed)
        return result

    async def _record(
        self,
        outcome: FunctionFinished | FunctionFailedEvent | FunctionInDoubtEvent,
        *,
        durable: bool = False,
    ) -> None:
        assert self.context.log is not None  # noqa: S101 - asked only where there is one
        await self.context.log.append(outcome, actor=self.call.name, run=self.context.run, durable=durable)


async def _permission(
    function: Function,
    verdict: str,
    arguments: Mapping[str, Any],
    context: Context,
    *,
    question: str,
    call: ToolCall | None,
) -> Mapping[str, Any]:
    """The arguments a person allows, once somebody said yes; an answer given before counts."""
    effects = ", ".join(sorted(function.effects)) or "approval"
    if verdict == "deny":
        raise FunctionDenied(f"The policy denies {function.name} ({effects}).", function=function.name)
    said = context.log.history.answer(question) if context.log is not None else None
    if said is None:
        await _ask(context, question, about="approval", text=f"{function.name} ({effects})", call=call)
        said = await _ask_person(function, arguments, context, question, effects)
    if said.answer != "allow":
        raise FunctionDenied(
            f"A person refused {function.name}.",
            hint="Try another way, or ask what they would allow.",
            function=function.name,
        )
    return arguments if said.arguments is None else said.arguments


async def _ask(context: Context, question: str, *, about: Any, text: str, call: ToolCall | None) -> None:
    """Record a question, unless it stands there already: a resumed run asks nothing twice."""
    if context.log is not None and context.log.history.question(question) is None:
        asked = QuestionAsked(question_id=question, about=about, text=text, call=call)
        await context.log.append(asked, actor=context.actor, run=context.run)


async def _ask_person(
    function: Function, arguments: Mapping[str, Any], context: Context, question: str, effects: str
) -> QuestionAnswered:
    request = ApprovalRequest(
        function=function.name,
        arguments=as_json(dict(arguments)),
        effects=tuple(sorted(function.effects)),
        actor=context.actor,
        question=question,
    )
    if context.kernel.approve is None:
        raise ApprovalRequired(
            f"{function.name} ({effects}) needs a person's approval and there is nobody to ask.",
            hint="Allow it in the policy ([policy] in kernloom.toml), or run where somebody can answer.",
            session=context.session,
            **request.model_dump(mode="json"),
        )
    said = await context.kernel.approve(request)
    approval = said if isinstance(said, Approval) else Approval(allow=bool(said))
    answered = QuestionAnswered(
        question_id=question,
        answer="allow" if approval.allow else "deny",
        arguments=approval.arguments,
        by=approval.by,
    )
    if context.log is not None:
        await context.log.append(answered, actor=approval.by, run=context.run)
    return answered


def _digest(arguments: Mapping[str, Any]) -> str:
    canonical = to_json(dict(sorted(arguments.items())), fallback=repr)
    return hashlib.sha256(canonical).hexdigest()[:16]
