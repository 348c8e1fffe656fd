"""Measuring retrieval against judged questions: nDCG and recall of a ranking of documents.

::

    ranking = by_document(memory_hits)
    ndcg(ranking, {"travel/approval.md": 2, "travel/limits.md": 1}, k=10)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .records import Hit

#: Relevance grades by document id; 0 and below are judged not relevant.
Judgements = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over the judged queries."""

    queries: int
    #: nDCG at 10.
    ndcg: float
    #: Recall at 100.
    recall: float


def ndcg(ranking: Sequence[str], judgements: Judgements, *, k: int = 10) -> float:
    """Normalised discounted cumulative gain of the first ``k``: grades over ``log2(rank+1)``.

    Järvelin and Kekäläinen, *Cumulated gain-based evaluation of IR techniques*, TOIS 2002, with the grade
    itself as the gain (as trec_eval and BEIR have it). 0 when nothing is judged relevant.
    """
    ideal = _gain(sorted(judgements.values(), reverse=True)[:k])
    return _gain([judgements.get(document, 0) for document in ranking[:k]]) / ideal if ideal else 0.0


def recall(ranking: Sequence[str], judgements: Judgements, *, k: int = 100) -> float:
    """The part of the relevant documents that is among the first ``k``; 0 when none is judged relevant."""
    relevant = {document for document, grade in judgements.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def by_document(hits: Iterable[Hit]) -> list[str]:
    """Documents in the order of their best chunk."""
    return list(dict.fromkeys(hit.chunk.document for hit in hits))


def evaluate(rankings: Mapping[str, Sequence[str]], qrels: Mapping[str, Judgements]) -> Scores:
    """Means over every query that has a relevant document; one without a ranking counts 0."""
    judged = {
        query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())
    }
    if not judged:
        return Scores(0, 0.0, 0.0)
    count = len(judged)
    return Scores(
        queries=count,
        ndcg=sum(ndcg(rankings.get(query, ()), grades) for query, grades in judged.items()) / count,
        recall=sum(recall(rankings.get(query, ()), grades) for query, grades in judged.items()) / count,
    )


def _gain(grades: Iterable[int]) -> float:
    return sum(max(grade, 0) / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))
