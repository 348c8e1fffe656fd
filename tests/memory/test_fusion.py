from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.memory.fusion import Moments, fuse, moments, ranks, smooth, standardize, top

# Multiples of 1/8 are exact in binary, so that ties are ties and a rescale by a power of two is lossless.
eighths = st.integers(-800, 800).map(lambda number: number / 8)
scores = st.lists(eighths, min_size=1, max_size=40).map(np.array)
pairs = st.lists(st.tuples(eighths, eighths), min_size=1, max_size=40)


def hybrid(keyword: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return fuse(standardize(keyword, moments(keyword)), standardize(vector, moments(vector)))


@given(pairs, st.integers(-3, 3), eighths, st.integers(-3, 3), eighths)
def test_fusion_is_blind_to_the_scale_of_either_side(
    both: list[tuple[float, float]], a: int, b: float, c: int, d: float
) -> None:
    keyword, vector = np.array(both).T
    plain = hybrid(keyword, vector)
    rescaled = hybrid(keyword * 2.0**a + b, vector * 2.0**c + d)
    assert rescaled == pytest.approx(plain, abs=1e-7)


@given(pairs)
def test_fusion_keeps_order_when_scores_tie(both: list[tuple[float, float]]) -> None:
    keyword, vector = np.array(both).T
    fused = hybrid(keyword, vector)
    order = top(fused, len(fused)).tolist()
    for left, right in pairwise(order):
        assert fused[left] > fused[right] or left < right


@given(pairs)
def test_what_is_better_on_both_sides_is_never_below(both: list[tuple[float, float]]) -> None:
    keyword, vector = np.array(both).T
    fused = hybrid(keyword, vector)
    for i in range(len(both)):
        for j in range(len(both)):
            if keyword[i] >= keyword[j] and vector[i] >= vector[j]:
                assert fused[i] >= fused[j]


@given(eighths, st.integers(1, 20))
def test_without_spread_every_score_is_average(value: float, count: int) -> None:
    same = np.full(count, value)
    assert standardize(same, moments(same)).tolist() == [0.0] * count


@given(scores)
def test_nothing_is_ever_nan(values: np.ndarray) -> None:
    missing = np.append(values, np.nan)
    assert not np.isnan(standardize(missing, moments(values))).any()
    assert not np.isnan(standardize(missing, moments(np.zeros(0)))).any()


@given(scores, st.integers(0, 50))
def test_top_is_the_head_of_a_stable_sort(values: np.ndarray, n: int) -> None:
    assert top(values, n).tolist() == sorted(range(len(values)), key=lambda i: (-values[i], i))[:n]


@given(scores)
def test_ranks_count_from_one_in_the_order_of_top(values: np.ndarray) -> None:
    assert ranks(values)[top(values, len(values))].tolist() == list(range(1, len(values) + 1))


@given(scores, eighths, st.integers(1, 80).map(lambda n: n / 8), st.integers(0, 30))
def test_pooled_moments_are_those_of_all_values_together(
    values: np.ndarray, mean: float, deviation: float, half: int
) -> None:
    imagined = np.array([mean - deviation, mean + deviation] * half)
    pooled = moments(values, Moments(mean, deviation), strength=len(imagined))
    together = np.concatenate([values, imagined])
    assert pooled.mean == pytest.approx(together.mean(), abs=1e-9)
    assert pooled.deviation == pytest.approx(together.std(), abs=1e-9)


def test_a_tiny_difference_in_a_tiny_store_does_not_outweigh_a_match() -> None:
    keyword, vector = np.array([2.0, 0.0]), np.array([0.30, 0.31])
    assert hybrid(keyword, vector).argmax() == 1
    prior = fuse(
        standardize(keyword, moments(keyword, Moments(0.0, 0.25), strength=10)),
        standardize(vector, moments(vector, Moments(0.05, 0.1), strength=10)),
    )
    assert prior.argmax() == 0


def test_smoothing_lifts_the_neighbour_of_what_is_good() -> None:
    near = np.array([[1, 0], [0.99, math.sqrt(1 - 0.99**2)], [0, 1]], dtype=np.float32)
    smoothed = smooth(np.array([1.0, 0.5, 0.5]), near, neighbours=1)
    assert smoothed[0] > smoothed[1] > smoothed[2]


@given(scores)
def test_smoothing_of_weight_zero_keeps_the_order(values: np.ndarray) -> None:
    vectors = np.eye(len(values), dtype=np.float32)
    unit = smooth(values, vectors, weight=0)
    assert top(unit, len(values)).tolist() == top(values, len(values)).tolist()


@given(scores)
def test_smoothed_scores_stay_between_nothing_and_one(values: np.ndarray) -> None:
    rng = np.random.default_rng(len(values))
    vectors = rng.normal(size=(len(values), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    smoothed = smooth(values, vectors)
    assert ((smoothed >= -1e-9) & (smoothed <= 1 + 1e-9)).all()
