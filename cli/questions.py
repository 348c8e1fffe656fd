"""Questions that wait for a person: how they are shown, what to type, and asking them at a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from ..kernel.conversations.conversation import Conversation
from ..kernel.conversations.waiting import Waiting, waiting
from ..kernel.errors import PersonRequired
from ..kernel.journal import Journal
from .screen import Screen
from .workspace import interruptible

#: What is typed for each kind of question; None: any text.
CHOICES: dict[str, tuple[str, ...] | None] = {
    "approval": ("allow", "deny"),
    "in_doubt": ("done", "not-done", "abandon"),
    "review": None,
    "clarification": None,
}


async def say_how_to_answer(exc: PersonRequired, journal: Journal, session: str) -> None:
    """Let the error of a run that waits name its session and the two commands that go on with it."""
    found = await waiting(journal, session)
    exc.details["session"] = session
    exc.details["questions"] = [item.question.question_id for item in found]
    exc.hint = what_to_type(session, found)


def what_to_type(session: str, found: Sequence[Waiting]) -> str:
    """The commands that answer and go on, a line each."""
    lines = [f"Answer:  {line}" for line in answering(session, found)]
    lines.append(f"Go on:   kernloom runs resume {session}")
    if found and all(item.question.about == "approval" for item in found):
        lines[-1] += "     (with --yes it allows every call)"
    return "\n".join(lines)


def answering(session: str, found: Sequence[Waiting]) -> list[str]:
    """One command for each question; it is named where there are several."""
    lines = []
    for item in found:
        choices = CHOICES[item.question.about]
        words = ["kernloom runs resolve", session]
        words += [item.question.question_id] if len(found) > 1 else []
        words += [choices[0] if choices else '"…"']
        others = f"     (or {', '.join(choices[1:])})" if choices else ""
        lines.append(" ".join(words) + others)
    return lines


def as_data(item: Waiting) -> dict[str, Any]:
    """A question as JSON."""
    call = item.question.call
    return {
        "question": item.question.question_id,
        "session": item.session,
        "about": item.question.about,
        "text": item.question.text,
        "asked_by": item.by,
        "asked_at": item.at,
        "function": call.name if call is not None else None,
        "arguments": call.arguments if call is not None else None,
        "answers": list(CHOICES[item.question.about] or ()),
    }


def told(item: Waiting) -> str:
    """A question in full: an answer must not be given to something cut short."""
    question = item.question
    words = {"approval": "asks to call", "in_doubt": "does not know"}.get(question.about, "asks")
    lines = [f"{item.by} {words}: {question.text}"]
    if question.call is not None:
        lines.append(f"  {question.call.name} {_pretty(question.call.arguments)}")
    return "\n".join(lines)


def _pretty(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False, indent=2).replace("\n", "\n  ")
    except ValueError:
        return arguments


async def ask_here(screen: Screen, journal: Journal, session: str) -> int:
    """Put every open question to the person at the terminal; how many there were."""
    found = await waiting(journal, session)
    for item in found:
        screen.note(told(item))
        with interruptible():
            answer, result = _heard(item)
        conversation = Conversation(await journal.open(item.session))
        await conversation.answer(item.question.question_id, answer, result=result)
    return len(found)


def _heard(item: Waiting) -> tuple[str, Any]:
    if item.question.about == "approval":
        allowed = click.confirm("Allow this call?", default=False, err=True)
        return ("allow" if allowed else "deny"), None
    if item.question.about != "in_doubt":
        return click.prompt("Your answer", err=True), None
    choice = click.Choice(CHOICES["in_doubt"] or ())
    answer: str = click.prompt("Was it done?", type=choice, err=True)
    if answer != "done":
        return answer.replace("-", "_"), None
    text: str = click.prompt("What did it return? (JSON or text)", default="", err=True, show_default=False)
    return "done", value(text) if text else None


def value(text: str) -> Any:
    """JSON where it is some, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
