"""``kernloom runs``: what was said and done. Each command has a file of its own beside this one."""

from __future__ import annotations

import click

from .commands import Group, Late

_COMMANDS = {
    "list": Late("runs_list:list_runs", "The sessions, last used first, and how each stands."),
    "show": Late("runs_show:show", "One session from its first word, and what it waits for."),
    "resolve": Late("runs_resolve:resolve", "Answer a question that a run waits for."),
    "resume": Late("runs_resume:resume", "Go on with a run that died or waited for a person."),
}


@click.group(cls=Group, late=_COMMANDS)
def runs() -> None:
    """What was said and done: list, show, resume, replay, keep."""
