"""Hybrid search: the best of keyword and vector, scored on both sides, fused by z-score.

::

    searcher = Searcher(store, embedder)
    hits = searcher.search("Who approves travel over 2000?", 5)
    found, reason = searcher.judge("Who approves travel over 2000?", hits)
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..kernel.errors import KernloomError, UsageError
from .fusion import Moments, fuse, moments, ranks, smooth, standardize, top
from .keyword import KeywordIndex
from .records import Chunk, ChunkSource, Embedder, Hit
from .vector import ExactIndex, VectorIndex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Every knob of search. The defaults were measured on judged collections (``benchmarks/README.md``)."""

    #: Candidates taken from each side before fusion; at least the number of hits asked for.
    depth: int = 100
    #: Weight of the keyword score's z and of the cosine's z in the fused score.
    keyword_weight: float = 0.4
    vector_weight: float = 0.6
    #: BM25: how fast repeats of a term stop counting, and how much long chunks are discounted (0 to 1).
    k1: float = 0.9
    b: float = 0.4
    #: Vectors from which the corpus statistics of the cosine are taken.
    sample: int = 1000
    #: What the cosine of two unrelated texts is like for this embedder (mean, deviation), and how many
    #: measured values this is worth: it steadies the statistics of stores too small to have any.
    cosine_prior: tuple[float, float] = (0.05, 0.1)
    prior_strength: float = 10.0
    #: Share of a candidate's score that comes from its nearest candidates; 0 turns smoothing off.
    smoothing: float = 0.0
    #: Up to this many vectors the nearest are found exactly, in memory; beyond it by Chroma's HNSW.
    exact_limit: int = 20_000
    #: *In memory* needs a hit whose ``cosine + coverage_weight · coverage + score_weight · fused score``
    #: reaches this, where coverage is the part of the question's idf that the hit covers …
    found: float = 0.47
    coverage_weight: float = 0.2
    score_weight: float = 0.01
    #: … or, without an embedder, a hit whose coverage alone reaches this.
    found_coverage: float = 0.35

    def __post_init__(self) -> None:
        if self.depth < 1 or self.sample < 1:
            raise UsageError(
                f"SearchOptions(depth={self.depth!r}, sample={self.sample!r}) leaves nothing to rank.",
                hint="Give both a value of 1 or more.",
            )
        if not 0 <= self.smoothing <= 1:
            raise UsageError(
                f"SearchOptions(smoothing={self.smoothing!r}) is not a share.",
                hint="Give a value from 0 to 1.",
            )


DEFAULTS = SearchOptions()


class Searcher:
    """Searches what a store holds. Safe to call from several threads; one search runs at a time.

    Its indexes are projections: when the store's revision has moved they follow before it answers.

    Args:
        source: the store.
        embedder: turns the query into a vector; None for keyword search alone.
        options: the knobs.
        index_path: a folder for the index of a large store; None keeps search exact whatever the size.

    Raises:
        MissingExtraError: the extra ``memory`` is not installed.
    """

    def __init__(
        self,
        source: ChunkSource,
        embedder: Embedder | None,
        *,
        options: SearchOptions = DEFAULTS,
        index_path: Path | None = None,
    ) -> None:
        self._source = source
        self._embedder = embedder
        self._options = options
        self._index_path = index_path
        self._keyword = KeywordIndex(k1=options.k1, b=options.b)
        self._vector: VectorIndex = ExactIndex()
        self._chunks: list[Chunk] = []
        self._positions: dict[int, int] = {}
        self._namespaces: dict[str, NDArray[np.int64]] = {}
        self._revision: int | None = None
        self._queries: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def vector_engine(self) -> str:
        """``exact`` or ``chroma``; ``none`` without an embedder."""
        if self._embedder is None:
            return "none"
        return "exact" if isinstance(self._vector, ExactIndex) else "chroma"

    def search(self, query: str, k: int = 10, *, namespace: str | None = None) -> list[Hit]:
        """The ``k`` best chunks, best first; only those of ``namespace`` when one is given.

        ``Hit.score`` is the fused z-score: how far the chunk stands out of the store. Without an embedder
        it is the BM25 score, and a chunk that shares no term with the query is not a hit. Ranks are among
        the candidates of both sides.
        """
        if k < 1 or not query.strip():
            return []
        with self._lock:
            self._follow()
            within = self._within(namespace)
            if not len(within):
                return []
            if self._embedder is None:
                return self._by_keyword(query, k, within)
            return self._hybrid(self._query_vector(self._embedder, query), query, k, within, namespace)

    def judge(self, query: str, hits: Sequence[Hit]) -> tuple[bool, str]:
        """Whether memory seems to hold an answer, and why, with the figures it was decided on."""
        if not hits:
            return False, "nothing stored matches the question"
        options = self._options
        with self._lock:
            self._follow()
            coverages = [self._keyword.coverage(query, hit.chunk) for hit in hits]
        evidence = [
            (
                hit.vector_score + options.coverage_weight * coverage + options.score_weight * hit.score,
                f"cosine {hit.vector_score:.2f}, {coverage:.0%} of the question's words by weight, "
                f"{hit.score:.1f} deviations above the store",
            )
            for hit, coverage in zip(hits, coverages, strict=True)
            if hit.vector_score is not None
        ]
        if evidence:
            best, figures = max(evidence)
            return best >= options.found, f"{best:.2f} of the {options.found:.2f} needed: {figures}"
        best = max(coverages)
        return best >= options.found_coverage, (
            f"the best passage has {best:.0%} of the question's words by weight "
            f"(needs {options.found_coverage:.0%}; keyword search only)"
        )

    def close(self) -> None:
        """Let go of the index's files. The next search opens them again."""
        with self._lock:
            self._vector.close()
            self._vector = ExactIndex()
            self._revision = None

    # -- ranking -------------------------------------------------------------------------------------

    def _by_keyword(self, query: str, k: int, within: NDArray[np.int64]) -> list[Hit]:
        scores = self._keyword.scores(query)[within]
        return [
            Hit(self._chunks[within[i]], float(scores[i]), float(scores[i]), rank, None, None)
            for rank, i in enumerate(top(scores, k).tolist(), start=1)
            if scores[i] > 0
        ]

    def _hybrid(
        self,
        asked: NDArray[np.float32],
        query: str,
        k: int,
        within: NDArray[np.int64],
        namespace: str | None,
    ) -> list[Hit]:
        import numpy as np

        options = self._options
        depth = max(options.depth, k)
        all_keyword = self._keyword.scores(query)
        in_scope = all_keyword[within]
        by_keyword = within[[i for i in top(in_scope, depth).tolist() if in_scope[i] > 0]]
        by_vector = [self._positions[key] for key in self._vector.nearest(asked, depth, namespace)]
        union = np.union1d(by_keyword, np.array(by_vector, dtype=np.int64))
        if not len(union):
            return []
        vectors = self._vector.fetch([self._chunks[i].key for i in union.tolist()])
        keyword, cosine = all_keyword[union], self._cosines(asked, union, vectors)
        fused = fuse(
            self._keyword_z(keyword, query, in_scope),
            self._cosine_z(cosine, asked, namespace),
            keyword_weight=options.keyword_weight,
            vector_weight=options.vector_weight,
        )
        order = top(self._smoothed(fused, union, vectors, asked), k)
        keyword_ranks = ranks(keyword)
        vector_ranks = ranks(np.nan_to_num(cosine, nan=-np.inf))
        return [
            Hit(
                chunk=self._chunks[union[i]],
                score=float(fused[i]),
                keyword_score=float(keyword[i]),
                keyword_rank=int(keyword_ranks[i]) if keyword[i] > 0 else None,
                vector_score=None if np.isnan(cosine[i]) else float(cosine[i]),
                vector_rank=None if np.isnan(cosine[i]) else int(vector_ranks[i]),
            )
            for i in order.tolist()
        ]

    def _cosines(
        self, asked: NDArray[np.float32], union: NDArray[np.int64], vectors: dict[int, NDArray[np.float32]]
    ) -> NDArray[np.float64]:
        """The cosine of each candidate; NaN for one that was never embedded."""
        import numpy as np

        found = (vectors.get(self._chunks[i].key) for i in union.tolist())
        return np.array([np.nan if vector is None else float(vector @ asked) for vector in found])

    def _keyword_z(
        self, keyword: NDArray[np.float64], query: str, in_scope: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        # A chunk that holds every term scores about the query's idf mass: some eight deviations out.
        prior = Moments(0.0, self._keyword.mass(query) / 8)
        return standardize(keyword, moments(in_scope, prior, strength=self._options.prior_strength))

    def _cosine_z(
        self, cosine: NDArray[np.float64], asked: NDArray[np.float32], namespace: str | None
    ) -> NDArray[np.float64]:
        import numpy as np

        options = self._options
        sample = self._vector.sample(options.sample, namespace)
        corpus = (sample @ asked).astype(np.float64) if len(sample) else np.zeros(0)
        prior = Moments(*options.cosine_prior)
        return standardize(cosine, moments(corpus, prior, strength=options.prior_strength))

    def _smoothed(
        self,
        fused: NDArray[np.float64],
        union: NDArray[np.int64],
        vectors: dict[int, NDArray[np.float32]],
        asked: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """The scores to order by: the best ``depth`` drawn towards their neighbours, the rest below."""
        import numpy as np

        if self._options.smoothing == 0:
            return fused
        best = top(fused, self._options.depth)
        missing = np.zeros_like(asked)
        near = np.stack([vectors.get(self._chunks[i].key, missing) for i in union[best].tolist()])
        ordered: NDArray[np.float64] = fused - fused.max() - 1.0
        ordered[best] = smooth(fused[best], near, weight=self._options.smoothing)
        return ordered

    def _query_vector(self, embedder: Embedder, query: str) -> NDArray[np.float32]:
        vector = self._queries.get(query)
        if vector is None:
            vector = embedder.embed([query])[0]
            self._queries[query] = vector
            if len(self._queries) > 256:
                self._queries.popitem(last=False)
        else:
            self._queries.move_to_end(query)
        return vector

    def _within(self, namespace: str | None) -> NDArray[np.int64]:
        import numpy as np

        if namespace is None:
            return np.arange(len(self._chunks))
        return self._namespaces.get(namespace, np.zeros(0, dtype=np.int64))

    # -- following the store -------------------------------------------------------------------------

    def _follow(self) -> None:
        """Bring the projections up to the store's revision, if it has moved."""
        if self._revision == self._source.revision:
            return
        import numpy as np

        revision = -1
        keys: list[int] = []
        vectors = np.zeros((0, 0), dtype=np.float32)
        for _ in range(5):  # another process may commit between the reads: take a quiet moment
            revision = self._source.revision
            self._chunks = self._source.chunks()
            if self._embedder is not None:
                keys, vectors = self._source.vectors(self._embedder.name)
            if revision == self._source.revision:
                break
        self._positions = {chunk.key: i for i, chunk in enumerate(self._chunks)}
        grouped: dict[str, list[int]] = {}
        for i, chunk in enumerate(self._chunks):
            grouped.setdefault(chunk.namespace, []).append(i)
        self._namespaces = {name: np.array(rows, dtype=np.int64) for name, rows in grouped.items()}
        self._keyword.refresh(self._chunks)
        if self._embedder is not None:
            kept = [i for i, key in enumerate(keys) if key in self._positions]
            if len(kept) < len(keys):
                keys, vectors = [keys[i] for i in kept], vectors[kept]
            self._follow_vectors(self._embedder.name, keys, vectors, revision)
        self._revision = revision

    def _follow_vectors(
        self, embedder: str, keys: list[int], vectors: NDArray[np.float32], revision: int
    ) -> None:
        large = self._index_path is not None and len(keys) > self._options.exact_limit
        if large != (self.vector_engine == "chroma"):
            self._vector.close()
            self._vector = _open(self._index_path, embedder) if large else ExactIndex()
        try:
            self._vector.refresh(self._chunks, keys, vectors, revision)
        except Exception as error:
            if self.vector_engine != "chroma":
                raise
            # A projection that cannot be written (a full disk, say) must not take search down with it.
            _log.warning(
                "The vector index cannot be brought up to date; searching exactly instead: %s", error
            )
            self._vector.close()
            self._vector = ExactIndex()
            self._vector.refresh(self._chunks, keys, vectors, revision)


def _open(path: Path | None, embedder: str) -> VectorIndex:
    """Chroma's index under ``path``; the exact one when it cannot be had."""
    if path is None:
        return ExactIndex()
    from .chroma import ChromaIndex

    try:
        return ChromaIndex(path, embedder)
    except (KernloomError, OSError) as error:
        _log.info("Searching exactly instead of by the vector index: %s", error)
        return ExactIndex()
