"""An answer without a language model: the sentences of the passages that fit the question, word for word.

Every quote is an exact piece of its passage, so its citation is verified by construction. Nothing is
written, nothing leaves the machine; what memory does not hold is said to be missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...kernel.messages import Grounding, Passage, Usage, assistant
from ...kernel.models.base import ChatModel, ChatRequest, ChatResponse, Delta, ModelInfo
from ...kernel.models.scripted import deltas
from ...memory.idf import idf_over
from ...memory.text import sentences, terms

HEADER = "Quoted from memory (no language model):"
NOT_IN_MEMORY = "The answer is not in memory."
NO_MEMORY = "There is no memory to quote from, and no language model to ask."

# Measured on the questions of examples/handbook/judged: quotes of this length hold the answer as often as
# longer ones, and a second quote pays when it brings terms of this weight.
#: Characters of one quote, at most; a single longer sentence is quoted whole.
_QUOTE_CHARS = 320
#: What a question's term in the passage's headings is worth, compared with one in the quote.
_HEADING = 0.3
#: What the first passage's rank is worth, as a share of the question's weight; the n-th has 1/n of it.
_RANK = 0.8
#: A slight preference for more context among equals.
_CONTEXT = 0.05
#: The share of the question's weight that a second quote must add.
_ADDS = 0.3


class ExtractiveModel:
    """Quotes the passages of ``request.grounding`` that answer the question, labelled ``[n]``."""

    _info = ModelInfo(name="extractive", local=True, functions=False, generative=False)

    @property
    def info(self) -> ModelInfo:
        """Who it is and what it can do."""
        return self._info

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The quotes, or that there are none. Costs no tokens.

        Raises:
            MissingExtraError: the extra ``memory`` is not installed.
        """
        return ChatResponse(message=assistant(answer(request.grounding)), usage=Usage(), model="extractive")

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """The same, word by word."""
        for delta in deltas(await self.complete(request)):
            yield delta

    async def aclose(self) -> None:
        """Nothing to give back."""


class ExtractivePlugin:
    """Offers the model ``extractive``."""

    models = ("extractive",)

    def chat_model(self, name: str, settings: Mapping[str, Any]) -> ChatModel:
        """The one model there is; it has no settings."""
        return ExtractiveModel()


def answer(grounding: Grounding | None) -> str:
    """The answer as text: a line that says what this is, then each quote with its label."""
    if grounding is None:
        return NO_MEMORY
    quotes = choose(grounding) if grounding.found else []
    if not quotes:
        return NOT_IN_MEMORY
    return "\n\n".join([HEADER, *(f"“{quote.text}” [{quote.passage.label}]" for quote in quotes)])


@dataclass(frozen=True, slots=True)
class Quote:
    """Neighbouring sentences of a passage, as they stand there."""

    passage: Passage
    #: The passage's place in the ranking, from 0.
    rank: int
    #: Span in the passage's text.
    start: int
    end: int
    terms: frozenset[str]
    heading: frozenset[str]

    @property
    def text(self) -> str:
        """The exact text."""
        return self.passage.text[self.start : self.end]


def choose(grounding: Grounding) -> list[Quote]:
    """The best quote, and one from another passage if that has what the first lacks."""
    sentences = list(_sentences(grounding))
    weights = _weights(set(terms(grounding.query)), sentences)
    whole = sum(weights.values())
    quotes = list(_windows(sentences))
    if not quotes:
        return []
    first = max(quotes, key=lambda quote: _score(quote, weights, whole))
    lacking = {term: weight for term, weight in weights.items() if term not in first.terms}
    others = [
        quote
        for quote in quotes
        if quote.passage is not first.passage and _weight(lacking, quote.terms) >= _ADDS * whole > 0
    ]
    if not others:
        return [first]
    second = max(others, key=lambda quote: _score(quote, lacking, whole))
    return sorted((first, second), key=lambda quote: quote.rank)


def _score(quote: Quote, weights: Mapping[str, float], whole: float) -> float:
    """How well a quote fits: the question's idf it covers, its headings, its rank, and its context."""
    fits = _weight(weights, quote.terms) + _HEADING * _weight(weights, quote.heading - quote.terms)
    context = 1 + _CONTEXT * min(1.0, (quote.end - quote.start) / _QUOTE_CHARS)
    return fits * context + _RANK * (whole or 1.0) / (1 + quote.rank)


def _weight(weights: Mapping[str, float], held: Collection[str]) -> float:
    return sum(weight for term, weight in weights.items() if term in held)


def _weights(question: Collection[str], sentences: Collection[Quote]) -> dict[str, float]:
    """The idf of each of the question's terms over all sentences; a term none of them has is left out."""
    known = idf_over(sentence.terms for sentence in sentences)
    return {term: weight for term, weight in known.items() if term in question}


def _sentences(grounding: Grounding) -> Iterator[Quote]:
    for rank, passage in enumerate(grounding.passages):
        heading = frozenset(terms(passage.title))
        for start, end in sentences(passage.text):
            if not _is_heading(passage.text, start):
                words = frozenset(terms(passage.text[start:end]))
                yield Quote(passage, rank, start, end, words, heading)


def _is_heading(text: str, start: int) -> bool:
    return text[text.rfind("\n", 0, start) + 1 :].lstrip().startswith("#")


def _windows(sentences: list[Quote]) -> Iterator[Quote]:
    """Every run of neighbouring sentences that fits into one quote, single ones first."""
    for index, first in enumerate(sentences):
        yield first
        held = first.terms
        for last in sentences[index + 1 :]:
            if last.passage is not first.passage or last.end - first.start > _QUOTE_CHARS:
                break
            held |= last.terms
            yield Quote(first.passage, first.rank, first.start, last.end, held, first.heading)
