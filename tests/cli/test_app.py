"""Manners of the whole command line: help, versions, typos, errors, exit codes, pipes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

import click
import pytest

from kernloom.cli.app import _COMMANDS, exit_code, root
from kernloom.kernel.errors import (
    ApprovalRequired,
    ConfigError,
    KernloomError,
    MissingExtraError,
    ProviderError,
    UsageError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


Words = tuple[str, ...]


def every_command(group: click.Group, path: Words = ()) -> Iterator[tuple[Words, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


ALL = dict(every_command(root))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_json_and_verbose(run: Run, path: tuple[str, ...]) -> None:
    done = run(*path, "--help")
    assert done.code == 0
    assert "--json" in done.out
    assert "--verbose" in done.out
    assert (ALL[path].help or "").strip()
    assert not ALL[path].get_short_help_str(74).endswith("..."), "too long for the list"


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    assert _COMMANDS[name].about == ALL[(name,)].get_short_help_str(100)


def test_the_version_is_the_installed_one(run: Run) -> None:
    done = run("--version")
    assert done.out == f"kernloom {metadata.version('kernloom')}\n"


def test_no_command_shows_the_help(run: Run) -> None:
    done = run()
    assert done.code == 2
    assert done.err.startswith("Usage: kernloom")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("memroy",), "memory"),  # codespell:ignore
        (("memory", "serach"), "search"),  # codespell:ignore
        (("plan", "rnu"), "run"),
        (("docter",), "doctor"),
    ],
)
def test_a_typo_in_a_command_is_answered_with_the_near_one(
    run: Run, words: tuple[str, ...], meant: str
) -> None:
    done = run(*words)
    assert done.code == 2
    assert f"Did you mean {meant!r}" in done.err


def test_an_unknown_option_is_a_usage_error_also_as_json(run: Run) -> None:
    done = run("memory", "list", "--jsno", "--json")
    assert done.code == 2
    assert done.out == ""
    assert done.error["code"] == "usage.command"


def test_json_works_before_and_behind_the_command(run: Run) -> None:
    assert run("--json", "config", "show").json == run("config", "show", "--json").json


def test_an_error_says_code_what_what_to_do_and_where_more_is(run: Run) -> None:
    done = run("call", "math.evalute", "expression=1")  # codespell:ignore
    assert done.code == 2
    assert done.out == ""
    first, hint, page = done.err.splitlines()
    assert first == "error function.not_found: There is no function 'math.evalute'."
    assert "Did you mean 'math.evaluate'" in hint
    assert page.strip() == "docs/errors.md#function.not_found"


def test_a_traceback_is_shown_with_v_only(run: Run) -> None:
    assert "Traceback" not in run("call", "math.evaluate", "expression=1/0").err
    assert "Traceback" in run("-v", "call", "math.evaluate", "expression=1/0").err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ApprovalRequired("x"), 3),
        (UsageError("x"), 2),
        (ConfigError("x"), 2),
        (MissingExtraError("rag", "x"), 1),
        (ProviderError("x"), 1),
        (KernloomError("x"), 1),
    ],
)
def test_exit_codes_tell_usage_from_failure_from_approval(error: KernloomError, code: int) -> None:
    assert exit_code(error) == code


def test_a_broken_setting_stops_with_words_not_a_traceback(run: Run, project: Path) -> None:
    (project / "kernloom.toml").write_text("[memory]\nkk = 3\n")
    done = run("memory", "list")
    assert done.code == 2
    assert "config.unknown_key" in done.err
    assert "Did you mean 'memory.k'?" in done.err


def test_a_setting_can_be_given_for_once(run: Run) -> None:
    done = run("--set", "memory.k=3", "config", "show", "--origin", "--json")
    assert done.json["memory.k"] == {"value": 3, "origin": "flag"}


def test_nothing_is_coloured_without_a_terminal(run: Run, documents: Path) -> None:
    run("memory", "add", "docs")
    for words in (("plugins", "list"), ("memory", "search", "bread"), ("ask", "when is bread baked?")):
        done = run(*words)
        assert "\x1b" not in done.out + done.err


def test_a_reader_that_leaves_early_is_no_error(project: Path) -> None:
    command = [sys.executable, "-m", "kernloom", "functions", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=project) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_python_m_kernloom_is_the_same_program(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kernloom", "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd=project,
    )
    assert (done.returncode, done.stdout) == (0, f"kernloom {metadata.version('kernloom')}\n")


def test_what_a_plugin_prints_does_not_mix_with_a_result(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = project / "noisy"
    noisy.mkdir()
    (noisy / "__init__.py").write_text(
        "from kernloom import ScriptedModel\n"
        "class Noisy:\n"
        "    models = ('noisy',)\n"
        "    def chat_model(self, name, settings):\n"
        "        print('making', name)\n"
        "        return ScriptedModel(['Hello.'], name=name)\n"
    )
    (noisy / "kernloom-plugin.toml").write_text("api = 1\n[plugins.noisy]\nmodels = ['noisy']\n")
    info = project / "kernloom_noisy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernloom-noisy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kernloom.plugins]\nnoisy = noisy:Noisy\n")
    (info / "RECORD").write_text("noisy/__init__.py,,\nnoisy/kernloom-plugin.toml,,\n")
    monkeypatch.syspath_prepend(project)
    assert run("plugins", "allow", "noisy").code == 0
    done = run("ask", "hi", "-m", "noisy:x", "--json")
    assert done.json["text"] == "Hello."
    assert "making noisy:x" in done.err
    monkeypatch.delitem(sys.modules, "noisy")
    assert run("ask", "hi", "-m", "noisy:x").out == "Hello.\n"


def test_a_folder_that_is_gone_is_no_bug(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = run("call", "math.evaluate", "expression=1", "--json")
    assert done.code == 1
    assert done.error["code"] == "system.refused"
    assert done.error["message"] == "No such file or directory."
