"""Runs a checked plan: no model, as much side by side as the steps' needs allow, everything recorded.

A step starts when the steps it needs are over. When a step fails and its ``on_error`` is ``fail``, no
further call is started; calls under way are let finish, because an effect that is stopped half-way is in
doubt. Cancelling the run cancels them all the same.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..kernel import invocation
from ..kernel.conversations.runs import last_run
from ..kernel.errors import (
    FunctionFailed,
    FunctionInDoubt,
    FunctionTimeout,
    JournalError,
    KernloomError,
    LimitReached,
    PersonRequired,
    PlanError,
)
from ..kernel.functions import as_json
from ..kernel.journal.events import (
    FunctionRequested,
    PlanMade,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    StepFailed,
    StepFinished,
    StepSkipped,
    StepStarted,
)
from ..kernel.messages import ToolCall
from .check import dependencies, ensure
from .expressions import condition, evaluate
from .outcomes import PlanLimits, PlanOutcome, StepOutcome
from .progress import Progress, recall

if TYPE_CHECKING:
    from ..kernel.functions import Context
    from ..kernel.kernel import Kernel
    from .plan import Plan, Step

#: Seconds: the longest wait between two attempts.
_LONGEST_WAIT = 60.0


async def run_plan(
    plan: Plan,
    kernel: Kernel,
    inputs: Mapping[str, object],
    context: Context,
    *,
    limits: PlanLimits | None = None,
    name: str | None = None,
) -> PlanOutcome:
    """Check ``plan``, run it, record it under ``name``, by default the context's actor.

    Within a call (a plan offered as a function) it is recorded in a child session of the caller's, named
    after the call: made again after a crash, the call goes on where the plan had stopped. Else it is
    recorded in the session of ``context``, if it has one.

    Raises:
        PlanError: ``plan.invalid``, ``plan.step_failed``.
        ModelRetry: the inputs do not fit.
        PersonRequired: a function needs a person's answer; the run waits for it.
        LimitReached: a limit was met.
    """
    limits = limits or PlanLimits()
    if context.depth >= limits.depth:
        raise LimitReached(
            f"{context.depth} agents and plans stand above the plan {plan.goal[:80]!r}.",
            code="limit.depth",
            hint="Look for a plan that calls itself.",
        )
    ensure(plan, kernel)
    if name is None:
        name = "plan" if context.actor == "code" else context.actor
    signature = plan.signature
    given = {**signature.defaults(), **signature.validate(inputs)}
    own = await _own_context(kernel, context, name)
    async with _claimed(own):
        before = last_run(own.log.events) if own.log is not None and context.call_id is not None else None
        if before is not None:
            return await go_on(plan, own.with_(run=before), limits)
        run = _Run(plan, own, limits, as_json(given))
        started = RunStarted(name=name, what="plan", input=as_json(given))
        return await run.recorded(started, PlanMade(plan=plan.to_dict()))


async def go_on(plan: Plan, context: Context, limits: PlanLimits) -> PlanOutcome:
    """Run the rest of a plan whose run ``context`` names; its session is claimed already.

    Steps that are over keep their results, calls on record are not made again. A run that had ended gives
    its outcome, or its error, once more.
    """
    assert context.log is not None  # noqa: S101 - a run on record has a log
    past = Progress.of(context.run, context.log.events)
    if isinstance(past.ending, RunFinished):
        return PlanOutcome(output=past.ending.output, steps={s: _kept(o) for s, o in past.over.items()})
    if past.ending is not None:
        said = past.ending
        if not isinstance(said, RunFailed):
            raise PlanError("The run was cancelled.", code="run.cancelled")
        kind = LimitReached if said.code.startswith("limit.") else PlanError
        raise kind(said.error, code=said.code)
    given = past.started.input if past.started is not None else {}
    return await _Run(plan, context, limits, given, past).recorded(RunResumed())


async def _own_context(kernel: Kernel, context: Context, name: str) -> Context:
    log, run = context.log, context.run
    if log is not None and context.call_id is not None:
        log, run = await kernel.journal.child(log, context.call_id), None
    if log is not None and run is None:
        run = kernel.journal.new_id()
    return context.with_(log=log, run=run, actor=name, origin="plan", call_id=None, depth=context.depth + 1)


@asynccontextmanager
async def _claimed(context: Context) -> AsyncIterator[None]:
    """The session is this run's while it lasts."""
    if context.log is None:
        yield
    else:
        async with context.log.claim(context.run or ""):
            yield


def _kept(over: StepFinished | StepSkipped) -> StepOutcome:
    if isinstance(over, StepFinished):
        return StepOutcome("finished", over.result, over.error)
    return StepOutcome("skipped", error=over.reason if over.reason.startswith("on_error: ") else None)


class _NotMadeError(Exception):
    """The run failed before a call got its turn."""


class _NotBegunError(Exception):
    """The run failed before a step got its turn."""


@dataclass(slots=True)
class _Run:
    """The state of one run."""

    plan: Plan
    context: Context
    limits: PlanLimits
    inputs: dict[str, Any]
    past: Progress = field(default_factory=Progress)
    outcomes: dict[str, StepOutcome] = field(default_factory=dict)
    #: What ``steps`` is to expressions.
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: The first failure; nothing is started after it.
    failure: KernloomError | None = None
    #: The calls that a crash cut short, by id.
    under_way: dict[str, ToolCall] = field(init=False)
    slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        log = self.context.log
        self.under_way = {} if log is None else {call.id: call for call in log.history.open_calls()}
        self.slots = asyncio.Semaphore(self.limits.concurrency)

    async def note(self, *data: Any) -> None:
        """Record, where there is a log."""
        if self.context.log is not None:
            await self.context.log.append(*data, actor=self.context.actor, run=self.context.run)

    async def start(self, data: Any, refused: type[Exception]) -> None:
        """Record what begins something, unless the run has failed by then.

        Asked in the order of the record, so that a run of the same record decides the same.
        """
        log, written = self.context.log, True
        if log is not None:
            written = bool(
                await log.append(data, actor=self.context.actor, run=self.context.run, unless=self.failed)
            )
        if not written or (log is None and self.failed()):
            raise refused

    def failed(self) -> bool:
        """Whether nothing is to be started any more."""
        return self.failure is not None

    async def begin(self, started: StepStarted) -> None:
        """Record a step's start, once."""
        if started.step not in self.past.begun:
            await self.start(started, _NotBegunError)

    async def recorded(self, *beginning: Any) -> PlanOutcome:
        """The run between its first event and its last."""
        try:
            await self.note(*beginning)
            outcome = await self.in_time()
            await self.note(RunFinished(output=outcome.output))
        except asyncio.CancelledError:
            await self.close(RunCancelled())
            raise
        except PersonRequired:
            if self.context.log is not None:
                waiting = (question.question_id for question in self.context.log.history.questions())
                await self.note(RunPaused(questions=tuple(waiting)))
            raise
        except JournalError:
            raise  # the run has not ended: it is resumed when the journal is sound again
        except KernloomError as exc:
            await self.close(RunFailed(code=exc.code, error=str(exc)))
            raise
        except Exception as exc:  # recorded, so that no session is left half open, and raised on
            await self.close(RunFailed(code="run.failed", error=f"{type(exc).__name__}: {exc}"))
            raise
        return outcome

    async def close(self, ending: RunFailed | RunCancelled) -> None:
        """End early: calls that were asked for and never made get their outcome, then the ending."""
        log = self.context.log
        if log is None:
            return
        await log.be_sure()
        recorded = Progress.of(self.context.run, log.events)
        if recorded.started is not None and recorded.ending is None:
            await self.note(*log.history.repair(), ending)

    async def in_time(self) -> PlanOutcome:
        """All steps, then the output."""
        scope = self.context.kernel.timeout(self.limits.seconds)
        try:
            async with scope:
                await self.steps()
        except TimeoutError as exc:
            if not scope.expired():
                raise
            raise LimitReached(
                f"The plan {self.plan.goal[:80]!r} was not over within {self.limits.seconds:g} s.",
                code="limit.seconds",
                hint="Raise PlanLimits(seconds=…), or give it less to do.",
                steps=self.statuses(),
            ) from exc
        if self.failure is not None:
            raise self.failure
        return PlanOutcome(output=as_json(evaluate(self.plan.returned, self.names())), steps=self.outcomes)

    def names(self, **more: Any) -> dict[str, Any]:
        """What an expression can refer to."""
        return {"inputs": self.inputs, "steps": self.results, **more}

    def statuses(self) -> dict[str, str]:
        """What became of the steps so far."""
        return {step: outcome.status for step, outcome in self.outcomes.items()}

    async def steps(self) -> None:
        """Every step, each as soon as those it needs are over."""
        needs = dependencies(self.plan.steps)
        over = {step.id: asyncio.Event() for step in self.plan.steps}
        known = self.past.begun | self.past.over.keys()

        async def in_turn(step: Step) -> None:
            for needed in sorted(needs[step.id]):
                await over[needed].wait()
            try:
                if self.failure is None or (step.id in known and step.id not in self.past.failed):
                    await self.step(step)
            except JournalError as exc:  # no task is stopped half-way for it
                self.failure = exc
            over[step.id].set()

        self.fail_again()
        async with asyncio.TaskGroup() as group:
            for step in self.plan.steps:
                group.create_task(in_turn(step), name=f"step {step.id}")

    def waits(self) -> bool:
        """Whether nothing is begun because the run has to be resumed, not because it failed."""
        return isinstance(self.failure, (PersonRequired, JournalError))

    def fail_again(self) -> None:
        """A run that had failed before the crash begins nothing new; it only ends what had begun."""
        for step in self.plan.steps:
            failed = self.past.failed.get(step.id)
            if failed is not None:
                self.outcomes[step.id] = StepOutcome("failed", error=failed.error)
                kind = LimitReached if failed.code.startswith("limit.") else FunctionFailed
                self.failure = self.failure or self.blame(step, kind(failed.error, code=failed.code))

    async def step(self, step: Step) -> None:
        """One step to its end; a failure that is not made up for becomes the run's."""
        began = time.monotonic()
        over = self.past.over.get(step.id)
        try:
            if over is not None:
                outcome = _kept(over)
            elif step.when is not None and not condition(step.when).evaluate(self.names()):
                skipped = StepSkipped(step=step.id, reason=f"when: {step.when}")
                await self.start(skipped, _NotBegunError)
                outcome = StepOutcome("skipped")
            elif step.foreach is None:
                outcome = await self.once(step)
            else:
                outcome = await self.each(step)
        except _NotBegunError:
            return
        except _NotMadeError:
            if self.waits():
                return  # its turn comes when the run is resumed
            await self.note(StepSkipped(step=step.id, reason="The plan failed before this call was made."))
            outcome = StepOutcome("skipped")
        except PersonRequired as exc:
            self.failure = self.failure or exc
            return
        except JournalError:
            raise
        except KernloomError as exc:
            self.failure = self.failure or self.blame(step, exc)
            await self.note(StepFailed(step=step.id, code=exc.code, error=str(exc)))
            outcome = StepOutcome("failed", error=str(exc))
        outcome = StepOutcome(outcome.status, outcome.result, outcome.error, time.monotonic() - began)
        self.outcomes[step.id] = outcome
        self.results[step.id] = {"result": outcome.result, "status": outcome.status, "error": outcome.error}
        if self.failure is not None:
            self.failure.details["steps"] = self.statuses()

    def blame(self, step: Step, exc: KernloomError) -> KernloomError:
        """The error of the run: who has to act on these keeps being told directly."""
        if isinstance(exc, LimitReached):
            return exc
        error = PlanError(
            f"Step {step.id!r} ({step.call}) failed: {exc.message}",
            code="plan.step_failed",
            hint=exc.hint,
            step=step.id,
            cause=exc.code,
        )
        error.__cause__ = exc
        return error

    async def once(self, step: Step) -> StepOutcome:
        """A step that makes one call."""
        try:
            arguments = evaluate(step.args, self.names())
            await self.begin(StepStarted(step=step.id, call=step.call, arguments=as_json(arguments)))
            result = await self.attempt(step, arguments, step.id)
        except (PersonRequired, JournalError):
            raise
        except KernloomError as exc:
            return await self.stand_in(step, exc)
        await self.note(StepFinished(step=step.id, result=result))
        return StepOutcome("finished", result)

    async def stand_in(self, step: Step, exc: KernloomError) -> StepOutcome:
        """What ``on_error`` makes of a failure."""
        if step.on_error == "fail" or isinstance(exc, LimitReached):
            raise exc
        if step.on_error == "skip":
            await self.note(StepSkipped(step=step.id, reason=f"on_error: {exc}"))
            return StepOutcome("skipped", error=str(exc))
        result = as_json(evaluate(step.on_error.default, self.names()))
        await self.note(StepFinished(step=step.id, result=result, error=str(exc)))
        return StepOutcome("finished", result, error=str(exc))

    async def each(self, step: Step) -> StepOutcome:
        """A step that makes a call for every item, side by side, results in the items' order."""
        items = self.items(step)
        await self.begin(StepStarted(step=step.id, call=step.call, arguments={"foreach": as_json(items)}))
        results: list[Any] = [None] * len(items)
        failures: list[KernloomError] = []
        mended: list[str] = []
        left_out: list[int] = []

        async def one(index: int, item: Any) -> None:
            names = self.names(item=item, index=index)
            try:
                arguments = evaluate(step.args, names)
                results[index] = await self.attempt(step, arguments, f"{step.id}[{index}]")
            except _NotMadeError:
                left_out.append(index)
            except PersonRequired as exc:
                failures.append(exc)
                self.failure = self.failure or exc
            except JournalError as exc:
                failures.insert(0, exc)
                self.failure = exc
            except KernloomError as exc:
                if step.on_error == "fail" or isinstance(exc, LimitReached):
                    failures.append(exc)
                    self.failure = self.failure or self.blame(step, exc)
                    return
                mended.append(f"[{index}] {exc}")
                if step.on_error != "skip":
                    results[index] = as_json(evaluate(step.on_error.default, names))

        async with asyncio.TaskGroup() as group:
            for index, item in enumerate(items):
                group.create_task(one(index, item))
        if failures:
            raise failures[0]
        if left_out:
            raise _NotMadeError
        error = "; ".join(mended) or None
        await self.note(StepFinished(step=step.id, result=results, error=error))
        return StepOutcome("finished", results, error=error)

    def items(self, step: Step) -> list[Any]:
        """What a ``foreach`` goes through."""
        if isinstance(step.foreach, str):
            items = condition(step.foreach).evaluate(self.names())
        else:
            items = evaluate(step.foreach, self.names())
        if not isinstance(items, (list, tuple)):
            raise PlanError(
                f"foreach of step {step.id!r} is {items!r:.80}, not a list.",
                code="plan.foreach",
                hint="Make it an expression whose value is a list.",
            )
        if len(items) > self.limits.items:
            raise LimitReached(
                f"foreach of step {step.id!r} has {len(items):,} items; {self.limits.items:,} are allowed.",
                code="limit.items",
                hint="Raise PlanLimits(items=…), or cut the list.",
            )
        return list(items)

    async def attempt(self, step: Step, arguments: Mapping[str, Any], key: str) -> Any:
        """A call, and again while ``retry`` says so; its value as JSON."""
        attempts = step.retry.attempts if step.retry is not None else 1
        for attempt in range(1, attempts + 1):
            try:
                return await self.call(step, arguments, key, attempt)
            except (FunctionFailed, FunctionTimeout, FunctionInDoubt) as exc:
                again = (
                    not isinstance(exc, FunctionInDoubt)
                    or self.context.kernel.function(step.call).options.idempotent
                )
                stopped = self.failure is not None and self.call_id(key, attempt + 1) not in self.under_way
                if attempt < attempts and again and self.waits():
                    raise _NotMadeError from exc
                if attempt == attempts or not again or stopped:
                    raise
            assert step.retry is not None  # noqa: S101 - there is one attempt without it
            await self.context.kernel.sleep(min(step.retry.wait * 2 ** (attempt - 1), _LONGEST_WAIT))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def call_id(self, key: str, attempt: int = 1) -> str:
        """The id of an attempt at a call: the same in every process."""
        first = f"{self.context.run}.{key}" if self.context.run else key
        return first if attempt == 1 else f"{first}#{attempt}"

    async def call(self, step: Step, arguments: Mapping[str, Any], key: str, attempt: int) -> Any:
        """One call through the gate, opened and closed on record; one on record is not made again.

        The key of its effect is the same in every attempt.
        """
        name = self.call_id(key, attempt)
        if name in self.past.outcomes:
            return recall(self.past.outcomes[name])
        call = self.under_way.get(name)
        async with self.slots:
            if call is None:
                if self.failed():
                    raise _NotMadeError
                written = json.dumps(as_json(arguments), ensure_ascii=False)
                call = ToolCall(id=name, name=step.call, arguments=written)
                await self.start(FunctionRequested(call=call), _NotMadeError)
            served = await invocation.serve(
                call, self.context, resolve=self.context.kernel.function, key=self.call_id(key)
            )
        if served.error is not None:
            raise served.error
        return as_json(served.value)
