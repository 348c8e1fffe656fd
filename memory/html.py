"""The readable text of an HTML page, as Markdown: headings, lists and tables survive for the chunker."""

from __future__ import annotations

import logging
from html.parser import HTMLParser
from typing import NamedTuple

from ..kernel.errors import MissingExtraError

_UNSEEN = frozenset(
    {"script", "style", "noscript", "template", "svg", "head", "nav", "form", "iframe", "footer"}
)
#: A page of which this part is main text has no frame worth cutting away, and is taken whole: on such pages
#: extraction was seen to lose small tables and lists, and a lost rule is worse than a line too many.
_MOSTLY_TEXT = 2 / 3
_LINES = frozenset(
    {
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "br",
        "caption",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
    }
    | {"figcaption", "figure", "footer", "header", "hr", "main", "ol", "p", "pre", "section", "summary"}
    | {"table", "tbody", "tfoot", "thead", "tr", "ul"}
)
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}


class Page(NamedTuple):
    """What a page says, and its ``<title>``."""

    text: str
    title: str


def read_html(page: str) -> Page:
    """The main text of ``page``: what trafilatura finds in a frame of menus and notices, else all of it.

    Raises:
        MissingExtraError: the extra ``loaders`` is not installed.
    """
    try:
        import trafilatura
    except ImportError as exc:
        raise MissingExtraError("loaders", "Reading an HTML file") from exc
    logging.getLogger("trafilatura").addHandler(logging.NullHandler())  # its doubts are not for a terminal
    plain = strip_tags(page)
    main = (
        trafilatura.extract(page, output_format="markdown", favor_recall=True, include_comments=False) or ""
    )
    framed = bool(main.strip()) and len(main) < _MOSTLY_TEXT * len(plain.text)
    return Page(main if framed else plain.text, plain.title)


def strip_tags(page: str) -> Page:
    """The visible text of ``page`` and its title, by the standard library alone."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    lines = [" ".join(line.split()) for line in "".join(reader.parts).split("\n")]
    kept = [line for line, before in zip(lines, ["", *lines], strict=False) if line or before]
    return Page("\n".join(kept).strip(), " ".join("".join(reader.title).split()))


class _Reader(HTMLParser):
    """Collects text, with line breaks and Markdown marks where tags mean them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title: list[str] = []
        self._unseen = 0
        self._in_title = False
        #: Cells of this row, rows of this table.
        self._row = self._rows = 0
        #: The lists this place is in: the last number of an ordered one, else None.
        self._lists: list[int | None] = []
        self._verbatim = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and not self.title:
            self._in_title = True
        elif tag == "body":
            self._unseen = 0  # a head that was never closed hides nothing more
        elif tag == "pre":
            self._verbatim = True
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag in _HEADINGS and not self._row:
            self.parts.append("\n\n" + _HEADINGS[tag])
        elif tag == "li" and not self._row:
            self.parts.append(f"\n{self._mark()} ")
        elif tag in ("ol", "ul") and not self._row:
            self.parts.append("\n")
            self._lists.append(0 if tag == "ol" else None)
        elif tag == "table":
            self.parts.append("\n\n")
            self._rows = self._row = 0
        elif tag == "tr":
            if self._row:
                self._end_row()  # HTML lets a row go unclosed
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" | " if self._row else "| ")
            self._row += 1
        elif tag in _LINES and not self._row:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag == "pre":
            self._verbatim = False
        elif tag in ("ol", "ul") and self._lists:
            self._lists.pop()
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag == "tr" and self._row:
            self._end_row()
        elif self._row and tag != "table":
            self.parts.append(" ")  # a paragraph within a cell
        elif tag in _HEADINGS or tag in ("p", "ul", "ol", "table"):
            self.parts.append("\n\n")
            self._rows = self._row = 0
        elif tag in _LINES:
            self.parts.append("\n")

    def _mark(self) -> str:
        number = self._lists[-1] if self._lists else None
        if number is None:
            return "-"
        self._lists[-1] = number + 1
        return f"{number + 1}."

    def _end_row(self) -> None:
        self.parts.append(" |")
        if not self._rows:  # what makes it a table to a Markdown reader, ours included
            self.parts.append("\n" + "|---" * self._row + "|")
        self._rows += 1
        self._row = 0

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._unseen:
            # A line break in the source is only a space on the page.
            self.parts.append(data if self._verbatim else data.replace("\n", " "))
