"""Putting keyword and vector scores together, as pure functions over arrays.

Scores are fused by how far they stand out of their corpus (z-scores: Montague and Aslam, *Relevance score
normalization for metasearch*, CIKM 2001), not by rank: reciprocal rank fusion (Cormack, Clarke and
Büttcher, SIGIR 2009) throws the margins away, and on question answering falls below plain BM25.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Positions = NDArray[np.int64]


class Moments(NamedTuple):
    """Mean and standard deviation of a score over a corpus."""

    mean: float
    deviation: float


#: What is known of a score before any was seen: nothing.
NO_PRIOR = Moments(0.0, 0.0)


def moments(values: Floats, prior: Moments = NO_PRIOR, *, strength: float = 0.0) -> Moments:
    """Mean and (population) deviation of ``values`` pooled with ``strength`` imagined values of ``prior``.

    The pooled variance is the law of total variance over the two groups. The prior is what makes a store of
    two chunks rank sensibly, where the spread of two cosines says nothing; at a thousand it has faded.
    """
    n = len(values)
    total = n + strength
    if total == 0:
        return Moments(0.0, 0.0)
    own = Moments(float(values.mean()), float(values.std())) if n else Moments(0.0, 0.0)
    mean = (n * own.mean + strength * prior.mean) / total
    variance = (
        n * (own.deviation**2 + (own.mean - mean) ** 2)
        + strength * (prior.deviation**2 + (prior.mean - mean) ** 2)
    ) / total
    return Moments(mean, math.sqrt(variance))


def standardize(values: Floats, corpus: Moments) -> Floats:
    """``(value - mean) / deviation``; zeros where the corpus has no spread, zero for a NaN."""
    import numpy as np

    if not corpus.deviation > 0:
        return np.zeros(len(values), dtype=np.float64)
    return np.nan_to_num((values - corpus.mean) / corpus.deviation, nan=0.0)


def fuse(
    keyword: Floats, vector: Floats, *, keyword_weight: float = 0.4, vector_weight: float = 0.6
) -> Floats:
    """The weighted sum of two arrays of z-scores."""
    return keyword_weight * keyword + vector_weight * vector


def top(scores: Floats, n: int) -> Positions:
    """Positions of the ``n`` highest scores, best first; ties keep the order they came in."""
    import numpy as np

    if n >= len(scores):
        return np.argsort(-scores, kind="stable")
    if n <= 0:
        return np.zeros(0, dtype=np.int64)
    # Everything above the n-th best, then the first of those that tie with it.
    bar = np.partition(scores, len(scores) - n)[len(scores) - n]
    above = np.flatnonzero(scores > bar)
    level = np.flatnonzero(scores == bar)[: n - len(above)]
    chosen = np.concatenate([above, level])
    return chosen[np.lexsort((chosen, -scores[chosen]))]


def ranks(scores: Floats) -> Positions:
    """The rank of each score from 1, best first; ties keep the order they came in."""
    import numpy as np

    ranked = np.empty(len(scores), dtype=np.int64)
    ranked[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranked


def smooth(
    scores: Floats, vectors: NDArray[np.float32], *, weight: float = 0.2, neighbours: int = 5
) -> Floats:
    """Pull each score towards those of its nearest neighbours: ``(1-w)·s + w·mean(s of neighbours)``.

    The cluster hypothesis (Jardine and van Rijsbergen, 1971; score regularisation in Diaz, CIKM 2005):
    passages that are near each other are relevant to the same questions. Scores are put on 0 to 1 first;
    the mean is weighted with cosine⁴.

    Args:
        scores: fused scores of the candidates.
        vectors: their unit vectors, one row each.
        weight: ``w``; 0 changes nothing but the scale.
        neighbours: how many of the nearest other candidates to ask.
    """
    import numpy as np

    spread = float(np.ptp(scores)) if len(scores) else 0.0
    unit = (scores - scores.min()) / spread if spread > 0 else np.zeros(len(scores), dtype=np.float64)
    count = min(neighbours, len(scores) - 1)
    if count < 1 or weight == 0:
        return unit
    cosines = (vectors @ vectors.T).astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    influence = np.clip(np.take_along_axis(cosines, nearest, axis=1), 0.0, None) ** 4
    total = influence.sum(axis=1)
    asked = (influence * unit[nearest]).sum(axis=1)
    mean = np.divide(asked, total, out=unit.copy(), where=total > 0)
    smoothed: Floats = (1 - weight) * unit + weight * mean
    return smoothed
