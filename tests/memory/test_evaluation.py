from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.memory.evaluation import Scores, by_document, evaluate, ndcg, recall
from kernloom.memory.records import Chunk, Hit

GRADES = {"a": 3, "b": 2, "c": 1, "d": 0}


def test_ndcg_of_a_hand_computed_ranking() -> None:
    # gains 2 at rank 1, 0 at 2, 3 at 3, 1 at 4; ideal 3, 2, 1
    gained = 2 / 1 + 3 / 2 + 1 / math.log2(5)
    ideal = 3 / 1 + 2 / math.log2(3) + 1 / 2
    assert ndcg(["b", "x", "a", "c"], GRADES) == pytest.approx(gained / ideal)


def test_ndcg_sees_only_the_first_k() -> None:
    assert ndcg(["x", "y", "a"], GRADES, k=2) == 0.0
    assert ndcg(["a"], GRADES, k=1) == 1.0


def test_nothing_relevant_scores_nothing() -> None:
    assert ndcg(["a"], {"a": 0, "b": -1}) == 0.0
    assert recall(["a"], {"a": 0}) == 0.0


def test_recall_counts_relevant_documents_within_k() -> None:
    assert recall(["a", "x", "c", "b"], GRADES, k=3) == pytest.approx(2 / 3)
    assert recall(["a", "b", "c"], GRADES) == 1.0


@given(st.permutations(sorted(GRADES)))
def test_no_order_beats_the_ideal_one(order: list[str]) -> None:
    assert ndcg(order, GRADES) <= ndcg(["a", "b", "c", "d"], GRADES) == 1.0


def test_means_are_over_queries_with_something_relevant() -> None:
    scores = evaluate({"q1": ["a"], "q3": ["a"]}, {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"a": 0}})
    assert scores == Scores(queries=2, ndcg=0.5, recall=0.5)
    assert evaluate({}, {}) == Scores(0, 0.0, 0.0)


def test_a_document_ranks_by_its_best_chunk() -> None:
    def hit(document: str) -> Hit:
        return Hit(Chunk(1, document, document, 0, 0, 1, 1, 1, "", "x"), 1.0, 0.0, None, None, None)

    assert by_document([hit("b"), hit("a"), hit("b"), hit("c")]) == ["b", "a", "c"]
