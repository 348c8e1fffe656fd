"""An agent's runs, run again from the journal alone, are the same events; a changed one says where not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kernloom import (
    ApprovalRequired,
    AssistantAgent,
    Citation,
    Context,
    Conversation,
    Grounding,
    Journal,
    Kernel,
    LimitReached,
    Limits,
    Passage,
    ProviderError,
    ScriptedModel,
    SqliteJournalStore,
    UsageError,
    function,
)
from kernloom.kernel.errors import ModelRetry, PersonRequired
from kernloom.kernel.functions import Done
from kernloom.kernel.journal import Event, SessionLog
from kernloom.kernel.journal.edits import edit_arguments, edit_message, edit_result
from kernloom.kernel.journal.events import FunctionFinished, MessageAdded
from kernloom.kernel.journal.forgetting import forget
from kernloom.kernel.messages import ToolResult, assistant, user
from kernloom.kernel.models.base import ChatRequest, Delta, TextDelta
from kernloom.kernel.models.scripted import call
from kernloom.kernel.policy import Approval, ApprovalRequest, Policy
from kernloom.kernel.replay import ReplayReport

ALLOW = Policy(effects={"write": "allow"})


class Crash(BaseException):
    """Stands for the death of the process."""


class Office:
    """Functions of every temper. Once ``closed``, whoever calls one fails the test."""

    def __init__(self) -> None:
        self.closed = False
        self.crash = False
        self.begun = asyncio.Event()
        self.calls = 0

    def enter(self) -> None:
        assert not self.closed, "a replay must call nothing"
        self.calls += 1

    @function
    async def slow(self, n: int) -> dict[str, Any]:
        """Later for smaller numbers, so that parallel calls are over in another order than begun."""
        self.enter()
        await asyncio.sleep(0.02 * (5 - n))
        return {"n": n, "list": [n, None, 1.5], "text": "ünïcode 🗼"}

    @function(effects={"write"})
    async def pay(self, amount: int, context: Context) -> str:
        """Pay."""
        self.enter()
        if self.crash:
            self.crash = False
            raise Crash
        return f"paid {amount} under {context.idempotency_key}"

    @function(effects={"write"}, reconcile="was_done")
    def transfer(self, amount: int) -> str:
        """Pay, and be able to say so."""
        self.enter()
        if self.crash:
            self.crash = False
            raise Crash
        return f"moved {amount}"

    def was_done(self, key: str) -> Done | None:
        self.enter()
        return Done("moved before")

    @function
    def broken(self) -> None:
        """Always fails."""
        self.enter()
        raise ValueError("no")

    @function
    def picky(self, word: str) -> str:
        """Wants another word."""
        self.enter()
        raise ModelRetry(f"Not {word!r}.", hint="Try another.", code="office.picky")

    @function(effects={"write"})
    async def forever(self) -> None:
        """Waits."""
        self.enter()
        self.begun.set()
        await asyncio.Event().wait()

    @function(effects={"write"}, timeout=0.02)
    async def late(self) -> None:
        """Does not answer."""
        self.enter()
        await asyncio.Event().wait()


class Shelf:
    """A memory of one page."""

    def __init__(self) -> None:
        self.closed = False

    async def ground(self, query: str, *, tokens: int = 1200) -> Grounding:
        assert not self.closed
        passage = Passage(
            id="1", document="d", source="d.md", text="It is blue.", start=0, end=11,
            line_start=1, line_end=1, label="1",
        )  # fmt: skip
        return Grounding(query=query, passages=(passage,), found=True)

    async def cite(self, answer: str, grounding: Grounding) -> tuple[Citation, ...]:
        assert not self.closed
        return ()


@pytest.fixture
def office() -> Office:
    return Office()


def kernel_with(office: Office, **more: Any) -> Kernel:
    kernel = Kernel(**{"policy": ALLOW, **more})
    kernel.add_plugin(office, name="office")
    return kernel


def clerk(kernel: Kernel, *replies: Any, **more: Any) -> AssistantAgent:
    return AssistantAgent("clerk", kernel=kernel, model=ScriptedModel(replies), **more)


def told(request: ChatRequest) -> str:
    results = [p for m in request.messages for p in m.parts if isinstance(p, ToolResult)]
    return f"Done: {len(results)}"


def calling(*names: str, **arguments: Any) -> Any:
    """An answer that asks for several calls."""
    return assistant(
        "",
        *(call(name, **arguments).model_copy(update={"id": f"{n}-{name}"}) for n, name in enumerate(names)),
    )


async def only(kernel: Kernel) -> SessionLog:
    (info,) = await kernel.journal.sessions()
    return await kernel.journal.open(info.id)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


async def replayed(agent: AssistantAgent, session: str) -> ReplayReport:
    """A replay in which nothing may be called, and which leaves the journal as it was."""
    store = agent.kernel.journal.store
    before = await store.read(session)
    report = await agent.replay(session)
    assert await store.read(session) == before
    assert len(agent.model.requests) == 0  # type: ignore[attr-defined]
    return report


async def assert_equal(agent: AssistantAgent, session: str, *, given: int = 0) -> ReplayReport:
    report = await replayed(agent, session)
    assert report.equal, report.render()
    log = await agent.kernel.journal.open(session)
    assert (report.events, report.given) == (log.seq, given)
    return report


async def test_parallel_calls_failures_and_several_rounds_come_out_the_same(office: Office) -> None:
    kernel = kernel_with(office)
    many = assistant(
        "Let me see.",
        *(call("office.slow", n=n).model_copy(update={"id": f"s{n}"}) for n in range(5)),
        call("office.broken").model_copy(update={"id": "b"}),
        call("office.picky", word="x").model_copy(update={"id": "p"}),
        call("office.slow", n="many").model_copy(update={"id": "bad"}),
        call("office.nothing").model_copy(update={"id": "none"}),
        call("office.late").model_copy(update={"id": "late"}),
    )
    agent = clerk(kernel, many, call("office.pay", amount=5), told, "You are welcome.")
    reply = await agent.run("Do it.")
    await agent.run("Thank you.", session=reply.session)
    order = [
        e.data.result.call_id for e in (await only(kernel)).events if isinstance(e.data, FunctionFinished)
    ]
    assert order[:5] == ["s4", "s3", "s2", "s1", "s0"]
    office.closed = True
    report = await assert_equal(clerk(kernel), reply.session)
    assert len(report.runs) == 2
    assert report.render().startswith("Equal: 2 runs of session")
    json.dumps(report.to_dict())


async def test_memory_is_not_asked_again(office: Office) -> None:
    kernel, shelf = kernel_with(office), Shelf()
    reply = await clerk(kernel, "Blue [1].", memory=shelf).run("Which colour?")
    shelf.closed = True
    await assert_equal(clerk(kernel, memory=shelf), reply.session)


async def test_a_memory_that_failed_fails_again(office: Office) -> None:
    class Gone(Shelf):
        async def ground(self, query: str, *, tokens: int = 1200) -> Grounding:
            raise RuntimeError("the shelf: it is gone")

    kernel = kernel_with(office)
    with pytest.raises(RuntimeError):
        await clerk(kernel, memory=Gone()).run("Which colour?")
    shelf = Shelf()
    shelf.closed = True
    await assert_equal(clerk(kernel, memory=shelf), (await only(kernel)).id)


async def test_a_sub_agent_is_not_entered_and_its_own_session_is_replayed_by_itself(office: Office) -> None:
    kernel = kernel_with(office)
    inner = AssistantAgent(
        "inner",
        kernel=kernel,
        functions=["office"],
        model=ScriptedModel([call("office.pay", amount=1), told]),
    )

    def boss(*replies: Any) -> AssistantAgent:
        model = ScriptedModel(replies)
        return AssistantAgent("boss", kernel=kernel, model=model, functions=[inner.as_function()])

    reply = await boss(call("inner", task="Pay 1."), told).run("See to it.")
    office.closed = True
    await assert_equal(boss(), reply.session)
    (child,) = await kernel.journal.sessions(parent=reply.session)
    alone = AssistantAgent("inner", kernel=kernel, functions=["office"], model=ScriptedModel())
    await assert_equal(alone, child.id)


async def test_a_stream_that_was_closed_half_way_says_as_much_again(office: Office) -> None:
    kernel = kernel_with(office)
    agent = clerk(kernel, "one two three four", "five")
    stream = agent.stream("Count.")
    async for item in stream:
        if isinstance(item, TextDelta) and item.text.startswith("two"):
            break
    await stream.aclose()
    log = await only(kernel)
    assert any(getattr(event.data, "partial", False) for event in log.events)
    await agent.run("Go on.", session=log.id)
    await assert_equal(clerk(kernel), log.id)


@pytest.mark.parametrize("error", [ProviderError("The line broke."), RuntimeError("cable: cut")])
async def test_a_stream_that_broke_off_breaks_off_again(office: Office, error: Exception) -> None:
    class Breaking(ScriptedModel):
        async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
            yield TextDelta(text="one two ")
            raise error

    kernel = kernel_with(office)
    agent = AssistantAgent("clerk", kernel=kernel, model=Breaking())
    with pytest.raises(type(error)):
        async for _ in agent.stream("Count."):
            pass
    await assert_equal(clerk(kernel), (await only(kernel)).id)


@pytest.mark.parametrize("kind", ["message", "model.requested", "function.finished", "run.finished"])
async def test_a_stream_may_have_been_closed_anywhere(office: Office, kind: str) -> None:
    kernel = kernel_with(office)
    stream = clerk(
        kernel, calling("office.broken", "office.broken"), call("office.slow", n=4), told
    ).stream("Go.")
    async for item in stream:
        if isinstance(item, Event) and item.kind == kind:
            break
    await stream.aclose()
    office.closed = True
    await assert_equal(clerk(kernel), (await only(kernel)).id)


async def test_a_cancelled_call_is_cancelled_again(office: Office) -> None:
    kernel = kernel_with(office)
    agent = clerk(kernel, calling("office.broken", "office.forever", "office.forever"))
    task = asyncio.create_task(agent.run("Wait."))
    await office.begun.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    log = await only(kernel)
    assert kinds(log.events).count("function.in_doubt") == 2
    assert kinds(log.events)[-1] == "run.cancelled"
    office.closed = True
    await assert_equal(clerk(kernel), log.id)


async def test_a_model_that_failed_fails_again_whatever_it_raised(office: Office) -> None:
    kernel = kernel_with(office)
    agent = clerk(
        kernel, ProviderError("It is down.", status=503, hint="Wait."), OSError(5, "cable: cut"), "Up."
    )
    with pytest.raises(ProviderError):
        await agent.run("Hello?")
    log = await only(kernel)
    with pytest.raises(OSError, match="cable"):
        await agent.run("Hello?", session=log.id)
    await agent.run("Hello?", session=log.id)
    report = await assert_equal(clerk(kernel), log.id)
    assert len(report.runs) == 3


async def test_a_limit_is_met_again(office: Office) -> None:
    kernel = kernel_with(office)
    with pytest.raises(LimitReached):
        await clerk(kernel, *[call("office.slow", n=4)] * 3, limits=Limits(rounds=2)).run("Go.")
    session = (await only(kernel)).id
    await assert_equal(clerk(kernel, limits=Limits(rounds=2)), session)
    report = await replayed(clerk(kernel, limits=Limits(rounds=9)), session)
    assert report.divergence is not None
    assert report.divergence.words.endswith(
        "the record has run.failed by clerk [limit.rounds], the replay model.requested by clerk."
    )


async def test_what_people_said_is_not_asked_again(office: Office) -> None:
    """Allowed, changed, refused, and when nobody was there to ask: answered later, and resumed."""
    said: list[Approval | bool] = [True, Approval(allow=True, arguments={"amount": 3}, by="ann"), False]

    async def approve(request: ApprovalRequest) -> Approval | bool:
        await asyncio.sleep(0.01 * len(said))
        return said.pop()

    kernel = kernel_with(office, policy=Policy(), approve=approve)
    three = assistant(
        "", *(call("office.pay", amount=n).model_copy(update={"id": str(n)}) for n in range(3))
    )
    reply = await clerk(kernel, three, told).run("Pay all.")
    kernel.approve = None
    again = clerk(kernel, calling("office.pay", "office.pay", amount=9))
    with pytest.raises(ApprovalRequired):
        await again.run("Pay more.", session=reply.session)
    conversation = await Conversation.open(kernel, reply.session)
    first, second = conversation.questions
    await conversation.answer(first.question_id, "allow", by="bob")
    with pytest.raises(ApprovalRequired):
        await again.resume(reply.session)
    await conversation.answer(second.question_id, "deny", by="bob")
    await clerk(kernel, told).resume(reply.session)

    async def nobody(request: ApprovalRequest) -> bool:
        raise AssertionError("a replay must ask nobody")

    kernel.approve, office.closed = nobody, True
    await assert_equal(clerk(kernel), reply.session, given=2)


async def test_an_approver_that_broke_ends_the_run_again(office: Office) -> None:
    async def approve(request: ApprovalRequest) -> bool:
        raise OSError("no terminal: gone")

    kernel = kernel_with(office, policy=Policy(), approve=approve)
    two = [call("office.pay", amount=n).model_copy(update={"id": str(n)}) for n in (1, 2)]
    with pytest.raises(OSError, match="terminal"):
        await clerk(kernel, assistant("", *two)).run("Pay.")
    kernel.approve, office.closed = None, True
    await assert_equal(clerk(kernel), (await only(kernel)).id)


async def test_an_approver_that_failed_and_one_that_was_never_heard(office: Office) -> None:
    async def approve(request: ApprovalRequest) -> bool:
        if request.arguments["amount"] == 1:
            raise ModelRetry("Ask for less.")
        office.begun.set()
        return bool(await asyncio.Event().wait())

    kernel = kernel_with(office, policy=Policy(), approve=approve)
    agent = clerk(kernel, call("office.pay", amount=1), call("office.pay", amount=2))
    task = asyncio.create_task(agent.run("Pay."))
    await office.begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    kernel.approve, office.closed = None, True
    await assert_equal(clerk(kernel), (await only(kernel)).id)


@pytest.mark.parametrize("name", ["office.pay", "office.transfer"])
async def test_a_crash_and_what_was_done_about_it_come_out_the_same(
    office: Office, tmp_path: Path, name: str
) -> None:
    def opened() -> Kernel:
        return kernel_with(office, journal=Journal(SqliteJournalStore(tmp_path / "journal.db")))

    office.crash = True
    kernel = opened()
    two = [
        call("office.slow", n=4).model_copy(update={"id": "slow"}),
        call(name, amount=5).model_copy(update={"id": "pay"}),
    ]
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group around the crash
        await clerk(kernel, assistant("", *two)).run("Pay 5.")
    assert not isinstance(caught.value, Exception)
    await kernel.aclose()
    async with opened() as kernel:
        log = await only(kernel)
        given = 0
        if name == "office.pay":
            with pytest.raises(PersonRequired):
                await clerk(kernel).resume(log.id)
            conversation = await Conversation.open(kernel, log.id)
            await conversation.answer(conversation.questions[0].question_id, "done", result=7, by="ann")
            given = 1
        await clerk(kernel, told).resume(log.id)
        office.closed = True
        await assert_equal(clerk(kernel), log.id, given=given)


async def test_a_run_that_was_given_up_is_given_up_again(office: Office) -> None:
    office.crash = True
    kernel = kernel_with(office)
    with pytest.raises(Crash):
        await clerk(kernel, call("office.pay", amount=5)).run("Pay 5.")
    log = await only(kernel)
    await clerk(kernel, told).run("Never mind.", session=log.id)
    assert "function.in_doubt" in kinds(log.events)
    office.closed = True
    await assert_equal(clerk(kernel), log.id)


async def test_a_session_is_replayed_up_to_any_event(office: Office) -> None:
    """Every prefix is what a crash there would have left; a fork there is replayed as well."""
    kernel = kernel_with(office)
    three = assistant(
        "",
        call("office.slow", n=4).model_copy(update={"id": "slow"}),
        call("office.broken").model_copy(update={"id": "broken"}),
        call("office.pay", amount=1).model_copy(update={"id": "pay"}),
    )
    reply = await clerk(kernel, three, call("office.pay", amount=5), told).run("Do it.")
    log = await kernel.journal.open(reply.session)
    for at in range(1, log.seq + 1):
        fork = await kernel.journal.fork(log.id, at=at)
        office.closed = True
        await assert_equal(clerk(kernel), fork.id, given=1)
        office.closed = False
        left = 3 - kinds(fork.events).count("model.answered")
        await clerk(kernel, *[three, call("office.pay", amount=5), told][3 - left :]).resume(fork.id)
        office.closed = True
        await assert_equal(clerk(kernel), fork.id, given=1)
        office.closed = False


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("message", edit_message("Pay 3.")),
        ("model.answered", edit_arguments({"amount": 3})),
        ("function.finished", edit_result({"receipt": 1})),
    ],
)
async def test_an_edited_fork_is_replayed_with_its_edit(office: Office, kind: str, edit: Any) -> None:
    kernel = kernel_with(office)
    reply = await clerk(kernel, call("office.pay", amount=5), told).run("Pay 5.")
    log = await kernel.journal.open(reply.session)
    at = kinds(log.events).index(kind) + 1
    fork = await kernel.journal.fork(log.id, at=at, edit=edit)
    replies = [call("office.pay", amount=5), told] if kind == "message" else [told]
    await clerk(kernel, *replies).resume(fork.id)
    office.closed = True
    await assert_equal(clerk(kernel), fork.id, given=2)


async def test_what_others_did_in_the_session_is_taken_as_it_is(office: Office) -> None:
    kernel = kernel_with(office)
    reply = await clerk(kernel, "One.").run("Count.")
    other = AssistantAgent("other", kernel=kernel, model=ScriptedModel(["Two."]))
    await other.run("And?", session=reply.session)
    conversation = await Conversation.open(kernel, reply.session)
    await conversation.add(MessageAdded(message=user("By the way.")), actor="ann")
    await clerk(kernel, "Three.").run("And?", session=reply.session)
    report = await assert_equal(clerk(kernel), reply.session, given=6)
    assert report.replayed == 10


def added(a: int) -> int:
    raise AssertionError("a replay must call nothing")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"functions": ["office", added]},
            "functions of model.requested by clerk, only the replay has 'added'",
        ),
        (
            {"functions": ["office.slow"]},
            "spec.functions of run.started by clerk, only the record has 'office'",
        ),
        ({"limits": Limits(calls=0)}, "LimitReached: clerk asked for 1 function calls; the limit is 0."),
        ({"memory": Shelf()}, "has model.requested by clerk, the replay retrieval by memory"),
        ({"instructions": "Be brief."}, "messages of model.requested by clerk is 1 in the record and 2"),
    ],
)
async def test_of_a_changed_agent_the_first_difference_is_told(
    office: Office, change: dict[str, Any], words: str
) -> None:
    kernel = kernel_with(office)
    reply = await clerk(kernel, call("office.slow", n=4), told, functions=["office"]).run("Go.")
    office.closed = True
    report = await replayed(clerk(kernel, **{"functions": ["office"], **change}), reply.session)
    assert not report.equal
    assert report.divergence is not None
    assert words in report.divergence.words
    assert report.replayed == report.divergence.seq - 1
    assert report.divergence.first is not None
    assert report.divergence.first.seq == report.divergence.seq


async def test_a_function_that_changed_its_parameters_or_the_policy_is_told(office: Office) -> None:
    kernel = kernel_with(office)
    reply = await clerk(kernel, call("office.pay", amount=4), told).run("Go.")
    strict = Kernel(policy=Policy(), journal=kernel.journal)
    strict.add_plugin(office, name="office")
    report = await replayed(clerk(strict), reply.session)
    assert report.divergence is not None
    assert "has function.started by clerk" in report.divergence.words
    assert "the replay question.asked by clerk" in report.divergence.words

    class Other:
        @function(effects={"write"})
        def pay(self, euros: int) -> str:
            raise AssertionError

    changed = Kernel(policy=ALLOW, journal=kernel.journal)
    changed.add_plugin(Other(), name="office")
    agent = clerk(changed, functions=["office.pay"])
    report = await replayed(agent, reply.session)
    assert report.divergence is not None


async def test_what_was_forgotten_or_is_not_there_cannot_be_replayed(office: Office) -> None:
    kernel = kernel_with(office)
    reply = await clerk(kernel, "Hello Ann.").run("I am Ann.")
    with pytest.raises(UsageError, match="clerk ran in it"):
        await AssistantAgent("other", kernel=kernel, model=ScriptedModel()).replay(reply.session)
    await forget(kernel.journal, text="Ann")
    with pytest.raises(UsageError, match="was forgotten"):
        await clerk(kernel).replay(reply.session)


async def test_a_model_that_cannot_be_made_here_is_not_needed(office: Office) -> None:
    class Named(ScriptedModel):
        async def stream(self, request: ChatRequest) -> AsyncIterator[Any]:
            assert not request.messages, "must not be asked"
            yield

    kernel = kernel_with(office)
    kernel.add_model(ScriptedModel([call("office.slow", n=4), told], name="far:away"))
    reply = await AssistantAgent("clerk", kernel=kernel, model="far:away").run("Go.")
    elsewhere = Kernel(policy=ALLOW, journal=kernel.journal)
    elsewhere.add_plugin(office, name="office")
    office.closed = True
    report = await AssistantAgent("clerk", kernel=elsewhere, model="far:away").replay(reply.session)
    assert report.equal, report.render()
