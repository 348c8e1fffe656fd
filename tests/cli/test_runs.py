"""``runs list``, ``show``, ``resolve`` and ``resume``: what waits is seen, answered, and goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kernloom import AssistantAgent, Journal, Kernel, ScriptedModel, SqliteJournalStore, function
from kernloom.kernel.errors import ApprovalRequired
from kernloom.kernel.functions import Function
from kernloom.kernel.models.scripted import call
from kernloom.kernel.policy import Policy
from kernloom.planners.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

    Script = Callable[[str], str]

WRITING = "- calls: [{name: files.write, arguments: {path: a.txt, text: hi}}]\n"
BOTH = (
    "- calls:\n  - {name: files.write, arguments: {path: a.txt, text: hi}}\n"
    "  - {name: files.write, arguments: {path: b.txt, text: ho}}\n"
)
PLAN = """\
goal: Write, then say where
steps:
- {id: w, call: files.write, args: {path: a.txt, text: hi}}
- {id: up, call: text.upper, args: {text: "{{ steps.w.result }}"}}
"""


@pytest.fixture
def waiting(run: Run, script: Script) -> str:
    """A session of ``ask`` that waits for a yes; the model's next reply is its last."""
    assert run("ask", "write it", "-m", script(WRITING), "-f", "files").code == 3
    script("- Written.\n")
    (session,) = run("runs", "list", "--json").json
    return str(session["id"])


def status(run: Run) -> str:
    return str(run("runs", "list", "--json").json[0]["status"])


def test_exit_3_names_the_session_and_the_two_commands(run: Run, script: Script, project: Path) -> None:
    (project / "p.yaml").write_text(PLAN)
    model = script(WRITING)
    for words in (
        ("ask", "write it", "-m", model, "-f", "files"),
        ("plan", "run", "p.yaml"),
        ("call", "files.write", "path=a.txt", "text=hi"),
    ):
        done = run(*words)
        assert done.code == 3
        session = run("runs", "list", "--json").json[0]["id"]
        assert f"kernloom runs resolve {session} allow" in done.err
        assert f"kernloom runs resume {session}" in done.err
        details = run(*words, "--json").error["details"]
        assert details["session"] == run("runs", "list", "--json").json[0]["id"]
        assert len(details["questions"]) == 1


def test_chat_names_them_too(run: Run, script: Script) -> None:
    done = run("chat", "-m", script(WRITING), "-f", "files", stdin="write it\n")
    assert done.code == 3
    assert f"kernloom runs resolve {run('runs', 'list', '--json').json[0]['id']} allow" in done.err


def test_a_question_is_answered_and_the_run_goes_on(run: Run, project: Path, waiting: str) -> None:
    assert status(run) == "waiting"
    done = run("runs", "resolve", waiting, "allow")
    assert done.code == 0
    assert f"kernloom runs resume {waiting}" in done.err
    assert status(run) == "answered"
    assert not (project / "a.txt").exists()
    done = run("runs", "resume", waiting)
    assert (done.code, done.out) == (0, "Written.\n")
    assert (project / "a.txt").read_text() == "hi"
    assert status(run) == "finished"
    (project / "a.txt").unlink()
    assert run("runs", "resume", waiting).out == "Written.\n", "a finished run gives its reply again"
    assert not (project / "a.txt").exists()


def test_no_is_told_to_the_model(run: Run, project: Path, waiting: str) -> None:
    run("runs", "resolve", waiting, "deny", "--by", "ann")
    assert run("runs", "resume", waiting).code == 0
    assert not (project / "a.txt").exists()
    shown = run("runs", "show", waiting).out
    assert "ann" in shown
    assert "A person refused" in shown


def test_a_yes_may_change_the_arguments(run: Run, project: Path, waiting: str) -> None:
    changed = '{"path": "b.txt", "text": "other"}'
    done = run("runs", "resolve", waiting, "allow", "--args", "-", stdin=changed)
    assert done.code == 0
    assert run("runs", "resume", waiting).code == 0
    assert (project / "b.txt").read_text() == "other"
    assert not (project / "a.txt").exists()
    (line,) = run("runs", "audit", "--json").json
    assert line["instead"] == {"path": "b.txt", "text": "other"}


def test_arguments_that_do_not_fit_are_the_persons_mistake_not_the_models(run: Run, waiting: str) -> None:
    done = run("runs", "resolve", waiting, "allow", "--args", '{"path": "b.txt"}')
    assert done.code == 2
    assert "files.write(path, text" in done.err
    assert status(run) == "waiting"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "question.answer"),
        (("perhaps",), "question.answer"),
        (("done",), "question.answer"),
        (("deny", "--args", "{}"), "question.answer"),
        (("allow", "--result", "x"), "question.answer"),
        (("other", "allow"), "question.not_found"),
        (("one", "two", "three"), "question.answer"),
        (("allow", "--args", "[]"), "call.args"),
    ],
)
def test_what_is_no_answer_changes_nothing(
    run: Run, waiting: str, words: tuple[str, ...], code: str
) -> None:
    done = run("runs", "resolve", waiting, *words, "--json")
    assert (done.code, done.error["code"]) == (2, code)
    assert status(run) == "waiting"


def test_of_several_questions_one_is_named(run: Run, script: Script, project: Path) -> None:
    assert run("ask", "write both", "-m", script(BOTH), "-f", "files").code == 3
    (session,) = run("runs", "list", "--waiting", "--json").json
    first, second = (question["question"] for question in session["questions"])
    done = run("runs", "resolve", session["id"], "allow")
    assert done.code == 2
    assert f"kernloom runs resolve {session['id']} {second} allow" in done.err
    done = run("runs", "resolve", session["id"], second, "allow", "--json")
    assert [left["question"] for left in done.json["open"]] == [first]
    assert run("runs", "resume", session["id"]).code == 3, "the other one is still open"
    assert (project / "b.txt").exists(), "what was allowed is done"
    run("runs", "resolve", session["id"], "deny")
    script("- Done.\n")
    assert run("runs", "resume", session["id"]).out == "Done.\n"
    assert not (project / "a.txt").exists()


def test_nothing_to_answer_is_said(run: Run, script: Script) -> None:
    run("ask", "hi", "-m", script("- Hello.\n"))
    assert run("runs", "resolve", "last", "allow", "--json").error["code"] == "question.not_found"


def test_yes_approves_what_a_resumed_run_does(run: Run, project: Path, waiting: str) -> None:
    assert run("runs", "resume", waiting, "--yes").out == "Written.\n"
    assert (project / "a.txt").exists()


def test_show_tells_what_is_waited_for_and_what_to_type(run: Run, waiting: str) -> None:
    done = run("runs", "show", waiting)
    assert '"path": "a.txt"' in done.err
    assert f"kernloom runs resolve {waiting} allow" in done.err
    data = run("runs", "show", waiting, "--json").json
    assert data["status"] == "waiting"
    assert data["questions"][0]["answers"] == ["allow", "deny"]


def test_the_list_of_those_that_wait_leaves_out_the_others(run: Run, waiting: str, script: Script) -> None:
    run("ask", "hi", "-m", script("- Hello.\n"))
    assert [session["id"] for session in run("runs", "list", "--waiting", "--json").json] == [waiting]
    run("runs", "resolve", waiting, "deny")
    assert run("runs", "list", "--waiting", "--json").json == []


def test_a_plan_goes_on_where_it_waited(run: Run, project: Path) -> None:
    (project / "p.yaml").write_text(PLAN)
    assert run("plan", "run", "p.yaml").code == 3
    assert run("runs", "resume", "last").code == 3, "asked again, it is the same question"
    assert run("runs", "resolve", "last", "w", "allow").code == 0
    done = run("runs", "resume", "last")
    assert (done.code, done.out) == (0, "A.TXT\n")
    assert run("runs", "resume", "last", "--json").json["output"] == "A.TXT"
    assert len([e for e in events(run) if e["data"]["kind"] == "question.asked"]) == 1


def test_a_call_goes_on_where_it_waited(run: Run, project: Path) -> None:
    assert run("call", "files.write", "path=a.txt", "text=hi").code == 3
    assert status(run) == "waiting"
    assert run("runs", "resolve", "last", "allow", "--args", '{"path": "b.txt", "text": "hi"}').code == 0
    done = run("runs", "resume", "last", "--json")
    assert done.json == {"function": "files.write", "result": "b.txt"}
    assert run("runs", "resume", "last", "--json").json == done.json
    assert status(run) == "finished"


def test_a_call_that_was_refused_has_ended(run: Run) -> None:
    run("call", "files.write", "path=a.txt", "text=hi")
    run("runs", "resolve", "last", "deny")
    assert run("runs", "resume", "last", "--json").error["code"] == "function.denied"
    assert run("runs", "resume", "last", "--json").error["code"] == "run.nothing_to_resume"


def events(run: Run, session: str = "last") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run("runs", "show", session, "--json").json["events"]
    return found


def test_a_run_is_made_again_with_what_it_was_begun_with(
    run: Run, script: Script, project: Path, documents: Path
) -> None:
    run("memory", "add", str(documents), "--memory", "other.db")
    asked = "Who approves travel above EUR 2000?"
    done = run("ask", asked, "-m", script(WRITING), "-f", "files", "--memory", "other.db", "--k", "1")
    assert done.code == 3
    script("- The head of department approves it [1].\n")
    run("runs", "resolve", "last", "allow")
    data = run("runs", "resume", "last", "--json").json
    assert len(data["passages"]) == 1
    assert data["citations"][0]["source"].endswith("travel.md")


def test_another_model_may_take_over(run: Run, project: Path, waiting: str) -> None:
    run("runs", "resolve", waiting, "allow")
    (project / "other.yaml").write_text("- The other one.\n")
    assert run("runs", "resume", waiting, "-m", "script:other.yaml").out == "The other one.\n"


def test_a_session_without_a_run_or_that_is_not_there(run: Run) -> None:
    assert run("runs", "resume", "nowhere").code == 2
    assert run("runs", "resolve", "nowhere", "allow").code == 2


async def begun_by_a_program(project: Path, *, plan: bool) -> str:
    """A session of a program whose function the command line does not know."""

    @function(effects={"write"})
    async def pay(amount: int) -> str:
        return "paid"

    path = project / ".kernloom" / "journal.db"
    path.parent.mkdir()
    async with Kernel(journal=Journal(SqliteJournalStore(path)), policy=Policy()) as kernel:
        kernel.add_function(pay)
        log = await kernel.journal.create()
        step = {"id": "p", "call": "pay", "args": {"amount": 1}}
        made = Plan.from_dict({"goal": "Pay", "steps": [step]})
        agent = AssistantAgent(
            "payer", kernel=kernel, model=ScriptedModel([call("pay", amount=5)]), functions=[pay]
        )
        context = kernel.context(log=log, actor="payer")
        with pytest.raises(ApprovalRequired) as caught:
            await (made.run_detailed(kernel, context=context) if plan else agent.run("Pay."))
        return str(caught.value.details["session"])


@pytest.mark.parametrize(("plan", "code"), [(False, "run.of_a_program"), (True, "plan.invalid")])
def test_what_only_a_program_can_make_again_is_answered_but_not_resumed_here(
    run: Run, project: Path, plan: bool, code: str
) -> None:
    import asyncio

    session = asyncio.run(begun_by_a_program(project, plan=plan))
    assert run("runs", "resolve", session, "allow", "--args", '{"amount": 3}').code == 0
    before = events(run)
    assert run("runs", "resume", session, "--json").error["code"] == code
    assert events(run) == before, "a run that cannot go on here is left as it is"


async def asked_by_a_called_agent(project: Path) -> str:
    @function(effects={"write"})
    async def pay(amount: int) -> str:
        return "paid"

    path = project / ".kernloom" / "journal.db"
    path.parent.mkdir()
    async with Kernel(journal=Journal(SqliteJournalStore(path)), policy=Policy()) as kernel:

        def agent(name: str, replies: list[object], offered: list[Function]) -> AssistantAgent:
            model = ScriptedModel(replies)  # type: ignore[arg-type]
            return AssistantAgent(name, kernel=kernel, model=model, functions=offered)

        clerk = agent("clerk", [call("pay", amount=5)], [Function.of(pay)])
        with pytest.raises(ApprovalRequired):
            await agent("boss", [call("clerk", task="Pay.")], [clerk.as_function()]).run("See to it.")
        (info,) = await kernel.journal.sessions()
        return info.id


def test_what_a_called_agent_asks_is_seen_and_answered_in_its_callers_session(
    run: Run, project: Path
) -> None:
    import asyncio

    session = asyncio.run(asked_by_a_called_agent(project))
    (listed,) = run("runs", "list", "--json").json
    assert (listed["id"], listed["status"]) == (session, "waiting")
    assert listed["questions"][0]["session"].startswith(session)
    assert listed["questions"][0]["session"] != session
    assert run("runs", "resolve", session, "allow").code == 0
    (listed,) = run("runs", "list", "--json").json
    assert listed["status"] == "answered"


def test_an_encrypted_journal_is_read_with_its_key_only(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    from kernloom.kernel.journal.encryption import new_key

    (project / "kernloom.toml").write_text("[memory]\nembedder = 'none'\n[journal]\nencrypt = true\n")
    model = script("- Whisper.\n")
    assert run("ask", "my secret", "-m", model, "--json").error["code"] == "journal.key_missing"
    monkeypatch.setenv("KERNLOOM_JOURNAL_KEY", new_key())
    assert run("ask", "my secret", "-m", model).out == "Whisper.\n"
    assert "my secret" in run("runs", "show", "last").out
    kept = b"".join(file.read_bytes() for file in (project / ".kernloom").iterdir())
    assert b"secret" not in kept
    assert b"Whisper" not in kept
    monkeypatch.setenv("KERNLOOM_JOURNAL_KEY", new_key())
    assert run("runs", "show", "last", "--json").error["code"] == "journal.key"
    assert run("doctor").code in (0, 1)


def test_a_key_in_the_environment_is_enough(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    from kernloom.kernel.journal.encryption import new_key

    monkeypatch.setenv("KERNLOOM_JOURNAL_KEY", new_key())
    run("ask", "my secret", "-m", script("- Whisper.\n"))
    assert b"secret" not in b"".join(file.read_bytes() for file in (project / ".kernloom").iterdir())
