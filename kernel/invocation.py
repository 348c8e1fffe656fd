"""The one gate: validation, then policy, then the record, then the function, then its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .errors import ApprovalRequired, FunctionDenied, FunctionInDoubt, KernloomError, LimitReached
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
from .policy import ApprovalRequest


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
    if verdict != "allow":
        await _approve(function, verdict, arguments, context, call=None)
    return await function.run(validated, context)


async def serve(call: ToolCall, context: Context, *, resolve: Callable[[str], Function]) -> Served:
    """Answer a call that the log has open, with exactly one outcome, also when it is cancelled.

    Args:
        call: what was asked for.
        context: who asks, and the log that keeps the outcome.
        resolve: the function of a name, among those this caller may use.

    Raises:
        ApprovalRequired: the policy asks and there is nobody to ask; the outcome is recorded first.
        LimitReached: a limit stopped the function; the outcome is recorded first.
    """
    context = context.with_(call_id=call.id)
    function: Function | None = None
    try:
        function = resolve(call.name)
        arguments = call.parsed()
        validated = function.signature.validate(arguments)
        verdict = context.kernel.policy.decide(function, origin=context.origin)
        if verdict != "allow":
            await _approve(function, verdict, arguments, context, call=call)
        if context.log is not None:
            await context.log.append(
                FunctionStarted(call_id=call.id, name=call.name, effects=tuple(sorted(function.effects))),
                actor=context.actor,
                run=context.run,
                durable=function.changes,
            )
        value = await function.run(validated, context)
    except asyncio.CancelledError:
        in_doubt = function is not None and function.changes
        await _record_error(
            call, context, "The call was cancelled.", "function.cancelled", in_doubt=in_doubt
        )
        raise
    except (ApprovalRequired, LimitReached) as exc:
        await _record_error(call, context, str(exc), exc.code)
        raise
    except KernloomError as exc:
        in_doubt = isinstance(exc, FunctionInDoubt)
        return Served(await _record_error(call, context, str(exc), exc.code, in_doubt=in_doubt), error=exc)
    return Served(await _record_value(call, context, value, durable=function.changes), value=value)


async def _record_value(call: ToolCall, context: Context, value: Any, *, durable: bool) -> ToolResult:
    result = ToolResult(call_id=call.id, name=call.name, content=as_text(value))
    if context.log is not None:
        finished = FunctionFinished(result=result, value=None if isinstance(value, str) else as_json(value))
        await context.log.append(finished, actor=call.name, run=context.run, durable=durable)
    return result


async def _record_error(
    call: ToolCall, context: Context, words: str, code: str, *, in_doubt: bool = False
) -> ToolResult:
    result = ToolResult(call_id=call.id, name=call.name, content=words, error=True)
    if context.log is not None:
        outcome = (
            FunctionInDoubtEvent(result=result)
            if in_doubt
            else FunctionFailedEvent(result=result, code=code)
        )
        await context.log.append(outcome, actor=call.name, run=context.run)
    return result


async def _approve(
    function: Function,
    verdict: str,
    arguments: Mapping[str, Any],
    context: Context,
    *,
    call: ToolCall | None,
) -> None:
    """Return when a person allows it; raise otherwise."""
    effects = ", ".join(sorted(function.effects)) or "approval"
    if verdict == "deny":
        raise FunctionDenied(f"The policy denies {function.name} ({effects}).", function=function.name)
    request = ApprovalRequest(
        function=function.name,
        arguments=as_json(dict(arguments)),
        effects=tuple(sorted(function.effects)),
        actor=context.actor,
    )
    question = context.call_id or function.name
    if context.log is not None:
        asked = QuestionAsked(
            question_id=question, about="approval", text=f"{function.name} ({effects})", call=call
        )
        await context.log.append(asked, actor=context.actor, run=context.run)
    if context.kernel.approve is None:
        raise ApprovalRequired(
            f"{function.name} ({effects}) needs a person's approval and there is nobody to ask.",
            hint="Allow it in the policy ([policy] in kernloom.toml), or run where somebody can answer.",
            **request.model_dump(mode="json"),
        )
    allowed = await context.kernel.approve(request)
    if context.log is not None:
        answered = QuestionAnswered(
            question_id=question, answer="allow" if allowed else "deny", by="person"
        )
        await context.log.append(answered, actor="person", run=context.run)
    if not allowed:
        raise FunctionDenied(
            f"A person refused {function.name}.",
            hint="Try another way, or ask what they would allow.",
            function=function.name,
        )
