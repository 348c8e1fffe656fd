from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom import Kernel, ModelRetry
from kernloom.plugins.text import MAX_LENGTH, Text

text = Text()


def test_case() -> None:
    assert text.upper("straße") == "STRASSE"
    assert text.lower("ÅNGSTRÖM") == "ångström"
    assert text.title("the dog's  DAY") == "The Dog's  Day"


def test_cutting_and_joining() -> None:
    assert text.split("a,b,,c", ",") == ["a", "b", "", "c"]
    assert text.split("  a \n b ") == ["a", "b"]
    assert text.lines("a\r\nb\nc") == ["a", "b", "c"]
    assert text.join(["a", "b"], ", ") == "a, b"
    assert text.strip(text=" \t a ") == "a"


def test_replacing_is_literal() -> None:
    assert text.replace("a.b.c", ".", "->") == "a->b->c"
    assert text.replace("(x)", "(x)", "$1") == "$1"


def test_counting() -> None:
    assert text.count("One two\nthree") == {"characters": 13, "words": 3, "lines": 2}
    assert text.count("") == {"characters": 0, "words": 0, "lines": 0}


@pytest.mark.parametrize(
    ("source", "start", "end", "expected"),
    [
        ("<b>1</b> and <b>2</b>", "<b>", "</b>", ["1", "2"]),
        ("|a|b|", "|", "|", ["a"]),
        ("no marks", "<", ">", []),
        ("open <only", "<", ">", []),
    ],
)
def test_pieces_between_marks(source: str, start: str, end: str, expected: list[str]) -> None:
    assert text.between(source, start, end) == expected


@pytest.mark.parametrize(
    ("source", "length", "expected"),
    [
        ("short", 10, "short"),
        ("The department head approves", 20, "The department head…"),
        ("The department head approves", 16, "The department…"),
        ("Donaudampfschifffahrt", 6, "Donau…"),
        ("abc", 1, "…"),
    ],
)
def test_truncating_ends_at_a_word(source: str, length: int, expected: str) -> None:
    assert text.truncate(source, length) == expected


@given(st.text(), st.integers(1, 50))
def test_truncated_text_is_never_longer_than_asked(source: str, length: int) -> None:
    assert len(text.truncate(source, length)) <= max(length, 0)


@given(st.lists(st.text(st.characters(exclude_characters="|")), min_size=1))
def test_splitting_undoes_joining(parts: list[str]) -> None:
    assert text.split(text.join(parts, "|"), "|") == parts


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: text.replace("a" * 2000, "a", "b" * 1000), f"{MAX_LENGTH} are allowed"),
        (lambda: text.join(["a" * 1000] * 2000), f"{MAX_LENGTH} are allowed"),
        (lambda: text.replace("abc", "", "x"), "old is empty"),
        (lambda: text.between("abc", "", "c"), "must not be empty"),
        (lambda: text.truncate("abc", 0), "shorter than the ending"),
    ],
)
def test_what_would_run_away_or_means_nothing_is_refused(call: object, words: str) -> None:
    with pytest.raises(ModelRetry, match=words):
        call()  # type: ignore[operator]


async def test_every_function_says_what_its_parameters_are() -> None:
    async with Kernel() as kernel:
        for function in kernel.functions("text", "math", "time", "files", "memory"):
            assert function.description, function
            for name, schema in function.parameters["properties"].items():
                assert schema.get("description"), f"{function.name}({name})"
