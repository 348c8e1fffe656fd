"""The same client against a mock server that is not ours: ``@copilotkit/aimock``, in strict mode.

Its journal shows what really went over the wire. Installed by ``npm install --prefix tests/aimock``;
without it these tests are skipped, except in CI, where they fail. Fixtures: ``tests/aimock/fixtures.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from kernloom.kernel.errors import ModelRetry, ProviderError
from kernloom.kernel.messages import Message, ToolResult, system, tool, user
from kernloom.kernel.models import ChatRequest, ChatResponse, Delta, Finished, FunctionSpec, TextDelta
from kernloom.plugins.models.openai import OpenAIChatModel

HERE = Path(__file__).parents[1] / "aimock"
CLI = HERE / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
FORECAST = FunctionSpec(
    name="weather.forecast",
    description="Tomorrow's weather in a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
both = pytest.mark.parametrize("stream", [False, True], ids=["complete", "stream"])


@dataclass
class Aimock:
    """The running server, and what one test may know of it."""

    url: str
    test_id: str
    model: OpenAIChatModel

    async def ask(self, *messages: Message, stream: bool = False) -> ChatResponse:
        request = ChatRequest(messages=messages, functions=(FORECAST,))
        if not stream:
            return await self.model.complete(request)
        deltas = [delta async for delta in self.model.stream(request)]
        assert isinstance(deltas[-1], Finished)
        text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
        assert text == deltas[-1].response.message.text
        return deltas[-1].response

    async def listen(self, message: Message, heard: list[Delta]) -> None:
        async for delta in self.model.stream(ChatRequest(messages=(message,))):
            heard.append(delta)  # noqa: PERF401 - what was heard before an error is kept

    def journal(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(
            f"{self.url}/__aimock/journal?testId={self.test_id}", timeout=5
        ) as answer:
            entries: list[dict[str, Any]] = json.load(answer)
        return entries

    def sent(self) -> list[dict[str, Any]]:
        return [entry["body"] for entry in self.journal()]

    def statuses(self) -> list[int]:
        return [entry["response"]["status"] for entry in self.journal()]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    node = shutil.which("node")
    if node is None or not CLI.exists():
        why = "needs node and: npm install --no-package-lock --prefix tests/aimock"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    command = [node, str(CLI), "-p", "0", "-f", str(HERE / "fixtures.json"), "--strict"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield _address(process)
        finally:
            process.terminate()
            process.communicate(timeout=10)


def _address(process: subprocess.Popen[str]) -> str:
    said = []
    for line in process.stdout or ():
        said.append(line)
        if "listening on " in line:
            return line.split("listening on ")[1].strip()
    pytest.fail(f"aimock did not start: {''.join(said)}")


@pytest_asyncio.fixture
async def aimock(server: str) -> AsyncIterator[Aimock]:
    test_id = uuid.uuid4().hex
    async with httpx2.AsyncClient(headers={"X-Test-Id": test_id}) as client:
        model = OpenAIChatModel("gpt-4.1-mini", base_url=f"{server}/v1", api_key="any", http_client=client)
        yield Aimock(server, test_id, model)


@both
async def test_an_answer_arrives_whole(aimock: Aimock, stream: bool) -> None:
    response = await aimock.ask(system("Be kind."), user("Say hello."), stream=stream)
    assert response.message.text == "Hello from the other side, éè 😀!"
    assert response.finish_reason == "stop"
    assert response.usage.input > 0
    assert response.usage.output > 0
    body = aimock.sent()[0]
    assert body["model"] == "gpt-4.1-mini"
    assert body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Say hello."},
    ]
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "weather-forecast",
                "description": FORECAST.description,
                "parameters": FORECAST.parameters,
            },
        }
    ]
    assert body.get("stream_options") == ({"include_usage": True} if stream else None)


@both
async def test_a_round_of_parallel_calls_is_sent_back_call_by_call(aimock: Aimock, stream: bool) -> None:
    question = user("Weather in two cities?")
    asked = await aimock.ask(question, stream=stream)
    calls = asked.message.tool_calls
    assert [(call.id, call.name) for call in calls] == [
        ("call_a", "weather.forecast"),
        ("call_b", "weather.forecast"),
    ]
    assert [call.parsed() for call in calls] == [{"city": "Oslo"}, {"city": "Bergen"}]
    assert asked.finish_reason == "tool_calls"
    results = tool(*[ToolResult(call_id=call.id, name=call.name, content="Rain") for call in calls])
    answer = await aimock.ask(question, asked.message, results, stream=stream)
    assert answer.message.text == "Rain in both."
    assert (answer.usage.input, answer.usage.output) == (90, 4)
    messages = aimock.sent()[1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert [call["function"]["name"] for call in messages[1]["tool_calls"]] == ["weather-forecast"] * 2
    assert [message["tool_call_id"] for message in messages[2:]] == ["call_a", "call_b"]


@both
async def test_malformed_arguments_are_kept_and_the_history_stays_valid(
    aimock: Aimock, stream: bool
) -> None:
    question = user("Break your arguments.")
    asked = await aimock.ask(question, stream=stream)
    call = asked.message.tool_calls[0]
    assert call.arguments == '{"city": "Os'
    with pytest.raises(ModelRetry) as caught:
        call.parsed()
    result = ToolResult(call_id=call.id, name=call.name, content=str(caught.value), error=True)
    assert (await aimock.ask(question, asked.message, tool(result), stream=stream)).message.text == "Sorry."
    sent = aimock.sent()[1]["messages"]
    assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == {
        "malformed_arguments": call.arguments
    }
    assert "not valid JSON" in sent[2]["content"]


@both
async def test_a_429_is_waited_out_as_retry_after_says(aimock: Aimock, stream: bool) -> None:
    assert (await aimock.ask(user("Hurry."), stream=stream)).message.text == "Your turn now."
    assert aimock.statuses() == [429, 200]
    assert [entry["headers"]["x-stainless-retry-count"] for entry in aimock.journal()] == ["0", "1"]


@both
async def test_a_429_that_asks_for_ten_minutes_is_handed_over(aimock: Aimock, stream: bool) -> None:
    with pytest.raises(ProviderError) as caught:
        await aimock.ask(user("Wait long."), stream=stream)
    assert (caught.value.code, caught.value.status) == ("provider.rate_limited", 429)
    assert caught.value.retry_after == 600
    assert aimock.statuses() == [429]


@both
async def test_a_500_is_tried_again(aimock: Aimock, stream: bool) -> None:
    assert (await aimock.ask(user("Crash once."), stream=stream)).message.text == "Back again."
    assert aimock.statuses() == [500, 200]


async def test_a_500_that_stays_is_given_up(aimock: Aimock) -> None:
    with pytest.raises(ProviderError) as caught:
        await aimock.ask(user("Crash for good."))
    assert (caught.value.code, caught.value.status) == ("provider.server_error", 500)
    assert aimock.statuses() == [500, 500, 500]


async def test_a_stream_cut_in_the_middle_is_no_answer(aimock: Aimock) -> None:
    heard: list[Delta] = []
    with pytest.raises(ProviderError) as caught:
        await aimock.listen(user("Stop in the middle."), heard)
    assert caught.value.code == "provider.stream_cut"
    assert heard
    assert all(isinstance(delta, TextDelta) for delta in heard)
    assert aimock.journal()[0]["response"]["interrupted"] is True


@both
async def test_garbled_json_is_an_invalid_response(aimock: Aimock, stream: bool) -> None:
    with pytest.raises(ProviderError) as caught:
        await aimock.ask(user("Garble."), stream=stream)
    assert caught.value.code in ("provider.invalid_response", "provider.stream_cut")


@both
async def test_a_context_overflow_says_so(aimock: Aimock, stream: bool) -> None:
    with pytest.raises(ProviderError) as caught:
        await aimock.ask(user("Too much."), stream=stream)
    assert (caught.value.code, caught.value.status) == ("provider.context_overflow", 400)


async def test_strict_mode_answers_nothing_it_was_not_told(aimock: Aimock) -> None:
    model = OpenAIChatModel("m", base_url=f"{aimock.url}/v1", api_key="any", max_retries=0)
    with pytest.raises(ProviderError, match="no fixture matched"):
        await model.complete(ChatRequest(messages=(user("Something else."),)))
    await model.aclose()
