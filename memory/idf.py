"""How telling a term is: its inverse document frequency, for index, citations and quotes alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable


def lucene_idf(documents: int, holding: int) -> float:
    """``log(1 + (N - df + 0.5) / (df + 0.5))``, as in Apache Lucene; positive for any df ≤ N."""
    return math.log(1 + (documents - holding + 0.5) / (holding + 0.5))


def idf_over(units: Iterable[Collection[str]]) -> dict[str, float]:
    """The idf of every term over ``units`` (say, sentences), each given as its distinct terms."""
    holding: Counter[str] = Counter()
    count = 0
    for unit in units:
        holding.update(unit)
        count += 1
    return {term: lucene_idf(count, df) for term, df in holding.items()}
