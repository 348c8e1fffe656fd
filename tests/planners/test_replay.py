"""A plan's runs, run again from the journal alone, are the same events."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from kernloom import (
    ApprovalRequired,
    AssistantAgent,
    Context,
    Conversation,
    Kernel,
    KernloomError,
    LimitReached,
    Plan,
    PlanError,
    ScriptedModel,
    UsageError,
    function,
)
from kernloom.kernel.errors import FunctionInDoubt, ModelRetry, PersonRequired
from kernloom.kernel.journal import SessionLog
from kernloom.kernel.journal.edits import edit_result
from kernloom.kernel.journal.events import StepFinished
from kernloom.kernel.models.scripted import call
from kernloom.kernel.policy import Policy
from kernloom.kernel.replay import ReplayReport
from kernloom.planners.outcomes import PlanLimits

ALLOW = Policy(effects={"write": "allow"})


class Crash(BaseException):
    """Stands for the death of the process."""


class Lab:
    """Functions of every temper. Once ``closed``, whoever calls one fails the test."""

    def __init__(self, seed: int = 0) -> None:
        self.closed = False
        self.crash = False
        self.random = random.Random(seed)
        self.begun = asyncio.Event()
        self.failures = 0

    async def enter(self) -> None:
        assert not self.closed, "a replay must call nothing"
        for _ in range(self.random.randrange(12)):
            await asyncio.sleep(0)

    @function
    async def double(self, n: int) -> int:
        """Twice n, sooner or later."""
        await self.enter()
        return 2 * n

    @function
    async def odd(self, n: int) -> int:
        """Fails for odd numbers."""
        await self.enter()
        if n % 2:
            raise ValueError(f"{n} is odd")
        return n

    @function
    async def flaky(self, times: int) -> str:
        """Fails so often first."""
        await self.enter()
        self.failures += 1
        if self.failures <= times:
            raise ConnectionError("no answer")
        return "at last"

    @function
    async def any(self, n: int) -> int:
        """Works or fails, as it comes."""
        await self.enter()
        chance = self.random.random()
        if chance < 0.1:
            raise FunctionInDoubt("The line went dead.")
        if chance < 0.25:
            raise ModelRetry("Not so.")
        if chance < 0.4:
            raise OSError("cut")
        return n

    @function(effects={"write"})
    async def write(self, n: int, context: Context) -> str:
        """Change the world."""
        await self.enter()
        if self.crash:
            self.crash = False
            raise Crash
        return f"{n} under {context.idempotency_key}"

    @function(effects={"write"}, idempotent=True)
    async def again(self, n: int) -> int:
        """Change the world, once however often it is called."""
        await self.enter()
        if self.crash:
            self.crash = False
            raise Crash
        return n

    @function
    async def forever(self) -> None:
        """Waits."""
        await self.enter()
        self.begun.set()
        await asyncio.Event().wait()


@pytest.fixture
def lab() -> Lab:
    return Lab()


def kernel_with(lab: Lab, **more: Any) -> Kernel:
    kernel = Kernel(**{"policy": ALLOW, **more})
    kernel.add_plugin(lab, name="lab")
    return kernel


def step(name: str, call: str, /, **fields: Any) -> dict[str, Any]:
    args = {key: fields.pop(key) for key in ("n", "times") if key in fields}
    return {"id": name, "call": f"lab.{call}", "args": args, **fields}


def plan_of(*steps: dict[str, Any], **more: Any) -> Plan:
    return Plan.from_dict({"goal": "g", "steps": list(steps), **more})


ALL = plan_of(
    step("each", "double", foreach="inputs.numbers", n="{{ item }}"),
    step("some", "odd", foreach="inputs.numbers", n="{{ item }}", on_error="skip"),
    step("rest", "odd", foreach="inputs.numbers", n="{{ item }}", on_error={"default": "{{ index }}"}),
    step("flaky", "flaky", times=2, retry={"attempts": 3, "wait": 0.01}),
    step("never", "double", n=1, when="steps.each.result[0] > 99"),
    step("stands", "odd", n=1, on_error={"default": 7}),
    step("aside", "odd", n=3, on_error="skip", needs=["never"]),
    step("write", "write", n="{{ steps.each.result[1] }}"),
    inputs={"numbers": {"type": "array"}, "unused": {"type": "string", "default": "x"}},
    output="{{ steps.write.result }} {{ steps.flaky.result }} {{ steps.some.result }}",
)


async def run(kernel: Kernel, plan: Plan, limits: PlanLimits | None = None, **inputs: Any) -> SessionLog:
    log = await kernel.journal.create()
    await plan.run_detailed(kernel, inputs, context=kernel.context(log=log, actor="nightly"), limits=limits)
    return log


async def only(kernel: Kernel) -> SessionLog:
    (info,) = await kernel.journal.sessions()
    return await kernel.journal.open(info.id)


async def assert_equal(kernel: Kernel, lab: Lab, session: str, *, given: int = 0, **more: Any) -> None:
    store, lab.closed = kernel.journal.store, True
    before = await store.read(session)
    report: ReplayReport = await Plan.replay(kernel, session, **more)
    assert report.equal, report.render()
    assert (report.events, report.given) == (len(before), given)
    assert await store.read(session) == before
    lab.closed = False


async def test_items_attempts_defaults_and_skips_come_out_the_same(lab: Lab) -> None:
    kernel = kernel_with(lab)
    log = await run(kernel, ALL, numbers=[1, 2, 3, 4])
    kinds = {event.kind for event in log.events}
    assert {"step.skipped", "function.failed", "step.finished"} <= kinds
    await assert_equal(kernel, lab, log.id)


async def test_a_replay_does_not_wait_between_attempts(lab: Lab) -> None:
    class Patient(Kernel):
        waited = 0.0

        async def sleep(self, seconds: float) -> None:
            self.waited += seconds

    kernel = Patient(policy=ALLOW)
    kernel.add_plugin(lab, name="lab")
    log = await run(kernel, plan_of(step("a", "flaky", times=2, retry={"attempts": 3, "wait": 60})))
    assert kernel.waited == 120
    await assert_equal(kernel, lab, log.id)
    assert kernel.waited == 120


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("seed", range(20))
async def test_whatever_the_order_in_which_calls_were_over(seed: int, stopped: bool) -> None:
    """Steps side by side that work, fail, end the run, are made again or are stopped, at random."""
    lab = Lab(seed)
    kernel = kernel_with(lab)
    pick = random.Random(seed)
    steps = []
    for number in range(10):
        needs = [f"s{other}" for other in range(number) if pick.random() < 0.15]
        fields: dict[str, Any] = {"n": number, "needs": needs}
        if pick.random() < 0.4:
            fields["foreach"] = list(range(pick.randrange(6)))
        if pick.random() < 0.4:
            fields["retry"] = {"attempts": 3, "wait": 0.0}
        if pick.random() < 0.6:
            fields["on_error"] = pick.choice(["skip", {"default": 0}])
        steps.append(step(f"s{number}", pick.choice(["any", "double", "write"]), **fields))
    plan = plan_of(*steps, output="x")
    task = asyncio.create_task(run(kernel, plan, PlanLimits(concurrency=pick.choice([1, 2, 8]))))
    for _ in range(pick.randrange(3, 150) if stopped else 0):
        await asyncio.sleep(0)
    if stopped:
        task.cancel()
    with suppress(PlanError, asyncio.CancelledError):
        await task
    session = (await only(kernel)).id
    await assert_equal(kernel, lab, session)


async def test_a_failure_ends_the_run_at_the_same_event(lab: Lab) -> None:
    kernel = kernel_with(lab)
    plan = plan_of(step("bad", "odd", n=1), *(step(f"s{n}", "double", n=n) for n in range(6)))
    with pytest.raises(PlanError):
        await run(kernel, plan, PlanLimits(concurrency=2))
    await assert_equal(kernel, lab, (await only(kernel)).id)


async def test_a_cancelled_plan_is_cancelled_again(lab: Lab) -> None:
    kernel = kernel_with(lab)
    plan = plan_of(step("a", "double", n=1), step("b", "forever"), step("c", "forever", needs=["a"]))
    task = asyncio.create_task(run(kernel, plan))
    await lab.begun.wait()
    await asyncio.sleep(0.02)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await assert_equal(kernel, lab, (await only(kernel)).id)


async def test_a_plan_that_ran_out_of_time_does_so_again_at_once(lab: Lab) -> None:
    kernel = kernel_with(lab)
    plan = plan_of(step("a", "double", n=1), step("b", "forever"))
    limits = PlanLimits(seconds=0.05)
    with pytest.raises(LimitReached):
        await run(kernel, plan, limits)
    session = (await only(kernel)).id
    await assert_equal(kernel, lab, session, limits=limits)
    report = await Plan.replay(kernel, session)
    assert not report.equal, "without the limit it would have gone on"


async def test_what_a_person_allowed_is_not_asked_again(lab: Lab) -> None:
    kernel = kernel_with(lab, policy=Policy())
    plan = plan_of(
        step("a", "write", n=1), step("b", "write", n=2), step("c", "double", n=1, needs=["a"]),
        output="{{ steps.a.result }}",
    )  # fmt: skip
    with pytest.raises(ApprovalRequired):
        await run(kernel, plan)
    log = await only(kernel)
    conversation = await Conversation.open(kernel, log.id)
    for answer in ("allow", "allow"):
        waiting = conversation.questions[0]
        await conversation.answer(waiting.question_id, answer, arguments={"n": 9}, by="ann")
        with suppress(PersonRequired):
            await Plan.resume(kernel, log.id)
    assert log.events[-1].kind == "run.finished"
    await assert_equal(kernel, lab, log.id, given=2)


@pytest.mark.parametrize("name", ["write", "again"])
async def test_a_crash_and_its_resumption_come_out_the_same(lab: Lab, name: str) -> None:
    kernel = kernel_with(lab)
    lab.crash = True
    plan = plan_of(
        step("each", "double", foreach=[1, 2, 3], n="{{ item }}"),
        step("a", name, n="{{ steps.each.result[0] }}"),
        step("b", "double", n="{{ steps.each.result[1] }}", needs=["a"]),
        step("c", "double", n=1, needs=["a"]),
    )
    with pytest.raises(BaseExceptionGroup):
        await run(kernel, plan)
    log = await only(kernel)
    given = 0
    if name == "write":
        with pytest.raises(PersonRequired):
            await Plan.resume(kernel, log.id)
        conversation = await Conversation.open(kernel, log.id)
        await conversation.answer(conversation.questions[0].question_id, "not_done", by="ann")
        given = 1
    await Plan.resume(kernel, log.id)
    await assert_equal(kernel, lab, log.id, given=given)


async def test_a_plan_within_a_plan_is_not_entered_and_is_replayed_by_itself(lab: Lab) -> None:
    kernel = kernel_with(lab)
    kernel.add_function(ALL.as_function("inner"))
    log = await run(
        kernel,
        Plan.from_dict({"goal": "g", "steps": [{"id": "a", "call": "inner", "args": {"numbers": [1, 2]}}]}),
    )
    await assert_equal(kernel, lab, log.id)
    (child,) = await kernel.journal.sessions(parent=log.id)
    await assert_equal(kernel, lab, child.id)


async def test_a_plan_that_an_agent_called_is_replayed_by_itself(lab: Lab) -> None:
    kernel = kernel_with(lab)
    model = ScriptedModel([call("all", numbers=[1, 2]), "Done."])
    agent = AssistantAgent("boss", kernel=kernel, model=model, functions=[ALL.as_function("all")])
    reply = await agent.run("Go.")
    (child,) = await kernel.journal.sessions(parent=reply.session)
    await assert_equal(kernel, lab, child.id)
    lab.closed = True
    report = await agent.replay(reply.session)
    assert report.equal, report.render()


async def test_a_fork_of_a_plan_is_replayed_with_its_edit(lab: Lab) -> None:
    kernel = kernel_with(lab)
    log = await run(kernel, ALL, numbers=[1, 2])
    at = next(e.seq for e in log.events if isinstance(e.data, StepFinished) and e.data.step == "each")
    fork = await kernel.journal.fork(log.id, at=at, edit=edit_result([5, 6]))
    outcome = await Plan.resume(kernel, fork.id)
    assert outcome.output.startswith("6 under")
    await assert_equal(kernel, lab, fork.id, given=2)


async def test_every_beginning_of_a_plan_is_replayed(lab: Lab) -> None:
    kernel = kernel_with(lab)
    log = await run(kernel, ALL, numbers=[1, 2])
    for at in range(1, log.seq + 1):
        fork = await kernel.journal.fork(log.id, at=at)
        if at > 1:
            await assert_equal(kernel, lab, fork.id, given=1)
            await Plan.resume(kernel, fork.id)
            await assert_equal(kernel, lab, fork.id, given=1)


async def test_another_plan_says_where_it_takes_another_way(lab: Lab) -> None:
    kernel = kernel_with(lab)
    log = await run(kernel, plan_of(step("a", "double", n=1), step("b", "double", n=2)))
    lab.closed = True
    other = plan_of(step("a", "double", n=1), step("b", "double", n=3))
    report = await Plan.replay(kernel, log.id, plan=other)
    assert report.divergence is not None
    assert report.divergence.words == (
        "Event 2: plan.steps[1].args.n of plan.made by nightly is 2 in the record and 3 in the replay."
    )


async def test_a_function_that_is_gone_is_told(lab: Lab) -> None:
    kernel = kernel_with(lab)
    log = await run(kernel, plan_of(step("a", "double", n=1)))
    report = await Plan.replay(Kernel(allow=[], journal=kernel.journal), log.id)
    assert report.divergence is not None
    assert "The replay ended with PlanError" in report.divergence.words
    assert report.replayed == 0


async def test_where_no_plan_ran_there_is_nothing_to_replay(lab: Lab) -> None:
    kernel = kernel_with(lab)
    agent = AssistantAgent("clerk", kernel=kernel, model=ScriptedModel(["Hi."]))
    reply = await agent.run("Hi.")
    with pytest.raises(UsageError) as caught:
        await Plan.replay(kernel, reply.session)
    assert caught.value.code == "replay.nothing"
    assert isinstance(caught.value, KernloomError)
