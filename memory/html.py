"""The readable text of an HTML page, as Markdown: headings, lists and tables survive for the chunker."""

from __future__ import annotations

import logging
from html.parser import HTMLParser
from typing import NamedTuple

from ..kernel.errors import MissingExtraError

_UNSEEN = frozenset({"script", "style", "noscript", "template", "svg", "head", "nav", "form", "iframe"})
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
    """The main text of ``page`` by trafilatura; all of its visible text when that finds none.

    Raises:
        MissingExtraError: the extra ``loaders`` is not installed.
    """
    try:
        import trafilatura
    except ImportError as exc:
        raise MissingExtraError("loaders", "Reading an HTML file") from exc
    logging.getLogger("trafilatura").addHandler(logging.NullHandler())  # its doubts are not for a terminal
    plain = strip_tags(page)
    # With its own defaults trafilatura leaves out lists and headings of plain pages; a lost rule is worse
    # than a line too many.
    main = trafilatura.extract(page, output_format="markdown", favor_recall=True, include_comments=False)
    return Page(main or plain.text, plain.title)


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

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and not self.title:
            self._in_title = True
        elif tag == "body":
            self._unseen = 0  # a head that was never closed hides nothing more
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag in _HEADINGS:
            self.parts.append("\n\n" + _HEADINGS[tag])
        elif tag == "li":
            self.parts.append("\n- ")
        elif tag in ("td", "th"):
            self.parts.append(" | ")
        elif tag in _LINES:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag in _HEADINGS or tag in ("p", "ul", "ol", "table"):
            self.parts.append("\n\n")
        elif tag in _LINES:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._unseen:
            # A line break in the source is only a space on the page.
            self.parts.append(" ".join(data.split("\n")))
