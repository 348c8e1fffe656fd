"""YAML and JSON from outside: plain data, or a refusal that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.kernel.errors import UsageError
from kernloom.kernel.safe_yaml import MAX_SIZE, check_json, read_data, read_json, read_yaml, write_yaml

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_is_read_back_equal(value: Any) -> None:
    again = read_yaml(write_yaml(value), what="it")
    assert again == value
    assert repr(again) == repr(value)  # 1, 1.0 and True stay apart


@pytest.mark.parametrize(
    "text", ["no", "2024-01-01", "1e3", "~", "0o17", "12:30:45", "=", "<<", "# x", "- a"]
)
def test_a_text_that_looks_like_something_else_stays_a_text(text: str) -> None:
    assert read_yaml(write_yaml({"a": text}), what="it") == {"a": text}


def test_a_date_is_not_guessed_from_text() -> None:
    assert read_yaml("day: 2024-01-01", what="it") == {"day": "2024-01-01"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "aliases"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("!!binary aGVsbG8=", "could not determine a constructor"),
        ("a: 1\na: 2", "'a' occurs twice"),
        ("1: a", "key 1 is not text"),
        ("[" * 200, "nested more than 50 levels"),
        ("a: [", "expected"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: \x00", "special characters"),
        ("x" * (MAX_SIZE + 1), "the limit is"),
    ],
)
def test_yaml_that_is_no_plain_data_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        read_yaml(text, what="The file")
    assert caught.value.code == "data.malformed"
    assert str(caught.value).startswith("The file cannot be used")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 2}', "occurs twice"),
        ('{"a": NaN}', "has no JSON"),
        ('{"a": "\\ud800"}', "surrogate"),
        ("[" * 100_000, "recursion|nested"),
        ("{", "Expecting"),
    ],
)
def test_json_that_is_no_plain_data_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read_json(text, what="The file")


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {2}}, [object()], [b"x"], float("inf")])
def test_what_json_cannot_carry_is_named(value: Any) -> None:
    with pytest.raises(UsageError):
        check_json(value, what="it")


def test_a_file_is_read_by_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("x: [1, é]", encoding="utf-8")
    (tmp_path / "a.json").write_text('{"x": [1, "é"]}', encoding="utf-8")
    assert read_data(tmp_path / "a.yml") == read_data(tmp_path / "a.json") == {"x": [1, "é"]}
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    for name, code in (
        ("a.txt", "suffix"),
        ("missing.yaml", "unreadable"),
        ("bad.yaml", "unreadable"),
    ):
        with pytest.raises(UsageError) as caught:
            read_data(tmp_path / name)
        assert caught.value.code == f"data.{code}"
