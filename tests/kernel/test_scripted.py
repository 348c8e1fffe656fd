"""Models that follow a script, and the echo."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernloom.kernel.errors import ConfigError, ProviderError, UsageError
from kernloom.kernel.messages import Message, TextPart, ToolCall, Usage, assistant, user
from kernloom.kernel.models import ChatModel, ChatRequest, ChatResponse, EchoModel, Finished, ScriptedModel
from kernloom.kernel.models.scripted import call


def ask(text: str = "Hi") -> ChatRequest:
    return ChatRequest(messages=(user(text),))


def test_both_are_chat_models() -> None:
    assert isinstance(ScriptedModel(), ChatModel)
    assert isinstance(EchoModel(), ChatModel)


async def test_replies_come_in_order_whatever_they_are() -> None:
    whole = ChatResponse(message=assistant("whole"), usage=Usage(input=3))
    model = ScriptedModel(
        ["text", assistant("message"), whole, lambda request: request.messages[0].text[::-1]]
    )
    answers = [(await model.complete(ask("abc"))).message.text for _ in range(4)]
    assert answers == ["text", "message", "whole", "cba"]
    assert [request.messages[0].text for request in model.requests] == ["abc"] * 4
    model.assert_complete()


async def test_calls_get_ids_of_their_own() -> None:
    model = ScriptedModel(
        [assistant("", call("f", x=1), call("g")), call("h"), ToolCall(id="mine", name="i")]
    )
    responses = [await model.complete(ask()) for _ in range(3)]
    assert [one.id for response in responses for one in response.message.tool_calls] == [
        "call_1", "call_2", "call_3", "mine",
    ]  # fmt: skip
    assert {response.finish_reason for response in responses} == {"tool_calls"}
    assert responses[0].message.tool_calls[0].parsed() == {"x": 1}


async def test_an_exception_is_raised() -> None:
    with pytest.raises(ProviderError, match="Gone"):
        await ScriptedModel([ProviderError("Gone.")]).complete(ask())


async def test_a_stream_adds_up_to_the_answer() -> None:
    model = ScriptedModel([Message(role="assistant", parts=(TextPart(text="One  two."), call("f", x=1)))])
    deltas = [delta async for delta in model.stream(ask())]
    finished = deltas[-1]
    assert isinstance(finished, Finished)
    assert [delta.kind for delta in deltas] == ["text", "text", "tool_call", "tool_call", "finished"]
    assert "".join(delta.text for delta in deltas if delta.kind == "text") == "One  two."
    assert finished.response.message.tool_calls[0].id == "call_1"


async def test_one_question_too_many_is_an_error_that_shows_it() -> None:
    model = ScriptedModel(["One."])
    await model.complete(ask())
    with pytest.raises(UsageError, match="What now") as caught:
        await model.complete(ask("What now?"))
    assert caught.value.code == "script.exhausted"


def test_a_script_that_was_not_used_up_is_a_failure() -> None:
    model = ScriptedModel(["One."])
    model.add("Two.")
    with pytest.raises(AssertionError, match="2 of 2"):
        model.assert_complete()


async def test_the_echo_says_the_users_last_words() -> None:
    deltas = [delta async for delta in EchoModel().stream(ask("Good morning"))]
    assert isinstance(deltas[-1], Finished)
    assert deltas[-1].response.message.text == "Good morning"


async def test_a_script_can_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(
        """
- Hello.
- text: Let me look.
  calls:
    - name: time.now
      arguments: {timezone: Europe/Oslo}
    - {name: math.evaluate, arguments: '{"expression": "6*7', id: mine}
- text: Done.
  usage: {input: 120, output: 8}
- error: Too many requests.
  code: provider.rate_limited
  status: 429
  retry_after: 2
""",
        encoding="utf-8",
    )
    model = ScriptedModel.from_file(path)
    assert model.info.name == f"script:{path}"
    assert (await model.complete(ask())).message.text == "Hello."
    looking = (await model.complete(ask())).message
    assert looking.text == "Let me look."
    assert [(one.name, one.arguments) for one in looking.tool_calls] == [
        ("time.now", '{"timezone": "Europe/Oslo"}'),
        ("math.evaluate", '{"expression": "6*7'),
    ]
    assert looking.tool_calls[1].id == "mine"
    assert (await model.complete(ask())).usage == Usage(input=120, output=8, requests=1)
    with pytest.raises(ProviderError) as caught:
        await model.complete(ask())
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == (
        "provider.rate_limited",
        429,
        2,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hello: you", "list of replies"),
        ("- [1]", "entry 1"),
        ("- a\n- {txt: b}", "entry 2.*'txt'"),
        ("- {calls: [{nam: f}]}", "needs a name"),
        ("- {error: x, why: y}", "'why'"),
        ("- {text: x, usage: {inpt: 1}}", "usage"),
        ("- [unclosed", "cannot be used"),
    ],
)
def test_a_wrong_file_says_which_entry_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        ScriptedModel.from_file(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        ScriptedModel.from_file(tmp_path / "nothing.yaml")


def test_a_script_that_unfolds_without_end_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "replies.yaml"
    script.write_text("- &a [x, x]\n- &b [*a, *a]\n")
    with pytest.raises(ConfigError, match="aliases") as caught:
        ScriptedModel.from_file(script)
    assert caught.value.code == "script.unreadable"
