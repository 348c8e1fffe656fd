"""Chunks are exact, whole where they fit, and never too long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernloom.memory.blocks import blocks, document_title
from kernloom.memory.chunking import CHUNK_TOKENS, chunk_document
from kernloom.memory.records import Chunk, Document
from kernloom.memory.tokens import estimate_tokens


def cut(text: str, *, title: str = "", limit: int = CHUNK_TOKENS) -> list[Chunk]:
    return chunk_document(Document(id="d", source="d.md", text=text, title=title), limit=limit)


def words(count: int, word: str = "word") -> str:
    return " ".join([word] * count)


MARKS = [
    "# One\n",
    "## Two\n",
    "Title\n=====\n",
    "- item\n",
    "  nested\n",
    "1. first\n",
    "| a | b |\n|---|---|\n",
]
MARKS += [
    "```\n",
    "~~~py\n",
    "\n",
    "\r\n",
    "\t",
    "a: ",
    "Sentence one. ",
    "x" * 90,
    "多くの文字。",
    "é\u0301",
    "👩‍👩‍👧",
    "\u2028",
    "---\n",
]
TEXTS = st.one_of(
    st.text(max_size=400), st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=20))).map("".join)
)


@given(text=TEXTS, limit=st.integers(min_value=1, max_value=40))
@settings(max_examples=300, deadline=None)
def test_chunks_hold_every_visible_character_once_in_order(text: str, limit: int) -> None:
    chunks = cut(text, limit=limit)
    covered = 0
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text == chunk.text.strip() != ""
        assert text[covered : chunk.start].strip() == ""
        assert estimate_tokens(chunk.text) <= limit
        assert chunk.line_start == text.count("\n", 0, chunk.start) + 1
        assert chunk.line_end == text.count("\n", 0, chunk.end) + 1
        covered = chunk.end
    assert text[covered:].strip() == ""


@given(text=TEXTS)
@settings(max_examples=200, deadline=None)
def test_blocks_hold_every_line_that_is_not_blank(text: str) -> None:
    covered = 0
    for block in blocks(text):
        assert block.start >= covered
        assert text[covered : block.start].strip() == ""
        covered = block.end
    assert text[covered:].strip() == ""


def test_a_chunk_never_crosses_a_heading() -> None:
    chunks = cut("# Travel\n\nBook early.\n\n## Hotels\n\nUp to 120.\n\n## Trains\n\nSecond class.\n")
    assert [(c.title, c.text) for c in chunks] == [
        ("Travel", "# Travel\n\nBook early."),
        ("Travel > Hotels", "## Hotels\n\nUp to 120."),
        ("Travel > Trains", "## Trains\n\nSecond class."),
    ]
    assert [(c.line_start, c.line_end) for c in chunks] == [(1, 3), (5, 7), (9, 11)]


def test_a_heading_without_text_opens_the_section_of_its_first_subheading() -> None:
    chunks = cut("# Travel\n## Hotels\nUp to 120.\n## Empty\n# Leave\n25 days.")
    assert [(c.title, c.line_start, c.line_end) for c in chunks] == [
        ("Travel > Hotels", 1, 3),
        ("Travel > Empty", 4, 4),
        ("Leave", 5, 6),
    ]


def test_the_documents_title_comes_first_and_is_not_repeated() -> None:
    assert [c.title for c in cut("# Hotels\nText.", title="Travel 2024")] == ["Travel 2024 > Hotels"]
    assert [c.title for c in cut("# Hotels\nText.", title="hotels")] == ["Hotels"]
    assert [c.title for c in cut("Text.", title="Notes")] == ["Notes"]


def test_underlined_headings_count() -> None:
    chunks = cut("Travel\n======\n\nBook early.\n\nHotels\n------\n\nUp to 120.\n")
    assert [c.title for c in chunks] == ["Travel", "Travel > Hotels"]


def test_a_rule_is_no_heading_and_a_table_row_is_none() -> None:
    assert [b.kind for b in blocks("- a\n---\n")] != ["heading"]
    assert [b.kind for b in blocks("a | b\n--- | ---\n1 | 2\n\nafter")] == ["table", "paragraph"]


def test_front_matter_gives_the_title_and_is_kept() -> None:
    text = '---\ntitle: "Travel policy"\nyear: 2024\n---\n\n# Scope\n\nAll staff.\n'
    assert document_title(text) == "Travel policy"
    assert cut(text)[0].text.startswith("---\ntitle:")
    assert [c.title for c in cut(text, title="Travel policy")] == ["Travel policy", "Travel policy > Scope"]


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("# Plain", "Plain"),
        ("# Closed ##", "Closed"),
        ("# See [the *rules*](rules.md) `now`", "See the rules now"),
        ("# " + "x" * 300, "x" * 119 + "…"),
    ],
)
def test_a_title_is_words_without_markup(line: str, title: str) -> None:
    assert blocks(line)[0].title == title


def test_fenced_code_stays_whole_where_it_fits_and_hides_its_headings() -> None:
    code = "```python\n# not a heading\n\n" + "x = 1\n" * 20 + "```"
    chunks = cut(f"{words(140)}\n\n{code}\n\n{words(140)}")
    assert [code in c.text for c in chunks].count(True) == 1
    assert all(c.title == "" for c in chunks)


def test_long_fenced_code_is_cut_between_lines() -> None:
    text = "```\n" + "\n".join(f"value_{n} = {n} + {n}" for n in range(100)) + "\n```"
    for chunk in cut(text)[1:]:
        assert text[chunk.start - 1] == "\n"


def test_a_list_is_cut_between_items_and_stays_with_its_lead_in() -> None:
    items = "\n".join(f"- item {n} {words(20)}\n  continued {n}" for n in range(30))
    chunks = cut(f"{words(100)}\n\nThese need approval:\n\n{items}")
    assert "These need approval:\n\n- item 0" in "".join(c.text for c in chunks if "approval" in c.text)
    for chunk in chunks[2:]:
        assert chunk.text.startswith("- item")


def test_a_table_is_cut_between_rows() -> None:
    rows = "\n".join(f"| city {n} | {n * 10} EUR |" for n in range(80))
    for chunk in cut(f"| place | limit |\n|---|---|\n{rows}")[1:]:
        assert chunk.text.startswith("| city")
        assert chunk.text.endswith("|")


def test_long_paragraphs_are_cut_between_sentences() -> None:
    chunks = cut(" ".join(f"Sentence {n} says {words(12)}." for n in range(60)))
    assert len(chunks) > 3
    assert all(c.text.startswith("Sentence") and c.text.endswith(".") for c in chunks)


def test_chunks_of_a_section_are_evened_out() -> None:
    chunks = cut("\n\n".join(words(40) for _ in range(6)))
    sizes = [estimate_tokens(c.text) for c in chunks]
    assert len(sizes) == 2
    assert max(sizes) - min(sizes) <= 50


def test_a_very_long_word_is_cut_and_nothing_joins_its_ends() -> None:
    text = f"before {'x' * 5000} after"
    chunks = cut(text)
    assert len(chunks) > 4
    assert "".join(c.text for c in chunks) == text.replace(" ", "")


def test_an_accent_stays_on_its_letter() -> None:
    for chunk in cut("e\u0301" * 2000):
        assert chunk.text[0] == "e"


def test_windows_line_ends_count_as_one_line_each() -> None:
    chunks = cut("# A\r\n\r\nOne.\r\n\r\n# B\r\n\r\nTwo.\r\n")
    assert [(c.title, c.line_start, c.line_end) for c in chunks] == [("A", 1, 3), ("B", 5, 7)]


def test_nothing_visible_gives_no_chunk() -> None:
    assert cut("") == cut(" \n\t\n") == []


def test_a_hostile_text_is_cut_in_linear_time() -> None:
    for text in ("# " + " " * 200_000 + "#", "|" * 200_000, "`" * 100_000, "- " * 100_000, "[" * 100_000):
        cut(text)
