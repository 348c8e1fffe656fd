"""The engine: side by side where it may be, in order where it must, and on record."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kernloom import Kernel, PlanError, function
from kernloom.kernel.errors import ApprovalRequired, FunctionInDoubt, LimitReached, ModelRetry
from kernloom.planners.outcomes import PlanLimits, PlanOutcome
from kernloom.planners.plan import Plan


class Lab:
    """Functions that show when they run."""

    name = "lab"

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.made: list[Any] = []
        self.failures = 0
        self.entered: asyncio.Queue[str] = asyncio.Queue()

    @function
    async def work(self, x: Any = None) -> Any:
        """Give back x after others had their turn."""
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(5):
            await asyncio.sleep(0)
        self.running -= 1
        self.made.append(x)
        return x

    @function
    def double(self, n: int) -> int:
        """Twice n."""
        self.made.append(n)
        return 2 * n

    @function
    def flaky(self, times: int) -> str:
        """Fail so many times first."""
        self.failures += 1
        if self.failures <= times:
            raise ConnectionError("no answer")
        return f"at last, {self.failures}"

    @function
    def broken(self, n: int = 0) -> int:
        """Fail for odd numbers."""
        self.made.append(("broken", n))
        if n % 2:
            raise ValueError(f"{n} is odd")
        return n

    @function(effects={"write"})
    def write(self, x: Any = None) -> Any:
        """Change the world."""
        self.made.append(("write", x))
        return x

    @function(effects={"write"})
    def doubtful(self) -> None:
        """Nobody knows."""
        self.made.append("doubtful")
        raise FunctionInDoubt("The line went dead.")

    @function
    async def forever(self) -> None:
        """Wait."""
        await self.entered.put("forever")
        await asyncio.Event().wait()

    @function
    def picky(self, n: int) -> int:
        """Ask for another number."""
        self.made.append(n)
        raise ModelRetry("Another, please.")


def step(name: str, call: str, **fields: Any) -> dict[str, Any]:
    args = {key: fields.pop(key) for key in list(fields) if key in ("x", "n", "times")}
    return {"id": name, "call": f"lab.{call}", "args": args, **fields}


async def run(
    *steps: dict[str, Any],
    lab: Lab | None = None,
    limits: PlanLimits | None = None,
    kernel: Kernel | None = None,
    **plan: Any,
) -> PlanOutcome:
    kernel = kernel or Kernel()
    kernel.add_plugin(lab or Lab())
    inputs = plan.pop("given", None)
    made = Plan.from_dict({"goal": "g", "steps": list(steps), **plan})
    return await made.run_detailed(kernel, inputs, limits=limits)


async def test_steps_that_do_not_need_each_other_run_side_by_side() -> None:
    lab = Lab()
    done = await run(
        step("a", "work", x=1),
        step("b", "work", x=2),
        step("c", "work", x="{{ steps.a.result + steps.b.result }}"),
        lab=lab,
    )
    assert lab.most == 2
    assert done.output == 3
    assert lab.made[-1] == 3


async def test_needs_hold_a_step_back_without_a_value_passing() -> None:
    lab = Lab()
    await run(step("later", "work", x="later", needs=["first"]), step("first", "work", x="first"), lab=lab)
    assert lab.made == ["first", "later"]


async def test_no_more_calls_at_once_than_allowed() -> None:
    lab = Lab()
    await run(
        step("a", "work", foreach=list(range(10)), x="{{ item }}"),
        lab=lab,
        limits=PlanLimits(concurrency=3),
    )
    assert lab.most == 3


async def test_foreach_keeps_the_order_of_its_items() -> None:
    done = await run(
        step("a", "double", foreach="inputs.ns", n="{{ item + index }}"),
        inputs={"ns": {}},
        given={"ns": [5, 3, 4]},
    )
    assert done.output == [10, 8, 12]
    assert (await run(step("a", "double", foreach=[], n="{{ item }}"))).output == []


async def test_foreach_over_what_is_no_list_fails_in_words() -> None:
    with pytest.raises(PlanError) as caught:
        await run(step("a", "double", foreach="'text'", n=1))
    assert caught.value.details["cause"] == "plan.foreach"
    with pytest.raises(LimitReached) as limited:
        await run(step("a", "double", foreach="range(11)", n=1), limits=PlanLimits(items=10))
    assert limited.value.code == "limit.items"


async def test_a_step_whose_condition_is_false_is_skipped_and_its_dependents_see_none() -> None:
    lab = Lab()
    done = await run(
        step("a", "work", x=1, when="inputs.go"),
        step("b", "work", x="{{ [steps.a.result, steps.a.status] }}"),
        step("c", "work", x=3, when="steps.a.status == 'finished'"),
        lab=lab,
        inputs={"go": {"type": "boolean"}},
        given={"go": False},
        output="{{ steps.b.result }}",
    )
    assert done.output == [None, "skipped"]
    assert {name: o.status for name, o in done.steps.items()} == {
        "a": "skipped",
        "b": "finished",
        "c": "skipped",
    }
    assert lab.made == [[None, "skipped"]]


async def test_a_call_that_fails_is_made_again_as_often_as_told() -> None:
    lab = Lab()
    done = await run(step("a", "flaky", times=2, retry={"attempts": 3, "wait": 0}), lab=lab)
    assert done.output == "at last, 3"
    with pytest.raises(PlanError, match="no answer"):
        await run(step("a", "flaky", times=9, retry={"attempts": 2, "wait": 0}))


@pytest.mark.parametrize("call", ["doubtful", "picky"])
async def test_a_call_in_doubt_or_sent_back_is_not_made_again(call: str) -> None:
    lab = Lab()
    kernel = Kernel(policy=_allowing())
    arguments = {"n": 1} if call == "picky" else {}
    with pytest.raises(PlanError):
        await run(step("a", call, retry={"attempts": 5, "wait": 0}, **arguments), lab=lab, kernel=kernel)
    assert len(lab.made) == 1


async def test_a_failure_names_the_step_its_call_and_the_cause() -> None:
    with pytest.raises(PlanError) as caught:
        await run(
            step("a", "work", x=1), step("b", "broken", n=3, needs=["a"]), step("c", "work", needs=["b"])
        )
    assert caught.value.code == "plan.step_failed"
    assert str(caught.value).startswith(
        "Step 'b' (lab.broken) failed: lab.broken failed: ValueError: 3 is odd"
    )
    assert caught.value.details["steps"] == {"a": "finished", "b": "failed"}


async def test_after_a_failure_what_runs_is_let_finish_and_nothing_starts() -> None:
    lab = Lab()
    with pytest.raises(PlanError):
        await run(
            step("slow", "work", x="slow"),
            step("bad", "broken", n=1),
            step("after", "work", needs=["slow"]),
            lab=lab,
        )
    assert "slow" in lab.made
    assert len(lab.made) == 2


async def test_on_error_stands_in_with_none_or_a_default() -> None:
    done = await run(
        step("a", "broken", n=1, on_error="skip"),
        step("b", "broken", n=1, on_error={"default": "{{ inputs.spare }}"}),
        step("c", "work", x="{{ [steps.a, steps.b] }}"),
        inputs={"spare": {"default": {"x": 1}}},
    )
    a, b = done.output
    assert (a["result"], a["status"], b["result"], b["status"]) == (None, "skipped", {"x": 1}, "finished")
    assert "1 is odd" in a["error"]
    assert "1 is odd" in b["error"]


async def test_with_foreach_it_is_the_item_that_stands_aside() -> None:
    done = await run(
        step("a", "broken", foreach=[0, 1, 2], n="{{ item }}", on_error={"default": "{{ -item }}"})
    )
    assert done.output == [0, -1, 2]
    done = await run(step("a", "broken", foreach=[0, 1, 2], n="{{ item }}", on_error="skip"))
    assert done.output == [0, None, 2]
    lab = Lab()
    limits = PlanLimits(concurrency=1)
    with pytest.raises(PlanError):
        await run(step("a", "broken", foreach=[1, 2, 4, 6], n="{{ item }}"), lab=lab, limits=limits)
    assert len(lab.made) == 1


async def test_an_expression_that_fails_at_run_time_fails_its_step() -> None:
    with pytest.raises(PlanError, match="'nme' is undefined"):
        await run(step("a", "work", x={"name": 1}), step("b", "work", x="{{ steps.a.result.nme }}"))
    done = await run(step("b", "work", x="{{ 1 / 0 }}", on_error={"default": 0}))
    assert done.output == 0


async def test_text_in_a_result_is_never_run_as_an_expression() -> None:
    hostile = "{{ inputs.secret }}"
    done = await run(
        step("a", "work", x="{{ inputs.found }}"),
        step("b", "work", x="found: {{ steps.a.result }}"),
        step("c", "work", x=["{{ steps.b.result }}"]),
        inputs={"secret": {}, "found": {}},
        given={"secret": "s3cret", "found": hostile},
    )
    assert done.output == [f"found: {hostile}"]


async def test_values_pass_between_steps_as_data() -> None:
    done = await run(
        step("a", "work", x=[1, "2", None, {"k": True}]), step("b", "work", x="{{ steps.a.result }}")
    )
    assert done.output == [1, "2", None, {"k": True}]


async def test_inputs_are_checked_and_defaults_filled_in() -> None:
    plan = Plan.from_dict(
        {
            "goal": "g",
            "inputs": {
                "n": {"type": "integer"},
                "m": {"type": "integer", "default": 2},
                "o": {"required": False},
            },
            "output": "{{ [inputs.n, inputs.m, inputs.o] }}",
        }
    )
    kernel = Kernel()
    assert await kernel.invoke(plan, n="1") == [1, 2, None]
    with pytest.raises(ModelRetry, match="n is required"):
        await kernel.invoke(plan)
    with pytest.raises(ModelRetry, match="z is not a parameter"):
        await kernel.invoke(plan, n=1, z=2)


def _allowing() -> Any:
    from kernloom import Policy

    return Policy(effects={"write": "allow"})


async def test_a_changing_step_passes_the_policy_as_a_plan() -> None:
    lab = Lab()
    with pytest.raises(ApprovalRequired):
        await run(step("a", "write", x=1, on_error="skip"), lab=lab)
    assert lab.made == []

    asked = []

    async def approve(request: Any) -> bool:
        asked.append((request.function, request.arguments, request.actor))
        return True

    await run(step("a", "write", x=1), lab=lab, kernel=Kernel(approve=approve))
    assert asked == [("lab.write", {"x": 1}, "plan")]
    assert lab.made == [("write", 1)]


async def test_a_plan_that_takes_too_long_is_stopped() -> None:
    lab = Lab()
    with pytest.raises(LimitReached) as caught:
        await run(step("a", "work", x=1), step("b", "forever"), lab=lab, limits=PlanLimits(seconds=0.05))
    assert caught.value.code == "limit.seconds"
    assert caught.value.details["steps"] == {"a": "finished"}


async def test_a_plan_that_calls_itself_is_stopped() -> None:
    kernel = Kernel()
    plan = Plan.from_dict({"goal": "again", "steps": [{"id": "a", "call": "again"}]})
    kernel.add_function(plan.as_function("again"))
    with pytest.raises(LimitReached) as caught:
        await kernel.invoke(plan)
    assert caught.value.code == "limit.depth"


def kinds(log: Any) -> list[str]:
    return [event.kind for event in log.events]


async def recorded(kernel: Kernel, *steps: dict[str, Any], **plan: Any) -> tuple[Any, Any]:
    log = await kernel.journal.create()
    made = Plan.from_dict({"goal": "g", "steps": list(steps), **plan})
    return log, made.run_detailed(kernel, context=kernel.context(log=log))


async def test_everything_a_plan_does_is_recorded() -> None:
    kernel = Kernel()
    kernel.add_plugin(Lab())
    log, work = await recorded(
        kernel,
        step("a", "work", x="é"),
        step("b", "work", when="false"),
        step("c", "broken", n=1, on_error="skip", needs=["a"]),
    )
    await work
    assert kinds(log)[:2] == ["run.started", "plan.made"]
    assert kinds(log)[-1] == "run.finished"
    served = ["step.started", "function.requested", "function.started"]
    expected = [*served, "function.finished", "step.finished", *served, "function.failed", "step.skipped"]
    assert sorted(kinds(log)[2:-1]) == sorted([*expected, "step.skipped"])
    again = await kernel.journal.open(log.id)
    assert kinds(again) == kinds(log)
    assert not log.history.open_calls()
    requested = next(e.data.call for e in log.events if e.kind == "function.requested")
    assert json.loads(requested.arguments) == {"x": "é"}
    assert {event.run for event in log.events} == {log.events[0].run}


async def test_a_plan_may_run_twice_in_one_session() -> None:
    kernel = Kernel()
    kernel.add_plugin(Lab())
    plan = Plan.from_dict({"goal": "g", "steps": [step("a", "double", n=2, foreach=[1, 2], retry={})]})
    log = await kernel.journal.create()
    for _ in range(2):
        await plan.run_detailed(kernel, context=kernel.context(log=log))
    assert kinds(log).count("run.finished") == 2


async def test_a_failed_plan_leaves_a_valid_record() -> None:
    kernel = Kernel()
    kernel.add_plugin(Lab())
    log, work = await recorded(kernel, step("a", "broken", n=1))
    with pytest.raises(PlanError):
        await work
    assert kinds(log)[-2:] == ["step.failed", "run.failed"]
    assert not log.history.open_calls()


async def test_a_cancelled_plan_leaves_a_valid_record() -> None:
    kernel = Kernel()
    lab = Lab()
    kernel.add_plugin(lab)
    log, work = await recorded(kernel, step("a", "forever"), step("b", "forever"))
    task = asyncio.create_task(work)
    for _ in range(2):
        await lab.entered.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kinds(log)[-1] == "run.cancelled"
    assert kinds(log).count("function.failed") == 2
    assert not log.history.open_calls()


async def test_a_plan_within_a_plan_is_recorded_in_a_child_session() -> None:
    kernel = Kernel()
    kernel.add_plugin(Lab())
    inner = Plan.from_dict(
        {"goal": "inner", "inputs": {"n": {}}, "steps": [step("x", "double", n="{{ inputs.n }}")]}
    )
    kernel.add_function(inner.as_function("inner"))
    log, work = await recorded(kernel, {"id": "a", "call": "inner", "args": {"n": 4}})
    assert (await work).output == 8
    children = await kernel.journal.sessions(parent=log.id)
    assert [child.agent for child in children] == ["inner"]
    assert kinds(log).count("run.started") == 1
    child = await kernel.journal.open(children[0].id)
    assert "step.finished" in kinds(child)
