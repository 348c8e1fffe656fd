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


def test_a_replay_needs_nothing_alive_and_tells_the_same(
    run: Run, project: Path, written: str, documents: Path
) -> None:
    (project / "script.yaml").unlink()
    (project / "a.txt").unlink()
    done = run("runs", "replay", written)
    assert (done.code, done.out.split(":")[0]) == (0, "Equal")
    assert not (project / "a.txt").exists()
    assert run("runs", "replay", written, "--json").json["replayed"] == 11


def test_a_replay_says_what_a_change_of_the_settings_would_have_changed(
    run: Run, project: Path, written: str
) -> None:
    (project / "kernloom.toml").write_text("[memory]\nembedder = 'none'\n[policy]\nwrite = 'deny'\n")
    done = run("runs", "replay", written)
    assert done.code == 1
    assert "They part at event 5" in done.out
    assert run("runs", "replay", written, "--json").json["divergence"]["seq"] == 5


def test_a_talk_with_several_models_and_memories_is_replayed(
    run: Run, script: Script, documents: Path, project: Path
) -> None:
    session = run("ask", "hi", "-m", script("- Hello.\n"), "--json").json["session"]
    run("memory", "add", str(documents))
    (project / "other.yaml").write_text("- The head of department [1].\n")
    asked = "Who approves travel above EUR 2000?"
    run("ask", asked, "--session", session, "-m", "script:other.yaml", "--k", "1")
    run(
        "chat", "--session", "last", "-m", "extractive", stdin="Where is the spare key of the boat house?\n"
    )
    report = run("runs", "replay", "last", "--json").json
    assert (report["equal"], len(report["runs"])) == (True, 3)


def test_a_run_that_waited_and_was_resumed_is_replayed_whole(run: Run, script: Script) -> None:
    run("ask", "write it", "-m", script(WRITING), "-f", "files")
    assert run("runs", "replay", "last").code == 0
    run("runs", "resolve", "last", "allow", "--args", '{"path": "b.txt", "text": "other"}')
    script("- Written.\n")
    run("runs", "resume", "last")
    report = run("runs", "replay", "last", "--json").json
    assert report["equal"] is True
    assert report["divergence"] is None


def test_a_plan_is_replayed(run: Run, project: Path) -> None:
    (project / "p.yaml").write_text(
        "goal: Write\nsteps:\n- {id: w, call: files.write, args: {path: a.txt, text: hi}}\n"
    )
    run("plan", "run", "p.yaml", "--yes")
    (project / "a.txt").unlink()
    assert run("runs", "replay", "last").code == 0
    assert not (project / "a.txt").exists()


def test_a_single_call_is_nothing_to_replay(run: Run) -> None:
    run("call", "files.write", "path=a.txt", "text=hi", "--yes")
    assert run("runs", "replay", "last", "--json").error["code"] == "replay.nothing"
