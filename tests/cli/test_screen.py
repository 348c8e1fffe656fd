"""Tables fit the terminal they are shown on, and are left whole everywhere else."""

from __future__ import annotations

import click
from hypothesis import given
from hypothesis import strategies as st

from kernloom.cli.screen import table

ROWS = [["files", "0.1.0", "list, read, search, write"], ["math", "0.1.0", "evaluate"]]
WORDS = st.lists(st.text("abcdefg", min_size=1, max_size=9), max_size=30).map(" ".join)


def test_columns_stand_below_each_other() -> None:
    assert table(ROWS) == "files  0.1.0  list, read, search, write\nmath   0.1.0  evaluate"


def test_colour_takes_no_room() -> None:
    painted = [[click.style(cell, fg="green") for cell in row] for row in ROWS]
    assert click.unstyle(table(painted)) == table(ROWS)


def test_the_last_column_wraps_in_its_place() -> None:
    assert table([["a", "one two three four five six seven eight nine ten"]], width=35) == (
        "a  one two three four five six\n   seven eight nine ten"
    )


def test_where_there_is_no_room_beside_it_the_last_column_goes_below() -> None:
    name = "a.very.long.name.of.a.function(with, parameters)"
    assert (
        table([[name, "what it is for, in words"]], width=60) == f"{name}\n      what it is for, in words"
    )


def test_no_rows_are_no_text() -> None:
    assert table([]) == ""


@given(
    st.lists(st.tuples(st.text("xyz", min_size=1, max_size=12), WORDS), min_size=1), st.integers(45, 120)
)
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(
    rows: list[tuple[str, str]], width: int
) -> None:
    lines = table(rows, width=width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert " ".join(" ".join(row) for row in rows).split() == " ".join(lines).split()
