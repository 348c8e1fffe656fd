from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kernloom.memory.grounding import pack
from kernloom.memory.records import Chunk, Hit
from kernloom.memory.tokens import estimate_tokens

DOCUMENT = (
    "# Leave\n\nAnnual leave is 25 days. Up to 5 days\nmay be carried over. "
    + "More is said of it here. " * 20
)


def hit(text: str, key: int = 1, start: int = 0) -> Hit:
    lines = 1 + DOCUMENT[:start].count("\n")
    chunk = Chunk(
        key,
        "leave.md",
        "hr/leave.md",
        0,
        start,
        start + len(text),
        lines,
        lines + text.count("\n"),
        "Leave",
        text,
        "",
    )
    return Hit(chunk, 3.5, 2.0, 1, 0.7, 2)


def test_passages_are_labelled_in_order_and_say_where_they_stand() -> None:
    first, second = pack([hit("Annual leave.", 7), hit("Sick leave.", 8)], tokens=500)
    assert (first.label, second.label) == ("1", "2")
    assert (first.id, first.document, first.source, first.title) == (
        "7",
        "leave.md",
        "hr/leave.md",
        "Leave",
    )
    assert (first.start, first.end, first.line_start, first.line_end) == (0, 13, 1, 1)
    assert (first.score, first.keyword_rank, first.vector_rank) == (3.5, 1, 2)


def test_a_passage_that_does_not_fit_makes_room_for_a_smaller_one() -> None:
    packed = pack([hit("First."), hit("long " * 200), hit("Third.")], tokens=100)
    assert [passage.text for passage in packed] == ["First.", "Third."]
    assert [passage.label for passage in packed] == ["1", "2"]


def test_the_best_passage_is_cut_at_a_sentence_rather_than_lost() -> None:
    (passage,) = pack([hit(DOCUMENT)], tokens=44)
    assert passage.text == "# Leave\n\nAnnual leave is 25 days. Up to 5 days\nmay be carried over."
    assert DOCUMENT[passage.start : passage.end] == passage.text
    assert (passage.line_start, passage.line_end) == (1, 4)


def test_the_same_text_is_packed_once() -> None:
    assert len(pack([hit("Same.", 1), hit("Same.", 2)], tokens=500)) == 1


def test_no_budget_no_passages() -> None:
    assert pack([hit("Annual leave.")], tokens=0) == ()
    assert pack([], tokens=500) == ()


def test_tokens_of_unspaced_scripts_are_counted_by_character() -> None:
    assert estimate_tokens("旅費は二千") == 5
    assert estimate_tokens("travel costs") == 3


@given(st.lists(st.text(max_size=400), max_size=8), st.integers(0, 400))
def test_the_budget_holds_and_spans_are_exact(texts: list[str], tokens: int) -> None:
    packed = pack([hit(text, key) for key, text in enumerate(texts, start=1)], tokens=tokens)
    assert sum(estimate_tokens(passage.text) for passage in packed) <= tokens
    for passage in packed:
        assert texts[int(passage.id) - 1][passage.start : passage.end] == passage.text
