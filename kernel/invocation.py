"""The one gate: validation, then policy, then the record, then the function, then its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from .errors import (
    ApprovalRequired,
    FunctionDenied,
    FunctionInDoubt,
    KernloomError,
    LimitReached,
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
from .policy import ApprovalRequest


async def invoke(function: Function, arguments: Mapping[str, Any], context: Context) -> Any:
    """Validate, ask the policy, run; give back the function's own value."""
    validated = function.signature.validate(arguments)
    verdict = context.kernel.policy.decide(function, origin=context.origin)
    if verdict != "allow":
        await _approve(function, verdict, arguments, context, call=None)
    return await function.run(validated, context)


async def serve(call: ToolCall, context: Context) -> ToolResult:
    """Answer a recorded call with exactly one outcome, also when it is cancelled."""
    context = context.with_(call_id=call.id)
    function: Function | None = None
    try:
        function = context.kernel.function(call.name)
        arguments = call.parsed()
        validated = function.signature.validate(arguments)
        verdict = context.kernel.policy.decide(function, origin=context.origin)
        if verdict != "allow":
            await _approve(function, verdict, arguments, context, call=call)
        if context.log is not None:
            started = FunctionStarted(call_id=call.id, name=call.name)
            await context.log.append(
                started, actor=context.actor, run=context.run, durable=function.changes
            )
        value = await function.run(validated, context)
    except asyncio.CancelledError:
        in_doubt = function is not None and function.changes
        await _record(call, context, "The call was cancelled.", code="function.cancelled", in_doubt=in_doubt)
        raise
    except (ApprovalRequired, LimitReached) as exc:
        await _record(call, context, str(exc), code=exc.code)
        raise
    except KernloomError as exc:
        return await _record(
            call, context, str(exc), code=exc.code, in_doubt=isinstance(exc, FunctionInDoubt)
        )
    result = ToolResult(call_id=call.id, name=call.name, content=as_text(value))
    if context.log is not None:
        kept = None if isinstance(value, str) else as_json(value)
        await context.log.append(
            FunctionFinished(result=result, value=kept),
            actor=call.name,
            run=context.run,
            durable=function.changes,
        )
    return result


async def _record(
    call: ToolCall, context: Context, words: str, *, code: str, in_doubt: bool = False
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
    function: Function, verdict: str, arguments: Mapping[str, Any], context: Context, *, call: ToolCall | None
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
    approve = context.kernel.approve
    question = context.call_id or function.name
    if context.log is not None:
        asked = QuestionAsked(
            question_id=question, about="approval", text=f"{function.name} ({effects})", call=call
        )
        await context.log.append(asked, actor=context.actor, run=context.run)
    if approve is None:
        raise ApprovalRequired(
            f"{function.name} ({effects}) needs a person's approval and there is nobody to ask.",
            hint="Allow it in the policy ([policy] in kernloom.toml), or run where somebody can answer.",
            **request.model_dump(mode="json"),
        )
    allowed = await approve(request)
    if context.log is not None:
        answered = QuestionAnswered(question_id=question, answer="allow" if allowed else "deny", by="person")
        await context.log.append(answered, actor="person", run=context.run)
    if not allowed:
        raise FunctionDenied(
            f"A person refused {function.name}.",
            hint="Try another way, or ask what they would allow.",
            function=function.name,
        )



