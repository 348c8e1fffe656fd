"""The model that quotes: what it picks, that it quotes exactly, and that it says when there is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.kernel.messages import Grounding, Passage, Usage, user
from kernloom.kernel.models import ChatModel, ChatRequest, Finished
from kernloom.memory.citations import verify
from kernloom.plugins.models.extractive import (
    HEADER,
    NO_MEMORY,
    NOT_IN_MEMORY,
    ExtractiveModel,
    ExtractivePlugin,
    answer,
    choose,
)

TRAVEL = """# Approval

Every trip needs a request. Travel above EUR 2000 must be approved by the head of department.
A spoken yes does not count.

## Meals

Dinner with a customer costs at most EUR 48 a head.
"""
SIGNING = """Above EUR 5000 the finance director signs in addition.

| Band | Hotel |
|---|---|
| A | EUR 110 |
"""


def passage(text: str, label: str = "1", title: str = "") -> Passage:
    return Passage(
        id=label, document=f"d{label}.md", source=f"d{label}.md", text=text, start=0, end=len(text),
        line_start=1, line_end=text.count("\n") + 1, title=title, label=label,
    )  # fmt: skip


def grounded(query: str, *texts: str, found: bool = True) -> Grounding:
    passages = tuple(passage(text, str(number)) for number, text in enumerate(texts, 1))
    return Grounding(query=query, passages=passages, found=found)


def long(sentence: str) -> str:
    """Text around a sentence that no quote has room for."""
    filler = (
        "Nothing of this sentence has anything to do with the matter at hand, however long it goes on. "
    )
    return filler * 4 + sentence + " " + filler * 4


def test_the_sentence_that_answers_is_quoted_with_its_label() -> None:
    text = answer(grounded("Who approves travel above 2000?", TRAVEL))
    assert text.startswith(HEADER)
    assert "Travel above EUR 2000 must be approved by the head of department." in text
    assert text.endswith("” [1]")


def test_the_best_passage_need_not_be_the_first() -> None:
    other = long("The canteen opens at noon.")
    quotes = choose(grounded("At what hour does the canteen open?", long("Trips need a request."), other))
    assert any("The canteen opens at noon." in quote.text for quote in quotes)


def test_a_second_passage_is_quoted_for_what_the_first_lacks() -> None:
    query = "Who approves travel, and who signs above 5000 in addition?"
    quotes = choose(grounded(query, TRAVEL, SIGNING))
    assert [quote.passage.label for quote in quotes] == ["1", "2"]
    assert "finance director" in quotes[1].text


def test_a_second_passage_that_adds_nothing_is_left_out() -> None:
    sentence = "Travel above EUR 2000 must be approved by the head of department."
    assert len(choose(grounded("Who approves travel above 2000?", sentence, sentence))) == 1


def test_headings_point_to_their_text_and_are_not_quoted() -> None:
    first, second = (
        passage("It costs 20 euros.", title="Parking"),
        passage("It costs 30 euros.", "2", "Canteen"),
    )
    quotes = choose(Grounding(query="What does the canteen cost?", passages=(second, first), found=True))
    assert [quote.text for quote in quotes] == ["It costs 30 euros."]
    assert all("Meals" not in quote.text for quote in choose(grounded("Meals", TRAVEL)))


def test_a_question_that_shares_no_word_still_gets_the_best_passage() -> None:
    quotes = choose(grounded("Wer unterschreibt?", TRAVEL, SIGNING))
    assert [quote.passage.label for quote in quotes] == ["1"]


@pytest.mark.parametrize(
    ("grounding", "says"),
    [
        (None, NO_MEMORY),
        (Grounding(query="Dogs?", found=False), NOT_IN_MEMORY),
        (Grounding(query="Dogs?", found=True), NOT_IN_MEMORY),
        (grounded("Dogs?", TRAVEL, found=False), NOT_IN_MEMORY),
        (grounded("Dogs?", "# Only a heading", found=True), NOT_IN_MEMORY),
    ],
)
async def test_what_is_not_there_is_said_without_a_citation(grounding: Grounding | None, says: str) -> None:
    response = await ExtractiveModel().complete(ChatRequest(messages=(user("Dogs?"),), grounding=grounding))
    assert response.message.text == says
    assert "[" not in says


words = st.lists(
    st.sampled_from(["travel", "approve", "2000", "EUR", "trip.", "Head", "\n", "- a", "|", "“x”"])
)


@given(st.lists(words.map(" ".join), max_size=4), words.map(" ".join))
def test_quotes_are_exact_pieces_of_their_passages(texts: list[str], query: str) -> None:
    grounding = grounded(query, *texts)
    quotes = choose(grounding)
    assert len(quotes) <= 2
    for quote in quotes:
        assert quote.text in quote.passage.text
        assert f"“{quote.text}” [{quote.passage.label}]" in answer(grounding)


def test_its_citations_are_verified_against_the_source() -> None:
    grounding = grounded("Who approves travel, and who signs above 5000 in addition?", TRAVEL, SIGNING)
    stored = {"d1.md": TRAVEL, "d2.md": SIGNING}
    citations = verify(answer(grounding), grounding, stored.get)
    assert {citation.label for citation in citations} == {"1", "2"}
    assert all(citation.verified for citation in citations)


async def test_it_streams_the_same_and_costs_nothing() -> None:
    model = ExtractivePlugin().chat_model("extractive", {})
    assert isinstance(model, ChatModel)
    assert (model.info.name, model.info.generative, model.info.local) == ("extractive", False, True)
    request = ChatRequest(messages=(user("?"),), grounding=grounded("Who approves travel?", TRAVEL))
    deltas = [delta async for delta in model.stream(request)]
    finished = deltas[-1]
    assert isinstance(finished, Finished)
    assert finished.response == await model.complete(request)
    assert finished.response.usage == Usage()
    assert "".join(delta.text for delta in deltas if delta.kind == "text") == finished.response.message.text
    await model.aclose()
