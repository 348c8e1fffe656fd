"""Text as the keyword index and the citation check see it: terms, and sentences with their spans.

Terms are lower-cased, stop-worded and stemmed; identifiers survive::

    >>> terms("Travel approvals above 9.5 % need form TR-7.")
    ['travel', 'approv', 'abov', '9.5', 'need', 'form', 'tr7', 'tr', '7']
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ..kernel.errors import MissingExtraError

_FUNCTION_WORDS = """
a about after again all also am an and any are as at be because been before being both but by can could
did do does doing don down during each few for from further had has have having he her here hers herself
him himself his how i if in into is it its itself just ll me might more most must my myself no nor not
now of off on once only or other our ours ourselves out over own re s same shall she should so some such
t than that the their theirs them themselves then there these they this those through to too under until
up ve very was we were what when where which while who whom whose why will with would you your yours
yourself yourselves
"""

#: English words that carry no topic. Words that turn a rule around (without, except, unless, never, above,
#: below) stay in the index: documents of rules differ by them.
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())

# A word of letters and digits, joined by . , - _ / or ' as long as a letter or digit follows; Chinese and
# Japanese, which have no spaces, go character by character.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u9fff])[^\W_])+(?:[.,'’_/-][^\W_]+)*"
)
_PARTS = re.compile(r"[^\W_]+")
_GROUPED_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL = re.compile(r"\d+(?:\.\d+)+")
_HAS_DIGIT = re.compile(r"\d")


def terms(text: str) -> list[str]:
    """The index terms of ``text`` in order, repeats kept.

    An identifier such as ``VPN-412`` gives its joined form and its parts (``vpn412``, ``vpn``, ``412``), so
    it is found however it is typed; ``2,000`` is ``2000``; ``9.5`` stays whole. A capitalised acronym
    (``IT``, ``US``) is never taken for a stop word.
    """
    return [term for match in _WORD.finditer(_folded(text)) for term in _terms_of(match.group())]


def _folded(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _terms_of(word: str) -> Iterator[str]:
    if _GROUPED_NUMBER.fullmatch(word):
        yield word.replace(",", "")
        return
    if _DECIMAL.fullmatch(word):
        yield word
        return
    parts = _PARTS.findall(word)
    if len(parts) > 1 and _HAS_DIGIT.search(word):
        # Letters and digits join without their separator; all-digit groups (dates, ranges) keep one.
        yield ("-" if word[0].isdigit() and parts[-1].isdigit() else "").join(parts).lower()
    for part in parts:
        lower = part.lower()
        if lower not in STOP_WORDS or (len(part) > 1 and part.isupper()):
            yield stem(lower)


@lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    """The Snowball English stem of a lower-cased ``word``; words with digits are left alone.

    Raises:
        MissingExtraError: snowballstemmer is not installed.
    """
    if not word.isalpha():
        return word
    # A stemmer keeps its state in itself, so one thread at a time.
    with _STEMMING:
        return str(_stemmer().stemWord(word))


_STEMMING = threading.Lock()


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    try:
        import snowballstemmer
    except ImportError as error:
        raise MissingExtraError("memory", "Keyword search") from error
    return snowballstemmer.stemmer("english")


# Where a line begins something of its own: a list item, heading, quote, table row or fence.
_LINE_STARTS = re.compile(r"\s*(?:[-*+•]\s+|\d{1,3}[.)]\s+|#{1,6}\s+|>\s*|\||```|~~~)")
_MARKER = re.compile(r"\s*(?:(?:[-*+•]|\d{1,3}[.)]|#{1,6}|>+)\s+)*")
# Not before a lower-case letter: that was an abbreviation or an ellipsis.
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)*_]*(?=\s+[^\sa-z]|\s*\Z)|[。！？]+")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|approx|vs|cf|no|nos|fig|art|sec|dr|mr|mrs|ms|prof|st|inc|ltd|co|jan|feb|mar|apr|jun|"
    r"jul|aug|sept?|oct|nov|dec)|\b[A-Za-z]|(?:^|\n)\s*\d{1,3})\.$",
    re.IGNORECASE,
)


def sentences(text: str) -> list[tuple[int, int]]:
    """Spans ``(start, end)`` of the sentences of plain text or Markdown, in order.

    A heading, list item or table row ends with its line; a paragraph's sentences may run over lines. Spans
    leave out list and heading markers and surrounding blanks; an abbreviation does not end a sentence.
    """
    spans: list[tuple[int, int]] = []
    for start, end in _blocks(text):
        cut = start
        for match in _SENTENCE_END.finditer(text, start, end):
            if match.group()[0] == "." and _ABBREVIATION.search(text[cut : match.start() + 1]):
                continue
            spans.append((cut, match.end()))
            cut = match.end()
        spans.append((cut, end))
    return [span for start, end in spans if (span := _trimmed(text, start, end))]


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines that belong together: a paragraph, one list item with its continuation, one row."""
    start: int | None = None
    position = 0
    alone = False
    for line in text.splitlines(keepends=True):
        begins = _LINE_STARTS.match(line)
        if start is not None and (begins or alone or not line.strip()):
            yield start, position
            start = None
        if start is None and line.strip():
            start = position
            alone = bool(begins) and line.lstrip()[0] in "#|`~"
        position += len(line)
    if start is not None:
        yield start, position


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    marker = _MARKER.match(text, start, end)
    start = marker.end() if marker else start
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if any(c.isalnum() for c in text[start:end]) else None
