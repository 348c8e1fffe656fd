"""``kernloom runs``: what was said and done, read from the journal."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any

import click

from ..kernel.errors import not_found
from ..kernel.journal import Event, Journal, SessionInfo
from ..kernel.journal import events as kinds
from ..kernel.messages import Grounding
from .commands import Group
from .screen import Screen, table
from .workspace import open_journal, open_session


@click.group(cls=Group)
def runs() -> None:
    """List and show what was said and done."""


@runs.command("list")
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--children", is_flag=True, help="Also sessions that others opened.")
@click.pass_obj
def list_runs(screen: Screen, limit: int, children: bool) -> None:
    """The sessions, last used first."""
    found = asyncio.run(_sessions(screen, limit, children))
    rows = [
        [info.id, moment(info.updated), info.agent or "-", info.status, str(info.events), info.title or "-"]
        for info in found
    ]
    screen.result([_session_data(info) for info in found], table(rows) or None)
    if not found:
        screen.note("Nothing was said yet. kernloom ask or kernloom chat begins.")


async def _sessions(screen: Screen, limit: int, children: bool) -> list[SessionInfo]:
    if not screen.config.journal_path.exists():
        return []
    async with open_journal(screen) as journal:
        return await journal.sessions(limit=limit, children=children)


@runs.command()
@click.argument("session", metavar="SESSION")
@click.option("--events", is_flag=True, help="Every event as it stands in the journal.")
@click.pass_obj
def show(screen: Screen, session: str, events: bool) -> None:
    """One session from its first word.

    The beginning of its id is enough; "last" is the one used last.
    """
    asyncio.run(_show(screen, session, events))


async def _show(screen: Screen, session: str, every: bool) -> None:
    if not screen.config.journal_path.exists():
        raise not_found("session", session, (), code="journal.unknown_session")
    async with open_journal(screen) as journal:
        log = await open_session(journal, session)
        children = await _children(journal, log.id)
    data = {
        "session": log.id,
        "parent": log.parent,
        "children": children,
        "events": [_event_data(event) for event in log.events],
    }
    line = _raw if every else _told
    rows = [row for event in log.events if (row := line(screen, event)) is not None]
    screen.result(data, "\n".join([screen.paint(f"session {log.id}", "strong"), "", _script(rows)]))
    for child in children:
        screen.note(f"it opened: kernloom runs show {child}")


async def _children(journal: Journal, session: str) -> list[str]:
    return [info.id for info in await journal.sessions(parent=session)]


def moment(at: float) -> str:
    """A time as a person reads it, in their own zone."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")


def _session_data(info: SessionInfo) -> dict[str, Any]:
    return {name: getattr(info, name) for name in type(info).__slots__}


def _event_data(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "at": event.at,
        "actor": event.actor,
        "run": event.run,
        "data": event.data.model_dump(mode="json"),
    }


def _script(rows: list[tuple[str, str]]) -> str:
    """Who, and beside it what they said, every line of it in its column."""
    wide = max((len(click.unstyle(who)) for who, _ in rows), default=0)
    lines = []
    for who, said in rows:
        head = who + " " * (wide - len(click.unstyle(who)) + 2)
        first, *rest = said.splitlines() or [""]
        lines += [head + first, *(" " * (wide + 2) + line for line in rest)]
    return "\n".join(lines)


def _raw(screen: Screen, event: Event) -> tuple[str, str]:
    data = event.data.model_dump(mode="json", exclude={"kind"})
    return f"{event.seq:>4} {event.kind}", f"{event.actor}  {json.dumps(data, ensure_ascii=False)}"


#: Passages named in a line; ``--events`` shows all.
_PLACES = 4
_Line = tuple[str, str]
_FAILURES = (kinds.FunctionFailedEvent, kinds.FunctionInDoubtEvent, kinds.ModelFailed, kinds.RunFailed)


def _told(screen: Screen, event: Event) -> _Line | None:
    """The events that matter to somebody who reads what happened."""
    data, who = event.data, screen.paint(event.actor, "strong")
    if isinstance(data, _FAILURES):
        return screen.paint(event.actor, "bad"), _failure(data)
    match data:
        case kinds.MessageAdded():
            return screen.paint(data.message.name or data.message.role, "strong"), data.message.text
        case kinds.ModelAnswered():
            return who, _answer(data)
        case kinds.Retrieval():
            return who, _retrieved(data.grounding)
        case kinds.RunStarted() if data.what != "agent":
            return who, f"runs {data.what} {data.name} with {_short(data.input)}"
        case kinds.FunctionFinished():
            return screen.paint(event.actor, "good"), _short(data.result.content)
        case kinds.RunCancelled():
            return screen.paint(event.actor, "warn"), "stopped"
        case kinds.QuestionAsked():
            return who, f"asks for {data.about}: {data.text}"
        case kinds.QuestionAnswered():
            return screen.paint(data.by, "strong"), data.answer
    return _step(screen, event)


def _step(screen: Screen, event: Event) -> _Line | None:
    match event.data:
        case kinds.StepStarted(step=step, call=call, arguments=arguments):
            return screen.paint(step, "strong"), f"calls {call} {_short(arguments)}"
        case kinds.StepFailed(step=step, error=error):
            return screen.paint(step, "bad"), f"failed: {error}"
        case kinds.StepSkipped(step=step, reason=reason):
            return step, f"skipped: {reason}"
    return None


def _answer(data: kinds.ModelAnswered) -> str:
    calls = [f"calls {call.name} {call.arguments}" for call in data.message.tool_calls]
    text = data.message.text + (" … (stopped)" if data.partial else "")
    return "\n".join(filter(None, [text, *calls]))


def _failure(
    data: kinds.FunctionFailedEvent | kinds.FunctionInDoubtEvent | kinds.ModelFailed | kinds.RunFailed,
) -> str:
    if isinstance(data, (kinds.ModelFailed, kinds.RunFailed)):
        return f"{data.code}: {data.error}"
    return data.result.content


def _retrieved(grounding: Grounding) -> str:
    if not grounding.passages:
        return f"found nothing ({grounding.reason})"
    places = [f"[{p.label}] {p.place}" for p in grounding.passages]
    more = f" and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
    verdict = "found" if grounding.found else "doubts that it holds the answer; nearest:"
    return f"{verdict} {', '.join(places[:_PLACES])}{more}"


def _short(value: Any, limit: int = 400) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters; --events shows all)"
