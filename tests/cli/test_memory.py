"""``memory`` and ``ask``: documents in, quotes with their places out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

QUESTION = "Who approves travel above EUR 2000?"


@pytest.fixture
def filled(run: Run, documents: Path) -> Path:
    assert run("memory", "add", "docs").code == 0
    return documents


def test_add_says_what_it_did_and_which_embedder(run: Run, documents: Path) -> None:
    done = run("memory", "add", "docs")
    assert done.code == 0
    assert "3 added" in done.out
    assert "embedder: none" in done.out
    assert "3 unchanged" in run("memory", "add", "docs").out
    (documents / "bread.md").unlink()
    assert run("memory", "add", "docs", "--json").json["removed"] == 1


def test_a_skipped_file_is_named_with_its_reason(run: Run, documents: Path) -> None:
    (documents / "empty.md").write_text("")
    done = run("memory", "add", "docs")
    assert done.code == 0
    assert "empty.md" in done.err


def test_text_from_stdin_needs_an_id(run: Run) -> None:
    assert run("memory", "add", "-", stdin="x").code == 2
    assert run("memory", "add", "-", "--id", "note", stdin="The gate opens at nine.").code == 0
    assert run("memory", "list", "--json").json["documents"][0]["id"] == "note"


def test_a_path_that_is_not_there_is_answered_with_the_near_one(run: Run, documents: Path) -> None:
    done = run("memory", "add", "dosc")
    assert done.code == 2
    assert "'docs'" in done.err


def test_search_shows_place_and_ranks(run: Run, filled: Path) -> None:
    done = run("memory", "search", "spare key boat house", "-k", "1")
    assert "docs/boats.md:" in done.out
    assert "keyword #1" in done.out
    (hit,) = run("memory", "search", "spare key boat house", "-k", "1", "--json").json
    assert hit["source"] == "docs/boats.md"
    assert hit["keyword"]["rank"] == 1
    assert hit["vector"]["rank"] is None


def test_list_and_rm(run: Run, filled: Path) -> None:
    assert len(run("memory", "list", "--json").json["documents"]) == 3
    assert run("memory", "rm", "bread.md").out == "Forgot 1 document.\n"
    assert "bread.md" not in run("memory", "list").out
    done = run("memory", "rm", "boat.md")
    assert done.code == 2
    assert "'boats.md'" in done.err
    assert (filled / "bread.md").exists()


def test_another_memory_can_be_named(run: Run, documents: Path, project: Path) -> None:
    assert run("memory", "add", "docs", "--memory", "other.db").code == 0
    assert (project / "other.db").exists()
    assert run("memory", "list", "--json").json["documents"] == []
    assert "docs/travel.md:" in run("ask", QUESTION, "--memory", "other.db").out


def test_an_empty_memory_says_what_to_do(run: Run) -> None:
    for words in (("ask", QUESTION), ("memory", "search", "x"), ("chat",)):
        done = run(*words)
        assert done.code == 1
        assert "kernloom memory add" in done.err


def test_ask_answers_with_the_place_and_what_it_rests_on(run: Run, filled: Path) -> None:
    done = run("ask", QUESTION)
    assert done.code == 0
    assert "head of department" in done.out
    assert re.search(r"\[1\]  docs/travel\.md:3(-\d)?  keyword #1", done.out)
    assert "grounded: 1/1 quotes verified" in done.err
    assert "session " in done.err


def test_ask_as_json_holds_the_citations_and_the_session(run: Run, filled: Path) -> None:
    data = run("ask", "-", "--json", stdin=QUESTION).json
    assert data["found"] is True
    assert data["citations"][0]["place"].startswith("docs/travel.md:3")
    assert data["citations"][0]["verified"] is True
    assert run("runs", "show", data["session"]).code == 0


def test_what_is_not_in_memory_is_said_so(run: Run, filled: Path) -> None:
    done = run("ask", "Which colour has the moon's chancellery?")
    assert done.code == 0
    assert "not in memory" in done.out
    assert "not found in memory" in done.err


def test_an_empty_question_is_refused(run: Run, filled: Path) -> None:
    assert run("ask", " ").code == 2


def test_fewer_passages_can_be_asked_for(run: Run, filled: Path) -> None:
    assert len(run("ask", QUESTION, "--k", "1", "--json").json["passages"]) == 1


def test_a_model_answers_without_memory_and_says_so(run: Run, script: Callable[[str], str]) -> None:
    done = run("ask", "hello", "-m", script("- Hello, you.\n"))
    assert (done.code, done.out) == (0, "Hello, you.\n")
    assert "Memory is empty" in done.err


def test_an_unknown_model_is_answered_with_the_near_one(run: Run) -> None:
    done = run("ask", "hello", "-m", "opnai:gpt")
    assert done.code == 2
    assert "'openai:…'" in done.err


def test_a_model_without_its_key_says_how_to_set_one(run: Run) -> None:
    done = run("ask", "hello", "-m", "openai:gpt-4.1")
    assert done.code == 1
    assert "kernloom keys set openai" in done.err
