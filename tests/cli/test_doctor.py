"""``doctor`` tries things: what works is ok, what does not is said with what to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kernloom.testing.server import FakeOpenAI

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Done, Run


def findings(done: Done) -> dict[str, dict[str, str]]:
    return {finding["part"]: finding for finding in done.json["findings"]}


def test_everything_that_is_tried_works_here(run: Run) -> None:
    done = run("doctor", "--json")
    assert (done.code, done.json["broken"]) == (0, 0), done.out
    found = findings(done)
    assert found["kernel"]["status"] == "ok"
    assert found["journal"]["status"] == "ok"
    assert found["memory"]["status"] == "warn"
    assert "words only" in found["memory"]["said"]


def test_the_doctor_leaves_nothing_behind(run: Run, project: Path) -> None:
    before = sorted(project.rglob("*"))
    run("doctor")
    assert sorted(project.rglob("*")) == before


def test_it_looks_at_the_projects_own_memory_and_journal(run: Run, documents: Path) -> None:
    run("memory", "add", "docs")
    run("ask", "when is bread baked?")
    found = findings(run("doctor", "--json"))
    assert "3 documents" in found["documents"]["said"]
    assert "1 sessions" in found["journal"]["said"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_file_that_others_can_read_is_broken(run: Run, tmp_path: Path) -> None:
    run("keys", "set", "openai", stdin="sk-secret")
    (tmp_path / "home" / "keys.json").chmod(0o644)
    done = run("doctor", "--json")
    assert done.code == 1
    assert findings(done)["files"]["status"] == "broken"


def test_a_damaged_journal_is_broken_and_the_rest_goes_on(run: Run, project: Path) -> None:
    (project / ".kernloom").mkdir(mode=0o700)
    (project / ".kernloom" / "journal.db").write_bytes(b"not a database" * 100)
    done = run("doctor", "--json")
    assert done.code == 1
    found = findings(done)
    assert found["journal"]["status"] == "broken"
    assert found["sqlite"]["status"] == "ok"


def test_a_broken_configuration_is_a_finding(run: Run, project: Path) -> None:
    (project / "kernloom.toml").write_text("[modl]\n")
    done = run("doctor", "--json")
    assert done.code == 1
    assert findings(done)["config"]["status"] == "broken"
    assert findings(done)["python"]["status"] == "ok"


def test_without_online_a_network_model_is_not_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNLOOM_MODEL__DEFAULT", "openai:any")
    found = findings(run("doctor", "--json"))
    assert found["key"]["status"] == "warn"
    assert "kernloom keys set openai" in found["key"]["fix"]
    assert "was not asked" in found["model"]["said"]


def test_online_asks_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOpenAI(["yes"]) as server:
        monkeypatch.setenv("KERNLOOM_MODEL__DEFAULT", "openai:any")
        monkeypatch.setenv("KERNLOOM_MODELS__OPENAI__BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        found = findings(run("doctor", "--online", "--json"))
    assert found["model"]["said"] == "openai:any answered 'yes'"


def test_a_place_where_nothing_can_be_kept_is_broken(run: Run, project: Path) -> None:
    (project / ".kernloom").write_text("a file where the folder should be")
    found = findings(run("doctor", "--json"))
    assert found["sqlite"]["status"] == "broken"
    assert f"nothing can be kept in {project / '.kernloom'}" in found["sqlite"]["said"]
