"""``plan``: made by a planner, checked, run again without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kernloom.planners.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

PLAN = """\
goal: Say a sum loudly
inputs:
  first: {type: integer}
  second: {type: integer, default: 2}
steps:
- {id: sum, call: math.evaluate, args: {expression: "{{ inputs.first }} + {{ inputs.second }}"}}
- {id: loud, call: text.upper, args: {text: "it is {{ steps.sum.result }}"}}
"""


@pytest.fixture
def plan(project: Path) -> str:
    (project / "sum.yaml").write_text(PLAN)
    return "sum.yaml"


def test_a_plan_runs_with_its_inputs_and_is_recorded(run: Run, plan: str) -> None:
    done = run("plan", "run", plan, "first=40")
    assert (done.code, done.out) == (0, "IT IS 42\n")
    assert "math.evaluate" in done.err
    (session,) = run("runs", "list", "--json").json
    assert (session["agent"], session["status"]) == ("sum", "finished")


def test_a_plan_as_json_tells_every_step(run: Run, plan: str) -> None:
    data = run("plan", "run", plan, "--args", '{"first": 1}', "--json").json
    assert data["output"] == "IT IS 3"
    assert data["steps"]["sum"] == {"status": "finished", "result": 3}


@pytest.mark.parametrize("words", [(), ("first=many",), ("frist=1",), ("first",)])  # codespell:ignore
def test_wrong_inputs_are_usage(run: Run, plan: str, words: tuple[str, ...]) -> None:
    assert run("plan", "run", plan, *words).code == 2


def test_check_finds_what_would_fail_and_runs_nothing(run: Run, project: Path, plan: str) -> None:
    assert run("plan", "check", plan).code == 0
    (project / "bad.yaml").write_text(
        PLAN.replace("text.upper", "text.uper").replace("steps.sum", "steps.som")  # codespell:ignore
    )
    done = run("plan", "check", "bad.yaml", "--json")
    assert done.code == 1
    assert done.error["code"] == "plan.invalid"
    assert len(done.error["details"]["problems"]) >= 2
    assert not (project / ".kernloom").exists()


def test_a_file_that_is_no_plan_is_refused(run: Run, project: Path) -> None:
    (project / "no.yaml").write_text("steps: 3\n")
    assert run("plan", "check", "no.yaml").code == 1
    done = run("plan", "check", "nowhere.yaml")
    assert done.code == 2
    assert "'no.yaml'" in run("plan", "run", "on.yaml").err


def test_a_step_that_changes_something_needs_a_yes(run: Run, project: Path) -> None:
    (project / "write.yaml").write_text(
        "goal: Write\nsteps:\n- {id: w, call: files.write, args: {path: a.txt, text: hi}}\n"
    )
    done = run("plan", "run", "write.yaml")
    assert done.code == 3
    assert "kernloom runs resume" in done.err
    assert run("plan", "run", "write.yaml", "--yes").code == 0
    assert (project / "a.txt").exists()


def test_a_plan_is_made_saved_and_run_again_without_a_model(
    run: Run, project: Path, script: Callable[[str], str]
) -> None:
    model = script("- calls: [{name: math.evaluate, arguments: {expression: 6*7}}]\n- It is 42.\n")
    done = run("plan", "make", "six times seven", "-m", model, "-o", "share.yaml")
    assert done.code == 0
    assert [step.call for step in Plan.load(project / "share.yaml").steps] == ["math.evaluate"]
    again = run("plan", "run", "share.yaml")
    assert again.code == 0
    assert "42" in again.out
    assert run("plan", "make", "other", "-m", model, "-o", "share.yaml").code == 2


def test_an_unknown_planner_is_answered_with_the_near_one(run: Run) -> None:
    done = run("plan", "make", "x", "--planner", "stepwize")
    assert done.code == 2
    assert "'stepwise'" in done.err


def test_a_model_that_cannot_call_functions_cannot_plan(run: Run) -> None:
    assert run("plan", "make", "x").code != 0


def test_the_plan_in_the_examples_can_run(run: Run) -> None:
    from kernloom.cli.demo import EXAMPLES

    done = run("plan", "check", str(EXAMPLES / "plans" / "trip.yaml"))
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("file", "code"), [("nowhere/p.yaml", "plan.unwritable"), ("p.txt", "data.suffix")]
)
def test_a_plan_that_could_not_be_kept_is_not_made(
    run: Run, project: Path, script: Callable[[str], str], file: str, code: str
) -> None:
    model = script("- calls: [{name: files.write, arguments: {path: done.txt, text: x}}]\n- Done.\n")
    done = run("plan", "make", "Write", "-m", model, "-f", "files", "-y", "-o", file, "--json")
    assert (done.code, done.error["code"]) == (2, code)
    assert not (project / "done.txt").exists()
    assert run("plan", "make", "Write", "-m", model, "-f", "files", "-y", "-o", "p.yaml").code == 0
    assert (project / "done.txt").exists()


def test_a_planner_that_stops_halfway_leaves_what_it_did(
    run: Run, project: Path, script: Callable[[str], str]
) -> None:
    model = script("- calls: [{name: math.evaluate, arguments: {expression: 6*7}}]\n")
    assert run("plan", "make", "more", "-m", model, "-o", "half.yaml").code != 0
    assert [step.call for step in Plan.load(project / "half.yaml").steps] == ["math.evaluate"]


def test_a_plan_may_come_from_stdin(run: Run, project: Path) -> None:
    assert run("plan", "check", "-", stdin=PLAN).code == 0
    assert run("plan", "run", "-", "first=40", stdin=PLAN).out == "IT IS 42\n"
    done = run(
        "plan",
        "run",
        "-",
        stdin="",
    )
    assert done.code == 1
    assert "stdin is no plan" in done.err


def test_planning_that_nobody_may_go_on_with_leaves_nothing_that_waits(
    run: Run, project: Path, script: Callable[[str], str]
) -> None:
    model = script("- calls: [{name: files.write, arguments: {path: a.txt, text: hi}}]\n- Done.\n")
    done = run("plan", "make", "write it", "-m", model, "-f", "files")
    assert done.code == 3
    assert "again with --yes" in done.err
    assert run("runs", "list", "--json").json[0]["status"] == "cancelled"
    assert run("runs", "list", "--waiting", "--json").json == []
