"""The state machine's rules one by one, and the view a model is sent."""

from collections.abc import Sequence

import pytest

from kernloom.kernel.errors import InvariantError
from kernloom.kernel.journal import Event, EventData, History, Transcript, messages
from kernloom.kernel.journal.events import (
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    FunctionRequested,
    FunctionStarted,
    MessageAdded,
    ModelAnswered,
    ModelFailed,
    ModelRequested,
)
from kernloom.kernel.messages import Message, TextPart, ToolCall, ToolResult, assistant, system, tool, user

ASK = ModelRequested(model="m", messages=1)


def call(name: str) -> ToolCall:
    return ToolCall(id=name, name=f"plugin.{name}")


def result(name: str, said: str = "done", *, error: bool = False) -> ToolResult:
    return ToolResult(call_id=name, name=f"plugin.{name}", content=said, error=error)


def done(name: str, said: str = "done") -> FunctionFinished:
    return FunctionFinished(result=result(name, said))


def failed(name: str) -> FunctionFailedEvent:
    return FunctionFailedEvent(result=result(name, "failed", error=True), code="function.failed")


def answer(text: str = "", *names: str, partial: bool = False) -> ModelAnswered:
    return ModelAnswered(model="m", message=assistant(text, *map(call, names)), partial=partial)


def said(text: str) -> MessageAdded:
    return MessageAdded(message=user(text))


def logged(*data: EventData) -> list[Event]:
    return [Event(seq, "s", 0.0, "test", item) for seq, item in enumerate(data, start=1)]


def view(*data: EventData) -> list[Message]:
    return messages(logged(*data))


@pytest.mark.parametrize(
    ("past", "event", "words"),
    [
        ([], done("a"), "nobody had asked for it"),
        ([], FunctionStarted(call_id="a", name="plugin.a"), "nobody had asked for it"),
        ([ASK, answer("", "a"), done("a")], failed("a"), "already has its outcome"),
        (
            [ASK, answer("", "a"), done("a")],
            FunctionStarted(call_id="a", name="x"),
            "already has its outcome",
        ),
        ([ASK, answer("", "a")], ASK, "calls have no outcome: a"),
        ([FunctionRequested(call=call("a"))], ASK, "calls have no outcome: a"),
        ([ASK], ASK, "has not answered"),
        ([], answer("hello"), "nobody had asked"),
        ([ASK, answer("hello")], answer("again"), "nobody had asked"),
        ([], ModelFailed(model="m", code="x", error="y"), "nobody had asked"),
        ([ASK], answer("", "a", "a"), "used before"),
        ([ASK, answer("", "a"), done("a"), ASK], answer("", "a"), "used before"),
        ([ASK, answer("", "a")], FunctionRequested(call=call("a")), "used before"),
        ([ASK, answer("", "a", partial=True)], done("a"), "nobody had asked for it"),
        ([], MessageAdded(message=assistant("", call("a"))), "holds calls or results"),
        ([], MessageAdded(message=tool(result("a"))), "holds calls or results"),
    ],
)
def test_an_event_that_cannot_follow_is_refused_and_changes_nothing(
    past: Sequence[EventData], event: EventData, words: str
) -> None:
    history = History(past)
    before = (history.asked, history.open_calls())
    with pytest.raises(InvariantError, match=words) as caught:
        history.apply(event)
    assert caught.value.code == "journal.invariant"
    assert (history.asked, history.open_calls()) == before


def test_calls_open_by_an_answer_or_by_request_and_close_by_their_outcome() -> None:
    history = History([ASK, answer("", "a", "b"), FunctionRequested(call=call("step"))])
    assert [entry.id for entry in history.open_calls()] == ["a", "b", "step"]
    history.apply(failed("b"))
    history.apply(FunctionInDoubtEvent(result=result("a", error=True)))
    assert [entry.id for entry in history.open_calls()] == ["step"]
    history.apply(done("step"))
    history.apply(ASK)
    assert history.asked == ASK


def test_a_call_may_start_again_for_another_attempt() -> None:
    started = FunctionStarted(call_id="a", name="plugin.a")
    History([ASK, answer("", "a"), started, started, done("a"), ASK])


def test_repair_closes_each_call_by_what_is_known_of_it() -> None:
    history = History(
        [
            ASK,
            answer("", "waiting", "running", "reading", "writing", "finished"),
            FunctionStarted(call_id="running", name="plugin.running"),
            FunctionStarted(call_id="reading", name="plugin.reading", effects=("read",)),
            FunctionStarted(call_id="writing", name="plugin.writing", effects=("read", "write")),
            done("finished"),
        ]
    )
    outcomes = history.repair()
    told = [(event.kind, event.result.call_id) for event in outcomes if not isinstance(event, ModelFailed)]  # type: ignore[union-attr]
    assert told == [
        ("function.failed", "waiting"),
        ("function.in_doubt", "running"),
        ("function.failed", "reading"),
        ("function.in_doubt", "writing"),
    ]
    for event in outcomes:
        history.apply(event)
    assert history.repair() == []
    history.apply(ASK)


def test_repair_fails_a_model_call_that_was_never_answered() -> None:
    history = History([said("hello"), ASK])
    [event] = history.repair()
    assert isinstance(event, ModelFailed)
    assert (event.model, event.code) == ("m", "model.interrupted")
    history.apply(event)
    history.apply(ASK)


def test_messages_put_results_behind_their_answer_in_the_order_of_its_calls() -> None:
    assert view(
        MessageAdded(message=system("Be brief.")),
        said("hello"),
        ASK,
        answer("let me see", "a", "b"),
        done("b", "two"),
        said("by the way"),
        done("a", "one"),
        ASK,
        answer("so it is"),
    ) == [
        system("Be brief."),
        user("hello"),
        assistant("let me see", call("a"), call("b")),
        tool(result("a", "one"), result("b", "two")),
        user("by the way"),
        assistant("so it is"),
    ]


def test_messages_leave_out_calls_that_are_open_and_results_without_a_call() -> None:
    assert view(answer("look", "a", "b"), done("b"), done("c")) == [
        assistant("look", call("b")),
        tool(result("b")),
    ]
    assert view(answer("look", "a")) == [assistant("look")]
    assert view(answer("", "a"), said("hello")) == [user("hello")]


def test_messages_show_a_call_once_and_its_first_result() -> None:
    assert view(answer("", "a", "a"), done("a", "first"), done("a", "second")) == [
        assistant("", call("a")),
        tool(result("a", "first")),
    ]


def test_a_transcript_asked_early_is_complete_later() -> None:
    transcript = Transcript()
    for data in (answer("look", "a", "b"), done("b")):
        transcript.apply(data)
    assert transcript.messages() == [assistant("look", call("b")), tool(result("b"))]
    transcript.apply(done("a"))
    transcript.messages().clear()
    whole = [assistant("look", call("a"), call("b")), tool(result("a"), result("b"))]
    assert transcript.messages() == whole


def test_messages_keep_the_text_of_a_partial_answer_only() -> None:
    assert view(answer("I was say", "a", partial=True)) == [assistant("I was say")]
    assert view(answer("", "a", partial=True)) == []


def test_messages_hold_nothing_empty() -> None:
    empty = Message(role="user", parts=(TextPart(text=""),))
    assert view(MessageAdded(message=empty), answer("")) == []


def test_messages_do_not_show_calls_that_no_answer_asked_for() -> None:
    assert view(said("hello"), FunctionRequested(call=call("step")), done("step")) == [user("hello")]
