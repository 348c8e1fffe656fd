"""``kernloom keys``: API keys, in a file only their owner can read."""

from __future__ import annotations

import os
import sys

import click

from ..kernel.config import keys as store
from ..kernel.config.config import user_folders
from ..kernel.errors import not_found
from .commands import Group
from .screen import Screen, table


@click.group(cls=Group)
def keys() -> None:
    """Keep API keys in a file only you can read."""


@keys.command("set")
@click.argument("provider")
@click.pass_obj
def set_key(screen: Screen, provider: str) -> None:
    """Keep the key of PROVIDER; it is asked for, or read from stdin.

    The key is no argument, so that it stays out of the shell's history.
    """
    if sys.stdin.isatty():
        key = click.prompt(f"Key for {provider}", hide_input=True, err=True)
    else:
        key = sys.stdin.read()
    folder = user_folders().config
    if store.repair(folder):
        screen.note(f"{folder / store.FILE} could be read by others; that is mended (mode 0600).")
    path = store.set(provider, key, folder)
    screen.result(
        {"provider": provider, "path": str(path)}, f"Kept the key of {provider} in {path} (mode 0600)."
    )

    if os.environ.get(store.variable(provider)):
        screen.note(f"{store.variable(provider)} is set too, and wins over the file.")


@keys.command("list")
@click.pass_obj
def list_keys(screen: Screen) -> None:
    """Which keys there are and where; never the keys."""
    found = store.list(user_folders().config)
    screen.result(
        [entry._asdict() for entry in found],
        table(found) if found else None,
    )
    if not found:
        screen.note("No keys. Without one, the model 'extractive' answers by quoting.")
        screen.note("To keep one: kernloom keys set openai")


@keys.command("rm")
@click.argument("provider")
@click.pass_obj
def remove_key(screen: Screen, provider: str) -> None:
    """Forget the key of PROVIDER."""
    folder = user_folders().config
    if not store.remove(provider, folder):
        known = [entry.provider for entry in store.list(folder) if not entry.where.startswith("env ")]
        raise not_found("kept key", provider, known, code="keys.not_found")
    screen.result({"provider": provider, "removed": True}, f"Forgot the key of {provider}.")
