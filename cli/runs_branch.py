"""``kernloom runs fork`` and ``diff``: another way from an event on, and where two ways part."""

from __future__ import annotations

import asyncio

import click

from ..kernel.errors import UsageError
from ..kernel.journal.diff import Divergence, diff
from ..kernel.journal.edits import Edit, edit_arguments, edit_message, edit_result
from .commands import Command, text_or_stdin
from .functions import json_object
from .questions import value
from .screen import Screen
from .workspace import open_session, recorded


@click.command(cls=Command)
@click.argument("session")
@click.option(
    "--at", required=True, type=click.IntRange(min=0), metavar="SEQ", help="The last event to share."
)
@click.option("--message", metavar="TEXT", help="Another text in that event; - reads stdin.")
@click.option("--args", "given", metavar="JSON", help="Other arguments in that event; - reads stdin.")
@click.option("--call", "call_id", metavar="ID", help="With --args: which of several calls.")
@click.option("--result", metavar="VALUE", help="Another result in it, JSON or else text; - reads stdin.")
@click.option("--by", default="person", show_default=True, metavar="NAME", help="Who forks it.")
@click.pass_obj
def fork(
    screen: Screen,
    session: str,
    at: int,
    message: str | None,
    given: str | None,
    call_id: str | None,
    result: str | None,
    by: str,
) -> None:
    """A session that goes another way from an event on.

    It shares the events until SEQ (kernloom runs show --events has the numbers); the original stays as it
    is. What the original did after that, the fork does again, live: payments too.
    """
    edit = _edit(message, given, call_id, result)
    asyncio.run(_fork(screen, session, at, edit, by))


def _edit(message: str | None, given: str | None, call_id: str | None, result: str | None) -> Edit | None:
    if sum(option is not None for option in (message, given, result)) > 1:
        raise UsageError(
            "One event is edited in one way.",
            code="journal.edit",
            hint="Give one of --message, --args and --result.",
        )
    if call_id is not None and given is None:
        raise UsageError("--call says whose --args they are.", code="journal.edit")
    if message is not None:
        return edit_message(text_or_stdin(message))
    if given is not None:
        return edit_arguments(json_object(given), call_id=call_id)
    return edit_result(value(text_or_stdin(result))) if result is not None else None


async def _fork(screen: Screen, session: str, at: int, edit: Edit | None, by: str) -> None:
    async with recorded(screen, session) as (journal, log):
        made = await journal.fork(log.id, at=at, edit=edit, by=by)
        status = made.at(made.seq).status
    screen.result({"session": made.id, "of": log.id, "at": at, "edited": edit is not None}, made.id)
    if status in ("unfinished", "waiting"):
        screen.note(f"Go on: kernloom runs resume {made.id}")
    else:
        screen.note(f"Go on: kernloom chat --session {made.id}")


@click.command("diff", cls=Command)
@click.argument("first")
@click.argument("second")
@click.option("--exact", is_flag=True, help="Times and ids count too.")
@click.pass_obj
def diff_(screen: Screen, first: str, second: str, exact: bool) -> int:
    """Where two sessions part: the first event that differs.

    Exits with 0 if they tell the same, with 1 if they part.
    """
    found = asyncio.run(_diff(screen, first, second, exact))
    if found is None:
        screen.result({"same": True}, "They tell the same.")
        return 0
    screen.result({"same": False, **found.to_dict()}, found.render())
    return 1


async def _diff(screen: Screen, first: str, second: str, exact: bool) -> Divergence | None:
    async with recorded(screen, first) as (journal, one):
        other = await open_session(journal, second)
        return diff(one.events, other.events, times=exact, ids=exact, names=(one.id, other.id))
