from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.kernel.errors import MemoryStoreError
from kernloom.memory.chroma import ChromaIndex
from kernloom.memory.records import Chunk
from kernloom.memory.vector import ExactIndex, spread

DIMENSIONS = 24
Vectors = np.ndarray


def unit(count: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)
    made: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return made


def chunks(keys: list[int]) -> list[Chunk]:
    return [
        Chunk(key, "d", "d.md", 0, 0, 1, 1, 1, "", "x", namespace="odd" if key % 2 else "") for key in keys
    ]


KEYS = list(range(10, 310))
VECTORS = unit(len(KEYS))


@pytest.fixture
def exact() -> ExactIndex:
    index = ExactIndex()
    index.refresh(chunks(KEYS), KEYS, VECTORS, 1)
    return index


@pytest.fixture
def chroma(tmp_path: Path) -> Iterator[Callable[[], ChromaIndex]]:
    """Opens the index, closing the one opened before."""
    opened: list[ChromaIndex] = []

    def open_index() -> ChromaIndex:
        for index in opened:
            index.close()
        opened.append(ChromaIndex(tmp_path, "model@1"))
        return opened[-1]

    yield open_index
    for index in opened:
        index.close()


def folder(tmp_path: Path) -> Path:
    (found,) = tmp_path.glob("*/index-*")
    return found


def test_the_nearest_are_those_of_highest_cosine(exact: ExactIndex) -> None:
    query = unit(1, seed=7)[0]
    expected = sorted(KEYS, key=lambda key: -float(VECTORS[key - 10] @ query))
    assert exact.nearest(query, 5, None) == expected[:5]
    assert exact.nearest(query, 5, "odd") == [key for key in expected if key % 2][:5]
    assert exact.nearest(query, 5, "nowhere") == []
    assert len(exact.nearest(query, 1000, None)) == len(KEYS)


def test_an_empty_index_finds_nothing(tmp_path: Path, chroma: Callable[[], ChromaIndex]) -> None:
    for index in (ExactIndex(), chroma()):
        index.refresh([], [], np.zeros((0, 0), dtype=np.float32), 1)
        assert index.nearest(unit(1)[0], 3, None) == []
        assert index.fetch([1]) == {}
        assert len(index.sample(10, None)) == 0


def test_a_sample_is_fixed_and_within_its_namespace(exact: ExactIndex) -> None:
    assert exact.sample(40, None).tolist() == exact.sample(40, None).tolist()
    assert len(exact.sample(40, "odd")) == 40
    assert len(exact.sample(1000, "odd")) == 150


@given(st.integers(0, 3000), st.integers(1, 1200))
def test_a_spread_is_even_and_within_bounds(size: int, n: int) -> None:
    positions = spread(size, n).tolist()
    assert len(positions) == min(size, n)
    assert positions == sorted(set(positions))
    assert all(0 <= position < size for position in positions)


@pytest.mark.parametrize("namespace", [None, "odd", ""])
def test_chroma_finds_what_exact_search_finds(
    exact: ExactIndex, chroma: Callable[[], ChromaIndex], namespace: str | None
) -> None:
    index = chroma()
    index.refresh(chunks(KEYS), KEYS, VECTORS, 1)
    for query in unit(5, seed=3):
        found = set(index.nearest(query, 20, namespace))
        assert len(found & set(exact.nearest(query, 20, namespace))) >= 19
    assert index.sample(40, namespace) == pytest.approx(exact.sample(40, namespace), abs=1e-6)
    fetched = index.fetch([10, 11, 9999])
    assert sorted(fetched) == [10, 11]
    assert fetched[11] == pytest.approx(VECTORS[1])


def test_chroma_follows_changes_without_building_anew(
    tmp_path: Path, chroma: Callable[[], ChromaIndex]
) -> None:
    chroma().refresh(chunks(KEYS), KEYS, VECTORS, 1)
    built = folder(tmp_path)
    changed = VECTORS.copy()
    changed[3] = unit(1, seed=9)[0]
    kept = KEYS[:-20]
    index = chroma()
    index.refresh(chunks(kept), kept, changed[:-20], 2)
    assert folder(tmp_path) == built
    assert index.nearest(changed[3], 1, None) == [13]
    assert not set(index.nearest(VECTORS[-1], 300, None)) & set(KEYS[-20:])


def test_chroma_is_not_written_again_when_nothing_changed(
    tmp_path: Path, chroma: Callable[[], ChromaIndex]
) -> None:
    chroma().refresh(chunks(KEYS), KEYS, VECTORS, 1)
    (mark,) = tmp_path.glob("*/watermark.json")
    before = mark.stat().st_mtime_ns
    chroma().refresh(chunks(KEYS), KEYS, VECTORS, 1)
    assert mark.stat().st_mtime_ns == before


def corrupt_graph(place: Path) -> None:
    for file in place.rglob("*.bin"):
        file.write_bytes(b"\0" * 40)


def corrupt_rows(place: Path) -> None:
    (place / "chroma.sqlite3").write_bytes(b"not a database")


def remove_all(place: Path) -> None:
    (place / "chroma.sqlite3").unlink()


def stop_in_the_middle(place: Path) -> None:
    mark = place.parent / "watermark.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "dirty": True}))


def forget_the_mark(place: Path) -> None:
    (place.parent / "watermark.json").write_text("{")


@pytest.mark.parametrize(
    "harm", [corrupt_graph, corrupt_rows, remove_all, stop_in_the_middle, forget_the_mark]
)
def test_a_broken_index_is_built_anew_from_the_store(
    tmp_path: Path, chroma: Callable[[], ChromaIndex], harm: Callable[[Path], None]
) -> None:
    index = chroma()
    # Enough rows that Chroma writes its graph to disk.
    keys, vectors = list(range(1, 1201)), unit(1200)
    index.refresh(chunks(keys), keys, vectors, 1)
    index.close()
    broken = folder(tmp_path)
    harm(broken)
    index = chroma()
    index.refresh(chunks(keys), keys, vectors, 1)
    assert folder(tmp_path) != broken
    assert index.nearest(vectors[5], 1, None) == [6]


def test_an_index_of_many_deletions_is_built_anew(
    tmp_path: Path, chroma: Callable[[], ChromaIndex]
) -> None:
    index = chroma()
    index.refresh(chunks(KEYS), KEYS, VECTORS, 1)
    built = folder(tmp_path)
    index.refresh(chunks(KEYS), KEYS, unit(len(KEYS), seed=5), 2)
    assert folder(tmp_path) == built
    index.refresh(chunks(KEYS), KEYS, unit(len(KEYS), seed=6), 3)
    assert folder(tmp_path) != built


def test_one_holder_of_the_folder_at_a_time(tmp_path: Path, chroma: Callable[[], ChromaIndex]) -> None:
    chroma()
    with pytest.raises(MemoryStoreError) as refused:
        ChromaIndex(tmp_path, "model@1")
    assert refused.value.code == "memory.locked"
    ChromaIndex(tmp_path, "model@2").close()
