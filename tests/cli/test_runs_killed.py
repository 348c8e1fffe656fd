"""A process that is killed or waits, and others that take its run over: all of them real."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")

#: A bank that writes payments down, and never answers while there is a file ``hang``.
CODE = '''\
"""A bank."""
import time
from pathlib import Path

from kernloom import Context, function

class Bank:
    @function(effects={"spend"})
    def pay(self, amount: int, context: Context) -> str:
        """Pay."""
        with Path("paid.txt").open("a") as file:
            file.write(f"{context.idempotency_key}\\n")
        while Path("hang").exists():
            time.sleep(0.01)
        return f"receipt {amount}"

    @function(effects={"read"})
    def wait(self) -> str:
        """Wait for ever."""
        Path("waits").write_text("yes")
        while Path("hang").exists():
            time.sleep(0.01)
        return "waited"
'''
INFO = "kernloom_bank-1.0.dist-info"
MANIFEST = """\
api = 1
[plugins.bank]
description = "Payments."
entry = "kernloom_bank:Bank"
functions.pay.effects = ["spend"]
functions.wait.effects = ["read"]
"""
SETTINGS = "[memory]\nembedder = 'none'\n[policy.functions]\n'bank.pay' = 'allow'\n"
PAYING = "- calls: [{name: bank.pay, arguments: {amount: 5}}]\n"
PLAN = """\
goal: Pay and say so
steps:
- {id: p, call: bank.pay, args: {amount: 5}}
- {id: up, call: text.upper, args: {text: "{{ steps.p.result }}"}}
"""


class Shell:
    """A folder in which command lines are run, each a process of its own."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder = folder
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "KERNLOOM_HOME": str(folder.parent / "home"),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "kernloom", *words],
            cwd=self.folder, env=self._env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str, code: int = 0) -> str:
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        return out if code == 0 else err

    def kill_when(self, file: str, *words: str) -> None:
        """Run a command line and kill it with SIGKILL once something stands in ``file``."""
        (self.folder / "hang").touch()
        process = self.start(*words)
        until = time.monotonic() + 60
        while not self.holds(file):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (self.folder / "hang").unlink()

    def holds(self, file: str) -> bool:
        path = self.folder / file
        return path.exists() and path.stat().st_size > 0

    def session(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("runs", "list", "--json"))[0]
        return found

    @property
    def paid(self) -> list[str]:
        return (self.folder / "paid.txt").read_text().split()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    site = tmp_path / "site"
    files = {
        "kernloom_bank/__init__.py": CODE,
        "kernloom_bank/kernloom-plugin.toml": MANIFEST,
        f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: kernloom-bank\nVersion: 1.0\n",
        f"{INFO}/entry_points.txt": "[kernloom.plugins]\nbank = kernloom_bank:Bank\n",
    }
    record = []
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(text)}")
    (site / INFO / "RECORD").write_text("\n".join([*record, ""]))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "kernloom.toml").write_text(SETTINGS)
    (folder / "plan.yaml").write_text(PLAN)
    (folder / "script.yaml").write_text(PAYING)
    shell = Shell(folder, site)
    shell.run("plugins", "allow", "bank", "--yes")
    return shell


ASK = ("ask", "pay 5", "-m", "script:script.yaml", "-f", "bank")
RUN = ("plan", "run", "plan.yaml")
CALL = ("call", "bank.pay", "amount=5")


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (ASK, "Paid.\n"),
        pytest.param(RUN, "RECEIPT BY PHONE\n", marks=pytest.mark.slow),
        pytest.param(CALL, "receipt by phone\n", marks=pytest.mark.slow),
    ],
)
def test_killed_right_after_the_effect_a_person_says_what_became_of_it_and_it_is_not_done_again(
    shell: Shell, words: tuple[str, ...], result: str
) -> None:
    shell.kill_when("paid.txt", *words)
    session = shell.session()
    assert session["status"] == "unfinished"
    assert session["id"] in shell.run("runs", "resume", "last", code=3)
    assert shell.session()["status"] == "waiting"
    said = shell.run("runs", "resume", session["id"], code=3)
    assert f"kernloom runs resolve {session['id']} done     (or not-done, abandon)" in said
    shell.run("runs", "resolve", session["id"], "done", "--result", "receipt by phone")
    (shell.folder / "script.yaml").write_text("- Paid.\n")
    assert shell.run("runs", "resume", session["id"]) == result
    assert shell.session()["status"] == "finished"
    assert len(shell.paid) == 1
    (line,) = json.loads(shell.run("runs", "audit", "--json"))
    assert (line["about"], line["answer"], line["outcome"]) == ("in_doubt", "done", "finished")


@pytest.mark.slow
def test_what_was_not_done_is_done_with_the_same_key(shell: Shell) -> None:
    shell.kill_when("paid.txt", *RUN)
    shell.run("runs", "resume", "last", code=3)
    shell.run("runs", "resolve", "last", "not-done")
    assert shell.run("runs", "resume", "last") == "RECEIPT 5\n"
    assert len(shell.paid) == 2
    assert len(set(shell.paid)) == 1


@pytest.mark.parametrize(
    "words",
    [RUN, pytest.param(ASK, marks=pytest.mark.slow), pytest.param(CALL, marks=pytest.mark.slow)],
)
def test_an_approval_is_answered_by_another_process_and_a_third_goes_on(
    shell: Shell, words: tuple[str, ...]
) -> None:
    (shell.folder / "kernloom.toml").write_text("[memory]\nembedder = 'none'\n")
    said = shell.run(*words, code=3)
    session = shell.session()["id"]
    assert f"kernloom runs resolve {session} allow" in said
    assert f"kernloom runs resume {session}" in said
    shell.run("runs", "resolve", session, "allow")
    (shell.folder / "script.yaml").write_text("- Paid.\n")
    shell.run("runs", "resume", session)
    assert len(shell.paid) == 1


@pytest.mark.slow
def test_an_approval_pending_at_a_kill_is_pending_after_it(shell: Shell) -> None:
    (shell.folder / "kernloom.toml").write_text("[memory]\nembedder = 'none'\n")
    (shell.folder / "script.yaml").write_text(
        "- calls:\n  - {name: bank.pay, arguments: {amount: 5}}\n  - {name: bank.wait}\n"
    )
    shell.kill_when("waits", *ASK)
    session = shell.session()
    assert session["status"] == "waiting", "its process is dead, its question is not"
    shell.run("runs", "resolve", session["id"], "allow")
    (shell.folder / "script.yaml").write_text("- Paid.\n")
    assert shell.run("runs", "resume", session["id"]) == "Paid.\n"
    assert len(shell.paid) == 1


@pytest.mark.slow
def test_a_run_that_is_at_work_is_not_resumed_by_another(shell: Shell) -> None:
    (shell.folder / "hang").touch()
    process = shell.start(*RUN)
    while not shell.holds("paid.txt"):
        assert process.poll() is None
        time.sleep(0.01)
    assert shell.session()["status"] == "running"
    assert "journal.leased" in shell.run("runs", "resume", "last", code=1)
    (shell.folder / "hang").unlink()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "RECEIPT 5\n")
    assert len(shell.paid) == 1
