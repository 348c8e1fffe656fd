"""``demo``: the whole walk, here by words only so that it is quick; tests/test_offline.py runs it whole."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def by_words(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNLOOM_MEMORY__EMBEDDER", "none")


def test_the_demo_answers_cites_lists_and_runs_a_plan(run: Run) -> None:
    done = run("demo", "--json")
    assert done.code == 0, done.err
    one, two, absent = done.json["answers"]
    assert len({citation["document"] for citation in one["citations"]}) == 1
    assert len({citation["document"] for citation in two["citations"]}) == 2
    assert all(citation["verified"] for citation in one["citations"] + two["citations"])
    assert (absent["found"], absent["citations"]) == (False, [])
    assert done.json["memory"]["added"] >= 25
    assert {record["name"] for record in done.json["plugins"]} >= {"math", "memory", "text", "time"}
    steps = done.json["plan"]["steps"]
    assert len(steps) >= 4
    assert {step["status"] for step in steps.values()} == {"finished"}


def test_the_demo_tells_the_commands_it_stands_for_and_the_embedder(run: Run) -> None:
    out = run("demo").out
    for command in ("memory add", "ask", "plugins list", "plan run"):
        assert f"$ kernloom {command}" in out
    assert "embedder: none" in out


def test_the_demo_leaves_nothing_behind(run: Run, project: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    others = set(Path(tempfile.gettempdir()).glob("kernloom-demo-*"))
    run("demo")
    assert sorted(tmp_path.rglob("*")) == before
    assert set(Path(tempfile.gettempdir()).glob("kernloom-demo-*")) <= others


def test_the_demo_asks_no_model_whatever_is_configured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNLOOM_MODEL__DEFAULT", "openai:gpt-4.1")
    assert run("demo").code == 0
