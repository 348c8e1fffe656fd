"""Cuts a document into chunks that an embedder can read whole and a person can find again.

A chunk is an exact span: ``document.text[chunk.start:chunk.end] == chunk.text``. Together the chunks hold
every visible character, in order, without overlap. A chunk never crosses a heading; paragraphs, lists,
tables and fenced code stay whole where they fit, and are cut at items, lines, sentences, words and at last
characters where not.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from .blocks import Block, Kind, Span, blocks, items, line_spans
from .records import Chunk, Document
from .tokens import estimate_tokens

#: As :func:`~kernloom.memory.tokens.estimate_tokens` counts. MiniLM reads 256: the title has room.
CHUNK_TOKENS = 200
TITLE_SEPARATOR = " > "

#: Cruder than :func:`.text.sentences`, which reads for quotes: this runs over whole documents and has to be
#: linear in the most hostile of them.
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？]")
_WORD = re.compile(r"\S+")
_ZERO_WIDTH_JOINER = "\u200d"
_Cutter = Callable[[str, int, int], list[Span]]
#: Sections with more chunks than this are not evened out: nobody would notice, and it takes time.
_EVEN_OUT = 40


def chunk_document(document: Document, *, limit: int = CHUNK_TOKENS) -> list[Chunk]:
    """The chunks of ``document``, each of at most ``limit`` estimated tokens, with ``key`` 0."""
    text = document.text
    newlines = [end for _, end in line_spans(text)]
    chunks: list[Chunk] = []
    for section in _sections(text, document.title):
        for start, end in _pack(_pieces(text, section, limit), limit):
            chunks.append(
                Chunk(
                    key=0,
                    document=document.id,
                    source=document.source,
                    ordinal=len(chunks),
                    start=start,
                    end=end,
                    line_start=bisect_right(newlines, start - 1) + 1,
                    line_end=bisect_right(newlines, end - 1) + 1,
                    title=section.title,
                    text=text[start:end],
                    namespace=document.namespace,
                )
            )
    return chunks


class _Section(NamedTuple):
    """Blocks under one heading; the headings themselves are its first blocks."""

    title: str
    blocks: list[Block]


class _Piece(NamedTuple):
    """What the packer may not cut further. ``closed`` pieces begin or end inside a word."""

    start: int
    end: int
    tokens: int
    closed: bool = False


def _sections(text: str, document_title: str) -> Iterator[_Section]:
    path: list[Block] = []
    current: list[Block] = []
    for block in blocks(text):
        if block.kind == "heading":
            # A heading with nothing under it opens the section of its first subheading.
            only_headings = all(b.kind == "heading" for b in current)
            if current and not (only_headings and block.level > current[-1].level):
                yield _Section(_title(document_title, path), current)
                current = []
            path = [above for above in path if above.level < block.level] + [block]
        current.append(block)
    if current:
        yield _Section(_title(document_title, path), current)


def _title(document_title: str, path: list[Block]) -> str:
    words = [block.title for block in path if block.title]
    if document_title and document_title.casefold() not in (word.casefold() for word in words):
        words.insert(0, document_title)
    return TITLE_SEPARATOR.join(words)


def _pieces(text: str, section: _Section, limit: int) -> list[_Piece]:
    """Whole blocks where they fit, parts of them where not; a lead-in is joined to what it introduces."""
    pieces: list[_Piece] = []
    lead: _Piece | None = None
    for block in section.blocks:
        room = limit - lead.tokens if lead is not None and lead.tokens <= limit // 2 else limit
        parts = _parts(text, block, limit, first=room)
        if lead is not None and not parts[0].closed and lead.tokens + parts[0].tokens <= limit:
            pieces.pop()
            parts[0] = _Piece(lead.start, parts[0].end, lead.tokens + parts[0].tokens)
        pieces.extend(parts)
        leads = block.kind == "heading" or text[block.end - 1] == ":"
        lead = pieces[-1] if leads and not pieces[-1].closed else None
    return pieces


def _parts(text: str, block: Block, limit: int, *, first: int) -> list[_Piece]:
    """``block`` as pieces of at most ``limit`` tokens, the first of at most ``first`` if words allow."""
    whole = _piece(text, block.start, block.end)
    if whole.tokens <= first:
        return [whole]
    spans: Iterable[Span] = [(block.start, block.end)]
    if block.kind == "list":
        spans = items(text, block)
    elif block.kind in ("code", "table"):
        spans = line_spans(text, block.start, block.end)
    return list(_cut(text, spans, limit, _FINER[block.kind], first=first))


def _cut(
    text: str, spans: Iterable[Span], limit: int, finer: tuple[_Cutter, ...], *, first: int
) -> Iterator[_Piece]:
    for start, end in spans:
        piece = _piece(text, start, end)
        if not piece.tokens:
            continue
        if piece.tokens <= first:
            yield piece
        elif finer:
            yield from _cut(text, finer[0](text, start, end), limit, finer[1:], first=first)
        elif piece.tokens <= limit:
            yield piece
        else:
            yield from _cut_word(text, start, end, limit)
        first = limit


def _cut_word(text: str, start: int, end: int, limit: int) -> Iterator[_Piece]:
    """A word of more than ``limit`` tokens, as long pieces that keep combined characters together."""
    while start < end:
        # One character costs at most one token, so this many always fit; more is found by doubling back.
        upto = min(end, start + 4 * limit)
        while estimate_tokens(text[start:upto]) > limit:
            upto = start + max(1, (upto - start) * 3 // 4)
        upto = _before_combined(text, start, upto) if upto < end else upto
        yield _piece(text, start, upto)._replace(closed=True)
        start = upto


def _before_combined(text: str, start: int, upto: int) -> int:
    """The nearest place at or before ``upto`` that does not tear an accent or emoji from its base."""
    for at in range(upto, max(start, upto - 16), -1):
        joins = unicodedata.combining(text[at]) or text[at] in "\ufe0f\ufe0e" + _ZERO_WIDTH_JOINER
        if not joins and text[at - 1] != _ZERO_WIDTH_JOINER:
            return at
    return upto


def _piece(text: str, start: int, end: int) -> _Piece:
    """The span without the whitespace around it."""
    body = text[start:end]
    start += len(body) - len(body.lstrip())
    return _Piece(start, start + len(body.strip()), estimate_tokens(body))


def _sentences(text: str, start: int, end: int) -> list[Span]:
    ends = [match.end() for match in _SENTENCE_END.finditer(text, start, end)]
    return list(pairwise([start, *ends, end]))


def _words(text: str, start: int, end: int) -> list[Span]:
    return [match.span() for match in _WORD.finditer(text, start, end)]


_FINER: dict[Kind, tuple[_Cutter, ...]] = {
    "heading": (_words,),
    "paragraph": (_sentences, _words),
    "list": (line_spans, _sentences, _words),
    "table": (_words,),
    "code": (_words,),
}


def _pack(pieces: list[_Piece], limit: int) -> list[Span]:
    """Pieces into as few spans as reading order allows, evened out so that no short tail remains."""
    spans = _fill(pieces, limit)
    if 1 < len(spans) <= _EVEN_OUT:
        low, high = max(piece.tokens for piece in pieces), limit
        while low < high:
            middle = (low + high) // 2
            if len(_fill(pieces, middle)) > len(spans):
                low = middle + 1
            else:
                high = middle
        spans = _fill(pieces, high)
    return spans


def _fill(pieces: list[_Piece], limit: int) -> list[Span]:
    spans: list[Span] = []
    room = 0
    for piece in pieces:
        if spans and piece.tokens <= room and not piece.closed:
            spans[-1] = (spans[-1][0], piece.end)
        else:
            spans.append((piece.start, piece.end))
            room = limit
        room = 0 if piece.closed else room - piece.tokens
    return spans
