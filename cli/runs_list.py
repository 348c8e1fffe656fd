"""``kernloom runs list``: the sessions, and how each stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from ..kernel.conversations.waiting import Waiting, waiting
from ..kernel.journal import Journal, SessionInfo
from ..kernel.journal.leases import died_here
from .commands import Command
from .questions import as_data
from .screen import Screen, table
from .workspace import open_journal


@click.command("list", cls=Command)
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--children", is_flag=True, help="Also sessions that others opened.")
@click.option("--waiting", "only_waiting", is_flag=True, help="Only those that wait for a person.")
@click.pass_obj
def list_runs(screen: Screen, limit: int, children: bool, only_waiting: bool) -> None:
    """The sessions, last used first, and how each stands.

    \b
    running      somebody is at work in it
    waiting      for an answer: kernloom runs show ID says to what
    answered     it waited and has its answer: kernloom runs resume ID
    unfinished   its process died: kernloom runs resume ID
    finished, failed, cancelled      how its last run ended
    damaged      the journal cannot read it
    """
    found = asyncio.run(_sessions(screen, limit, children, only_waiting))
    rows = [
        [s.info.id, moment(s.info.updated), s.info.agent or "-", s.status, str(s.info.events), _title(s)]
        for s in found
    ]
    screen.result([_session_data(standing) for standing in found], table(rows) or None)
    if not found:
        nothing = "Nothing was said yet. kernloom ask or kernloom chat begins."
        screen.note("Nobody waits for an answer." if only_waiting else nothing)
    elif any(standing.questions for standing in found):
        screen.note("To see what a session waits for: kernloom runs show ID")


@dataclass(frozen=True, slots=True)
class Standing:
    """A session and how it stands, told more exactly than its last run's events can."""

    info: SessionInfo
    status: str
    questions: tuple[Waiting, ...] = ()


async def standing(journal: Journal, info: SessionInfo) -> Standing:
    """How a session stands: a run without an end may be at work, waiting, answered, or dead."""
    if info.status not in ("unfinished", "waiting"):
        return Standing(info, info.status)
    questions = tuple(await waiting(journal, info.id))
    if await _is_leased(journal, info.id):
        return Standing(info, "running", questions)
    if questions:
        return Standing(info, "waiting", questions)
    return Standing(info, "answered" if info.status == "waiting" else "unfinished")


async def _is_leased(journal: Journal, session: str) -> bool:
    """Whether somebody is at work in a session, as far as can be seen from here."""
    for lease in await journal.store.leases():
        if lease.session == session and lease.until > journal.now():
            return not died_here(lease.holder)
    return False


async def _sessions(screen: Screen, limit: int, children: bool, only_waiting: bool) -> list[Standing]:
    if not screen.config.journal_path.exists():
        return []
    found: list[Standing] = []
    async with open_journal(screen) as journal:
        async for one in _standings(journal, None if only_waiting else limit, children):
            if one.questions or not only_waiting:
                found.append(one)
            if len(found) == limit:
                break
    return found


async def _standings(journal: Journal, limit: int | None, children: bool) -> AsyncIterator[Standing]:
    for info in await journal.sessions(limit=limit, children=children):
        yield await standing(journal, info)


def moment(at: float) -> str:
    """A time as a person reads it, in their own zone."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")


def _title(one: Standing) -> str:
    return one.info.title or "-"


def _session_data(one: Standing) -> dict[str, Any]:
    data = {name: getattr(one.info, name) for name in type(one.info).__slots__}
    return {**data, "status": one.status, "questions": [as_data(item) for item in one.questions]}
