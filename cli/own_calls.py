"""A call that a person makes and that is on record: ``kernloom call``, and going on with it later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from ..kernel import invocation
from ..kernel.conversations.runs import RunView
from ..kernel.errors import KernloomError, PersonRequired, UsageError
from ..kernel.functions import Function, as_json
from ..kernel.journal import Event, SessionLog
from ..kernel.journal.events import (
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    FunctionRequested,
    Outcome,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
)
from ..kernel.kernel import Kernel
from ..kernel.messages import ToolCall
from ..kernel.outcomes import remembered
from ..planners.progress import recall

_OUTCOMES = (FunctionFinished, FunctionFailedEvent, FunctionInDoubtEvent)


async def call_on_record(
    kernel: Kernel, log: SessionLog, function: Function, arguments: Mapping[str, Any]
) -> Any:
    """Call ``function`` as the one run of a new session, and give back what it returns.

    Raises:
        PersonRequired: somebody must approve it; then :func:`go_on`.
        KernloomError: it failed, was denied, or is in doubt; that is on record.
    """
    text = json.dumps(as_json(dict(arguments)), ensure_ascii=False)
    call = ToolCall(id=f"call-{log.id}", name=function.name, arguments=text)
    started = RunStarted(name=function.name, what="function", input=as_json(dict(arguments)))
    run = log.id
    async with log.claim(run):
        await log.append(started, FunctionRequested(call=call), actor="person", run=run)
        return await _serve(kernel, log, run, call, function)


async def go_on(kernel: Kernel, log: SessionLog, run: str) -> Any:
    """Go on with such a call after a crash or a person's answer; what is on record is not done again.

    Raises:
        UsageError: ``run.nothing_to_resume``, it had ended without a result.
        PersonRequired: a question waits for its answer.
    """
    async with log.claim(run):
        ending = RunView.of(run, log.events).ending
        if isinstance(ending, RunFinished):
            return ending.output
        if ending is not None:
            raise UsageError(
                f"The call in session {log.id!r} has ended ({ending.kind}).",
                code="run.nothing_to_resume",
                hint="Make it anew with kernloom call.",
            )
        for call in log.history.open_calls():
            function = kernel.function(call.name)  # before a word is written: it may be missing here
            await log.append(RunResumed(), actor="person", run=run)
            return await _serve(kernel, log, run, call, function)
        return await _concluded(log, run, _outcome(log.events))


async def _serve(kernel: Kernel, log: SessionLog, run: str, call: ToolCall, function: Function) -> Any:
    context = kernel.context(actor="person", origin="person", log=log, run=run)
    try:
        served = await invocation.serve(call, context, resolve=lambda _: function)
    except PersonRequired:
        waiting = tuple(question.question_id for question in log.history.questions())
        await log.append(RunPaused(questions=waiting), actor="person", run=run)
        raise
    except asyncio.CancelledError:
        await log.append(RunCancelled(), actor="person", run=run)
        raise
    except KernloomError as exc:
        await log.append(RunFailed(code=exc.code, error=str(exc)), actor="person", run=run)
        raise
    if served.error is not None:
        error = served.error
        await log.append(RunFailed(code=error.code, error=str(error)), actor="person", run=run)
        raise error
    await log.append(RunFinished(output=as_json(served.value)), actor="person", run=run)
    return served.value


async def _concluded(log: SessionLog, run: str, outcome: Outcome) -> Any:
    """The run's ending, for a process that died between the outcome and it."""
    if isinstance(outcome, FunctionFinished):
        await log.append(RunFinished(output=recall(outcome)), actor="person", run=run)
        return recall(outcome)
    error = remembered(outcome)
    await log.append(RunFailed(code=error.code, error=str(error)), actor="person", run=run)
    raise error


def _outcome(events: list[Event]) -> Outcome:
    return next(event.data for event in reversed(events) if isinstance(event.data, _OUTCOMES))
