from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.kernel.messages import Citation, Grounding, Passage
from kernloom.memory.citations import verify

LEAVE = """\
# Leave

Annual leave is 25 working days. Up to 5 days may be
carried over until 31 March.

- Sick leave is paid for 30 days.
- Parental leave: **16 weeks** with pay.
"""
TRAVEL = "Intro.\n\nTravel above EUR 2000 is approved by the head of department. Use form TR-7.\n"
STORED = {"leave.md": LEAVE, "travel.md": TRAVEL}


def passage(label: str, document: str, start: int = 0) -> Passage:
    text = STORED[document][start:]
    line = 1 + STORED[document][:start].count("\n")
    return Passage(
        id=label,
        document=document,
        source=f"hr/{document}",
        text=text,
        start=start,
        end=start + len(text),
        line_start=line,
        line_end=line + text.count("\n"),
        label=label,
    )


GROUNDING = Grounding(
    query="leave?", passages=(passage("1", "leave.md"), passage("2", "travel.md", start=8)), found=True
)


def cited(answer: str) -> list[Citation]:
    return list(verify(answer, GROUNDING, STORED.get))


def one(answer: str) -> Citation:
    (citation,) = cited(answer)
    return citation


def test_a_claim_is_led_to_the_sentence_that_bears_it() -> None:
    citation = one("You may carry five days over until March [1].")
    assert citation.quote == "Up to 5 days may be\ncarried over until 31 March."
    assert citation.verified
    assert citation.place == "hr/leave.md:3-4"
    assert LEAVE[citation.start : citation.end] == citation.quote


def test_spans_count_from_the_start_of_the_document() -> None:
    citation = one("The head of department approves travel above 2000 euros [2].")
    assert citation.quote == "Travel above EUR 2000 is approved by the head of department."
    assert TRAVEL[citation.start : citation.end] == citation.quote
    assert citation.line_start == 3


@pytest.mark.parametrize(
    ("answer", "quotes"),
    [
        ("Annual leave is 25 days [1]. Form TR-7 is needed [2].", ["Annual leave is 25", "Use form TR-7."]),
        ("Annual leave is 25 days. [1] Form TR-7 is needed. [2]", ["Annual leave is 25", "Use form TR-7."]),
        (
            "Annual leave is 25 days [1] and form TR-7 is used [2].",
            ["Annual leave is 25", "Use form TR-7."],
        ),
        ("According to [1], sick leave lasts 30 days.", ["Sick leave is paid"]),
        ("- Sick leave: 30 days [1]\n- Form: TR-7 [2]", ["Sick leave is paid", "Use form TR-7."]),
        ("Travel is approved and annual leave is 25 days [1, 2].", ["Annual leave is 25", "Travel above"]),
        ("Sick leave lasts 30 days【1】.", ["Sick leave is paid"]),
    ],
)
def test_a_label_stands_behind_the_words_before_it(answer: str, quotes: list[str]) -> None:
    citations = cited(answer)
    assert [c.quote.startswith(q) for c, q in zip(citations, quotes, strict=True)] == [True] * len(quotes)
    assert all(citation.verified for citation in citations)


def test_a_literal_quotation_goes_before_the_nearest_sentence() -> None:
    citation = one('The rule on annual leave says "may be carried over" [1].')
    assert citation.quote == "may be\ncarried over"
    assert citation.verified


def test_a_quotation_of_several_lines_is_cited_whole() -> None:
    quoted = "Up to 5 days may be\ncarried over until 31 March.\n\n- Sick leave is paid for 30 days."
    citation = one(f"“{quoted}” [1]")
    assert citation.quote == quoted
    assert (citation.line_start, citation.line_end, citation.verified) == (3, 6, True)


def test_a_copied_claim_is_quoted_as_it_stands_in_the_document() -> None:
    assert one("Parental leave: 16 weeks with pay [1].").quote == "Parental leave: **16 weeks** with pay"


def test_a_quotation_may_leave_words_out() -> None:
    citation = one("“Annual leave … carried over until 31 March” [1]")
    assert citation.verified
    assert citation.quote.startswith("Annual leave is")
    assert citation.quote.endswith("31 March")


def test_words_that_the_passage_does_not_have_are_not_verified() -> None:
    citation = one('It says "all employees get forty days of leave" [1].')
    assert citation.quote == "all employees get forty days of leave"
    assert not citation.verified


def test_a_number_is_not_found_within_another() -> None:
    assert not one('It says "5 working days. Up to 5" [1].').verified


def test_a_label_that_does_not_exist_is_not_verified() -> None:
    citation = one("Annual leave is 25 days [9].")
    assert (citation.label, citation.document, citation.verified) == ("9", "", False)


def test_a_claim_that_shares_nothing_is_not_verified() -> None:
    citation = one("Zebras gallop [1].")
    assert (citation.quote, citation.verified) == ("", False)


def test_a_document_that_is_gone_is_not_verified() -> None:
    (citation,) = verify("Annual leave is 25 days [1].", GROUNDING, lambda _: None)
    assert citation.quote
    assert not citation.verified


def test_a_document_that_reads_otherwise_now_is_not_verified() -> None:
    changed = STORED | {"leave.md": LEAVE.replace("16 weeks", "18 weeks")}
    (citation,) = verify("Annual leave is 25 days [1].", GROUNDING, changed.get)
    assert not citation.verified


def test_labels_within_code_are_not_citations() -> None:
    assert cited("Use `days[1]` or\n```\nx = leave[1]\n```\n") == []


def test_a_list_of_sources_is_not_cited_again() -> None:
    answer = "Annual leave is 25 days [1].\n\nSources:\n[1] hr-handbook\n[2] intranet"
    assert [(c.label, c.verified) for c in cited(answer)] == [("1", True), ("2", False)]


def test_the_same_sentence_is_cited_once() -> None:
    assert len(cited("Sick leave is 30 days [1]. Indeed, sick leave is 30 days [1].")) == 1


def test_each_document_is_read_once() -> None:
    reads: list[str] = []

    def read(document: str) -> str | None:
        reads.append(document)
        return STORED[document]

    verify("Sick leave is 30 days [1]. Annual leave is 25 days [1].", GROUNDING, read)
    assert reads == ["leave.md"]


@given(st.text(alphabet=st.sampled_from('leave 25 days. [1][2][99]" “”`\n*-…【】'), max_size=120))
def test_no_answer_raises_and_what_is_verified_stands(answer: str) -> None:
    for citation in cited(answer):
        if citation.verified:
            assert citation.quote
            assert STORED[citation.document][citation.start : citation.end] == citation.quote
