"""The stepwise planner: reaches a goal call by call, and leaves a plan that needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kernloom import Kernel, Limits, Policy, StepwisePlanner, function
from kernloom.kernel.errors import ApprovalRequired, LimitReached, NotFoundError, ProviderError, UsageError
from kernloom.kernel.messages import assistant
from kernloom.kernel.models.scripted import EchoModel, ScriptedModel, call
from kernloom.planners.plan import Plan

GOAL = "Double the total of the numbers for the team"
GIVEN = {"numbers": [1250, 80.5], "team": "north"}


def both(*calls: Any) -> Any:
    return assistant("", *calls)


def script() -> ScriptedModel:
    return ScriptedModel(
        [
            both(call("math.sum", numbers=[1250, 80.5]), call("text.upper", text="north")),
            call("math.evaluatee", expression="1330.5 * 2"),
            call("math.evaluate", expression="1330.5 * 2"),
            call("text.join", parts=["NORTH", "total 2661"], separator=": "),
            "NORTH: the total, doubled, is 2661.",
        ]
    )


async def test_what_was_done_becomes_a_plan_with_references() -> None:
    model = script()
    async with Kernel() as kernel:
        found = await StepwisePlanner(model).run(GOAL, kernel=kernel, inputs=GIVEN)
    model.assert_complete()
    assert found.text == "NORTH: the total, doubled, is 2661."
    assert found.usage.requests == 5
    assert found.plan.to_dict() == {
        "goal": GOAL,
        "inputs": {
            "numbers": {"type": "array", "default": [1250, 80.5]},
            "team": {"type": "string", "default": "north"},
        },
        "steps": [
            {"id": "sum", "call": "math.sum", "args": {"numbers": "{{ inputs.numbers }}"}},
            {"id": "upper", "call": "text.upper", "args": {"text": "{{ inputs.team }}"}},
            {
                "id": "evaluate",
                "call": "math.evaluate",
                "args": {"expression": "{{ steps.sum.result }} * 2"},
            },
            {
                "id": "join",
                "call": "text.join",
                "args": {
                    "parts": ["{{ steps.upper.result }}", "total {{ steps.evaluate.result|int }}"],
                    "separator": ": ",
                },
            },
        ],
        "output": "{{ steps.upper.result }}: the total, doubled, is {{ steps.evaluate.result|int }}.",
    }


async def test_the_plan_run_again_without_a_model_comes_out_the_same(tmp_path: Path) -> None:
    async with Kernel() as kernel:
        found = await StepwisePlanner(script()).run(GOAL, kernel=kernel, inputs=GIVEN)
        saved = found.plan.save(tmp_path / "double.yaml")
    async with Kernel() as kernel:
        plan = Plan.load(saved)
        assert plan.check(kernel) == []
        assert await kernel.invoke(plan) == found.text
        assert await kernel.invoke(plan, numbers=[1, 2], team="south") == "SOUTH: the total, doubled, is 6."


async def test_errors_go_back_to_the_model_in_words_and_stay_out_of_the_plan() -> None:
    model = script()
    async with Kernel() as kernel:
        plan = await StepwisePlanner(model).plan(GOAL, kernel=kernel)
    told = model.requests[2].messages[-1]
    assert "Did you mean 'math.evaluate'" in str(told)
    assert "evaluatee" not in str(plan.to_dict())


async def test_the_model_is_told_the_goal_the_inputs_and_only_its_functions() -> None:
    model = ScriptedModel(["Nothing to do."])
    async with Kernel() as kernel:
        found = await StepwisePlanner(model, functions=["math", "text.upper"]).run(
            "A goal.", kernel=kernel, inputs={"team": "{{ x }}"}
        )
    (request,) = model.requests
    assert request.messages[-1].text == 'A goal.\n\nGiven:\n- team: "{{ x }}"'
    names = [spec.name for spec in request.functions]
    assert "text.upper" in names
    assert all(name.startswith("math.") or name == "text.upper" for name in names)
    assert found.plan.steps == ()
    assert await kernel.invoke(found.plan) == "Nothing to do."


async def test_at_its_limits_it_stops_with_the_plan_so_far() -> None:
    model = ScriptedModel([call("math.sum", numbers=[1, 2]) for _ in range(9)])
    async with Kernel() as kernel:
        with pytest.raises(LimitReached) as caught:
            await StepwisePlanner(model, limits=Limits(rounds=3)).run("Never.", kernel=kernel)
    done: Any = caught.value.details["plan"]
    assert [step["id"] for step in Plan.from_dict(done).to_dict()["steps"]] == ["sum", "sum_2", "sum_3"]


async def test_a_provider_that_fails_leaves_the_plan_so_far() -> None:
    model = ScriptedModel([call("math.sum", numbers=[1, 2]), ProviderError("Gone.")])
    async with Kernel() as kernel:
        with pytest.raises(ProviderError) as caught:
            await StepwisePlanner(model).run("Add.", kernel=kernel)
        done: Any = caught.value.details["plan"]
        assert await kernel.invoke(Plan.from_dict(done)) == 3


async def test_it_works_inside_a_conversation_and_the_plan_is_on_record() -> None:
    async with Kernel() as kernel:
        log = await kernel.journal.create()
        found = await StepwisePlanner(script()).run(
            GOAL, kernel=kernel, inputs=GIVEN, context=kernel.context(log=log)
        )
        assert found.session == log.id
        last = log.events[-1]
        assert last.kind == "plan.made"
        assert Plan.from_dict(last.data.plan) == found.plan  # type: ignore[union-attr]
        assert not log.history.open_calls()


async def test_a_call_that_changes_something_needs_approval() -> None:
    @function(effects={"write"})
    def erase(name: str) -> str:
        """Erase it."""
        raise AssertionError("never approved")

    async with Kernel() as kernel:
        kernel.add_function(erase)
        model = ScriptedModel([call("erase", name="all")])
        with pytest.raises(ApprovalRequired):
            await StepwisePlanner(model, functions=["erase"]).run("Erase.", kernel=kernel)


async def test_calls_that_touch_the_world_keep_their_order() -> None:
    box: list[str] = []

    @function(effects={"write"})
    def put(x: str) -> str:
        """Put it in."""
        box.append(x)
        return "done"

    @function(effects={"read"})
    def look() -> str:
        """Look."""
        return ",".join(box) or "empty"

    @function
    def pure(x: str) -> str:
        """Touch nothing."""
        return x

    async with Kernel(policy=Policy(effects={"write": "allow"})) as kernel:
        for each in (put, look, pure):
            kernel.add_function(each)
        model = ScriptedModel(
            [
                both(call("look"), call("pure", x="p")),
                both(call("put", x="one"), call("put", x="two")),
                call("look"),
                call("put", x="three"),
                "Done.",
            ]
        )
        plan = await StepwisePlanner(model, functions=[put, look, pure]).plan("Fill it.", kernel=kernel)
        assert {step.id: step.needs for step in plan.steps} == {
            "look": (),
            "pure": (),
            "put": ("look",),
            "put_2": ("look",),
            "look_2": ("put", "put_2"),
            "put_3": ("look_2", "put", "put_2"),
        }
        box.clear()
        outcome = await plan.run_detailed(kernel)
        assert sorted(outcome.steps["look_2"].result.split(",")) == ["one", "two"]


async def test_text_that_looks_like_a_template_stays_text_in_the_plan() -> None:
    hostile = "{{ steps.upper.result }} {% raw %}"
    model = ScriptedModel(
        [call("text.upper", text=hostile), call("text.lower", text=f"{hostile} NORTH"), hostile]
    )
    async with Kernel() as kernel:
        found = await StepwisePlanner(model).run("Shout.", kernel=kernel)
        outcome = await found.plan.run_detailed(kernel)
    assert outcome.steps["upper"].result == hostile.upper()
    assert outcome.steps["lower"].result == f"{hostile} NORTH".lower()
    assert outcome.output == hostile


async def test_parts_of_a_result_are_found_again() -> None:
    @function
    def lookup(name: str) -> dict[str, Any]:
        """Look a person up."""
        return {"who": {"mail": f"{name}@example.org", "age": 41}, "tags": ["x-1001", "y"]}

    model = ScriptedModel(
        [
            call("lookup", name="ann"),
            call("text.upper", text="ann@example.org"),
            call("text.join", parts=["x-1001", "to ann@example.org"]),
            "Written to ann@example.org.",
        ]
    )
    async with Kernel() as kernel:
        kernel.add_function(lookup)
        plan = await StepwisePlanner(model).plan("Write to ann.", kernel=kernel)
        assert plan.steps[1].args == {"text": "{{ steps.lookup.result.who.mail }}"}
        assert plan.steps[2].args["parts"] == [
            "{{ steps.lookup.result.tags[0] }}",
            "to {{ steps.lookup.result.who.mail }}",
        ]
        assert await kernel.invoke(plan) == "Written to ann@example.org."


async def test_a_small_number_the_goal_names_is_not_taken_for_a_result() -> None:
    model = ScriptedModel([call("math.sum", numbers=[1, 2]), call("math.sum", numbers=[3, 3]), "6"])
    async with Kernel() as kernel:
        named = await StepwisePlanner(model).plan("Add 1 and 2, then 3 and 3.", kernel=kernel)
        assert named.steps[1].args == {"numbers": [3, 3]}


async def test_a_model_without_functions_is_refused() -> None:
    async with Kernel() as kernel:
        with pytest.raises(UsageError) as caught:
            await StepwisePlanner(EchoModel()).run("x", kernel=kernel)
    assert caught.value.code == "plan.no_function_calling"


async def test_it_is_found_as_a_plugin_like_any_planner() -> None:
    async with Kernel() as kernel:
        planner = kernel.planner("stepwise")
        assert planner.name == "stepwise"
        assert isinstance(planner, StepwisePlanner)
        with pytest.raises(NotFoundError, match="Did you mean 'stepwise'"):
            kernel.planner("stepwize")
