"""Checking what an answer cites: each ``[n]`` becomes a sentence of passage *n*, at its place.

What is checked is the quote, not the argument: *verified* says that the sentence nearest to the claim
stands, character for character, where the citation points. Whether it bears the claim out is for the
reader, who is taken to the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ..kernel.messages import Citation, Grounding, Passage
from .idf import idf_over
from .text import sentences, terms

_LABEL = re.compile(r"[\[【]\^?(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)[\]】]")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
#: Straight quotes open as they close, so a stray one must not reach beyond its line; the others may.
_QUOTATION = re.compile(r"\"([^\"\n]{2,600})\"|“([^”]{2,1200})”|«([^»]{2,1200})»|„([^“”]{2,1200})[“”]")
#: A quotation of fewer words may be a name or a term rather than the passage's words.
_WORDS_OF_A_QUOTATION = 4
#: A claim of fewer words standing literally in the passage is no better a quote than its sentence.
_WORDS_OF_A_COPY = 3


def verify(answer: str, grounding: Grounding, read: Callable[[str], str | None]) -> tuple[Citation, ...]:
    """The citations of ``answer`` in order, each with the sentence that supports it, and whether it stands.

    The supporting text is, in this order: a quotation in the claim, where the passage has it literally; the
    whole claim, where it is a literal copy; else the sentence of the passage that shares most idf with the
    claim. A citation is left unverified, never refused, when its label does not exist, when it quotes
    words that the passage does not have, when it shares no term with the passage, and when the document is
    gone or no longer reads as the passage did.

    Args:
        answer: the text with its ``[1]``, ``[1, 2]`` or ``[1][2]``; those within code are not citations.
        grounding: the passages as the model saw them.
        read: the stored text of a document by id; None when it is gone or its hash does not hold.
    """
    passages = {passage.label: passage for passage in grounding.passages}
    weights = _weights(grounding.passages)
    stored = lru_cache(maxsize=None)(read)
    citations: dict[Citation, None] = {}
    for label, claim, listed in _claims(answer):
        passage = passages.get(label)
        citation = _nowhere(label) if passage is None else _cite(passage, claim, weights, stored)
        if listed and not citation.quote and any(label == known.label for known in citations):
            continue  # a list of sources below the answer names what was cited above
        citations[citation] = None
    return tuple(citations)


def _cite(
    passage: Passage, claim: str, weights: Mapping[str, float], read: Callable[[str], str | None]
) -> Citation:
    span, quote = _support(passage.text, claim, weights)
    start, end = passage.start + span[0], passage.start + span[1]
    text = read(passage.document)
    stands = (
        text is not None
        and text[passage.start : passage.end] == passage.text
        and bool(quote)
        and text[start:end] == quote
    )
    line = passage.line_start + passage.text.count("\n", 0, span[0])
    return Citation(
        label=passage.label,
        document=passage.document,
        source=passage.source,
        quote=quote,
        start=start,
        end=end,
        line_start=line,
        line_end=line + passage.text.count("\n", span[0], span[1]),
        verified=stands,
    )


def _nowhere(label: str) -> Citation:
    return Citation(
        label=label,
        document="",
        source="",
        quote="",
        start=0,
        end=0,
        line_start=0,
        line_end=0,
        verified=False,
    )


# -- what the answer claims ------------------------------------------------------------------------------


class _Claim(NamedTuple):
    label: str
    #: The words the label stands behind.
    text: str
    #: The label opens its line, as in a list of sources.
    listed: bool


def _claims(answer: str) -> Iterator[_Claim]:
    """Each label with the words it stands behind: from the label before it, or the statement's start."""
    masked = _CODE.sub(lambda match: re.sub(r"\S", " ", match.group()), answer)
    before = ""
    for start, end in _statements(answer):
        own = _LABEL.sub(" ", answer[start:end]).strip()
        whole = own if len(terms(own)) >= 2 else f"{before} {own}".strip()
        position, claim = start, ""
        for match in _LABEL.finditer(masked, start, end):
            listed = not answer[: match.start()].rpartition("\n")[2].strip(" \t-*>")
            words = answer[position : match.start()]
            if listed:
                claim = (
                    _LABEL.split(answer[match.end() : end].partition("\n")[0], maxsplit=1)[0].strip()
                    or before
                )
            elif len(terms(words)) >= 2:
                claim = words.strip(" ,;.:")
            elif position == start and not words.strip():
                claim = before  # "… the statement. [1] The next": it closes the one before
            claim = claim or whole
            for label in re.findall(r"\d+", match.group(1)):
                yield _Claim(label, claim, listed)
            position = match.end()
        before = whole


def _statements(answer: str) -> Iterator[tuple[int, int]]:
    """Spans of the answer's sentences; a quotation of several sentences is not torn apart."""
    held: int | None = None
    for start, end in sentences(answer):
        first = start if held is None else held
        text = answer[first:end]
        held = first if text.count('"') % 2 or text.count("“") > text.count("”") else None
        if held is None:
            yield first, end
    if held is not None:
        yield held, len(answer)


# -- what in the passage supports it ---------------------------------------------------------------------


def _support(text: str, claim: str, weights: Mapping[str, float]) -> tuple[tuple[int, int], str]:
    """The span in ``text`` that bears the claim, and its quote; an empty span when nothing does."""
    quotations = sorted(
        (q for m in _QUOTATION.finditer(claim) if (q := m.group(m.lastindex or 0))), key=len
    )
    for quotation in reversed(quotations):
        found = _literal(quotation, text)
        if found:
            return found, text[found[0] : found[1]]
        if len(quotation.split()) >= _WORDS_OF_A_QUOTATION:
            return (0, 0), quotation
    copied = _literal(claim, text) if len(claim.split()) >= _WORDS_OF_A_COPY else None
    span = copied or _nearest_sentence(text, claim, weights) or (0, 0)
    return span, text[span[0] : span[1]]


def _nearest_sentence(text: str, claim: str, weights: Mapping[str, float]) -> tuple[int, int] | None:
    wanted = set(terms(claim))
    best, best_score = None, (0.0, 0)
    for start, end in sentences(text):
        held = set(terms(text[start:end]))
        score = (sum(weights.get(term, 0.0) for term in wanted & held), -len(held))
        if score[0] > 0 and score > best_score:
            best, best_score = (start, end), score
    return best


def _weights(passages: Sequence[Passage]) -> dict[str, float]:
    """The idf of each term over the sentences of all passages."""
    return idf_over(
        set(terms(passage.text[start:end]))
        for passage in passages
        for start, end in sentences(passage.text)
    )


def _literal(quote: str, text: str) -> tuple[int, int] | None:
    """Where ``quote`` stands in ``text``, whatever the blanks, case, emphasis, kind of quotes and dashes.

    An ellipsis stands for anything left out: the parts must follow each other.
    """
    exact = re.search(rf"(?<!\w){re.escape(quote)}", text)
    if exact:
        return exact.span()
    folded, places = _folded(text)
    position, first, last = 0, None, 0
    for part in re.split(r"\s*(?:\.\.\.|…|\[…\])\s*", quote):
        wanted = _folded(part)[0].strip(" .,;:")
        if not wanted:
            continue
        at = folded.find(wanted, position)
        while at > 0 and folded[at - 1].isalnum() and wanted[0].isalnum():
            at = folded.find(wanted, at + 1)  # not in the middle of a word or number
        if at < 0:
            return None
        position = at + len(wanted)
        first = places[at] if first is None else first
        last = places[position - 1] + 1
    return None if first is None else (first, last)


_ALIKE = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "‑": "-", "\u00a0": " "}
)
_UNREAD = re.compile("[*_`\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def _folded(text: str) -> tuple[str, list[int]]:
    """``text`` for comparison, and the position in it of each folded character."""
    characters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text.translate(_ALIKE)):
        if _UNREAD.match(character):
            continue
        if character.isspace() and characters and characters[-1] == " ":
            continue
        for lower in " " if character.isspace() else character.lower():
            characters.append(lower)
            places.append(place)
    return "".join(characters), places
