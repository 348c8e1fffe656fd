"""The loopback server, read by a plain HTTP client: what plugin authors test against is itself tested."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from kernloom.testing import Call, FakeOpenAI, Fault, Received, Reply


def post(server: FakeOpenAI, **body: Any) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps({"messages": [], **body}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def chunks(body: bytes) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_answers_come_in_order_and_requests_are_kept() -> None:
    with FakeOpenAI(["One.", Reply("Two.", usage={"prompt_tokens": 1, "completion_tokens": 2})]) as server:
        first = json.loads(post(server, model="a")[2])
        second = json.loads(post(server, model="b")[2])
        assert first["choices"][0]["message"]["content"] == "One."
        assert first["choices"][0]["finish_reason"] == "stop"
        assert second["usage"] == {"prompt_tokens": 1, "completion_tokens": 2}
        assert [request.json["model"] for request in server.requests] == ["a", "b"]
        assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"
        server.assert_complete()


def test_calls_are_numbered_over_the_servers_life_unless_named() -> None:
    with FakeOpenAI([Reply(calls=(Call("f", {"x": 1}), Call("g", "{", id="")))] * 2) as server:
        answers = [json.loads(post(server)[2])["choices"][0] for _ in range(2)]
    calls = [call for answer in answers for call in answer["message"]["tool_calls"]]
    assert [call["id"] for call in calls] == ["call_1", "", "call_3", ""]
    assert [call["function"]["arguments"] for call in calls] == ['{"x": 1}', "{"] * 2
    assert answers[0]["finish_reason"] == "tool_calls"


def test_a_streamed_answer_is_words_calls_reason_usage_and_done() -> None:
    with FakeOpenAI([Reply("Hi there", calls=(Call("f", {"city": "Oslo"}),))]) as server:
        _, headers, body = post(server, stream=True, stream_options={"include_usage": True})
    assert headers["content-type"] == "text/event-stream"
    *parts, usage, done = chunks(body)
    deltas = [part["choices"][0]["delta"] for part in parts]
    assert [delta["content"] for delta in deltas if delta.get("content")] == ["Hi ", "there"]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["function"]["name"] == "f"
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"city": "Oslo"}
    assert parts[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 15, "[DONE]")


def test_usage_is_streamed_only_when_asked_for() -> None:
    with FakeOpenAI(["Hi"]) as server:
        assert all("usage" not in chunk for chunk in chunks(post(server, stream=True)[2]))


def test_a_cut_stream_stops_after_its_chunks() -> None:
    with (
        FakeOpenAI([Reply("one two three", cut_after=2)]) as server,
        pytest.raises(http.client.IncompleteRead),
    ):
        post(server, stream=True)


def test_faults_have_their_status_headers_and_body() -> None:
    faults = [Fault(429, "Slow down.", "rate_limit", {"Retry-After": "3"}), Fault(502, raw=b"<html>")]
    with FakeOpenAI(faults) as server:
        status, headers, body = post(server)
        assert (status, headers["retry-after"]) == (429, "3")
        assert json.loads(body)["error"]["message"] == "Slow down."
        status, _, body = post(server)
        assert (status, body) == (502, b"<html>")


def test_a_dropped_connection_has_no_answer() -> None:
    with (
        FakeOpenAI([Fault(drop=True)]) as server,
        pytest.raises((ConnectionError, http.client.BadStatusLine)),
    ):
        post(server)


def test_raw_bytes_are_sent_as_they_are() -> None:
    with FakeOpenAI([Reply(raw=b"{oops"), Reply(raw=b"{oops")]) as server:
        assert post(server)[2] == b"{oops"
        assert post(server, stream=True)[2] == b"data: {oops\n\n"


def test_a_request_beyond_the_script_is_refused_once_and_for_all() -> None:
    with FakeOpenAI(["One."]) as server:
        post(server)
        status, _, body = post(server)
    assert status == 400
    assert json.loads(body)["error"]["code"] == "script_exhausted"


def test_a_script_that_was_not_used_up_is_a_failure() -> None:
    with FakeOpenAI(["One.", "Two."]) as server:
        server.add("Three.")
        post(server)
        with pytest.raises(AssertionError, match="2 of 3"):
            server.assert_complete()


def test_a_function_may_decide_the_answer() -> None:
    def decide(request: Received) -> str:
        return str(request.json["messages"][-1]["content"])[::-1]

    with FakeOpenAI(decide) as server:
        answer = json.loads(post(server, messages=[{"role": "user", "content": "abc"}])[2])
    assert answer["choices"][0]["message"]["content"] == "cba"
