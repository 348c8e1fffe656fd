"""Where things are printed: results on stdout, words about them on stderr, colour on terminals only."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

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
    #: Where results go. ``sys.stdout`` may stand for something else while other people's code runs.
    out: TextIO = field(default_factory=lambda: sys.stdout)
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
            click.echo(_dumped(data), file=self.out)
        elif text is not None:
            click.echo(_safe(text, self.out), file=self.out)

    def say(self, text: str) -> None:
        """A part of an outcome that is told as it happens; with ``--json`` the result tells it all."""
        self.clear()
        if not self.json:
            click.echo(_safe(text, self.out), file=self.out)

    def line(self, data: Any) -> None:
        """One of several results with ``--json``: a line of JSON."""
        self.clear()
        click.echo(json.dumps(data, ensure_ascii=False, default=str), file=self.out)

    def write(self, text: str) -> None:
        """A piece of an answer as it arrives."""
        self.clear()
        click.echo(_safe(text, self.out, colours=False), file=self.out, nl=False)
        self.out.flush()

    def note(self, text: str) -> None:
        """A word to the person, beside the result."""
        self.clear()
        if not self.json:
            click.echo(_safe(text, sys.stderr), err=True)

    def progress(self, text: str) -> None:
        """What is going on, on one line that is overwritten; only on a terminal."""
        if self.json or not sys.stderr.isatty():
            return
        width = shutil.get_terminal_size().columns
        shown = _safe(text, sys.stderr, colours=False)[: width - 1]
        click.echo(f"\r\x1b[2K{shown}", nl=False, err=True)
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
        self.note(f"{self.paint('error', 'bad', err=True)} {code}: {message}")
        if hint:
            self.note("  " + hint.replace("\n", "\n  "))
        self.note(self.paint(f"  {page}", "dim", err=True))

    def clear(self) -> None:
        """Take the progress line away before anything else is printed."""
        if self._progress:
            click.echo("\r\x1b[2K", nl=False, err=True)
            self._progress = False

    def paint(self, text: str, style: str, *, err: bool = False) -> str:
        """``text`` in colour where that is wanted: a terminal, and no ``NO_COLOR``."""
        stream = sys.stderr if err else self.out
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
            return text
        return click.style(text, **_STYLES[style])


#: Characters a wrapped column needs to be readable.
_ROOM = 30


#: What a terminal obeys instead of showing it, and what turns the direction of the text around it.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_COLOUR = re.compile(r"(\x1b\[[\d;]*m|\r\n)")


def _safe(text: str, stream: TextIO, *, colours: bool = True) -> str:
    """``text`` as a terminal may be shown it: names, documents and answers are not to command it.

    Nothing is changed in a pipe. ``colours`` lets those through that :meth:`Screen.paint` put there.
    """
    if not stream.isatty():
        return text
    pieces = _COLOUR.split(text) if colours else [text.replace("\r\n", "\n")]
    pieces[::2] = [_OBEYED.sub(lambda found: ascii(found[0])[1:-1], piece) for piece in pieces[::2]]
    return "".join(pieces)


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
    # It is stderr while a command whose output is read by a program runs: see Command.invoke.
    if width is None and sys.stdout is not sys.stderr and sys.stdout.isatty():
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
