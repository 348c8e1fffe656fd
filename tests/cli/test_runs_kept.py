"""``runs export``, ``import``, ``prune``, ``forget`` and ``audit``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

    Script = Callable[[str], str]

WRITE = ("call", "files.write", "path=a.txt", "text=hi")


@pytest.fixture
def said(run: Run, script: Script) -> str:
    """A session in which somebody said something."""
    run("ask", "Where does Ada live?", "-m", script("- In Oslo.\n"))
    return str(run("runs", "list", "--json").json[0]["id"])


def ids(run: Run) -> list[str]:
    return [session["id"] for session in run("runs", "list", "--json").json]


def test_an_exported_session_comes_back_as_it_was(run: Run, project: Path, said: str) -> None:
    exported = run("runs", "export", said[:10])
    assert exported.code == 0
    (project / "said.jsonl").write_text(exported.out)
    shown = run("runs", "show", said, "--json").json
    run("runs", "prune", said)
    assert run("runs", "import", "said.jsonl").out.strip() == said
    assert run("runs", "show", said, "--json").json == shown
    assert run("runs", "import", "-", stdin=exported.out).code == 0, "it is there already, and the same"
    other = run("runs", "import", "said.jsonl", "--new-id", "--json").json["session"]
    assert other != said
    assert run("runs", "diff", said, other).code == 0


def test_what_was_changed_on_the_way_is_not_taken_in(run: Run, project: Path, said: str) -> None:
    changed = run("runs", "export", said).out.replace("Oslo", "Rome")
    run("runs", "prune", said)
    done = run("runs", "import", "-", "--json", stdin=changed)
    assert (done.code, done.error["code"]) == (1, "journal.export_damaged")
    assert ids(run) == []
    assert run("runs", "import", "nowhere.jsonl", "--json").error["code"] == "runs.unreadable"
    (project / "other").mkdir()
    assert run("runs", "import", "other", "--json").error["code"] == "runs.unreadable"


def test_prune_by_age_and_by_name(run: Run, said: str, script: Script) -> None:
    assert run("runs", "prune", "--older-than", "1h", "--json").json["pruned"] == []
    dry = run("runs", "prune", "--older-than", "0s", "--dry-run")
    assert f"{said}  would go" in dry.out
    assert ids(run) == [said]
    run("ask", "hi", "-m", script("- Hello.\n"))
    done = run("runs", "prune", said)
    assert "1 session and 5 events went" in done.err
    assert len(ids(run)) == 1
    assert run("runs", "prune", "--older-than", "0s").code == 0
    assert ids(run) == []


def test_a_session_that_waits_is_pruned_by_force_only(run: Run) -> None:
    run(*WRITE)
    (session,) = ids(run)
    assert "waits for a person" in run("runs", "prune", session).out
    assert ids(run) == [session]
    assert run("runs", "prune", session, "--force", "--json").json["pruned"] == [session]


@pytest.mark.parametrize(
    "words",
    [
        ("prune",),
        ("prune", "--older-than", "soon"),
        ("prune", "nowhere"),
        ("forget",),
        ("export", "nowhere"),
    ],
)
def test_what_cannot_be_kept_or_removed_is_usage(run: Run, said: str, words: tuple[str, ...]) -> None:
    assert run("runs", *words).code == 2
    assert ids(run) == [said]


def test_forget_says_what_went_from_where_and_where_it_did_not_look(
    run: Run, project: Path, said: str
) -> None:
    fork = run("runs", "fork", said, "--at", "5").out.strip()
    dry = run("runs", "forget", "--text", "ada", "--dry-run")
    assert "would go" in dry.out
    assert "Ada" in run("runs", "show", said).out
    done = run("runs", "forget", "--text", "ada")
    assert f"{said}  gone" in done.out
    assert f"{fork}  fork of {said}" in done.out
    assert "Exports, backups" in done.err
    assert "Ada" not in run("runs", "show", said, "--events").out
    assert "Oslo" in run("runs", "show", said).out
    kept = b"".join(file.read_bytes() for file in (project / ".kernloom").glob("journal.db*"))
    assert b"Ada" not in kept
    assert run("runs", "forget", "--text", "ada").out == "Nothing fits.\n"


def test_what_a_run_that_has_not_ended_needs_is_forgotten_by_force_only(run: Run) -> None:
    run(*WRITE)
    done = run("runs", "forget", "--text", "a.txt", "--json")
    assert (done.code, done.error["code"]) == (1, "journal.unfinished")
    assert run("runs", "forget", "--text", "a.txt", "--force", "--json").json["events"]
    assert "a.txt" not in run("runs", "show", "last", "--events").out


def test_forget_one_person_in_one_session(run: Run, said: str) -> None:
    report = run("runs", "forget", said, "--person", "nobody", "--json").json
    assert report["events"] == []
    report = run("runs", "forget", said, "--json").json
    assert {event["session"] for event in report["events"]} == {said}


def test_audit_says_who_allowed_what(run: Run) -> None:
    assert run("runs", "audit", "--json").json == []
    run(*WRITE)
    assert "open" in run("runs", "audit").out
    run("runs", "resolve", "last", "deny", "--by", "ann")
    run("runs", "resume", "last")
    out = run("runs", "audit").out
    assert "deny by ann" in out
    assert 'files.write {"path": "a.txt", "text": "hi"}' in out
    (line,) = run("runs", "audit", "--since", "1h", "--json").json
    assert (line["answer"], line["answered_by"], line["outcome"]) == ("deny", "ann", "failed")
    assert run("runs", "audit", line["session"], "--json").json == [line]
    assert run("runs", "audit", "nowhere").code == 2


def test_an_export_is_lines_of_json(run: Run, said: str) -> None:
    lines = [json.loads(line) for line in run("runs", "export", said).out.splitlines()]
    assert lines[0]["session"] == said
    assert lines[-1]["lines"] == len(lines) - 1
