"""``kernloom runs``: what was said and done. Each command has a file of its own beside this one."""

from __future__ import annotations

import click

from .commands import Group, Late

_COMMANDS = {
    "list": Late("runs_list:list_runs", "The sessions, last used first, and how each stands."),
    "show": Late("runs_show:show", "One session from its first word, and what it waits for."),
    "resolve": Late("runs_resolve:resolve", "Answer a question that a run waits for."),
    "resume": Late("runs_resume:resume", "Go on with a run that died or waited for a person."),
    "replay": Late("runs_replay:replay_", "Run a session's runs again, from the journal alone."),
    "fork": Late("runs_branch:fork", "A session that goes another way from an event on."),
    "diff": Late("runs_branch:diff_", "Where two sessions part: the first event that differs."),
    "export": Late("runs_keep:export", "Print one session as JSON lines."),
    "import": Late("runs_keep:import_", "Take in a session that was exported."),
    "prune": Late("runs_keep:prune_", "Remove sessions for good, by age or by name."),
    "forget": Late("runs_forget:forget_", "Replace what a person said, or a text, by tombstones."),
    "audit": Late("runs_forget:audit_", "Who was asked what, who answered, what came of it."),
}


@click.group(cls=Group, late=_COMMANDS)
def runs() -> None:
    """What was said and done: list, show, resume, replay, keep."""
