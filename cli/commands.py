"""What our commands share: late loading, ``--json`` and ``-v`` everywhere, did-you-mean."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, NamedTuple, TypeVar

import click

from ..kernel.errors import did_you_mean, nearest
from .screen import Screen

_F = TypeVar("_F", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Late(NamedTuple):
    """A command that loads when it is used."""

    #: ``module:attribute`` within this package.
    where: str
    #: Its one line in the list; a test holds it equal to the command's own.
    about: str


class Command(click.Command):
    """A command that takes ``--json`` and ``-v`` behind its name as well as before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", CONTEXT)
        super().__init__(*args, **kwargs)
        self.params += shared_options()

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. Where a program reads stdout, only results go there; what a plugin prints, to stderr."""
        screen = ctx.ensure_object(Screen)
        if screen.out.isatty() and not screen.json:
            return super().invoke(ctx)
        with redirect_stdout(sys.stderr):
            return super().invoke(ctx)


class Group(click.Group):
    """A group whose unknown commands are answered with the nearest known ones."""

    command_class = Command

    def __init__(self, *args: Any, late: dict[str, Late] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", CONTEXT)
        super().__init__(*args, **kwargs)
        self.late = late or {}
        self.params += shared_options()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order they were written: it tells a story, the alphabet does not."""
        return [*self.late, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded now if it was not."""
        if cmd_name in self.late:
            module, _, attribute = self.late[cmd_name].where.partition(":")
            command: click.Command = getattr(importlib.import_module(f".{module}", __package__), attribute)
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """click's, with our own words for a name that is none."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            said = f"There is no command {ctx.command_path + ' ' + name!r}."
            hint = did_you_mean(nearest(name, self.list_commands(ctx)))
            raise click.UsageError(f"{said} {hint}" if hint else said, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without loading those that load late."""
        limit = formatter.width - 6 - max(map(len, self.list_commands(ctx)), default=0)
        rows = [(name, late.about) for name, late in self.late.items()]
        rows += [(name, command.get_short_help_str(limit)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def shared_options() -> list[click.Parameter]:
    """``--json`` and ``-v``; they work before and behind a command's name."""
    return [
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            help="Print JSON, also for errors.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbose,
            help="Show the traceback of an error.",
        ),
    ]


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Screen).json = True


def _set_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Screen).verbose = True


def text_or_stdin(value: str) -> str:
    """``-`` stands for what comes in on stdin."""
    if value != "-":
        return value
    return sys.stdin.read().strip()
