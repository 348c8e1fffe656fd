"""The keyword index: BM25 over stemmed terms of title and text.

A projection of the store held in memory. The statistics are those of rank-bm25 (:mod:`.okapi`); scoring
walks postings built from them once, and is tested equal to ``BM25Okapi.get_scores`` to the last bit.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..kernel.errors import MissingExtraError
from .idf import lucene_idf
from .records import Chunk
from .text import terms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .okapi import LuceneBM25


class KeywordIndex:
    """Scores all chunks for a query. Positions are those of the chunks as last given to :meth:`refresh`.

    Args:
        k1: how fast repeats of a term stop counting.
        b: how much long chunks are discounted, 0 to 1.

    Raises:
        MissingExtraError: the extra ``memory`` is not installed.
    """

    def __init__(self, *, k1: float = 0.9, b: float = 0.4) -> None:
        self._k1 = k1
        self._b = b
        self._seen: dict[int, tuple[str, str, list[str]]] = {}
        self._build([])

    def __len__(self) -> int:
        return self._okapi.corpus_size

    def refresh(self, chunks: Sequence[Chunk]) -> None:
        """Index exactly these chunks. Only what is new or changed is tokenised again."""
        seen = self._seen
        self._seen = {}
        for chunk in chunks:
            known = seen.get(chunk.key)
            if known is None or known[0] != chunk.text or known[1] != chunk.title:
                known = (chunk.text, chunk.title, terms(f"{chunk.title}\n{chunk.text}"))
            self._seen[chunk.key] = known
        self._build([tokens for _, _, tokens in self._seen.values()])

    def scores(self, query: str) -> NDArray[np.float64]:
        """The BM25 score of every chunk; 0 where no term of ``query`` occurs."""
        import numpy as np

        scores = np.zeros(len(self), dtype=np.float64)
        for term in terms(query):
            number = self._numbers.get(term)
            if number is not None:
                span = slice(self._offsets[number], self._offsets[number + 1])
                scores[self._positions[span]] += self._impacts[span]
        return scores

    def mass(self, query: str) -> float:
        """Sum of the idf of the terms of ``query`` that occur anywhere: about what a full match scores."""
        return sum(self._okapi.idf.get(term, 0.0) for term in terms(query))

    def coverage(self, query: str, chunk: Chunk) -> float:
        """The part of the query's idf that ``chunk`` covers, 0 to 1.

        A term that occurs nowhere in the store counts as the rarest one: asking for something unheard of
        must not be covered by the rest.
        """
        unseen = lucene_idf(len(self), 0)
        weights = {term: self._okapi.idf.get(term, unseen) for term in terms(query)}
        total = sum(weights.values())
        held = set(terms(f"{chunk.title}\n{chunk.text}"))
        return sum(weight for term, weight in weights.items() if term in held) / total if total else 0.0

    @property
    def okapi(self) -> LuceneBM25:
        """rank-bm25's index behind this one."""
        return self._okapi

    def _build(self, corpus: list[list[str]]) -> None:
        try:
            import numpy as np

            from .okapi import LuceneBM25
        except ImportError as error:
            raise MissingExtraError("memory", "Keyword search") from error
        self._okapi = okapi = LuceneBM25(corpus, k1=self._k1, b=self._b)
        self._numbers = {term: number for number, term in enumerate(okapi.idf)}
        of_term, of_document, counts = array("q"), array("q"), array("q")
        for position, frequencies in enumerate(okapi.doc_freqs):
            of_term.extend(map(self._numbers.__getitem__, frequencies))
            of_document.extend([position] * len(frequencies))
            counts.extend(frequencies.values())
        term_of = np.frombuffer(of_term, dtype=np.int64)
        order = np.argsort(term_of, kind="stable")
        self._positions = np.frombuffer(of_document, dtype=np.int64)[order]
        self._offsets = np.searchsorted(term_of[order], np.arange(len(self._numbers) + 1)).tolist()
        # The same operations in the same order as BM25Okapi.get_scores, so that results agree exactly.
        tf = np.frombuffer(counts, dtype=np.int64)[order]
        lengths = np.array(okapi.doc_len, dtype=np.int64)[self._positions]
        idf = np.array(list(okapi.idf.values()), dtype=np.float64)[term_of[order]]
        norm = okapi.k1 * (1 - okapi.b + okapi.b * lengths / okapi.avgdl)
        self._impacts = idf * (tf * (okapi.k1 + 1) / (tf + norm))
