from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from kernloom.memory.idf import lucene_idf
from kernloom.memory.keyword import KeywordIndex
from kernloom.memory.okapi import LuceneBM25
from kernloom.memory.records import Chunk
from kernloom.memory.text import terms

WORDS = ["leave", "travel", "hotel", "form", "TR-7", "budget", "approve", "year", "2000"]


def chunks(texts: Sequence[str]) -> list[Chunk]:
    return [
        Chunk(
            key=number,
            document=f"d{number}",
            source=f"d{number}.md",
            ordinal=0,
            start=0,
            end=len(text),
            line_start=1,
            line_end=1,
            title="",
            text=text,
        )
        for number, text in enumerate(texts, start=1)
    ]


def index(texts: Sequence[str]) -> KeywordIndex:
    made = KeywordIndex()
    made.refresh(chunks(texts))
    return made


documents = st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=25)
queries = st.lists(st.sampled_from([*WORDS, "unheard"]), max_size=6).map(" ".join)


@given(documents, queries)
@settings(max_examples=150)
def test_scores_are_those_of_rank_bm25_to_the_last_bit(texts: list[str], query: str) -> None:
    made = index(texts)
    expected = BM25Okapi.get_scores(made.okapi, terms(query))
    assert made.scores(query).tolist() == expected.tolist()


@given(documents.filter(bool), queries)
def test_scores_of_some_are_the_scores_of_all(texts: list[str], query: str) -> None:
    made = index(texts)
    some = list(range(0, len(texts), 2))
    assert made.okapi.get_batch_scores(terms(query), some) == made.scores(query)[some].tolist()


@given(documents, queries)
def test_a_match_always_scores_and_a_miss_never_does(texts: list[str], query: str) -> None:
    wanted = set(terms(query))
    for score, text in zip(index(texts).scores(query), texts, strict=True):
        assert (score > 0) == bool(wanted & set(terms(text)))


@given(documents, documents, queries)
def test_a_refreshed_index_is_the_one_built_anew(before: list[str], after: list[str], query: str) -> None:
    made = index(before)
    made.refresh(chunks(after))
    assert made.scores(query).tolist() == index(after).scores(query).tolist()


def test_an_empty_store_has_no_scores() -> None:
    assert len(index([])) == 0
    assert index([]).scores("anything").tolist() == []
    assert index(["", "..."]).scores("anything").tolist() == [0, 0]


@pytest.mark.parametrize("size", [1, 2, 19])
def test_the_right_chunk_is_first_in_a_tiny_store(size: int) -> None:
    texts = ["Hotels cost at most 120 euros.", *(f"Note {i} on cats and dogs." for i in range(size - 1))]
    scores = index(texts).scores("what may a hotel cost?")
    assert scores.argmax() == 0
    assert scores[0] > 0


def test_a_term_in_half_the_documents_still_counts() -> None:
    scores = index(["travel budget", "travel form", "hotel", "leave"]).scores("travel")
    assert np.count_nonzero(scores > 0) == 2


def test_the_title_is_indexed() -> None:
    made = KeywordIndex()
    (chunk,) = chunks(["At most 120 euros."])
    made.refresh([replace(chunk, title="Travel > Hotels")])
    assert made.scores("hotel")[0] > 0


def test_coverage_is_the_share_of_the_questions_idf() -> None:
    texts = ["hotel limits", "travel form", "leave"]
    made = index(texts)
    first = chunks(texts)[0]
    assert made.coverage("hotel limits", first) == pytest.approx(1.0)
    assert made.coverage("hotel form", first) == pytest.approx(0.5)
    assert made.coverage("hotel zeppelin", first) < 0.5
    assert made.coverage("the", first) == 0.0


def test_idf_is_lucenes() -> None:
    assert lucene_idf(2, 1) == pytest.approx(0.693147, abs=1e-6)
    assert LuceneBM25([["a"], ["a", "b"]]).idf == {"a": lucene_idf(2, 2), "b": lucene_idf(2, 1)}
