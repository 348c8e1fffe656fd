"""What stands in a plan's values."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kernloom.planners.expressions import evaluate, is_literal, literal, references, steps_in

NAMES = {"inputs": {"n": 3}, "steps": {"a": {"result": [1, {"b": "{{ x }}"}]}}}


def test_one_whole_expression_keeps_its_type_and_text_around_it_makes_text() -> None:
    value = {"n": "{{ inputs.n }}", "s": "n={{ inputs.n }}", "l": ["{{ steps.a.result }}"], "raw": 7}
    assert evaluate(value, NAMES) == {"n": 3, "s": "n=3", "l": [[1, {"b": "{{ x }}"}]], "raw": 7}


def test_what_came_out_is_not_evaluated_again() -> None:
    assert evaluate("{{ steps.a.result[1].b }}", NAMES) == "{{ x }}"
    assert evaluate("<{{ steps.a.result[1].b }}>", NAMES) == "<{{ x }}>"


def test_keys_are_not_evaluated() -> None:
    assert evaluate({"{{ inputs.n }}": 1}, NAMES) == {"{{ inputs.n }}": 1}


def test_references_are_found_through_lists_and_mappings() -> None:
    refs = references({"a": ["{{ steps.a.result }}"], "b": "{{ inputs.n }} and {{ steps['c'].result.d }}"})
    assert refs == {("steps", "a", "result"), ("inputs", "n"), ("steps", "c", "result", "d")}
    assert steps_in(refs) == {"a", "c"}


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=12) | st.text("{}%# x'\"\\\r\n-", max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_any_data_can_be_written_so_that_it_stands_for_itself(value: Any) -> None:
    assert evaluate(literal(value), {}) == value
    assert references(literal(value)) == set()


def test_plain_data_is_a_literal() -> None:
    assert is_literal({"a": [1, "text {x}"]})
    assert not is_literal({"a": [1, {"b": "{{ x }}"}]})
