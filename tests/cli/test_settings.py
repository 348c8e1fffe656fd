"""``keys``, ``config`` and ``completion``."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


def test_a_key_is_read_from_stdin_and_never_printed(run: Run, tmp_path: Path) -> None:
    done = run("keys", "set", "openai", stdin="sk-secret\n")
    assert done.code == 0
    listed = run("keys", "list", "--json")
    assert listed.json == [{"provider": "openai", "where": str(tmp_path / "home" / "keys.json")}]
    assert "sk-secret" not in done.out + done.err + listed.out + listed.err


def test_setting_a_key_repairs_a_file_that_others_can_read(run: Run, tmp_path: Path) -> None:
    run("keys", "set", "openai", stdin="sk-secret")
    file = tmp_path / "home" / "keys.json"
    if os.name == "posix":
        file.chmod(0o644)
        assert run("keys", "list").code == 2
        assert "mended" in run("keys", "set", "other", stdin="x1").err
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_key_at_all_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    assert "kernloom keys set openai" in run("keys", "list").err


def test_forgetting_a_key_that_is_not_there_is_answered_with_the_near_one(run: Run) -> None:
    run("keys", "set", "openai", stdin="sk-secret")
    done = run("keys", "rm", "opnai")
    assert done.code == 2
    assert "'openai'" in done.err
    assert run("keys", "rm", "openai").code == 0


def test_config_shows_each_value_and_who_said_so(run: Run, project: Path) -> None:
    done = run("config", "show", "--origin", "--json")
    assert done.json["memory.embedder"] == {"value": "none", "origin": str(project / "kernloom.toml")}
    assert done.json["memory.k"] == {"value": 8, "origin": "default"}
    assert "memory.embedder" in run("config", "show").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(run: Run, shell: str) -> None:
    done = run("completion", shell)
    assert done.code == 0
    assert "_KERNLOOM_COMPLETE" in done.out
