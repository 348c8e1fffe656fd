"""``chat`` and ``runs``: a talk that goes on where it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run


def test_each_line_of_stdin_is_a_message_in_one_session(run: Run, script: Callable[[str], str]) -> None:
    done = run("chat", "-m", script("- Hello.\n- Goodbye.\n"), stdin="hi\n\nbye\n")
    assert done.code == 0
    assert done.out == "Hello.\nGoodbye.\n"
    (session,) = run("runs", "list", "--json").json
    assert session["title"] == "hi"
    assert f"kernloom chat --session {session['id']}" in done.err


def test_a_talk_goes_on_with_all_that_was_said(run: Run, script: Callable[[str], str]) -> None:
    run("chat", "-m", script("- I am well.\n"), stdin="how are you?\n")
    again = run("chat", "--session", "last", "-m", script("- Still well.\n"), stdin="and now?\n")
    assert "you> how are you?" in again.err
    assert "assistant> I am well." in again.err
    (session,) = run("runs", "list", "--json").json
    shown = run("runs", "show", session["id"][:10]).out
    for said in ("how are you?", "I am well.", "and now?", "Still well."):
        assert said in shown


def test_json_prints_one_reply_per_line(run: Run, script: Callable[[str], str]) -> None:
    import json

    done = run("chat", "--json", "-m", script("- One.\n- Two.\n"), stdin="a\nb\n")
    assert [json.loads(line)["text"] for line in done.out.splitlines()] == ["One.", "Two."]


def test_a_session_that_is_not_there_is_refused(run: Run, script: Callable[[str], str]) -> None:
    model = script("- Hello.\n")
    assert run("chat", "-m", model, "--session", "last").code == 2
    run("chat", "-m", model, stdin="hi\n")
    (session,) = run("runs", "list", "--json").json
    wrong = session["id"][:-1] + ("0" if session["id"][-1] != "0" else "1")
    done = run("chat", "-m", model, "--session", wrong)
    assert done.code == 2
    assert session["id"] in done.err


def test_a_model_may_call_what_f_names_and_a_change_needs_a_yes(
    run: Run, script: Callable[[str], str], project: Path
) -> None:
    writing = "- calls: [{name: files.write, arguments: {path: a.txt, text: hi}}]\n- Done.\n"
    refused = run("ask", "write it", "-m", script(writing), "-f", "files")
    assert refused.code == 3
    assert not (project / "a.txt").exists()
    assert run("ask", "write it", "-m", script(writing), "-f", "files", "--yes").out == "Done.\n"
    assert (project / "a.txt").read_text() == "hi"


def test_without_f_our_own_functions_are_not_offered(run: Run, script: Callable[[str], str]) -> None:
    writing = "- calls: [{name: files.write, arguments: {path: a.txt, text: hi}}]\n- Sorry.\n"
    assert run("ask", "write it", "-m", script(writing), "--yes").out == "Sorry.\n"


def test_no_runs_is_no_error(run: Run, project: Path) -> None:
    done = run("runs", "list", "--json")
    assert (done.code, done.json) == (0, [])
    assert not (project / ".kernloom").exists()


def test_every_event_can_be_seen(run: Run, script: Callable[[str], str]) -> None:
    run("chat", "-m", script("- Hello.\n"), stdin="hi\n")
    (session,) = run("runs", "list", "--json").json
    assert "model.answered" in run("runs", "show", session["id"], "--events").out


def test_the_session_used_last_can_be_shown(run: Run, script: Callable[[str], str]) -> None:
    assert run("runs", "show", "last").code != 0
    model = script("- Hello.\n")
    session = run("ask", "hi", "-m", model, "--json").json["session"]
    assert run("runs", "show", "last", "--json").json["session"] == session
