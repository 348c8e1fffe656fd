"""The first divergence of two histories, in words that say where and what."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom import AssistantAgent, Kernel, ScriptedModel
from kernloom.kernel.journal import Event, EventData, diff
from kernloom.kernel.journal.events import (
    FunctionFinished,
    FunctionRequested,
    FunctionStarted,
    MessageAdded,
    ModelAnswered,
    ModelRequested,
    QuestionAnswered,
    RunFinished,
    RunPaused,
    RunStarted,
)
from kernloom.kernel.messages import ToolCall, ToolResult, assistant, user
from kernloom.kernel.models.scripted import call

INVARIANTS = runpy.run_path(str(Path(__file__).with_name("test_invariants.py")))
HISTORIES: st.SearchStrategy[list[EventData]] = INVARIANTS["legal_histories"]()


def events(*data: EventData, session: str = "s", run: str | None = "r", at: float = 1.0) -> list[Event]:
    return [Event(seq, session, at + seq, "ann", item, run) for seq, item in enumerate(data, start=1)]


@given(HISTORIES)
def test_a_history_does_not_differ_from_itself(data: list[EventData]) -> None:
    told = events(*data)
    assert diff(told, told) is None
    assert diff(told, list(told), ids=False, times=False) is None


@given(HISTORIES)
def test_a_history_under_other_names_at_another_time_tells_the_same(data: list[EventData]) -> None:
    one, other = events(*data), events(*data, session="other", run="another", at=99.0)
    assert diff(one, other, ids=False, times=False) is None
    if data:
        found = diff(one, other)
        assert found is not None
        assert (found.seq, found.field) == (1, "run")


CHANGES: list[tuple[type, dict[str, Any], str]] = [
    (RunStarted, {"name": "somebody else"}, "name"),
    (RunFinished, {"output": {"a": [1, "changed"]}}, "output"),
    (MessageAdded, {"message": user("changed words")}, "message.parts"),
    (ModelRequested, {"messages": 99}, "messages"),
    (ModelAnswered, {"finish_reason": "length"}, "finish_reason"),
    (FunctionRequested, {"call": ToolCall(id="changed", name="changed")}, "call."),
    (FunctionStarted, {"digest": "changed"}, "digest"),
    (FunctionFinished, {"value": {"changed": True}}, "value"),
]


@given(HISTORIES, st.data())
def test_one_changed_field_is_found(data: list[EventData], choose: st.DataObject) -> None:
    changeable = [
        (index, change, path)
        for index, item in enumerate(data)
        for kind, change, path in CHANGES
        if type(item) is kind
    ]
    if not changeable:
        return
    index, change, path = choose.draw(st.sampled_from(changeable))
    other = [*data]
    other[index] = data[index].model_copy(update=change)
    found = diff(events(*data), events(*other))
    assert found is not None
    assert found.seq == index + 1
    assert found.field.startswith(path.rstrip("."))
    assert found.first == events(*data)[index]
    assert found.field in found.render()
    json.dumps(found.to_dict())


@given(HISTORIES)
def test_a_history_that_ends_sooner_differs_there(data: list[EventData]) -> None:
    if data:
        found = diff(events(*data), events(*data[:-1]))
        assert found is not None
        assert (found.seq, found.field, found.second) == (len(data), "", None)
        assert found.words.endswith("the second nothing more.")


@pytest.mark.parametrize("field", ["actor", "at", "session", "run", "parent"])
def test_what_is_around_the_data_counts(field: str) -> None:
    one = events(MessageAdded(message=user("hello")))
    changed: Any = {"actor": "bob", "at": 5.0, "session": "t", "run": None, "parent": ("p", 1)}[field]
    found = diff(one, [replace(one[0], **{field: changed})])
    assert found is not None
    assert found.field == field


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0, False), ({"a": 1}, {"a": 1.0}), ([], {})]
)
def test_values_are_compared_as_json_not_as_python(one: Any, other: Any) -> None:
    assert diff(events(RunFinished(output=one)), events(RunFinished(output=other))) is not None


def test_other_ids_must_stand_for_the_same_things() -> None:
    def two(first: str, second: str, *, answered: str) -> list[Event]:
        return events(
            FunctionRequested(call=ToolCall(id=first, name="f")),
            FunctionRequested(call=ToolCall(id=second, name="f")),
            FunctionFinished(result=ToolResult(call_id=answered, name="f", content="")),
            RunPaused(questions=(first,)),
        )

    assert diff(two("a", "b", answered="b"), two("1", "2", answered="2"), ids=False) is None
    found = diff(two("a", "b", answered="b"), two("1", "2", answered="1"), ids=False)
    assert found is not None
    assert (found.seq, found.field) == (3, "result.call_id")


def test_words_say_what_only_one_of_them_has() -> None:
    one = ModelRequested(model="m", messages=1, functions=("add", "mul"))
    found = diff(
        events(one),
        events(one.model_copy(update={"functions": ("add", "sub")})),
        names=("the record", "the replay"),
    )
    assert found is not None
    assert found.words == (
        "Event 1: in functions of model.requested by ann, "
        "only the record has 'mul' and only the replay has 'sub'."
    )


def test_long_texts_are_shown_where_they_part() -> None:
    text = "x" * 500
    found = diff(
        events(MessageAdded(message=user(text + "1"))), events(MessageAdded(message=user(text + "2")))
    )
    assert found is not None
    assert found.field == "message.parts[0].text"
    one, other = found.render().splitlines()[1:]
    assert one.endswith('xxx1"')
    assert other.endswith('xxx2"')
    assert len(one) < 120


def test_another_kind_is_named_with_what_it_is_about() -> None:
    said = QuestionAnswered(question_id="q", answer="allow")
    found = diff(
        events(said), events(FunctionFinished(result=ToolResult(call_id="c", name="f", content="")))
    )
    assert found is not None
    assert found.render().splitlines() == [
        "They part at event 1.",
        "  the first   question.answered by ann (q)",
        "  the second  function.finished by ann (c)",
    ]


async def test_two_runs_of_one_agent_are_compared_by_what_they_did() -> None:
    def add(a: int, b: int) -> int:
        return a + b

    async def history(*replies: Any) -> list[Event]:
        kernel = Kernel()
        agent = AssistantAgent("helper", kernel=kernel, model=ScriptedModel(replies), functions=[add])
        return (await kernel.journal.open((await agent.run("1+2?")).session)).events

    asked = call("add", a=1, b=2)
    one = await history(asked, "3")
    renamed = assistant("", asked.model_copy(update={"id": "other"}))
    assert diff(one, await history(renamed, "3"), times=False, ids=False) is None
    found = diff(one, await history(call("add", a=1, b=3), "4"), times=False, ids=False)
    assert found is not None
    assert found.field == "message.parts[0].arguments"
