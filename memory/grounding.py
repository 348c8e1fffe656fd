"""Packing what a search found into the passages a model is shown, within a token budget."""

from __future__ import annotations

from collections.abc import Sequence

from ..kernel.messages import Passage
from .records import Hit
from .text import sentences
from .tokens import estimate_tokens

#: Tokens that the label, place and heading of a passage cost in a prompt.
_FRAME = 24
#: A passage cut to fewer tokens than this says too little to be worth its frame.
_LEAST = 16


def pack(hits: Sequence[Hit], *, tokens: int) -> tuple[Passage, ...]:
    """The passages of ``hits``, best first, that fit into ``tokens``, labelled ``1``, ``2`` … in order.

    A passage that does not fit is left out and smaller ones behind it may still come in; the best one is
    cut at the end of a sentence rather than lost. A text that is already packed is not repeated. Tokens are
    estimated (:mod:`.tokens`), a passage's frame included.
    """
    packed: list[Passage] = []
    texts: set[str] = set()
    left = tokens
    for hit in hits:
        text = hit.chunk.text
        if text in texts or not text.strip():
            continue
        cost = estimate_tokens(text) + _FRAME
        if cost > left and not packed:
            text = _cut(text, left - _FRAME)
            cost = estimate_tokens(text) + _FRAME
        if cost <= left and text:
            packed.append(_passage(hit, text, label=str(len(packed) + 1)))
            texts.add(hit.chunk.text)
            left -= cost
    return tuple(packed)


def _cut(text: str, tokens: int) -> str:
    """The whole sentences of ``text`` that fit into ``tokens``; nothing if that is next to nothing."""
    if tokens < _LEAST:
        return ""
    ends = [end for _, end in sentences(text) if estimate_tokens(text[:end]) <= tokens]
    return text[: ends[-1]] if ends else ""


def _passage(hit: Hit, text: str, *, label: str) -> Passage:
    chunk = hit.chunk
    cut = text != chunk.text
    return Passage(
        id=str(chunk.key),
        document=chunk.document,
        source=chunk.source,
        text=text,
        start=chunk.start,
        end=chunk.start + len(text),
        line_start=chunk.line_start,
        line_end=chunk.line_start + text.count("\n") if cut else chunk.line_end,
        title=chunk.title,
        score=hit.score,
        keyword_rank=hit.keyword_rank,
        vector_rank=hit.vector_rank,
        label=label,
    )
