"""``kernloom runs export``, ``import`` and ``prune``: sessions leave the journal, come in, and go."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from ..kernel.errors import UsageError
from ..kernel.journal.exchange import export_session, import_session
from ..kernel.journal.retention import PruneReport, prune
from .commands import Command
from .screen import Screen, table
from .spans import Span
from .workspace import open_journal, recorded


@click.command(cls=Command)
@click.argument("session")
@click.pass_obj
def export(screen: Screen, session: str) -> None:
    """Print one session as JSON lines.

    kernloom runs export ID > session.jsonl. Every line has its checksum and the last one a digest of all.
    What it opened are sessions of their own.
    """
    asyncio.run(_export(screen, session))


async def _export(screen: Screen, session: str) -> None:
    async with recorded(screen, session) as (journal, log):
        async for line in export_session(journal, log.id):
            click.echo(line, file=screen.out, nl=False)
        children = [head.id for head in await journal.store.sessions(parent=log.id)]
    for child in children:
        screen.note(f"it opened another session: kernloom runs export {child}")


@click.command("import", cls=Command)
@click.argument("file")
@click.option("--new-id", is_flag=True, help="As a session of its own, with a fresh id.")
@click.pass_obj
def import_(screen: Screen, file: str, new_id: bool) -> None:
    """Take in a session that was exported.

    All of it or nothing; what was changed on the way is refused. FILE - reads stdin.
    """
    session = asyncio.run(_import(screen, _lines(file), new_id))
    screen.result({"session": session}, session)
    screen.note(f"See it: kernloom runs show {session}")


def _lines(file: str) -> Iterable[str]:
    if file == "-":
        return sys.stdin.read().splitlines()
    try:
        return Path(file).read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as exc:
        raise UsageError(
            f"{file} cannot be read: {exc.strerror or exc}.",
            code="runs.unreadable",
            hint="Give it the file that kernloom runs export wrote, or - for stdin.",
            path=file,
        ) from exc


async def _import(screen: Screen, lines: Iterable[str], new_id: bool) -> str:
    async with open_journal(screen) as journal:
        return await import_session(journal, lines, new_id=new_id)


@click.command("prune", cls=Command)
@click.argument("sessions", nargs=-1)
@click.option("--older-than", type=Span(), metavar="SPAN", help="Where nothing happened for 30d, 12h, 4w.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--force", is_flag=True, help="Also sessions whose last run has not ended.")
@click.pass_obj
def prune_(
    screen: Screen, sessions: tuple[str, ...], older_than: float | None, dry_run: bool, force: bool
) -> None:
    """Remove sessions for good, by age or by name.

    With what they opened; forks of them stay and keep what they shared. A session that somebody is at
    work in is kept, and one whose run has not ended too, unless --force.
    """
    if older_than is None and not sessions:
        raise UsageError(
            "Nothing was said of what to prune.",
            code="journal.prune_what",
            hint="Name sessions, or say how old: --older-than 30d.",
        )
    report = asyncio.run(_prune(screen, sessions, older_than, dry_run, force))
    rows = [[session, "would go" if dry_run else "gone"] for session in report.pruned]
    rows += [[kept.session, f"kept: {kept.reason}"] for kept in report.kept]
    screen.result(asdict(report), table(rows) or None)
    for fork in report.forks:
        screen.note(f"{fork} was forked from one of them and keeps what they shared")
    verb = "would go" if dry_run else "went"
    screen.note(f"{_count(len(report.pruned), 'session')} and {_count(report.events, 'event')} {verb}")


async def _prune(
    screen: Screen, sessions: tuple[str, ...], older_than: float | None, dry_run: bool, force: bool
) -> PruneReport:
    async with open_journal(screen) as journal:
        return await prune(journal, older_than=older_than, sessions=sessions, force=force, dry_run=dry_run)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
