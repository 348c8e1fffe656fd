"""``kernloom``: the root of the commands, and the one place where errors become words and exit codes.

Exit codes: 0 done, 1 failed, 2 wrongly used, 3 a person must answer first, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Sequence

import click

from ..kernel.errors import ApprovalRequired, KernloomError, MissingExtraError, PersonRequired, UsageError
from .commands import Group, Late
from .screen import Screen

OK, FAILED, USAGE, NEEDS_PERSON, STOPPED = 0, 1, 2, 3, 130

_COMMANDS = {
    "init": Late("init:init", "Start a project here: a commented kernloom.toml."),
    "demo": Late("demo:demo", "See it work: a handbook, three questions, a saved plan."),
    "ask": Late("ask:ask", "Ask one question of your documents."),
    "chat": Late("chat:chat", "Talk; --session goes on with an earlier session."),
    "memory": Late("memory:memory", "Add, search and list your documents."),
    "plan": Late("plan:plan", "Make, check and run saved plans."),
    "functions": Late("functions:functions", "List what can be called."),
    "call": Late("functions:call", "Call one function: call math.evaluate expression=2+3."),
    "plugins": Late("plugins:plugins", "List, inspect, allow and disable installed plugins."),
    "runs": Late("runs:runs", "What was said and done: list, show, resume, replay, keep."),
    "keys": Late("keys:keys", "Keep API keys in a file only you can read."),
    "config": Late("config:config", "Show the settings and where each comes from."),
    "doctor": Late("doctor:doctor", "Try every part and say what is broken."),
    "completion": Late("completion:completion", "Print the completion script for your shell."),
}


@click.group(cls=Group, late=_COMMANDS, invoke_without_command=False)
@click.version_option(package_name="kernloom", message="kernloom %(version)s")
@click.option("--no-plugins", is_flag=True, help="Load no installed plugin but kernloom's own.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting for this once.")
@click.pass_context
def root(ctx: click.Context, no_plugins: bool, settings: tuple[str, ...]) -> None:
    """Assistants that cite your documents, call functions and follow plans.

    Start with: kernloom demo
    """
    screen = ctx.ensure_object(Screen)
    screen.no_plugins = no_plugins
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise click.UsageError(f"--set takes NAME=VALUE, not {setting!r}.", ctx=ctx)
        screen.flags[name] = value


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        args: the words after ``kernloom``; those of this process by default.
    """
    words = list(sys.argv[1:] if args is None else args)
    screen = Screen()
    _never_fail_to_print()
    try:
        code = root.main(args=words, prog_name="kernloom", standalone_mode=False, obj=screen)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        screen.clear()
        click.echo("Stopped.", err=True)
        return STOPPED
    except BrokenPipeError:
        return _reader_left()
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return USAGE
    except click.ClickException as exc:
        screen.json = screen.json or "--json" in words  # it may stand behind the word that was wrong
        return _misused(exc, screen)
    except KernloomError as exc:
        return _explain(exc, screen)
    except Exception as exc:  # the last boundary: a bug is reported in words, its traceback with -v
        return _unexpected(exc, screen)


def exit_code(error: KernloomError) -> int:
    """The exit code an error stands for."""
    if isinstance(error, PersonRequired):
        return NEEDS_PERSON
    if isinstance(error, UsageError) and not isinstance(error, MissingExtraError):
        return USAGE
    return FAILED


def _explain(error: KernloomError, screen: Screen) -> int:
    if isinstance(error, ApprovalRequired) and "arguments" in error.details:
        who, what = error.details["actor"], error.details["function"]
        arguments = json.dumps(error.details["arguments"], ensure_ascii=False)
        screen.note(f"Would have asked: {who} wants to call {what} with {arguments}")
    screen.error(error.code, error.message, error.hint, error.details)
    if screen.verbose:
        traceback.print_exception(error)
    return exit_code(error)


def _misused(error: click.ClickException, screen: Screen) -> int:
    context = getattr(error, "ctx", None)
    hint = f"See: {context.command_path} --help" if context is not None else None
    screen.error(code="usage.command", message=error.format_message(), hint=hint)
    return USAGE if isinstance(error, click.UsageError) else FAILED


def _unexpected(error: Exception, screen: Screen) -> int:
    if isinstance(error, OSError):
        return _refused(error, screen)
    hint = "This is a bug in kernloom or in a plugin."
    if not screen.verbose:
        hint += " Run it again with -v and report the traceback."
    screen.error(code="kernloom.unexpected", message=f"{type(error).__name__}: {error}", hint=hint)
    if screen.verbose:
        traceback.print_exception(error)
    return FAILED


def _refused(error: OSError, screen: Screen) -> int:
    """The system would not: a folder that is gone or closed, a disk that is full."""
    place = "" if error.filename is None else f" ({os.fspath(error.filename)!r})"
    said = f"{error.strerror or type(error).__name__}{place}."
    hint = "Look at the path, who may write there, and the space that is left."
    screen.error(code="system.refused", message=said, hint=hint)
    if screen.verbose:
        traceback.print_exception(error)
    return FAILED


def _never_fail_to_print() -> None:
    """On a console that is not UTF-8 a character it lacks becomes ``?`` instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")


def _reader_left() -> int:
    """``kernloom … | head``: nobody listens any more; Python's own last flush must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED
