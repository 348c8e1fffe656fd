"""Plans as data: read, written, refused, and offered as functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom import Kernel, PlanError
from kernloom.kernel.errors import UsageError
from kernloom.planners.plan import Plan, Retry, Step

TEXT = """\
goal: Greet a team
inputs:
  team: {type: string, description: Who.}
  times: {type: integer, default: 2}
  note: {type: string, required: false}
steps:
- id: loud
  call: text.upper
  args: {text: "hello {{ inputs.team }}"}
- id: all
  call: text.join
  foreach: "{{ range(inputs.times) }}"
  args: {parts: ["{{ steps.loud.result }}", "n{{ index }}"]}
  needs: [loud]
  when: inputs.note is none
  retry: {attempts: 2, wait: 0}
  on_error: {default: "-"}
output: {said: "{{ steps.all.result }}"}
"""


def load(tmp_path: Path, text: str, name: str = "plan.yaml") -> Plan:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return Plan.load(path)


@pytest.mark.parametrize("name", ["again.yaml", "again.yml", "again.json"])
def test_a_plan_is_written_and_read_back_equal(tmp_path: Path, name: str) -> None:
    plan = load(tmp_path, TEXT)
    again = Plan.load(plan.save(tmp_path / name))
    assert again == plan
    assert again.to_dict() == plan.to_dict()
    assert [*plan.to_dict()] == ["goal", "inputs", "steps", "output"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab{}% ", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(args=st.dictionaries(st.sampled_from("abc"), JSON), output=JSON, default=JSON)
def test_any_data_in_a_plan_survives_the_file(
    tmp_path_factory: Any, args: Any, output: Any, default: Any
) -> None:
    folder = tmp_path_factory.mktemp("plans")
    plan = Plan.from_dict(
        {
            "goal": "g",
            "inputs": {"x": {"default": default}},
            "steps": [{"id": "a", "call": "b.c", "args": args, "on_error": {"default": default}}],
            "output": output,
        }
    )
    for name in ("p.yaml", "p.json"):
        assert Plan.load(plan.save(folder / name)) == plan


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: []", "goal: field required"),
        ("goal: g\nstep: []", "step: extra inputs"),
        ("goal: g\nsteps: [{id: a b, call: x}]", "steps[0].id"),
        ("goal: g\nsteps: [{id: a, call: x, retry: {attempts: 0}}]", "steps[0].retry.attempts"),
        ("goal: g\nsteps: [{id: a, call: x, on_error: ignore}]", "steps[0].on_error"),
        ("goal: g\ninputs: {a: {type: text}}", "inputs.a.type"),
        ("- goal", "valid dictionary"),
        ("", "valid dictionary"),
    ],
)
def test_what_is_no_plan_is_told_field_by_field(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        load(tmp_path, text)
    assert caught.value.code == "plan.malformed"
    assert words in caught.value.message


def test_a_bomb_of_aliases_is_refused(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    with pytest.raises(UsageError, match="aliases"):
        load(tmp_path, bomb)


def test_what_json_cannot_carry_is_not_saved(tmp_path: Path) -> None:
    plan = Plan(goal="g", steps=(Step(id="a", call="b", args={"x": {1, 2}}),))
    with pytest.raises(UsageError):
        plan.save(tmp_path / "p.json")
    with pytest.raises(UsageError, match=r"\.txt"):
        Plan(goal="g").save(tmp_path / "p.txt")


def test_what_a_step_refers_to_is_what_it_needs() -> None:
    step = Step(
        id="x",
        call="f",
        args={"a": ["{{ steps.one.result }}", {"b": "n = {{ steps['two'].result }}"}], "c": "steps.not"},
        when="steps.three.status == 'finished'",
        foreach="steps.four.result",
        needs=("five",),
        retry=Retry(),
    )
    assert step.dependencies() == {"one", "two", "three", "four", "five"}


async def test_a_plan_runs_by_invoke_and_as_a_function(tmp_path: Path) -> None:
    plan = load(tmp_path, TEXT)
    async with Kernel() as kernel:
        wanted = {"said": ["HELLO NORTH\nn0", "HELLO NORTH\nn1"]}
        assert await kernel.invoke(plan, team="north") == wanted
        kernel.add_function(plan.as_function("greet"))
        found = kernel.function("greet")
        assert found.description == "Greet a team"
        assert found.parameters["required"] == ["team"]
        assert await kernel.invoke("greet", team="north") == wanted
        assert await kernel.invoke("greet", team="north", times="1") == {"said": ["HELLO NORTH\nn0"]}


async def test_without_an_output_the_last_step_is_the_result() -> None:
    steps = [{"id": "a", "call": "text.upper", "args": {"text": "x"}}]
    async with Kernel() as kernel:
        assert await kernel.invoke(Plan.from_dict({"goal": "g", "steps": steps})) == "X"
        assert await kernel.invoke(Plan.from_dict({"goal": "nothing to do", "output": "done"})) == "done"
