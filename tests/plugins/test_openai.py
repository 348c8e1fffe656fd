"""The real client, over a real socket, against our own loopback server."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.kernel.errors import ConfigError, ProviderError, UsageError
from kernloom.kernel.messages import Message, ToolCall, ToolResult, Usage, assistant, system, tool, user
from kernloom.kernel.models import (
    ChatModel,
    ChatRequest,
    ChatResponse,
    Delta,
    Finished,
    FunctionSpec,
    TextDelta,
    ToolCallDelta,
)
from kernloom.plugins.models.openai import OpenAIChatModel, OpenAIPlugin
from kernloom.plugins.models.openai_answer import CallIds, mend, new_call_id, read_answer
from kernloom.plugins.models.openai_stream import Answer, EventLines
from kernloom.plugins.models.openai_wire import RequestWriter, WireNames
from kernloom.testing import Call, FakeOpenAI, Fault, Reply

WEATHER = FunctionSpec(
    name="weather.forecast",
    description="Tomorrow's weather.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
)
SOON = {"retry-after-ms": "1"}


def model_at(server: FakeOpenAI, **options: Any) -> OpenAIChatModel:
    return OpenAIChatModel("m", base_url=server.base_url, api_key="sk-secret-key", **options)


def ask(*messages: Message | str, **fields: Any) -> ChatRequest:
    return ChatRequest(
        messages=tuple(user(one) if isinstance(one, str) else one for one in messages or ("Hi",)), **fields
    )


async def answer_of(server_script: list[Any], request: ChatRequest, *, stream: bool) -> ChatResponse:
    with FakeOpenAI(server_script) as server:
        model = model_at(server)
        try:
            if not stream:
                return await model.complete(request)
            return (await collect(model, request))[-1].response  # type: ignore[union-attr]
        finally:
            await model.aclose()


async def collect(model: ChatModel, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in model.stream(request)]


both = pytest.mark.parametrize("stream", [False, True], ids=["complete", "stream"])


def test_it_is_a_chat_model_and_says_who_it_is() -> None:
    model = OpenAIChatModel("gpt-4.1-mini", api_key="k")
    assert isinstance(model, ChatModel)
    assert model.info.name == "openai:gpt-4.1-mini"
    assert not model.info.local
    assert OpenAIChatModel("m", base_url="http://localhost:11434/v1").info.local


def test_the_openai_package_loads_with_the_first_request_and_not_before() -> None:
    code = (
        "import sys; from kernloom.plugins.models.openai import OpenAIChatModel, OpenAIPlugin\n"
        "OpenAIPlugin().chat_model('openai:m', {'api_key': 'k'})\n"
        "assert not {'openai', 'httpx2', 'httpx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@both
async def test_text_usage_and_the_answering_model_come_back(stream: bool) -> None:
    usage = {
        "prompt_tokens": 120,
        "completion_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    response = await answer_of([Reply("Hello, world.", usage=usage)], ask(), stream=stream)
    assert response.message == assistant("Hello, world.")
    assert response.usage == Usage(input=120, output=30, cached=100, reasoning=20, requests=1)
    assert response.finish_reason == "stop"
    assert response.model == "fake-model"


@both
async def test_a_server_that_leaves_usage_out_costs_zero_tokens(stream: bool) -> None:
    response = await answer_of([Reply("Hi", usage=None)], ask(), stream=stream)
    assert response.usage == Usage(requests=1)


@both
async def test_parallel_calls_come_back_under_their_own_names(stream: bool) -> None:
    calls = (Call("weather-forecast", {"city": "Oslo"}), Call("weather-forecast", {"city": "Bergen"}))
    response = await answer_of([Reply(calls=calls)], ask(functions=(WEATHER,)), stream=stream)
    assert response.finish_reason == "tool_calls"
    assert [call.name for call in response.message.tool_calls] == ["weather.forecast"] * 2
    assert [call.parsed() for call in response.message.tool_calls] == [{"city": "Oslo"}, {"city": "Bergen"}]


@both
async def test_malformed_arguments_stay_what_the_model_wrote(stream: bool) -> None:
    response = await answer_of([Reply(calls=(Call("f", '{"city": "Os'),))], ask(), stream=stream)
    assert response.message.tool_calls[0].arguments == '{"city": "Os'


@both
async def test_arguments_sent_as_an_object_become_text(stream: bool) -> None:
    call = Call("f", {"city": "Tromsø"}, as_object=True)
    response = await answer_of([Reply(calls=(call,))], ask(), stream=stream)
    assert response.message.tool_calls[0].parsed() == {"city": "Tromsø"}


@both
async def test_repeated_empty_and_used_up_ids_are_made_unique(stream: bool) -> None:
    calls = (Call("f", id="same"), Call("f", id="same"), Call("f", id=""), Call("f", id="old"))
    history = (
        user("Go."),
        assistant("", ToolCall(id="old", name="f")),
        tool(ToolResult(call_id="old", name="f", content="1")),
    )
    response = await answer_of([Reply(calls=calls)], ask(*history), stream=stream)
    ids = [call.id for call in response.message.tool_calls]
    assert ids[0] == "same"
    assert len({*ids, "old", ""}) == 6


@both
async def test_an_unknown_function_name_is_kept_for_the_caller_to_answer(stream: bool) -> None:
    response = await answer_of(
        [Reply(calls=(Call("no-such-thing"),))], ask(functions=(WEATHER,)), stream=stream
    )
    assert response.message.tool_calls[0].name == "no-such-thing"


@both
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("a", finish_reason="length"), "length"),
        (Reply("a", finish_reason="content_filter"), "content_filter"),
        (Reply("a", finish_reason="some_new_reason"), "stop"),
        (Reply(refusal="I cannot help with that."), "refusal"),
        (Reply(calls=(Call("f"),), finish_reason="stop"), "tool_calls"),
    ],
)
async def test_finish_reasons_are_mapped(reply: Reply, reason: str, stream: bool) -> None:
    response = await answer_of([reply], ask(), stream=stream)
    assert response.finish_reason == reason


@both
async def test_a_refusal_is_the_text(stream: bool) -> None:
    response = await answer_of([Reply(refusal="I cannot help with that.")], ask(), stream=stream)
    assert response.message.text == "I cannot help with that."


@both
async def test_null_content_is_an_empty_answer(stream: bool) -> None:
    response = await answer_of([Reply(None)], ask(), stream=stream)
    assert response.message == assistant("").model_copy(update={"parts": response.message.parts})
    assert response.message.text == ""


async def test_deltas_add_up_to_the_answer() -> None:
    with FakeOpenAI(
        [Reply("One two three.", calls=(Call("weather-forecast", {"city": "Oslo"}),))]
    ) as server:
        model = model_at(server)
        deltas = await collect(model, ask(functions=(WEATHER,)))
        await model.aclose()
    finished = deltas[-1]
    assert isinstance(finished, Finished)
    assert [delta.text for delta in deltas if isinstance(delta, TextDelta)] == ["One ", "two ", "three."]
    calls = [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
    assert (calls[0].index, calls[0].id, calls[0].name) == (0, "call_1", "weather.forecast")
    assert "".join(delta.arguments for delta in calls) == finished.response.message.tool_calls[0].arguments


async def test_what_is_sent_is_chat_completions() -> None:
    call = ToolCall(id="c1", name="weather.forecast", arguments='{"city": "Oslo"}')
    broken = ToolCall(id="c2", name="weather.forecast", arguments='{"city"')
    request = ask(
        system("Be brief."),
        user("Weather?", name="Anna Li"),
        assistant("", call, broken),
        tool(
            ToolResult(call_id="c1", name="weather.forecast", content="Rain"),
            ToolResult(call_id="c2", name="weather.forecast", content="Malformed", error=True),
        ),
        functions=(WEATHER,),
        function_choice="weather.forecast",
        temperature=0.0,
        max_output_tokens=50,
        extra={"seed": 7},
    )
    with FakeOpenAI(["Rain."]) as server:
        model = model_at(server)
        await model.complete(request)
        await model.aclose()
        sent = server.requests[0]
    assert sent.path == "/v1/chat/completions"
    assert sent.headers["authorization"] == "Bearer sk-secret-key"
    assert sent.headers["content-type"] == "application/json"
    function = {"name": "weather-forecast", "arguments": '{"city": "Oslo"}'}
    mended = {"name": "weather-forecast", "arguments": '{"malformed_arguments": "{\\"city\\""}'}
    assert sent.json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?", "name": "Anna_Li"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": function},
                    {"id": "c2", "type": "function", "function": mended},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "Rain"},
            {"role": "tool", "tool_call_id": "c2", "content": "Malformed"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather-forecast",
                    "description": WEATHER.description,
                    "parameters": WEATHER.parameters,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather-forecast"}},
        "max_tokens": 50,
        "temperature": 0.0,
        "seed": 7,
    }


def test_openai_itself_is_told_the_limit_by_its_new_name() -> None:
    writer = RequestWriter("m", WireNames())
    assert (
        json.loads(writer.write(ask(max_output_tokens=9), stream=False).body)["max_completion_tokens"] == 9
    )


def test_a_streamed_request_asks_for_usage_and_extra_can_take_that_back() -> None:
    writer = RequestWriter("m", WireNames(), extra={"top_p": 0.5})
    body = json.loads(writer.write(ask(), stream=True).body)
    assert (body["stream"], body["stream_options"], body["top_p"]) == (True, {"include_usage": True}, 0.5)
    extra: dict[str, Any] = {"stream_options": None, "top_p": 0.9}
    body = json.loads(writer.write(ask(extra=extra), stream=True).body)
    assert "stream_options" not in body
    assert body["top_p"] == 0.9


def test_a_required_function_must_be_offered() -> None:
    with pytest.raises(UsageError, match="weather"):
        RequestWriter("m", WireNames()).write(
            ask(functions=(WEATHER,), function_choice="x.y"), stream=False
        )


def test_messages_are_serialised_once_and_forgotten_with_their_message() -> None:
    writer = RequestWriter("m", WireNames())
    history = [user(f"message {n}") for n in range(50)]
    first = writer.write(ask(*history), stream=False).body
    kept = len(writer._message)
    assert writer.write(ask(*history), stream=False).body == first
    assert kept == len(writer._message) == 50
    del history
    assert len(writer._message) == 0


@given(st.lists(st.text(min_size=1, max_size=90), max_size=30, unique=True))
def test_wire_names_are_valid_and_lead_back(names: list[str]) -> None:
    table = WireNames()
    wire = [table.wire(name) for name in names]
    assert len(set(wire)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) for one in wire)
    assert [table.own(one) for one in wire] == names
    assert [table.wire(name) for name in names] == wire


def test_names_that_would_meet_on_the_wire_stay_apart() -> None:
    table = WireNames()
    names = ["a.b", "a-b", "a_b", "a b", "x" * 70 + ".y", "x" * 70 + ".z"]
    assert len({table.wire(name) for name in names}) == len(names)
    assert [table.own(table.wire(name)) for name in names] == names


@given(st.text(), st.integers(1, 7))
def test_any_text_survives_the_request(text: str, repeat: int) -> None:
    body = RequestWriter("m", WireNames()).write(ask(*[text] * repeat), stream=False).body
    assert [one["content"] for one in json.loads(body)["messages"]] == [text] * repeat


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20), max_size=8),
    st.lists(st.integers(0, 200), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
)
def test_events_are_the_same_wherever_the_network_cuts(
    events: list[str], cuts: list[int], newline: str
) -> None:
    stream = "".join(f": comment{newline}data: {one}{newline}{newline}" for one in events).encode()
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    lines = EventLines()
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    parsed = [data.decode() for piece in pieces for data in lines.feed(piece)]
    assert parsed + [data.decode() for data in lines.end()] == events


def test_a_last_event_without_its_blank_line_is_still_read() -> None:
    lines = EventLines()
    assert list(lines.feed(b"data: 1\n\ndata:2")) == [b"1"]
    assert list(lines.end()) == [b"2"]


def feed_all(chunks: list[dict[str, Any]]) -> ChatResponse:
    answer = Answer(WireNames(), CallIds((), new_call_id))
    for chunk in chunks:
        list(answer.feed({"choices": [{"delta": chunk}]}))
    return answer.response()


def piece(index: int | None, id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    call: dict[str, Any] = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return {"tool_calls": [{key: value for key, value in call.items() if value is not None}]}


@pytest.mark.parametrize(
    "chunks",
    [
        [piece(0, "a", "f", '{"x": 1}'), piece(0, "b", "g", '{"y": 2}')],
        [piece(None, "a", "f", '{"x": 1}'), piece(None, "b", "g", '{"y": 2}')],
        [piece(0, None, "f", '{"x": 1}'), piece(0, None, "g", '{"y": 2}')],
        [piece(0, "a", "f", '{"x":'), piece(0, "a", "f", " 1}"), piece(1, "b", "g", {"y": 2})],
        [piece(0, "a", None, '{"x":'), piece(0, None, "f", " 1}"), piece(1, "b", "g", '{"y": 2}')],
    ],
    ids=["index always 0", "no index", "no ids", "id and name repeated", "name late"],
)
def test_calls_are_told_apart_however_a_server_numbers_them(chunks: list[dict[str, Any]]) -> None:
    calls = feed_all(chunks).message.tool_calls
    assert [(call.name, call.parsed()) for call in calls] == [("f", {"x": 1}), ("g", {"y": 2})]
    assert len({call.id for call in calls}) == 2


def test_the_same_call_twice_without_number_or_id_is_two_calls() -> None:
    calls = feed_all([piece(0, "", "f", '{"x": 1}'), piece(0, "", "f", '{"x": 1}')]).message.tool_calls
    assert [call.arguments for call in calls] == ['{"x": 1}'] * 2


def test_halves_of_a_character_are_joined_across_chunks() -> None:
    text = feed_all([{"content": "a \ud83d"}, {"content": "\ude00 b"}, {"content": "\udc00"}]).message.text
    assert text == "a \N{GRINNING FACE} b\N{REPLACEMENT CHARACTER}"
    assert mend("\ud83d\ude00") == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    "body",
    [{}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": "x"}]}, [],
     {"choices": [{"message": {"tool_calls": [{"id": "x"}]}}]}],
)  # fmt: skip
def test_a_body_without_an_answer_is_an_invalid_response(body: object) -> None:
    with pytest.raises(ProviderError) as caught:
        read_answer(body, names=WireNames(), ids=CallIds((), new_call_id))
    assert caught.value.code == "provider.invalid_response"


def test_a_legacy_function_call_and_content_in_parts_are_read() -> None:
    legacy = {"content": [{"type": "text", "text": "a"}], "function_call": {"name": "f", "arguments": None}}
    body = {"choices": [{"message": legacy, "finish_reason": "function_call"}]}
    response = read_answer(body, names=WireNames(), ids=CallIds((), lambda: "made"))
    assert response.message == assistant("a", ToolCall(id="made", name="f", arguments="{}"))
    assert response.finish_reason == "tool_calls"


async def failure(
    script: list[Any], request: ChatRequest | None = None, *, stream: bool = False
) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await answer_of(script, request or ask(), stream=stream)
    return caught.value


@both
@pytest.mark.parametrize(
    ("fault", "code", "hint"),
    [
        (Fault(401, "Incorrect key"), "provider.auth", "kernloom keys set openai"),
        (Fault(403, "No"), "provider.denied", "key"),
        (Fault(404, "The model does not exist"), "provider.not_found", "'m'"),
        (Fault(400, "Bad", "context_length_exceeded"), "provider.context_overflow", "less"),
        (Fault(400, "The maximum context length is 8192 tokens."), "provider.context_overflow", ""),
        (Fault(500, "the request exceeds the available context size", None, {"x-should-retry": "false"}),
         "provider.context_overflow", ""),
        (Fault(400, "Filtered", "content_filter"), "provider.content_filter", ""),
        (Fault(422, "temperature must be a number"), "provider.bad_request", ""),
        (Fault(400, raw=b'{"error": "just words"}'), "provider.bad_request", ""),
        (Fault(400, raw=b"<html>not even JSON</html>"), "provider.bad_request", ""),
        (Fault(429, "No credit", "insufficient_quota", {"x-should-retry": "false"}), "provider.quota", ""),
    ],
)  # fmt: skip
async def test_a_refusal_says_what_to_do(fault: Fault, code: str, hint: str, stream: bool) -> None:
    error = await failure([fault], stream=stream)
    assert error.code == code
    assert error.status == fault.status
    assert hint in (error.hint or "")


@both
async def test_a_rate_limit_is_tried_again_and_then_carries_its_retry_after(stream: bool) -> None:
    with FakeOpenAI(
        [Fault(429, headers=SOON)] * 2 + [Fault(429, headers={"retry-after": "30", **SOON})]
    ) as server:
        model = model_at(server)
        with pytest.raises(ProviderError) as caught:
            await (collect(model, ask()) if stream else model.complete(ask()))
        await model.aclose()
        server.assert_complete()
    assert caught.value.code == "provider.rate_limited"
    assert caught.value.retry_after == pytest.approx(0.001)


async def test_retry_after_may_be_seconds_or_a_date() -> None:
    headers = {"retry-after": "7", "x-should-retry": "false"}
    assert (await failure([Fault(429, headers=headers)])).retry_after == 7
    headers["retry-after"] = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert (await failure([Fault(429, headers=headers)])).retry_after == 0
    headers["retry-after"] = "soon"
    assert (await failure([Fault(429, headers=headers)])).retry_after is None


@both
async def test_a_server_error_is_tried_again(stream: bool) -> None:
    response = await answer_of(
        [Fault(500, headers=SOON), Fault(503, headers=SOON), "Hi"], ask(), stream=stream
    )
    assert response.message.text == "Hi"


@both
async def test_a_server_that_stays_broken_is_named(stream: bool) -> None:
    assert (await failure([Fault(500, headers=SOON)] * 3, stream=stream)).code == "provider.server_error"


@both
async def test_a_dropped_connection_is_tried_again(stream: bool) -> None:
    response = await answer_of([Fault(drop=True), "Hi"], ask(), stream=stream)
    assert response.message.text == "Hi"


async def test_a_body_that_is_no_json_is_an_invalid_response() -> None:
    assert (await failure([Reply(raw=b"{oops")])).code == "provider.invalid_response"
    assert (await failure([Reply(raw=b"[1]")])).code == "provider.invalid_response"
    assert (await failure([Reply(raw=b"{oops")], stream=True)).code == "provider.invalid_response"


@both
async def test_an_error_in_the_place_of_an_answer_is_an_error(stream: bool) -> None:
    raw = b'{"error": {"code": 429, "message": "Upstream is busy"}}'
    error = await failure([Reply(raw=raw)], stream=stream)
    assert (error.code, error.status) == ("provider.rate_limited", 429)


async def test_a_stream_cut_before_its_end_is_never_an_answer() -> None:
    with FakeOpenAI([Reply("one two three four", cut_after=3)]) as server:
        model = model_at(server)
        seen: list[Delta] = []
        with pytest.raises(ProviderError) as caught:
            await listen(model, seen)
        await model.aclose()
    assert caught.value.code == "provider.stream_cut"
    assert seen == [TextDelta(text="one "), TextDelta(text="two ")]


async def test_a_stream_that_ends_without_a_reason_or_done_is_cut() -> None:
    assert (
        await failure([Reply("one", finish_reason="", done=False)], stream=True)
    ).code == "provider.stream_cut"


@pytest.mark.parametrize(
    "reply", [Reply("one", done=False), Reply("one", finish_reason=""), Reply("one", cut_after=3)]
)
async def test_a_stream_that_said_its_end_is_whole(reply: Reply) -> None:
    assert (await answer_of([reply], ask(), stream=True)).message.text == "one"


async def test_nobody_listening_names_the_address() -> None:
    with FakeOpenAI() as server:
        address = server.base_url
    model = OpenAIChatModel("m", base_url=address, max_retries=0)
    with pytest.raises(ProviderError) as caught:
        await model.complete(ask())
    await model.aclose()
    assert caught.value.code == "provider.unreachable"
    assert address in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "stream"),
    [
        (Reply("late", delay=5), False),
        (Reply("late", delay=5), True),
        (Reply("a b c", chunk_delay=5), True),
    ],
)
async def test_silence_beyond_the_timeout_is_unreachable(reply: Reply, stream: bool) -> None:
    with FakeOpenAI([reply]) as server:
        model = model_at(server, timeout=0.1, max_retries=0)
        with pytest.raises(ProviderError) as caught:
            await (collect(model, ask()) if stream else model.complete(ask()))
        await model.aclose()
    assert caught.value.code == "provider.unreachable"
    assert "0.1 s" in str(caught.value)


@both
async def test_cancelling_closes_the_connection(stream: bool) -> None:
    with FakeOpenAI([Reply("a b c", delay=20), "next"]) as server:
        model = model_at(server)
        work = collect(model, ask()) if stream else model.complete(ask())
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        await eventually(lambda: bool(server.requests))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: server.abandoned == 1)
        assert (await model.complete(ask())).message.text == "next"
        await model.aclose()


async def test_leaving_a_stream_early_closes_its_connection() -> None:
    with FakeOpenAI([Reply("word " * 200, chunk_delay=0.1)]) as server:
        model = model_at(server)
        stream = model.stream(ask())
        assert await anext(stream) == TextDelta(text="word ")
        await stream.aclose()  # type: ignore[attr-defined]
        await eventually(lambda: server.abandoned == 1)
        await model.aclose()


async def listen(model: ChatModel, heard: list[Delta]) -> None:
    async for delta in model.stream(ask()):
        heard.append(delta)  # noqa: PERF401 - what was heard before an error is kept


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - the state is another thread's
            await asyncio.sleep(0.005)


async def test_turns_streamed_or_not_share_one_connection() -> None:
    with FakeOpenAI(["a", "b", "c", "d"]) as server:
        model = model_at(server)
        await model.complete(ask())
        await collect(model, ask())
        await collect(model, ask())
        await model.complete(ask())
        await model.aclose()
        assert server.connections == 1


def test_a_model_can_be_used_in_one_loop_after_another() -> None:
    async def once(model: OpenAIChatModel) -> str:
        response = await model.complete(ask())
        await model.aclose()
        return response.message.text

    with FakeOpenAI(["a", "b"]) as server:
        model = model_at(server)
        assert [asyncio.run(once(model)), asyncio.run(once(model))] == ["a", "b"]


async def test_no_key_for_openai_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    model = OpenAIChatModel("m")
    with pytest.raises(ProviderError, match="kernloom keys set openai` or set OPENAI_API_KEY") as caught:
        await model.complete(ask())
    await model.aclose()
    assert caught.value.code == "provider.auth"


async def test_another_server_is_never_sent_openais_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    with FakeOpenAI(["a", "b"]) as server:
        model = OpenAIChatModel("m", base_url=server.base_url)
        await model.complete(ask())
        await model.aclose()
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        model = OpenAIChatModel("m")
        await model.complete(ask())
        await model.aclose()
        keys = [request.headers["authorization"] for request in server.requests]
    assert keys == ["Bearer none", "Bearer sk-openai"]


@pytest.mark.parametrize(
    "base_url",
    ["https://notopenai.com/v1", "https://mine.openai.azure.com/v1", "http://api.openai.com/v1"],
)
def test_a_host_that_looks_like_openai_does_not_get_its_key_either(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    assert OpenAIChatModel("m", base_url=base_url)._key() is None
    assert OpenAIChatModel("m", base_url="https://eu.api.openai.com/v1")._key() == "sk-openai"


async def test_a_server_learns_nothing_of_this_machine_or_of_the_account_at_openai(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    with FakeOpenAI(["a"]) as server:
        model = model_at(server)
        await model.complete(ask())
        await model.aclose()
        sent = set(server.requests[0].headers)
    assert {name for name in sent if name.startswith(("x-stainless", "openai-"))} == {
        "x-stainless-retry-count", "x-stainless-read-timeout",
    }  # fmt: skip


async def test_a_key_function_is_asked_at_each_request() -> None:
    keys = iter(["first", "second"])
    with FakeOpenAI(["a", "b"]) as server:
        model = OpenAIChatModel("m", base_url=server.base_url, api_key=lambda: next(keys))
        await model.complete(ask())
        await model.complete(ask())
        await model.aclose()
        assert [one.headers["authorization"] for one in server.requests] == [
            "Bearer first",
            "Bearer second",
        ]


async def test_an_error_that_is_cut_does_not_show_the_beginning_of_the_key() -> None:
    error = await failure([Fault(401, f"{'.' * 990}sk-secret-key was not accepted.")])
    assert "sk-" not in str(error)


async def test_an_error_never_shows_the_key() -> None:
    error = await failure([Fault(401, "Incorrect API key provided: sk-secret-key.")])
    assert "sk-secret-key" not in str(error)


def test_a_base_url_must_be_an_address() -> None:
    with pytest.raises(UsageError, match=r"localhost:11434"):
        OpenAIChatModel("m", base_url="localhost:11434")


@pytest.mark.parametrize(
    ("name", "settings", "url"),
    [
        ("openai:gpt-4.1-mini", {}, "https://api.openai.com/v1"),
        ("ollama:qwen3:4b", {}, "http://localhost:11434/v1"),
        ("vllm:org/model", {"timeout": 30}, "http://localhost:8000/v1"),
        ("lmstudio:m", {"api_key": None}, "http://localhost:1234/v1"),
        ("ollama:m", {"base_url": "http://gpu:11434/v1/"}, "http://gpu:11434/v1"),
    ],
)
def test_the_plugin_knows_where_local_servers_are(
    name: str, settings: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    model = OpenAIPlugin().chat_model(name, settings)
    assert model.info.name == name
    assert url in repr(model)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("compatible:m", {}, "base_url"),
        ("ollama:", {}, "ollama:<model>"),
        ("openai:m", {"base_ur": "x"}, "base_url"),
    ],
)
def test_the_plugin_refuses_what_it_cannot_use(name: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAIPlugin().chat_model(name, settings)
    assert says in str(caught.value)
