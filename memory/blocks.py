"""The structure of a text as a reader sees it: headings, paragraphs, lists, tables, fenced code.

A line-based reading of Markdown that is also right for plain text. It keeps offsets and never rewrites;
every test on a line is linear in its length, so a hostile document costs no more than a long one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

Span = tuple[int, int]
Kind = Literal["heading", "code", "table", "list", "paragraph"]
_Test = Callable[[str], bool]

_ITEM = re.compile(r"[ \t]*(?:[-*+\u2022]|\d{1,9}[.)])(?=[ \t]|$)")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_MARKUP = str.maketrans("", "", "*`")
_HEADING_CHARACTERS = 120
#: A title stands near the top or nowhere.
_OPENING = 20_000


class Block(NamedTuple):
    """A run of whole lines that belong together; ``text[start:end]`` has no trailing newline."""

    kind: Kind
    start: int
    end: int
    #: 1 to 6 for a heading, else 0.
    level: int = 0
    #: The heading's words, without markup.
    title: str = ""


def blocks(text: str) -> list[Block]:
    """The blocks of ``text`` in order. Blank lines belong to none; every other line belongs to one."""
    lines = line_spans(text)
    found: list[Block] = []
    at = _front_matter(text, lines)
    if at:
        found.append(Block("paragraph", lines[0][0], lines[at - 1][1]))
    while at < len(lines):
        line = _line(text, lines[at])
        if not line.strip():
            at += 1
            continue
        kind, upto, level = _block_at(text, lines, at, line)
        title = heading_words(line) if kind == "heading" else ""
        found.append(Block(kind, lines[at][0], lines[upto - 1][1], level, title))
        at = upto
    return found


def line_spans(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """The lines of ``text[start:end]`` as spans without their newline. Only ``\\n`` ends a line."""
    end = len(text) if end is None else end
    spans = []
    while (newline := text.find("\n", start, end)) >= 0:
        spans.append((start, newline))
        start = newline + 1
    spans.append((start, end))
    return spans


def items(text: str, block: Block) -> list[Span]:
    """The items of a list block, each with what is nested in it."""
    spans: list[Span] = []
    margin: int | None = None
    for start, end in line_spans(text, block.start, block.end):
        line = text[start:end]
        if _ITEM.match(line) and (margin is None or _indent(line) <= margin):
            margin = _indent(line)
            spans.append((start, end))
        else:
            spans[-1] = (spans[-1][0], end)
    return spans


def document_title(text: str) -> str:
    """What the text calls itself: ``title:`` in its front matter, else its first top heading."""
    lines = line_spans(text)
    for span in lines[: _front_matter(text, lines)]:
        key, colon, value = text[slice(*span)].partition(":")
        if colon and key.strip().lower() == "title":
            return heading_words(value.strip().strip("\"'"))
    opening = blocks(text[:_OPENING])
    return next((block.title for block in opening if block.kind == "heading" and block.level == 1), "")


def heading_words(line: str) -> str:
    """A heading line as words: no marks, no link targets, no emphasis, at most 120 characters."""
    words = line.strip().lstrip("#").rstrip().rstrip("#").strip()
    words = _LINK.sub(r"\1", words[: 4 * _HEADING_CHARACTERS])
    words = " ".join(words.translate(_MARKUP).split())
    return words if len(words) <= _HEADING_CHARACTERS else words[: _HEADING_CHARACTERS - 1].rstrip() + "…"


def _block_at(text: str, lines: list[Span], at: int, line: str) -> tuple[Kind, int, int]:
    """Kind, the line after the last one, and heading level of the block that begins at line ``at``."""
    if fence := _fence(line):
        return "code", _fence_end(text, lines, at, fence), 0
    if level := _atx_level(line):
        return "heading", at + 1, level
    if at + 1 < len(lines) and (level := _setext_level(line, _line(text, lines[at + 1]))):
        return "heading", at + 2, level
    if _is_table(text, lines, at):
        return "table", _run_end(text, lines, at + 2, lambda row: "|" in row), 0
    if _ITEM.match(line) and not _is_rule(line):
        return "list", _list_end(text, lines, at), 0
    return "paragraph", _paragraph_end(text, lines, at), 0


def _line(text: str, span: Span) -> str:
    return text[span[0] : span[1]].rstrip("\r")


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip(" "))


def _fence(line: str) -> str:
    """The fence a line opens (three or more backticks or tildes), else nothing."""
    stripped = line.strip()
    mark = stripped[:1]
    if mark not in ("`", "~") or not mark:
        return ""
    fence = stripped[: len(stripped) - len(stripped.lstrip(mark))]
    if len(fence) < 3 or (mark == "`" and "`" in stripped[len(fence) :]):
        return ""
    return fence


def _fence_end(text: str, lines: list[Span], at: int, fence: str) -> int:
    for after in range(at + 1, len(lines)):
        stripped = _line(text, lines[after]).strip()
        if len(stripped) >= len(fence) and stripped.strip(fence[0]) == "":
            return after + 1
    return len(lines)  # never closed: the rest of the text is code


def _atx_level(line: str) -> int:
    stripped = line.strip()
    level = len(stripped) - len(stripped.lstrip("#"))
    opens = 1 <= level <= 6 and _indent(line) <= 3
    return level if opens and stripped[level : level + 1] in (" ", "\t") else 0


def _setext_level(line: str, under: str) -> int:
    mark = under.strip()[:1]
    if mark not in ("=", "-") or not mark or under.strip().strip(mark) or _indent(under) > 3:
        return 0
    if len(under.strip()) < (2 if mark == "=" else 3) or _indent(line) > 3:
        return 0
    if _ITEM.match(line) or "|" in line or line.lstrip().startswith(">") or _is_rule(line):
        return 0
    return 1 if mark == "=" else 2


def _is_rule(line: str) -> bool:
    marks = line.replace(" ", "").replace("\t", "")
    return len(marks) >= 3 and marks[0] in "-*_=" and not marks.strip(marks[0])


def _is_table(text: str, lines: list[Span], at: int) -> bool:
    """A header row with ``|`` over a row of dashes and colons."""
    if at + 1 >= len(lines) or "|" not in _line(text, lines[at]):
        return False
    under = _line(text, lines[at + 1])
    return "-" in under and "|" in under and not under.strip("|:- \t")


def _run_end(text: str, lines: list[Span], at: int, belongs: _Test) -> int:
    while at < len(lines) and belongs(_line(text, lines[at])):
        at += 1
    return at


def _list_end(text: str, lines: list[Span], at: int) -> int:
    """A list goes on over items, over what is indented, and over lines that simply continue an item."""
    end = after = at + 1
    blank = False
    while after < len(lines):
        line = _line(text, lines[after])
        if not line.strip():
            blank = True
        elif _starts_block(text, lines, after, line) or (
            blank and not _ITEM.match(line) and _indent(line) < 2
        ):
            break
        else:
            end, blank = after + 1, False
        after += 1
    return end


def _paragraph_end(text: str, lines: list[Span], at: int) -> int:
    after = at + 1
    while after < len(lines):
        line = _line(text, lines[after])
        if not line.strip() or _ITEM.match(line) or _starts_block(text, lines, after, line):
            break
        after += 1
    return after


def _starts_block(text: str, lines: list[Span], at: int, line: str) -> bool:
    return bool(_fence(line) or _atx_level(line) or _is_table(text, lines, at))


def _front_matter(text: str, lines: list[Span]) -> int:
    """The number of lines of a ``---`` … ``---`` header at the very top, 0 when there is none."""
    if len(lines) < 3 or _line(text, lines[0]).strip() != "---" or not _line(text, lines[1]).strip():
        return 0
    for at in range(1, min(len(lines), 100)):
        line = _line(text, lines[at]).strip()
        if line in ("---", "..."):
            return at + 1
        if not line:
            return 0
    return 0
