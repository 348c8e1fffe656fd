"""``kernloom demo``: the whole walk on a real handbook, offline and without a key, in a minute.

Each step prints the command it stands for, so that whoever watches can go on alone.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
from pathlib import Path

import click

from ..kernel.config.config import FILE, Config
from ..kernel.errors import NotFoundError
from ..planners.plan import Plan
from . import answers
from .ask import answer
from .commands import Command
from .init import template
from .memory import report as report_words
from .plan import execute
from .plugins import listing
from .screen import Screen
from .workspace import EXTRACTIVE, open_agent, open_memory

#: In a checkout and in the wheel alike, beside the code.
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
QUESTIONS = (
    ("answered on one page", "Who approves travel above 2000 euros, and does a chat message do?"),
    (
        "answered on two pages together",
        "What is the hotel limit per night in Port Aldane in 2026, and which band is it in?",
    ),
    ("not answered in the handbook", "Can I bring my dog to the office?"),
)


@click.command(cls=Command)
@click.pass_obj
def demo(screen: Screen) -> None:
    """See it work: a handbook, three questions, a saved plan.

    Works in a temporary folder, needs no key and no network, and leaves nothing behind.
    """
    handbook = EXAMPLES / "handbook" / "pages"
    if not handbook.is_dir():
        raise NotFoundError(
            f"The demo's handbook is not installed ({handbook}).",
            code="demo.missing",
            hint="Run it in a checkout of kernloom, or ask your own documents: kernloom memory add docs/",
        )
    with tempfile.TemporaryDirectory(prefix="kernloom-demo-") as folder:
        (Path(folder) / FILE).write_text(template(), encoding="utf-8")
        screen.use(Config.load(Path(folder), flags={"model.default": EXTRACTIVE}))
        asyncio.run(_demo(screen, _near(handbook)))


async def _demo(screen: Screen, handbook: Path) -> None:
    data = {
        "memory": await _add(screen, handbook),
        "answers": [await _ask(screen, kind, question) for kind, question in QUESTIONS],
        "plugins": _plugins(screen),
        "plan": await _plan(screen, _near(EXAMPLES / "plans" / "trip.yaml")),
    }
    screen.result(data)
    screen.say("That was all local: no key, no network, nothing left behind. On your own documents:")
    for command in ("init", "memory add docs/", 'ask "your question"', "--help"):
        screen.say(f"  kernloom {command}")


async def _add(screen: Screen, handbook: Path) -> dict[str, object]:
    _heading(screen, "Documents go in.", "memory", "add", str(handbook))
    async with open_memory(screen) as memory:
        done = await memory.add(handbook, progress=lambda n, of, path: screen.progress(f"{n}/{of}  {path}"))
    screen.say(report_words(done))
    return {"added": done.added, "chunks": done.chunks, "embedder": done.embedder}


async def _ask(screen: Screen, kind: str, question: str) -> dict[str, object]:
    _heading(screen, f"A question {kind}.", "ask", question)
    async with open_agent(screen, model=EXTRACTIVE) as agent:
        reply = await answer(screen, agent, question)
    screen.say(answers.whole(screen, reply))
    return {"question": question, **answers.as_data(reply)}


def _plugins(screen: Screen) -> list[dict[str, object]]:
    _heading(screen, "Plugins are listed without running them.", "plugins", "list")
    data, text = listing(screen)
    screen.say(text)
    return data


async def _plan(screen: Screen, file: Path) -> dict[str, object]:
    _heading(screen, "A saved plan chains plugins, without a model.", "plan", "run", str(file))
    outcome = await execute(screen, Plan.load(file), {}, name=file.stem, yes=False)
    screen.say(f"{outcome.text}\n\n{outcome.steps}\n")
    return outcome.data


def _heading(screen: Screen, about: str, *command: str) -> None:
    screen.say(f"\n{screen.paint(about, 'strong')}")
    screen.say(screen.paint(f"$ kernloom {shlex.join(command)}", "dim"))


def _near(path: Path) -> Path:
    """As somebody standing here would write it."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else Path(relative)
