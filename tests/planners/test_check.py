"""Everything that is wrong with a plan is found before it runs, all at once."""

from __future__ import annotations

from typing import Any

import pytest

from kernloom import Kernel, PlanError
from kernloom.planners.check import find_cycle
from kernloom.planners.plan import Plan


def problems(*steps: dict[str, Any], **plan: Any) -> list[tuple[str | None, str, str]]:
    found = Plan.from_dict({"goal": "g", "steps": list(steps), **plan}).check(Kernel())
    return [(problem.step, problem.code, str(problem)) for problem in found]


def upper(name: str, text: Any = "x", **more: Any) -> dict[str, Any]:
    return {"id": name, "call": "text.upper", "args": {"text": text}, **more}


def test_a_plan_without_fault_has_no_problems() -> None:
    assert problems(upper("a"), upper("b", "{{ steps.a.result }}"), output="{{ steps.b.result }}") == []


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        ({"id": "a", "call": "text.uper"}, "plan.unknown_function", "'text.upper'"),
        ({"id": "a", "call": "nowhere.at_all"}, "plan.unknown_function", "nowhere.at_all"),
        ({"id": "a", "call": "text.upper"}, "plan.missing_argument", "needs the argument 'text'"),
        (
            {"id": "a", "call": "text.upper", "args": {"text": "x", "txt": 1}},
            "plan.unknown_argument",
            "Did you mean 'text'?",
        ),
        (
            {"id": "a", "call": "text.truncate", "args": {"text": "x", "length": "many"}},
            "plan.invalid_argument",
            "'many'",
        ),
        (upper("a", "{{ steps.b.result }}"), "plan.unknown_step", "There is no step 'b'"),
        (upper("a", "{{ steps[inputs.team] }}"), "plan.unknown_step", "does not say which"),
        (upper("a", "{{ inputs.tem }}"), "plan.unknown_input", "Did you mean 'team'?"),
        (upper("a", "{{ team }}"), "plan.unknown_name", "Write inputs.team."),
        (upper("a", "{{ item }}"), "plan.unknown_name", "foreach"),
        (upper("a", when="index > 1"), "plan.unknown_name", "foreach"),
        (upper("a", when="1 +"), "plan.expression", "when"),
        (upper("a", "{{ 1 + }}"), "plan.expression", "args.text"),
        (upper("a", foreach="inputs."), "plan.expression", "foreach"),
        (upper("a", "{{ inputs.team|uper }}"), "plan.expression", "did you mean 'upper'"),
        (upper("a", needs=["b"]), "plan.unknown_step", "'b', which is no step"),
        (upper("a", "{{ steps.a.result }}"), "plan.cycle", "waits for itself"),
        (upper("a", on_error={"default": "{{ steps.z.result }}"}), "plan.unknown_step", "on_error"),
    ],
)
def test_each_kind_of_problem_is_named_with_its_step(step: dict[str, Any], code: str, words: str) -> None:
    found = problems(step, inputs={"team": {}}, output="done")
    assert [(where, kind) for where, kind, _ in found] == [("a", code)]
    assert words in found[0][2]


def test_a_field_a_step_does_not_have_is_named() -> None:
    found = problems(upper("a"), upper("b", "{{ steps.a.value }}"))
    assert found[0][1] == "plan.unknown_name"
    assert "Write steps.a.result.value." in found[0][2]


def test_a_cycle_is_named_in_its_order() -> None:
    found = problems(
        upper("a", "{{ steps.c.result }}"), upper("b", "{{ steps.a.result }}"), upper("c", needs=["b"])
    )
    assert found == [("a", "plan.cycle", "Step 'a': These steps wait for each other: a → c → b → a.")]


def test_two_steps_of_one_id_are_refused() -> None:
    assert [code for _, code, _ in problems(upper("a"), upper("a"))] == ["plan.duplicate_id"]


def test_the_output_is_checked_too() -> None:
    assert problems(upper("a"), output={"x": ["{{ steps.b.result }}"]})[0][:2] == (
        None,
        "plan.unknown_step",
    )


def test_arguments_that_are_computed_are_left_to_the_run() -> None:
    step = {"id": "b", "call": "text.truncate", "args": {"text": "x", "length": "{{ steps.a.result }}"}}
    assert problems(upper("a"), step) == []


async def test_all_problems_are_raised_at_once_and_nothing_runs() -> None:
    ran = []
    kernel = Kernel()

    def note(x: int) -> None:
        ran.append(x)

    kernel.add_function(note)
    plan = Plan.from_dict(
        {
            "goal": "g",
            "steps": [
                {"id": "a", "call": "note", "args": {"x": 1}},
                {"id": "b", "call": "not"},
                upper("c", "{{ z }}"),
            ],
        }
    )
    with pytest.raises(PlanError) as caught:
        await kernel.invoke(plan)
    assert caught.value.code == "plan.invalid"
    listed: Any = caught.value.details["problems"]
    assert [p["code"] for p in listed] == ["plan.unknown_function", "plan.unknown_name"]
    assert "Did you mean 'note'?" in str(caught.value)
    assert ran == []


def test_cycles_are_found_in_long_chains_without_recursion() -> None:
    chain: dict[str, set[str]] = {str(i): {str(i + 1)} for i in range(5_000)}
    assert find_cycle({**chain, "5000": set()}) == []
    assert len(find_cycle({**chain, "5000": {"0"}})) == 5_001
