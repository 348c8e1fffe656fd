"""``kernloom runs show``: one session as a person reads it, and what it waits for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from ..kernel.journal import Event
from ..kernel.journal import events as kinds
from ..kernel.messages import Grounding
from .commands import Command
from .questions import as_data, told, what_to_type
from .runs_list import Standing, standing
from .screen import Screen
from .workspace import recorded


@click.command(cls=Command)
@click.argument("session", metavar="SESSION")
@click.option("--events", is_flag=True, help="Every event as it stands in the journal.")
@click.option("--at", type=click.IntRange(min=0), metavar="SEQ", help="As it was after that event.")
@click.pass_obj
def show(screen: Screen, session: str, events: bool, at: int | None) -> None:
    """One session from its first word, and what it waits for.

    The beginning of its id is enough; "last" is the one used last.
    """
    asyncio.run(_show(screen, session, events) if at is None else _show_at(screen, session, events, at))


async def _show(screen: Screen, session: str, every: bool) -> None:
    async with recorded(screen, session) as (journal, log):
        children = await journal.sessions(parent=log.id)
        now = await standing(journal, await journal.info(log.id))
    data = {
        "session": log.id,
        "parent": log.parent,
        "children": [info.id for info in children],
        "status": now.status,
        "questions": [as_data(item) for item in now.questions],
        "events": [_event_data(event) for event in log.events],
    }
    screen.result(data, _page(screen, f"session {log.id}", log.events, every))
    for child in children:
        screen.note(f"it opened: kernloom runs show {child.id}")
    _next(screen, now)


async def _show_at(screen: Screen, session: str, every: bool, seq: int) -> None:
    """Time travel: what was known after one event, and nothing of what came later."""
    async with recorded(screen, session) as (_, log):
        view = log.at(seq)
    events = log.events[:seq]
    data = {
        "session": log.id,
        "seq": seq,
        "at": view.at,
        "status": view.status,
        "messages": [message.model_dump(mode="json") for message in view.messages],
        "open_calls": [call.model_dump(mode="json") for call in view.open_calls],
        "questions": [question.model_dump(mode="json") for question in view.questions],
        "steps": dict(view.steps),
        "usage": view.usage.model_dump(mode="json"),
        "events": [_event_data(event) for event in events],
    }
    screen.result(data, _page(screen, f"session {log.id} as of event {seq}", events, every))
    screen.note(f"\n{view.status}")
    for call in view.open_calls:
        screen.note(f"under way: {call.name} {call.arguments}")
    for question in view.questions:
        screen.note(f"waiting for an answer: {question.text}")


def _page(screen: Screen, title: str, events: list[Event], every: bool) -> str:
    line = _raw if every else _told
    rows = [row for event in events if (row := line(screen, event)) is not None]
    return "\n".join([screen.paint(title, "strong"), "", _script(rows)])


def _next(screen: Screen, now: Standing) -> None:
    """What to type, where the session does not go on by itself."""
    if now.questions:
        screen.note("\n" + screen.paint("waiting for an answer", "warn", err=True))
        for item in now.questions:
            screen.note(told(item))
    if now.status == "waiting":
        screen.note(what_to_type(now.info.id, now.questions))
    elif now.status in ("answered", "unfinished"):
        why = "It has its answer." if now.status == "answered" else "It stopped in the middle."
        screen.note(f"\n{why} Go on: kernloom runs resume {now.info.id}")


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
_ABOUT = {"in_doubt": "what became of a call"}
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
            return who, f"asks for {_ABOUT.get(data.about, data.about)}: {data.text}"
        case kinds.QuestionAnswered():
            return screen.paint(data.by, "strong"), _said(data)
        case kinds.RunPaused():
            return who, "waits for a person"
        case kinds.RunResumed():
            return who, "goes on"
        case kinds.Forked(of=of, at=at):
            return who, f"forked it from {of} at event {at}"
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


def _said(data: kinds.QuestionAnswered) -> str:
    more = [f"with {_short(data.arguments)}"] if data.arguments is not None else []
    more += [_short(data.result)] if data.result is not None else []
    return ", ".join([data.answer.replace("_", " "), *more])


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
