"""The agent's loop: what is asked, served, recorded and given back, also when it goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from kernloom import (
    ApprovalRequired,
    AssistantAgent,
    Citation,
    Config,
    Context,
    Conversation,
    Grounding,
    InMemoryJournalStore,
    Journal,
    JournalError,
    Kernel,
    LimitReached,
    Limits,
    Passage,
    ProviderError,
    Reply,
    ScriptedModel,
    SqliteJournalStore,
    ToolCall,
    function,
)
from kernloom.kernel.journal import Event
from kernloom.kernel.messages import ToolResult, assistant
from kernloom.kernel.models.base import ChatRequest, Delta, TextDelta
from kernloom.kernel.models.scripted import call


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def agent_with(
    *replies: Any, functions: Any = (add,), kernel: Kernel | None = None, **more: Any
) -> AssistantAgent:
    model = ScriptedModel(replies)
    return AssistantAgent("helper", kernel=kernel or Kernel(), model=model, functions=functions, **more)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


async def events_of(agent: AssistantAgent, reply: Reply) -> list[Event]:
    return (await agent.kernel.journal.open(reply.session)).events


def results(request: ChatRequest) -> list[ToolResult]:
    return [p for m in request.messages for p in m.parts if isinstance(p, ToolResult)]


async def test_one_turn_is_recorded_from_question_to_answer() -> None:
    agent = agent_with("Hello Ann.", instructions="Be kind.")
    reply = await agent.run("I am Ann.")
    assert reply.text == "Hello Ann."
    assert reply.usage.requests == 1
    assert kinds(await events_of(agent, reply)) == [
        "run.started", "message", "model.requested", "model.answered", "run.finished",
    ]  # fmt: skip
    (request,) = agent.model.requests  # type: ignore[attr-defined]
    assert [m.role for m in request.messages] == ["system", "user"]
    assert request.functions[0].name == "add"


async def test_calls_are_served_and_their_results_sent_back() -> None:
    agent = agent_with(call("add", a=2, b="3"), lambda r: f"It is {results(r)[0].content}.")
    reply = await agent.run("2+3?")
    assert reply.text == "It is 5."
    assert reply.usage.requests == 2


async def test_parallel_calls_run_at_the_same_time_and_keep_their_order() -> None:
    both = asyncio.Barrier(2)

    async def meet(name: str) -> str:
        await asyncio.wait_for(both.wait(), 5)
        return name

    agent = agent_with(
        assistant(
            "",
            call("meet", name="a").model_copy(update={"id": "1"}),
            ToolCall(id="2", name="meet", arguments='{"name":"b"}'),
        ),
        lambda r: ",".join(p.content for p in results(r)),
        functions=[meet],
    )
    assert (await agent.run("meet")).text == "a,b"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (ToolCall(id="c", name="add", arguments='{"a": 1, "b"'), "not valid JSON"),
        (ToolCall(id="c", name="add", arguments="[1, 2]"), "not an object"),
        (
            ToolCall(id="c", name="add", arguments='{"a": "x", "b": 2}'),
            "a: input should be a valid integer",
        ),
        (ToolCall(id="c", name="add", arguments='{"a": 1}'), "b is required"),
        (ToolCall(id="c", name="ad", arguments="{}"), "Did you mean 'add'?"),
        (ToolCall(id="c", name="add", arguments="[" * 100_000), "not valid JSON"),
    ],
)
async def test_a_wrong_call_goes_back_to_the_model_in_words_it_can_act_on(
    bad: ToolCall, words: str
) -> None:
    def second(request: ChatRequest) -> ToolCall:
        (result,) = results(request)
        assert result.error
        assert words in result.content
        return call("add", a=1, b=2)

    agent = agent_with(assistant("", bad), second, "3")
    reply = await agent.run("add")
    assert reply.text == "3"
    outcomes = [
        k for k in kinds(await events_of(agent, reply)) if k in ("function.failed", "function.finished")
    ]
    assert outcomes == ["function.failed", "function.finished"]


async def test_an_agent_cannot_call_what_it_was_not_given() -> None:
    kernel = Kernel()
    kernel.add_function(lambda_secret, plugin="vault")
    agent = agent_with(call("vault.lambda_secret"), lambda r: results(r)[0].content, kernel=kernel)
    assert "no function 'vault.lambda_secret'" in (await agent.run("open")).text


def lambda_secret() -> str:
    raise AssertionError("must not be called")


async def test_ids_a_server_repeats_are_made_unique() -> None:
    same = ToolCall(id="call_0", name="add", arguments='{"a":1,"b":1}')
    agent = agent_with(assistant("", same, same), assistant("", same), "done")
    reply = await agent.run("go")
    answered = [e.data.message for e in await events_of(agent, reply) if e.data.kind == "model.answered"]
    ids = [c.id for message in answered for c in message.tool_calls]
    assert len(ids) == len(set(ids)) == 3


async def test_a_session_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Kernel(journal=Journal(SqliteJournalStore(path))) as kernel:
        first = await agent_with("Noted.", kernel=kernel).run("My name is Ann.")
    async with Kernel(journal=Journal(SqliteJournalStore(path))) as kernel:
        agent = agent_with("You are Ann.", kernel=kernel)
        second = await agent.run("Who am I?", session=first.session)
        (request,) = agent.model.requests  # type: ignore[attr-defined]
    assert second.session == first.session
    assert [m.text for m in request.messages] == ["My name is Ann.", "Noted.", "Who am I?"]


async def test_a_session_left_open_by_a_crash_is_mended_when_it_goes_on() -> None:
    kernel = Kernel()
    log = await kernel.journal.create()
    from kernloom.kernel.journal.events import ModelAnswered, ModelRequested

    await log.append(
        ModelRequested(model="m", messages=1),
        ModelAnswered(model="m", message=assistant("", ToolCall(id="c1", name="add"))),
        actor="helper",
    )
    agent = agent_with("Going on.", kernel=kernel)
    await agent.run("Still there?", session=log.id)
    (request,) = agent.model.requests  # type: ignore[attr-defined]
    (result,) = results(request)
    assert result.call_id == "c1"
    assert result.error


async def test_rounds_are_limited_and_the_conversation_stays_valid() -> None:
    agent = agent_with(*[call("add", a=1, b=1)] * 3, "later", limits=Limits(rounds=3))
    with pytest.raises(LimitReached, match="3 rounds"):
        await agent.run("loop")
    (info,) = await agent.kernel.journal.sessions()
    assert info.status == "failed"
    assert (await agent.run("go on", session=info.id)).text == "later"


async def test_the_configured_limits_hold_where_none_are_given() -> None:
    kernel = Kernel(config=Config.load(flags={"limits.rounds": "1"}))
    agent = agent_with(call("add", a=1, b=1), kernel=kernel)
    with pytest.raises(LimitReached, match="1 rounds"):
        await agent.run("loop")


async def test_calls_are_limited_before_they_are_made() -> None:
    made: list[int] = []

    def count() -> int:
        made.append(1)
        return len(made)

    five = assistant("", *(ToolCall(id=f"c{i}", name="count") for i in range(5)))
    agent = agent_with(five, functions=[count], limits=Limits(calls=4))
    with pytest.raises(LimitReached, match="the limit is 4"):
        await agent.run("count")
    assert made == []
    (info,) = await agent.kernel.journal.sessions()
    assert (await agent.kernel.journal.open(info.id)).history.open_calls() == ()


async def test_a_provider_error_is_raised_and_recorded() -> None:
    agent = agent_with(ProviderError("overloaded", status=503), "back again")
    with pytest.raises(ProviderError):
        await agent.run("hi")
    (info,) = await agent.kernel.journal.sessions()
    log = await agent.kernel.journal.open(info.id)
    assert kinds(log.events)[-2:] == ["model.failed", "run.failed"]
    assert (await agent.run("hi again", session=info.id)).text == "back again"


async def test_a_stream_that_breaks_off_keeps_what_had_arrived() -> None:
    class Breaking(ScriptedModel):
        async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
            yield TextDelta(text="Half an ")
            raise ProviderError("cut", code="provider.stream_cut")

    agent = AssistantAgent("helper", kernel=Kernel(), model=Breaking(), functions=[])
    with pytest.raises(ProviderError):
        async for _ in agent.stream("say it"):
            pass
    (info,) = await agent.kernel.journal.sessions()
    log = await agent.kernel.journal.open(info.id)
    assert [m.text for m in log.messages()] == ["say it", "Half an "]
    assert info.status == "failed"


@pytest.mark.parametrize("calls", [1, 2])
async def test_an_approver_that_raises_ends_the_run_with_its_own_error(calls: int) -> None:
    @function(effects={"write"})
    async def pay() -> None: ...

    async def approve(_: object) -> bool:
        raise ValueError("the approver is broken")

    asked = assistant("", *(ToolCall(id=str(n), name="pay") for n in range(calls)))
    agent = agent_with(asked, "fine", functions=[pay], kernel=Kernel(approve=approve))
    with pytest.raises(ValueError, match="the approver is broken"):
        await agent.run("pay")
    (info,) = await agent.kernel.journal.sessions()
    assert (await agent.run("go on", session=info.id)).text == "fine"


async def test_a_function_that_needs_a_yes_stops_the_run_but_not_its_siblings() -> None:
    @function(effects={"write"})
    async def pay(amount: int) -> str:
        raise AssertionError("must not run")

    both = assistant(
        "",
        ToolCall(id="1", name="pay", arguments='{"amount":5}'),
        ToolCall(id="2", name="add", arguments='{"a":1,"b":1}'),
    )
    agent = agent_with(both, functions=[pay, add])
    with pytest.raises(ApprovalRequired, match="pay"):
        await agent.run("pay")
    (info,) = await agent.kernel.journal.sessions()
    recorded = kinds((await agent.kernel.journal.open(info.id)).events)
    assert "question.asked" in recorded
    assert recorded.count("function.finished") == 1
    assert recorded[-1] == "run.paused"
    assert info.status == "waiting"


async def test_streaming_yields_words_events_and_at_last_the_reply() -> None:
    agent = agent_with(call("add", a=1, b=2), "It is three.")
    items = [item async for item in agent.stream("1+2?")]
    assert "".join(i.text for i in items if isinstance(i, TextDelta)) == "It is three."
    assert "function.finished" in [i.kind for i in items if isinstance(i, Event)]
    assert isinstance(items[-1], Reply)
    assert items[-1].text == "It is three."


async def test_a_stream_that_is_closed_early_keeps_what_was_said() -> None:
    agent = agent_with("one two three four", "fine")
    async with aclosing(agent.stream("count")) as stream:
        async for item in stream:
            if isinstance(item, TextDelta):
                break
    (info,) = await agent.kernel.journal.sessions()
    assert info.status == "cancelled"
    log = await agent.kernel.journal.open(info.id)
    assert [m.text for m in log.messages()] == ["count", "one "]
    assert (await agent.run("go on", session=info.id)).text == "fine"


@pytest.mark.parametrize("writes", [True, False])
async def test_cancelling_during_calls_gives_each_one_outcome(writes: bool) -> None:
    begun = asyncio.Event()

    @function(effects={"write"} if writes else set())
    async def slow() -> None:
        begun.set()
        await asyncio.sleep(60)

    three = assistant("", *(ToolCall(id=str(i), name="slow") for i in range(3)))
    kernel = Kernel(approve=_yes)
    agent = agent_with(three, "after", functions=[slow], kernel=kernel)
    task = asyncio.create_task(agent.run("go"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (info,) = await kernel.journal.sessions()
    assert info.status == "cancelled"
    log = await kernel.journal.open(info.id)
    assert log.history.open_calls() == ()
    assert ("function.in_doubt" in kinds(log.events)) is writes
    assert (await agent.run("go on", session=info.id)).text == "after"


async def _yes(_: object) -> bool:
    return True


async def test_dependencies_reach_the_function() -> None:
    def whoami(context: Context) -> str:
        return str(context.deps["user"])

    agent = agent_with(call("whoami"), lambda r: results(r)[0].content, functions=[whoami])
    assert (await agent.run("who?", deps={"user": "ann"})).text == "ann"


async def test_a_huge_result_is_cut_for_the_model_and_whole_in_the_journal() -> None:
    def dump() -> str:
        return "x" * 5_000

    agent = agent_with(
        call("dump"), lambda r: results(r)[0].content, functions=[dump], limits=Limits(result_chars=300)
    )
    reply = await agent.run("dump")
    assert reply.text.startswith("x" * 300 + "\n… [4700 more")
    finished = next(e.data for e in await events_of(agent, reply) if e.data.kind == "function.finished")
    assert len(finished.result.content) == 5_000


class OnePage:
    """A memory of one sentence, for the loop's own test; the real one is tested with the handbook."""

    text = "Trips above EUR 2000 are approved by the head of department."

    async def ground(self, query: str, *, tokens: int = 1200) -> Grounding:
        passage = Passage(
            id="1", document="travel.md", source="travel.md", text=self.text,
            start=0, end=len(self.text), line_start=3, line_end=3, label="1",
        )  # fmt: skip
        return Grounding(query=query, passages=(passage,), found=True, reason="test")

    async def cite(self, answer: str, grounding: Grounding) -> tuple[Citation, ...]:
        if "[1]" not in answer:
            return ()
        p = grounding.passages[0]
        return (
            Citation(
                label="1", document=p.document, source=p.source, quote=p.text, start=0, end=p.end,
                line_start=3, line_end=3, verified=True,
            ),
        )  # fmt: skip


async def test_passages_stand_beside_the_question_for_this_turn_only() -> None:
    agent = agent_with("The head of department [1].", "You are welcome.", memory=OnePage())
    first = await agent.run("Who approves 3000?")
    assert first.citations[0].place == "travel.md:3"
    await agent.run("Thanks.", session=first.session)
    asked, thanked = agent.model.requests  # type: ignore[attr-defined]
    assert OnePage.text in asked.messages[-1].text
    assert asked.messages[-1].text.endswith("Who approves 3000?")
    assert thanked.messages[0].text == "Who approves 3000?"
    assert OnePage.text in thanked.messages[-1].text


async def test_runs_of_many_sessions_at_once_do_not_mix() -> None:
    kernel = Kernel(journal=Journal(InMemoryJournalStore()))

    async def one(n: int) -> str:
        agent = agent_with(call("add", a=n, b=n), lambda r: results(r)[-1].content, kernel=kernel)
        return (await agent.run(f"double {n}")).text

    assert await asyncio.gather(*(one(n) for n in range(50))) == [str(2 * n) for n in range(50)]


def test_run_sync_needs_no_loop_and_survives_being_used_twice() -> None:
    agent = agent_with("one", "two")
    first = agent.run_sync("a")
    assert agent.run_sync("b", session=first.session).text == "two"


async def test_two_runs_at_once_in_one_session_are_refused_not_mixed() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        begun.set()
        await go.wait()
        return "waited"

    agent = agent_with(call("wait"), lambda r: results(r)[0].content, functions=[wait])
    conversation = await Conversation.open(agent.kernel)
    first = asyncio.create_task(agent.run("wait", session=conversation))
    await begun.wait()
    with pytest.raises(JournalError, match="in the middle of run"):
        await agent.run("me too", session=conversation.id)
    go.set()
    assert (await first).text == "waited"
