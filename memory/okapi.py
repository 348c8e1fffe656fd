"""rank-bm25's ``BM25Okapi`` with Lucene's idf: the keyword engine, and the oracle for anything faster.

Okapi's own idf gives a match nothing in a store of two documents, a negative score in a store of one, and
ignores a term that half the documents hold; Lucene's is positive for every term. An empty corpus, on which
rank-bm25 divides by zero, is allowed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rank_bm25 import BM25Okapi

from .idf import lucene_idf


class LuceneBM25(BM25Okapi):  # type: ignore[misc,unused-ignore]  # rank-bm25 ships no types
    """BM25 over documents given as lists of terms. Defaults as measured: ``k1`` 0.9, ``b`` 0.4."""

    corpus_size: int
    avgdl: float
    doc_freqs: list[dict[str, int]]
    doc_len: list[int]
    idf: dict[str, float]
    k1: float
    b: float

    def __init__(self, corpus: Sequence[Sequence[str]], *, k1: float = 0.9, b: float = 0.4) -> None:
        super().__init__(corpus, k1=k1, b=b)

    def _initialize(self, corpus: Sequence[Sequence[str]]) -> dict[str, int]:
        if not corpus:
            # One term of average length keeps the length norm finite; no document is scored by it.
            self.corpus_size, self.avgdl = 0, 1.0
            return {}
        frequencies: dict[str, int] = super()._initialize(corpus)
        self.avgdl = self.avgdl or 1.0
        return frequencies

    def _calc_idf(self, nd: Mapping[str, int]) -> None:
        for term, documents in nd.items():
            self.idf[term] = lucene_idf(self.corpus_size, documents)

    def get_scores(self, query: Sequence[str]) -> Any:
        """A score for every document, as rank-bm25 computes it: exact, and slow beyond a few thousand."""
        return super().get_scores(query)
