from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.memory.text import STOP_WORDS, sentences, stem, terms


def spans(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def test_terms_are_stemmed_and_stop_words_dropped() -> None:
    assert terms("The approvals were approved by approving managers") == [
        "approv",
        "approv",
        "approv",
        "manag",
    ]


@pytest.mark.parametrize("typed", ["VPN-412", "vpn-412", "VPN412", "Vpn/412"])
def test_an_identifier_is_one_term_however_it_is_typed(typed: str) -> None:
    assert terms(typed)[0] == "vpn412"


def test_the_parts_of_an_identifier_are_terms_too() -> None:
    assert set(terms("VPN 412")) <= set(terms("see rule VPN-412 below"))


def test_numbers_keep_their_value() -> None:
    assert terms("2,000 euros") == terms("2000 euros")
    assert terms("9.5 percent")[0] == "9.5"
    assert terms("costs 9.5.")[-1] == "9.5"


def test_a_date_is_a_term_and_so_is_its_year() -> None:
    assert {"2024-05-01", "2024"} <= set(terms("on 2024-05-01"))


def test_an_acronym_is_no_stop_word() -> None:
    assert "it" in STOP_WORDS
    assert terms("Ask IT about it") == ["ask", "it"]


def test_full_width_forms_and_unspaced_scripts_become_terms() -> None:
    assert terms("ＶＰＮ") == ["vpn"]
    assert terms("旅費 2000") == ["旅", "費", "2000"]


def test_stems_of_words_with_digits_are_the_words() -> None:
    assert stem("covid19s") == "covid19s"


def test_headings_items_and_rows_are_sentences_of_their_own() -> None:
    text = (
        "# Leave\n\nPaid leave is\n25 days. More on request.\n"
        "- first item\n  goes on\n- second\n\n| a | b |\n| 5 | x |\n"
    )
    assert spans(text) == [
        "Leave",
        "Paid leave is\n25 days.",
        "More on request.",
        "first item\n  goes on",
        "second",
        "| a | b |",
        "| 5 | x |",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "See e.g. the annex.",
        "Form No. 5 applies.",
        "Dr. Ahlberg decides.",
        "It costs 9.5 euros.",
        "Wait ... then go.",
    ],
)
def test_an_abbreviation_does_not_end_a_sentence(text: str) -> None:
    assert spans(text) == [text]


@given(st.text(max_size=300))
def test_sentences_are_ordered_disjoint_and_lose_no_word(text: str) -> None:
    found = sentences(text)
    assert all(start < end for start, end in found)
    assert all(left[1] <= right[0] for left, right in pairwise(found))
    outside = list(text)
    for start, end in found:
        outside[start:end] = " " * (end - start)
    # What is left out is markers: blanks, punctuation, and the digits of numbered lists.
    assert not any(character.isalpha() for character in outside)


@given(st.text(max_size=200))
def test_terms_are_lower_case_and_never_empty(text: str) -> None:
    assert all(term and term == term.lower() for term in terms(text))
