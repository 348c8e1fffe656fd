"""``kernloom config``: what is set, and by whom."""

from __future__ import annotations

from typing import Any

import click

from .commands import Group
from .screen import Screen, table


@click.group(cls=Group)
def config() -> None:
    """Show the settings and where each comes from."""


@config.command()
@click.option("--origin", is_flag=True, help="Also say where each value comes from.")
@click.pass_obj
def show(screen: Screen, origin: bool) -> None:
    """Every setting and its value; keys are not among them."""
    settings = screen.config.origins()
    if origin:
        data: dict[str, Any] = {name: {"value": s.value, "origin": s.where} for name, s in settings.items()}
    else:
        data = {name: s.value for name, s in settings.items()}
    rows = [
        [name, _shown(setting.value), *([screen.paint(setting.where, "dim")] if origin else [])]
        for name, setting in settings.items()
    ]
    screen.result(data, table(rows))
    where = screen.config.file or "none found; kernloom init writes one"
    screen.note(f"\nproject file: {where}\nstate: {screen.config.state_dir}")


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
