"""``kernloom completion``: the script a shell needs to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .commands import Command
from .screen import Screen

_HOW = {
    "bash": 'eval "$(kernloom completion bash)"      # in ~/.bashrc',
    "zsh": 'eval "$(kernloom completion zsh)"       # in ~/.zshrc, after compinit',
    "fish": "kernloom completion fish > ~/.config/fish/completions/kernloom.fish",
}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(list(_HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for your shell.

    \b
    bash:  eval "$(kernloom completion bash)"      in ~/.bashrc
    zsh:   eval "$(kernloom completion zsh)"       in ~/.zshrc
    fish:  kernloom completion fish > ~/.config/fish/completions/kernloom.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows the three
    script = kind(ctx.find_root().command, {}, "kernloom", "_KERNLOOM_COMPLETE").source()
    screen: Screen = ctx.obj
    screen.result({"shell": shell, "script": script, "install": _HOW[shell]}, script)
