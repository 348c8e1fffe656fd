"""``kernloom runs forget`` and ``audit``: what must go, and what must be accounted for."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from itertools import groupby

import click

from ..kernel.errors import UsageError
from ..kernel.journal.audit import AuditLine, audit
from ..kernel.journal.forgetting import ForgetReport, Forgotten, forget
from .commands import Command
from .runs_list import moment
from .screen import Screen, table
from .spans import Span
from .workspace import open_journal


@click.command("forget", cls=Command)
@click.argument("session", required=False)
@click.option("--person", metavar="NAME", help="All that they said, and where others repeat it.")
@click.option("--text", metavar="TEXT", help="Every payload with these words in it, in any case.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--force", is_flag=True, help="Also in runs that have not ended; they are given up.")
@click.pass_obj
def forget_(
    screen: Screen, session: str | None, person: str | None, text: str | None, dry_run: bool, force: bool
) -> None:
    """Replace what a person said, or a text, by tombstones.

    The sessions stay, and can go on. SESSION narrows it to one session, what it opened and its forks;
    alone, it forgets all that was said in it. The report says what went from where, which forks it
    touches, and where the same may be that is not looked for.
    """
    if not (session or person or text):
        raise UsageError(
            "Nothing was said of what to forget.",
            code="journal.forget_what",
            hint="Give --person NAME, --text TEXT or a session.",
        )
    report = asyncio.run(_forget(screen, session, person, text, dry_run, force))
    verb = "would go" if dry_run else "gone"
    rows = [[where, verb, _seqs(events)] for where, events in _by_session(report.events)]
    rows += [[fork.session, "fork of " + fork.base, _places(fork.seqs)] for fork in report.forks]
    rows += [[where, "still names it", _seqs(events)] for where, events in _by_session(report.left)]
    ended = "its run would be given up" if dry_run else "its run was given up"
    rows += [[name, ended] for name in report.given_up]
    screen.result(asdict(report), table(rows) or "Nothing fits.")
    screen.note("\nNot looked for:")
    for where in report.not_covered:
        screen.note(f"  {where}")


async def _forget(
    screen: Screen, session: str | None, person: str | None, text: str | None, dry_run: bool, force: bool
) -> ForgetReport:
    async with open_journal(screen) as journal:
        return await forget(
            journal, person=person, text=text, session=session, dry_run=dry_run, force=force
        )


def _by_session(events: tuple[Forgotten, ...]) -> list[tuple[str, list[Forgotten]]]:
    ordered = sorted(events, key=lambda event: (event.session, event.seq))
    return [(name, list(group)) for name, group in groupby(ordered, key=lambda event: event.session)]


def _seqs(events: list[Forgotten]) -> str:
    return _places([event.seq for event in events])


def _places(seqs: list[int] | tuple[int, ...]) -> str:
    return f"event{'' if len(seqs) == 1 else 's'} {', '.join(map(str, seqs))}"


@click.command("audit", cls=Command)
@click.argument("session", required=False)
@click.option("--since", type=Span(), metavar="SPAN", help="Asked within the last 30d, 12h, 4w.")
@click.pass_obj
def audit_(screen: Screen, session: str | None, since: float | None) -> None:
    """Who was asked what, who answered, what came of it.

    Every question put to a person, oldest first; with --json all of it.
    """
    lines = asyncio.run(_audit(screen, session, None if since is None else time.time() - since))
    rows = [
        [moment(line.asked_at), line.session, line.asked_by, line.about, _said(line), _what(line)]
        for line in lines
    ]
    screen.result([line.model_dump(mode="json") for line in lines], table(rows) or None)
    if not lines:
        screen.note("Nobody was asked anything.")


async def _audit(screen: Screen, session: str | None, since: float | None) -> list[AuditLine]:
    if not screen.config.journal_path.exists() and session is None:
        return []
    async with open_journal(screen) as journal:
        return [line async for line in audit(journal, session=session, since=since)]


def _said(line: AuditLine) -> str:
    if line.answer is None:
        return "open"
    return f"{line.answer.replace('_', '-')} by {line.answered_by}"


def _what(line: AuditLine) -> str:
    words = [line.function or line.text]
    words += [line.arguments] if line.arguments else []
    if line.instead is not None:
        words.append(f"changed to {json.dumps(line.instead, ensure_ascii=False)}")
    words += [f"-> {line.outcome.replace('_', ' ')}"] if line.outcome else []
    return " ".join(words)
