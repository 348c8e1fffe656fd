from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernloom.kernel.errors import UsageError
from kernloom.memory.records import Chunk, Hit
from kernloom.memory.search import Searcher, SearchOptions
from kernloom.memory.text import terms


class Words:
    """An embedder without a model: a text is the sum of fixed random directions, one for each term."""

    name = "words@1"
    dimensions = 64

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += 1
        rows = [sum((self._direction(t) for t in terms(text)), start=self._direction("")) for text in texts]
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), self.dimensions)
        unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def _direction(self, term: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.blake2b(term.encode(), digest_size=4).digest(), "big")
        return np.random.default_rng(seed).normal(size=self.dimensions)


class Shelf:
    """A store in a list: what a search needs of one."""

    def __init__(self, *texts: str, embedder: Words | None = None, namespaces: Sequence[str] = ()) -> None:
        self.embedder = embedder
        self.revision = 0
        self._next = 1
        self._chunks: list[Chunk] = []
        for i, text in enumerate(texts):
            self.put(text, namespaces[i] if namespaces else "")

    def put(self, text: str, namespace: str = "") -> int:
        key = self._next
        name = f"d{key}"
        self._chunks.append(Chunk(key, name, f"{name}.md", 0, 0, len(text), 1, 1, "", text, namespace))
        self._next += 1
        self.revision += 1
        return key

    def drop(self, key: int) -> None:
        self._chunks = [chunk for chunk in self._chunks if chunk.key != key]
        self.revision += 1

    def chunks(self) -> list[Chunk]:
        return list(self._chunks)

    def vectors(self, embedder: str) -> tuple[list[int], np.ndarray]:
        assert self.embedder is not None
        assert embedder == self.embedder.name
        texts = [chunk.text for chunk in self._chunks]
        return [chunk.key for chunk in self._chunks], self.embedder.embed(texts)


DEFAULTS = SearchOptions()
TEXTS = (
    "Hotels cost at most 120 euros a night.",
    "Annual leave is 25 working days.",
    "Form TR-7 is needed for travel above 2000 euros.",
    "Laptops are replaced after four years; see rule VPN-412 for remote access.",
    "The hotel bar is not paid for.",
)


@contextmanager
def searching(
    *texts: str,
    embedder: Words | None = None,
    options: SearchOptions = DEFAULTS,
    path: Path | None = None,
) -> Iterator[Searcher]:
    searcher = Searcher(Shelf(*texts, embedder=embedder), embedder, options=options, index_path=path)
    yield searcher
    searcher.close()


def found(hits: Sequence[Hit]) -> list[str]:
    return [hit.chunk.text for hit in hits]


@pytest.mark.parametrize("embedder", [None, Words()])
@pytest.mark.parametrize("size", [1, 2, 5, 19])
def test_a_tiny_store_ranks_the_right_chunk_first(embedder: Words | None, size: int) -> None:
    texts = [*TEXTS, *(f"Note {i} on another matter." for i in range(14))][:size]
    with searching(*texts, embedder=embedder) as searcher:
        assert found(searcher.search("What may a night in hotels cost?"))[0] == TEXTS[0]


@pytest.mark.parametrize("embedder", [None, Words()])
def test_an_empty_store_has_no_hits(embedder: Words | None) -> None:
    with searching(embedder=embedder) as searcher:
        hits = searcher.search("anything")
        assert hits == []
        assert searcher.judge("anything", hits) == (False, "nothing stored matches the question")


@pytest.mark.parametrize(("query", "text"), [("TR-7", TEXTS[2]), ("vpn 412", TEXTS[3]), ("tr7", TEXTS[2])])
def test_identifiers_are_found(query: str, text: str) -> None:
    for embedder in (None, Words()):
        with searching(*TEXTS, embedder=embedder) as searcher:
            assert found(searcher.search(query))[0] == text


def test_without_an_embedder_only_matches_are_hits() -> None:
    with searching(*TEXTS) as searcher:
        hits = searcher.search("hotel")
        assert {hit.chunk.text for hit in hits} == {TEXTS[0], TEXTS[4]}
        assert all(hit.score == hit.keyword_score > 0 and hit.vector_score is None for hit in hits)
        assert [hit.keyword_rank for hit in hits] == [1, 2]
        assert searcher.search("zeppelin") == []
        assert searcher.vector_engine == "none"


def test_a_hit_says_why_it_was_found() -> None:
    embedder = Words()
    with searching(*TEXTS, embedder=embedder) as searcher:
        first, *rest = searcher.search("annual leave days")
        assert (first.keyword_rank, first.vector_rank) == (1, 1)
        cosine = embedder.embed(["annual leave days", first.chunk.text])
        assert first.vector_score == pytest.approx(float(cosine[0] @ cosine[1]), abs=1e-6)
        assert [hit.score for hit in rest] == sorted((hit.score for hit in rest), reverse=True)
        assert rest[-1].keyword_rank is None


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_query_finds_nothing(query: str) -> None:
    with searching(*TEXTS, embedder=Words()) as searcher:
        assert searcher.search(query) == []
        assert searcher.search("hotel", 0) == []


def test_a_namespace_narrows_the_search() -> None:
    for embedder in (None, Words()):
        shelf = Shelf(*TEXTS, embedder=embedder, namespaces=["a", "b", "a", "", "b"])
        searcher = Searcher(shelf, embedder)
        assert found(searcher.search("hotel", namespace="b"))[0] == TEXTS[4]
        assert {hit.chunk.namespace for hit in searcher.search("hotel", namespace="b")} == {"b"}
        assert searcher.search("hotel", namespace="nowhere") == []


def test_the_index_follows_the_store() -> None:
    for embedder in (None, Words()):
        shelf = Shelf(*TEXTS, embedder=embedder)
        searcher = Searcher(shelf, embedder)
        searcher.search("zeppelin")
        key = shelf.put("A zeppelin is no means of travel.")
        assert searcher.search("zeppelin", 1)[0].chunk.key == key
        shelf.drop(key)
        assert key not in {hit.chunk.key for hit in searcher.search("zeppelin")}


def test_a_chunk_without_a_vector_is_still_found_by_its_words() -> None:
    class Lagging(Shelf):
        def vectors(self, embedder: str) -> tuple[list[int], np.ndarray]:
            keys, vectors = super().vectors(embedder)
            return keys[:-1], vectors[:-1]

    embedder = Words()
    hits = Searcher(Lagging(*TEXTS, embedder=embedder), embedder).search("the bar of the hotel")
    last = next(hit for hit in hits if hit.chunk.text == TEXTS[4])
    assert last.vector_score is None
    assert last.vector_rank is None
    assert last.keyword_rank == 1


def test_a_query_is_embedded_once() -> None:
    embedder = Words()
    with searching(*TEXTS, embedder=embedder) as searcher:
        searcher.search("hotel")
        asked = embedder.asked
        searcher.search("hotel", 3)
        assert embedder.asked == asked


def test_beyond_the_limit_chroma_finds_the_same(tmp_path: Path) -> None:
    texts = [f"{a} {b} number {i}" for i in range(60) for a, b in [("hotel", "leave"), ("form", "budget")]]
    large = SearchOptions(exact_limit=50)
    with (
        searching(*texts, embedder=Words()) as exact,
        searching(*texts, embedder=Words(), options=large, path=tmp_path) as approximate,
    ):
        for query in ("hotel 7", "budget form 31", "number 12 leave"):
            left, right = exact.search(query, 10), approximate.search(query, 10)
            assert [hit.chunk.key for hit in left] == [hit.chunk.key for hit in right]
            assert [hit.score for hit in right] == pytest.approx([hit.score for hit in left], abs=1e-4)
        assert (exact.vector_engine, approximate.vector_engine) == ("exact", "chroma")


def test_a_second_searcher_of_a_held_index_searches_exactly(tmp_path: Path) -> None:
    large = SearchOptions(exact_limit=2)
    with (
        searching(*TEXTS, embedder=Words(), options=large, path=tmp_path) as holder,
        searching(*TEXTS, embedder=Words(), options=large, path=tmp_path) as other,
    ):
        holder.search("hotel")
        assert found(other.search("hotel")) == found(holder.search("hotel"))
        assert (holder.vector_engine, other.vector_engine) == ("chroma", "exact")


def test_a_closed_searcher_opens_again(tmp_path: Path) -> None:
    with searching(
        *TEXTS, embedder=Words(), options=SearchOptions(exact_limit=2), path=tmp_path
    ) as searcher:
        before = found(searcher.search("hotel"))
        searcher.close()
        assert found(searcher.search("hotel")) == before
        assert searcher.vector_engine == "chroma"


def test_threads_may_search_while_the_store_changes() -> None:
    embedder = Words()
    shelf = Shelf(*TEXTS, embedder=embedder)
    searcher = Searcher(shelf, embedder)
    wrong: list[object] = []

    def search() -> None:
        for _ in range(20):
            hits = searcher.search("annual leave", 1)
            if found(hits) != [TEXTS[1]]:
                wrong.append(hits)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(10):
        shelf.put(f"Another matter {i}.")
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("embedder", [None, Words()])
def test_memory_says_what_it_does_not_hold(embedder: Words | None) -> None:
    with searching(*TEXTS, embedder=embedder) as searcher:
        there = "How many working days is annual leave?"
        absent = "Who repairs the photocopier in the cellar during annual stocktaking?"
        held, reason = searcher.judge(there, searcher.search(there))
        assert held, reason
        held, reason = searcher.judge(absent, searcher.search(absent))
        assert not held, reason
        assert "%" in reason


@pytest.mark.parametrize("options", [{"depth": 0}, {"sample": 0}, {"smoothing": 1.5}])
def test_options_that_cannot_work_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        SearchOptions(**options)  # type: ignore[arg-type]


WORDS = st.sampled_from(["hotel", "leave", "form", "budget", "TR-7", "2000"])


@given(
    st.lists(st.lists(WORDS, max_size=6), max_size=12),
    st.lists(st.sampled_from(["hotel", "leave", "form", "unheard"]), min_size=1, max_size=4),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=40)
def test_hits_are_distinct_ordered_and_finite(
    texts: list[list[str]], query: list[str], k: int, smoothing: float
) -> None:
    with searching(
        *(" ".join(words) for words in texts), embedder=Words(), options=SearchOptions(smoothing=smoothing)
    ) as searcher:
        hits = searcher.search(" ".join(query), k)
        assert len(hits) == min(k, len(texts))
        assert len({hit.chunk.key for hit in hits}) == len(hits)
        assert all(np.isfinite(hit.score) for hit in hits)
        if smoothing == 0:
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
