"""``functions`` and ``call``: arguments as typed, approval, the record of what changed something."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

WRITE = ("call", "files.write", "path=note.txt", "text=hello")


def test_a_function_is_called_and_its_result_printed(run: Run) -> None:
    done = run("call", "math.evaluate", "expression=2+3*7")
    assert (done.code, done.out, done.err) == (0, "23\n", "")


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (("math.sum", "numbers=[1, 2, 3]"), 6),
        (("text.upper", "text=123"), "123"),
        (("text.upper", 'text="a"'), '"A"'),
        (("text.join", 'parts=["a","b"]', "separator=-x-"), "a-x-b"),
        (("math.evaluate", "--args", '{"expression": "1+1"}'), 2),
        (("math.evaluate", "--args", '{"expression": "1+1"}', "expression=2+2"), 4),
    ],
)
def test_values_are_json_unless_the_parameter_is_text(
    run: Run, words: tuple[str, ...], result: object
) -> None:
    assert run("call", *words, "--json").json == {"function": words[0], "result": result}


def test_a_dash_reads_stdin(run: Run) -> None:
    assert run("call", "text.upper", "text=-", stdin="quiet\n").out == "QUIET\n"
    assert run("call", "math.sum", "--args", "-", stdin='{"numbers": [1, 2]}').out == "3\n"


@pytest.mark.parametrize("words", [("3",), ("expression=1", "x=2"), ("--args", "[]"), ("--args", "{"), ()])
def test_wrong_arguments_are_usage_and_show_the_call(run: Run, words: tuple[str, ...]) -> None:
    done = run("call", "math.evaluate", *words)
    assert done.code == 2
    assert done.out == ""


def test_a_change_without_anybody_to_ask_exits_3_and_says_what_would_have_been_asked(
    run: Run, project: Path
) -> None:
    done = run(*WRITE)
    assert done.code == 3
    assert 'files.write with {"path": "note.txt", "text": "hello"}' in done.err
    assert "--yes" in done.err
    assert not (project / "note.txt").exists()


def test_yes_approves_and_the_change_is_recorded(run: Run, project: Path) -> None:
    assert run(*WRITE, "--yes").code == 0
    assert (project / "note.txt").read_text() == "hello"
    (session,) = run("runs", "list", "--json").json
    assert (session["agent"], session["status"]) == ("files.write", "finished")
    events = run("runs", "show", session["id"], "--json").json["events"]
    kinds = [event["data"]["kind"] for event in events]
    assert kinds == [
        "run.started",
        "function.requested",
        "question.asked",
        "question.answered",
        "function.started",
        "function.finished",
        "run.finished",
    ]


def test_a_typing_error_leaves_no_record(run: Run, project: Path) -> None:
    assert run("call", "files.write", "path=x", "--yes").code == 2
    assert not (project / ".kernloom").exists()


def test_reading_leaves_no_record(run: Run, project: Path) -> None:
    run("call", "time.now")
    assert not (project / ".kernloom").exists()


def test_a_function_that_fails_is_a_failure(run: Run) -> None:
    done = run("call", "files.read", "path=nowhere.txt", "--json")
    assert done.code != 0
    assert done.error["message"]


def test_the_policy_in_the_file_counts(run: Run, project: Path) -> None:
    (project / "kernloom.toml").write_text("[policy.functions]\n'files.*' = 'allow'\n'math.*' = 'deny'\n")
    assert run(*WRITE).code == 0
    assert run("call", "math.evaluate", "expression=1").code == 1


def test_functions_lists_names_effects_and_what_for(run: Run) -> None:
    out = run("functions").out
    assert 'files.write(path, text, mode="create")' in out
    assert "write" in out
    data = run("functions", "math", "--json").json
    assert {function["name"].partition(".")[0] for function in data} == {"math"}


def test_one_function_is_shown_with_its_parameters(run: Run) -> None:
    out = run("functions", "files.write").out
    assert "kernloom call files.write path=… text=…" in out
    assert "effects: write" in out


def test_json_of_a_function_holds_its_schema(run: Run) -> None:
    (data,) = json.loads(run("functions", "math.evaluate", "--json").out)
    assert data["parameters"]["required"] == ["expression"]
