"""The one gate: validation, policy, the record of the intent, the function, and its one outcome.

A call that a log has open is served so that its effect happens once. Before a changing function begins, its
intent is on disk; after it, its outcome. When a crash left an intent without an outcome, the function's
declaration settles it: what only reads, or is ``idempotent``, is called again with the same key;
``reconcile(key)`` is asked whether the call was done; else a person is. When the journal itself fails, no
outcome is made up: the call stays open, and is settled when the run is resumed.
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
    FunctionError,
    FunctionInDoubt,
    JournalError,
    KernloomError,
    LimitReached,
    PersonRequired,
    ResolutionRequired,
)
from .functions import CHANGING, Context, Function, as_json, as_text
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
        JournalError: the journal failed; the call stays open as well.
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
    #: An attempt that a crash cut short may have had its effect, and nothing has said yet whether it had.
    unsure: bool = False

    async def serve(self) -> Served:
        intent = self._intent()
        self.unsure = intent is not None and _changes(intent)
        try:
            function = self.function = self.resolve(self.call.name)
            if intent is None:
                arguments = await self._permitted(function)
            else:
                settled = await self._settled(function, intent)
                if settled is not None:
                    return settled
                arguments = self._arguments()
            validated = function.signature.validate(arguments)
            await self._start(function, arguments, intent)
            value = await function.run(validated, self.context)
        except asyncio.CancelledError:
            begun = self._intent() is not None and self.function is not None and self.function.changes
            await self._error(
                "The call was cancelled.", "function.cancelled", in_doubt=begun or self.unsure
            )
            raise
        except (PersonRequired, JournalError):
            raise  # the call stays open: it is answered when the run is resumed
        except LimitReached as exc:
            await self._error(str(exc), exc.code, error=exc, in_doubt=self.unsure)
            raise
        except KernloomError as exc:
            return await self._failed(exc)
        return Served(await self._value(value, durable=function.changes), value=value)

    async def _failed(self, exc: KernloomError) -> Served:
        if isinstance(exc, FunctionInDoubt):
            return Served(await self._error(str(exc), exc.code, in_doubt=True), error=exc)
        if self.unsure:
            words = f"In doubt: the process stopped during this call, and making it again failed: {exc}"
            doubt = FunctionInDoubt(words, function=self.call.name)
            doubt.__cause__ = exc
            return Served(await self._error(words, doubt.code, in_doubt=True), error=doubt)
        return Served(await self._error(str(exc), exc.code, error=exc), error=exc)

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

    async def _settled(self, function: Function, intent: FunctionStarted) -> Served | None:
        """What became of a call that a crash left without an outcome; None: call it again."""
        if not function.changes or function.options.idempotent:
            return None
        # Each attempt that was cut short is a question of its own: what was said of the first is not true
        # of the second.
        question = f"{self.call.id}/doubt" + (f"-{intent.attempt}" if intent.attempt > 1 else "")
        said = self._answer(question)
        why = ""
        if said is None and function.options.reconcile is not None:
            try:
                done = await function.reconcile(intent.key)
            except FunctionError as exc:
                why = f" {exc}"  # it may know another time; a person may know now
            else:
                await self._withdraw(question)
                self.unsure = done is not None
                return await self._was_done(done.result) if done is not None else None
        if said is None:
            await self._ask_what_became(function, question, why)
        elif said.answer == "done":
            return await self._was_done(said.result)
        elif said.answer != "not_done":
            words = "In doubt: whether its effect happened was never found out."
            return Served(
                await self._error(words, "function.in_doubt", in_doubt=True),
                error=FunctionInDoubt(words, function=function.name),
            )
        self.unsure = False
        return None

    async def _was_done(self, result: Any) -> Served:
        return Served(await self._value(result, durable=True), value=result)

    async def _withdraw(self, question: str) -> None:
        """Nobody needs to answer any more what an earlier resume had to ask."""
        log = self.context.log
        if log is not None and log.history.question(question) is not None:
            answered = QuestionAnswered(question_id=question, answer="withdrawn", by="kernloom")
            await log.append(answered, actor="kernloom", run=self.context.run)

    async def _ask_what_became(self, function: Function, question: str, why: str) -> None:
        words = f"The process stopped while {function.name} was running. Was it done?{why}"
        await _ask(self.context, question, about="in_doubt", text=words, call=self.call)
        raise ResolutionRequired(
            f"The process stopped in the middle of {function.name} (call {self.call.id}); whether its "
            f"effect happened is not known.{why}",
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


def _changes(intent: FunctionStarted) -> bool:
    """Whether a call that was begun may have changed something; unknown effects might."""
    return intent.effects is None or not CHANGING.isdisjoint(intent.effects)


def _digest(arguments: Mapping[str, Any]) -> str:
    canonical = to_json(dict(sorted(arguments.items())), fallback=repr)
    return hashlib.sha256(canonical).hexdigest()[:16]
