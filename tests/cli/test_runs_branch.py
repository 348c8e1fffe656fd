"""``runs show --at``, ``fork``, ``diff`` and ``replay``: back in time, and another way from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

    Script = Callable[[str], str]

WRITING = "- calls: [{name: files.write, arguments: {path: a.txt, text: hi}}]\n- Written.\n"


@pytest.fixture
def written(run: Run, script: Script) -> str:
    """A finished session in which ``a.txt`` was written; the model's next reply is its last."""
    assert run("ask", "write it", "-m", script(WRITING), "-f", "files", "--yes").code == 0
    script("- Another way.\n")
    return str(run("runs", "list", "--json").json[0]["id"])


def place(run: Run, session: str, kind: str) -> str:
    events = run("runs", "show", session, "--json").json["events"]
    return str(next(event["seq"] for event in events if event["data"]["kind"] == kind))


def test_a_session_as_it_was_after_an_event(run: Run, written: str) -> None:
    at = place(run, written, "question.asked")
    done = run("runs", "show", written, "--at", at)
    assert "asks for approval" in done.out
    assert "Written." not in done.out
    assert "under way: files.write" in done.err
    data = run("runs", "show", written, "--at", at, "--json").json
    assert data["status"] == "unfinished"
    assert len(data["questions"]) == len(data["open_calls"]) == 1
    assert run("runs", "show", written, "--at", "99", "--json").error["code"] == "journal.unknown_event"
    assert run("runs", "show", written, "--at", "0", "--json").json["status"] == "none"


@pytest.mark.parametrize(
    ("kind", "words", "files"),
    [
        ("model.answered", ("--args", '{"path": "b.txt", "text": "other"}'), {"a.txt", "b.txt"}),
        ("message", ("--message", "do nothing"), {"a.txt"}),
        ("function.finished", ("--result", "it was there already"), {"a.txt"}),
        ("function.finished", (), {"a.txt"}),
    ],
)
def test_a_fork_goes_another_way_and_the_original_stays(
    run: Run, project: Path, written: str, kind: str, words: tuple[str, ...], files: set[str]
) -> None:
    before = run("runs", "show", written, "--json").json
    fork = run("runs", "fork", written, "--at", place(run, written, kind), *words)
    assert fork.code == 0
    session = fork.out.strip()
    assert f"kernloom runs resume {session}" in fork.err
    assert run("runs", "resume", session, "--yes").out == "Another way.\n"
    assert {file.name for file in project.glob("*.txt")} == files
    assert run("runs", "show", written, "--json").json == before
    done = run("runs", "diff", written, session)
    assert done.code == 1
    assert "They part at event" in done.out


def test_a_fork_of_a_session_that_had_ended_is_talked_on_in(run: Run, written: str) -> None:
    fork = run("runs", "fork", written, "--at", place(run, written, "run.finished"))
    assert f"kernloom chat --session {fork.out.strip()}" in fork.err


@pytest.mark.parametrize(
    "words",
    [
        ("--at", "2", "--message", "a", "--result", "b"),
        ("--at", "2", "--call", "x"),
        ("--at", "2", "--result", "b"),
        ("--at", "2", "--args", "{"),
        (),
    ],
)
def test_an_edit_that_does_not_fit_makes_no_fork(run: Run, written: str, words: tuple[str, ...]) -> None:
    assert run("runs", "fork", written, *words).code == 2
    assert len(run("runs", "list", "--json").json) == 1


def test_sessions_that_tell_the_same_do_not_part(run: Run, script: Script) -> None:
    for _ in range(2):
        run("ask", "hi", "-m", script("- Hello.\n"))
    first, second = (session["id"] for session in run("runs", "list", "--json").json)
    assert run("runs", "diff", first, second).out == "They tell the same.\n"
    data = run("runs", "diff", first, second, "--exact", "--json").json
    assert data["same"] is False
    assert data["seq"] == 1
