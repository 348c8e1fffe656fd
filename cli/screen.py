"""Where things are printed: results on stdout, words about them on stderr, colour on terminals only."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from ..kernel.config.config import Config

_STYLES: dict[str, dict[str, Any]] = {
    "good": {"fg": "green"},
    "bad": {"fg": "red", "bold": True},
    "warn": {"fg": "yellow"},
    "dim": {"dim": True},
    "strong": {"bold": True},
}


@dataclass
class Screen:
    """One invocation's manners and settings; click hands it to every command."""

    json: bool = False
    verbose: bool = False
    #: Settings given as ``--set name=value``.
    flags: dict[str, str] = field(default_factory=dict)
    no_plugins: bool = False
    _config: Config | None = None
    _progress: bool = False

    @property
    def config(self) -> Config:
        """The configuration, read when first needed: ``--help`` never reads it."""
        if self._config is None:
            self._config = Config.load(flags=self.flags, no_plugins=self.no_plugins)
        return self._config

    def use(self, config: Config) -> None:
        """Work with these settings instead of those found here."""
        self._config = config

    @property
    def talks(self) -> bool:
        """Whether somebody sits there who can answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def result(self, data: Any, text: str | None = None) -> None:
        """The command's outcome: ``data`` with ``--json``, else ``text``."""
        self.clear()
        if self.json:
            click.echo(_dumped(data))
        elif text is not None:
            click.echo(text)

    def say(self, text: str) -> None:
        """A part of an outcome that is told as it happens; with ``--json`` the result tells it all."""
        self.clear()
        if not self.json:
            click.echo(text)

    def write(self, text: str) -> None:
        """A piece of an answer as it arrives."""
        self.clear()
        click.echo(text, nl=False)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A word to the person, beside the result."""
        self.clear()
        if not self.json:
            click.echo(text, err=True)

    def progress(self, text: str) -> None:
        """What is going on, on one line that is overwritten; only on a terminal."""
        if self.json or not sys.stderr.isatty():
            return
        width = shutil.get_terminal_size().columns
        click.echo(f"\r\x1b[2K{text[: width - 1]}", nl=False, err=True)
        self._progress = True

    def error(
        self, code: str, message: str, hint: str | None, details: Mapping[str, object] | None = None
    ) -> None:
        """What went wrong, what to do, and where more is written; on stderr, as JSON with ``--json``."""
        self.clear()
        page = f"docs/errors.md#{code}"
        if self.json:
            said = {
                "code": code,
                "message": message,
                "hint": hint,
                "details": dict(details or {}),
                "docs": page,
            }
            click.echo(_dumped({"error": said}), err=True)
            return
        click.echo(f"{self.paint('error', 'bad', err=True)} {code}: {message}", err=True)
        if hint:
            click.echo("  " + hint.replace("\n", "\n  "), err=True)
        click.echo(self.paint(f"  {page}", "dim", err=True), err=True)

    def clear(self) -> None:
        """Take the progress line away before anything else is printed."""
        if self._progress:
            click.echo("\r\x1b[2K", nl=False, err=True)
            self._progress = False

    def paint(self, text: str, style: str, *, err: bool = False) -> str:
        """``text`` in colour where that is wanted: a terminal, and no ``NO_COLOR``."""
        stream = sys.stderr if err else sys.stdout
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
            return text
        return click.style(text, **_STYLES[style])


#: Characters a wrapped column needs to be readable.
_ROOM = 30


def _dumped(data: object) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2, default=str)


def table(rows: Sequence[Sequence[str]], *, indent: str = "", width: int | None = None) -> str:
    """Rows in columns; the last column wraps on a terminal and is left whole in a pipe.

    Args:
        rows: cells of one line each.
        indent: stands before every line.
        width: characters of a line; the terminal's if None, no limit where there is none.
    """
    if not rows:
        return ""
    if width is None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    columns = max(map(len, rows))
    filled = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = [max(_length(row[i]) for row in filled) for i in range(columns - 1)]
    lines = []
    for *cells, last in filled:
        head = indent + "".join(
            cell + " " * (wide - _length(cell) + 2) for cell, wide in zip(cells, widths, strict=True)
        )
        lines.append(_wrapped(head, last, width))
    return "\n".join(lines)


def _wrapped(head: str, last: str, width: int | None) -> str:
    """The row, its last cell broken to the width; below the row where there is no room beside it."""
    start = _length(head)
    if width is None or start + _length(last) <= width:
        return (head + last).rstrip()
    if width - start < _ROOM:
        below = textwrap.wrap(last, max(width - 6, _ROOM))
        return "\n      ".join([head.rstrip(), *below])
    first, *rest = textwrap.wrap(last, width - start)
    return "\n".join([head + first, *(" " * start + line for line in rest)])


def _length(text: str) -> int:
    return len(click.unstyle(text))
