"""At a terminal: a question answered with y, Ctrl-C that keeps what was said, colour where it is wanted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernloom import Journal, SqliteJournalStore
from kernloom.kernel.journal.events import (
    FunctionRequested,
    FunctionStarted,
    QuestionAnswered,
    QuestionAsked,
    RunStarted,
)
from kernloom.kernel.messages import ToolCall
from kernloom.testing.server import FakeOpenAI, Reply

pytest.importorskip("pty", reason="pseudo-terminals are POSIX's")


class Terminal:
    """A program at a pseudo-terminal of its own, so that Ctrl-C reaches it as from a keyboard."""

    def __init__(self, words: tuple[str, ...], folder: Path, env: Mapping[str, str]) -> None:
        import pty

        self._master, slave = pty.openpty()
        self.shown = ""
        self._seen = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kernloom", *words],
            stdin=slave, stdout=slave, stderr=slave, cwd=folder, env={**os.environ, **env},
            preexec_fn=_lead_session,  # noqa: PLW1509 - how else would it get its terminal
        )  # fmt: skip
        os.close(slave)

    def wait_for(self, text: str, *, seconds: float = 30) -> None:
        """Read until ``text`` is shown, after what was waited for before."""
        self._read(lambda: text in self.shown[self._seen :], seconds)
        at = self.shown.find(text, self._seen)
        assert at >= 0, self.shown
        self._seen = at + len(text)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self, *, seconds: float = 30) -> int:
        """Read to the end; the exit code."""
        self._read(lambda: False, seconds)
        return self.process.wait(timeout=seconds)

    def end_by(self, keys: str) -> int:
        """Type ``keys`` until it ends; the exit code.

        Between showing its prompt and waiting for input, readline notes Ctrl-C only with the next key.
        """
        for _ in range(10):
            self.type(keys)
            self._read(lambda: False, 2)
            if self.process.poll() is not None:
                break
        return self.end()

    def type_until(self, keys: str, text: str) -> None:
        """Type ``keys`` until ``text`` is shown, for the same reason."""
        for _ in range(10):
            self.type(keys)
            self._read(lambda: text in self.shown[self._seen :], 2)
            if text in self.shown[self._seen :]:
                break
        self.wait_for(text)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self, enough: Callable[[], bool], seconds: float) -> None:
        import select

        until = time.monotonic() + seconds
        while not enough() and time.monotonic() < until:
            ready, _, _ = select.select([self._master], [], [], 0.2)
            if not ready:
                continue
            try:
                piece = os.read(self._master, 4096)
            except OSError:  # Linux's way to say that the other end is closed
                return
            if not piece:
                return
            self.shown += piece.decode(errors="replace")


def _lead_session() -> None:
    """A session of its own, with the pseudo-terminal as what controls it."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(*words: str, folder: Path, **env: str) -> Iterator[Terminal]:
    opened = Terminal(words, folder, env)
    try:
        yield opened
    finally:
        opened.close()


WRITE = ("call", "files.write", "path=note.txt", "text=hello")


@pytest.mark.parametrize(
    ("answer", "code", "written"), [("y\r", 0, True), ("n\r", 1, False), ("\r", 1, False)]
)
def test_a_change_is_asked_about_and_only_yes_makes_it(
    project: Path, answer: str, code: int, written: bool
) -> None:
    with terminal(*WRITE, folder=project) as opened:
        opened.wait_for("Allow this call? [y/N]")
        assert '"path": "note.txt"' in opened.shown
        opened.type(answer)
        assert opened.end() == code
    assert (project / "note.txt").exists() is written


def test_ctrl_c_at_the_question_stops_with_130(project: Path) -> None:
    with terminal(*WRITE, folder=project) as opened:
        opened.wait_for("[y/N]")
        assert opened.end_by("\x03") == 130
        assert "Traceback" not in opened.shown
    assert not (project / "note.txt").exists()


@pytest.mark.parametrize("files", [("a.txt",), ("a.txt", "b.txt")], ids=["one call", "calls side by side"])
def test_ctrl_c_at_a_models_question_cancels_the_run_on_record(
    project: Path, files: tuple[str, ...]
) -> None:
    calls = [{"name": "files.write", "arguments": {"path": name, "text": ""}} for name in files]
    (project / "script.yaml").write_text(json.dumps([{"calls": calls}]))
    with terminal("ask", "Go.", "-m", "script:script.yaml", "-f", "files.write", folder=project) as opened:
        opened.wait_for("[y/N]")
        assert opened.end_by("\x03") == 130
        assert "bug" not in opened.shown
    assert _status_of_the_last_run(project) == "cancelled"


def test_ctrl_c_at_the_question_of_a_call_is_on_record(project: Path) -> None:
    with terminal(*WRITE, folder=project) as opened:
        opened.wait_for("[y/N]")
        assert opened.end_by("\x03") == 130
    assert _status_of_the_last_run(project) == "cancelled"


def test_ctrl_c_at_a_question_ends_the_turn_and_the_next_one_asks_again(project: Path) -> None:
    call = {"calls": [{"name": "files.write", "arguments": {"path": "a.txt", "text": ""}}]}
    (project / "script.yaml").write_text(json.dumps([call, call, "Written."]))
    with terminal("chat", "-m", "script:script.yaml", "-f", "files.write", folder=project) as opened:
        opened.wait_for("you> ")
        opened.type("write\r")
        opened.wait_for("[y/N]")
        opened.type_until("\x03", "what was said is kept")
        opened.wait_for("you> ")
        opened.type("again\r")
        opened.wait_for("[y/N]")
        opened.type("y\r")
        opened.wait_for("Written.")
        opened.type("/quit\r")
        assert opened.end() == 0
    assert (project / "a.txt").exists()


def _status_of_the_last_run(project: Path) -> str:
    words = [sys.executable, "-m", "kernloom", "runs", "list", "--json"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout)[0]["status"])


def test_ctrl_c_in_a_chat_keeps_what_was_said_and_the_talk_goes_on(project: Path) -> None:
    endless = Reply("one two " + "three " * 200, chunk_delay=0.05)
    with FakeOpenAI([endless, "Still here."]) as server:
        model = {"KERNLOOM_MODELS__OPENAI__BASE_URL": server.base_url, "OPENAI_API_KEY": "test"}
        with terminal("chat", "-m", "openai:any", folder=project, **model) as opened:
            opened.wait_for("you> ")
            opened.type("count\r")
            opened.wait_for("one two")
            opened.type("\x03")
            opened.wait_for("what was said is kept")
            opened.type("are you there?\r")
            opened.wait_for("Still here.")
            opened.type("/quit\r")
            assert opened.end() == 0
            assert "Traceback" not in opened.shown
        sent = server.requests[1].json["messages"]
    assert [message["role"] for message in sent][-3:] == ["user", "assistant", "user"]
    assert "one two" in json.dumps(sent)


def test_ctrl_c_at_the_prompt_leaves_and_says_how_to_come_back(project: Path) -> None:
    (project / "script.yaml").write_text("- Hello.\n")
    with terminal("chat", "-m", "script:script.yaml", folder=project) as opened:
        opened.wait_for("you> ")
        opened.type("hi\r")
        opened.wait_for("Hello.")
        opened.wait_for("you> ")
        assert opened.end_by("\x03") == 130
        assert "kernloom chat --session" in opened.shown


def test_ctrl_d_leaves_a_chat(project: Path) -> None:
    with terminal("chat", "-m", "echo", folder=project) as opened:
        opened.wait_for("you> ")
        opened.type("\x04")
        assert opened.end() == 0


def test_a_key_is_typed_unseen(project: Path) -> None:
    with terminal("keys", "set", "openai", folder=project) as opened:
        opened.wait_for("Key for openai")
        opened.type("sk-typed-key\r")
        assert opened.end() == 0
        assert "sk-typed-key" not in opened.shown


def test_a_terminal_gets_colour_unless_it_asks_not_to(project: Path) -> None:
    with terminal("plugins", "list", folder=project, TERM="xterm") as opened:
        opened.end()
        assert "\x1b[32m" in opened.shown
    with terminal("plugins", "list", folder=project, TERM="xterm", NO_COLOR="1") as opened:
        opened.end()
        assert "\x1b[3" not in opened.shown


def test_a_document_does_not_command_the_terminal(project: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x1b\\Bread\u202e is baked on Fridays.\n"
    (project / "bread.md").write_text(evil, encoding="utf-8")
    (project / "model.yaml").write_text('- "so \\e[2J much"\n')
    for words in (
        ("memory", "add", "bread.md"),
        ("memory", "search", "bread"),
        ("ask", "When is bread baked?"),
    ):
        with terminal(*words, folder=project) as opened:
            assert opened.end() == 0
            assert "\x1b[2J" not in opened.shown
            assert "\x1b]" not in opened.shown
            assert "\u202e" not in opened.shown
            if words[1] != "add":
                assert r"\x1b[2J\x1b]0;owned\x1b\Bread\u202e is baked" in opened.shown
    with terminal("ask", "hi", "-m", "script:model.yaml", folder=project) as opened:
        assert opened.end() == 0
        assert r"so \x1b[2J much" in opened.shown


def test_ctrl_c_ends_a_chat_that_nobody_types_into(project: Path) -> None:
    endless = Reply("one two " + "three " * 200, chunk_delay=0.05)
    with FakeOpenAI([endless, "Never asked for."]) as server:
        env = {
            **os.environ,
            "KERNLOOM_MODELS__OPENAI__BASE_URL": server.base_url,
            "OPENAI_API_KEY": "test",
        }
        command = [sys.executable, "-m", "kernloom", "chat", "-m", "openai:any"]
        with subprocess.Popen(
            command, cwd=project, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as chat:
            assert chat.stdin is not None
            assert chat.stdout is not None
            chat.stdin.write("count\nand then?\n")
            chat.stdin.close()
            assert chat.stdout.read(7) == "one two"
            chat.send_signal(signal.SIGINT)
            assert chat.wait(timeout=30) == 130
        assert len(server.requests) == 1


def test_a_run_that_waits_is_resumed_by_whoever_sits_there(project: Path) -> None:
    words = [sys.executable, "-m", "kernloom", *WRITE]
    waits = subprocess.run(words, cwd=project, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert waits.returncode == 3
    with terminal("runs", "resume", "last", folder=project) as opened:
        opened.wait_for("Allow this call? [y/N]")
        opened.type("y\r")
        assert opened.end() == 0
    assert (project / "note.txt").exists()


@pytest.mark.parametrize(
    ("typed", "written"),
    [(["done\r", "note.txt\r"], False), (["not-done\r"], True)],
    ids=["done", "not done"],
)
def test_a_call_in_doubt_is_asked_about(project: Path, typed: list[str], written: bool) -> None:
    asyncio.run(_died_in_the_middle(project))
    with terminal("runs", "resume", "last", folder=project) as opened:
        opened.wait_for("Was it done? (done, not-done, abandon)")
        assert '"path": "note.txt"' in opened.shown
        opened.type("perhaps\r")
        opened.wait_for("Was it done?")
        opened.type(typed[0])
        for line in typed[1:]:
            opened.wait_for("What did it return?")
            opened.type(line)
        assert opened.end() == 0
        assert "note.txt" in opened.shown.splitlines()[-1]
    assert (project / "note.txt").exists() is written


async def _died_in_the_middle(project: Path) -> None:
    """The record of a call whose process died after the intent."""
    (project / ".kernloom").mkdir()
    called = ToolCall(id="c", name="files.write", arguments='{"path": "note.txt", "text": "hello"}')
    async with Journal(SqliteJournalStore(project / ".kernloom" / "journal.db")) as journal:
        log = await journal.create()
        await log.append(
            RunStarted(name="files.write", what="function"),
            FunctionRequested(call=called),
            QuestionAsked(question_id="c", about="approval", text="files.write (write)", call=called),
            QuestionAnswered(question_id="c", answer="allow", by="person"),
            FunctionStarted(call_id="c", name="files.write", effects=("write",), key=f"{log.id}/c"),
            actor="person",
            run="r",
        )
