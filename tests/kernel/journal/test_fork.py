"""A fork shares what was, may change one thing in it, and goes on live; the original stays as it is."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernloom import (
    ApprovalRequired,
    AssistantAgent,
    Context,
    Conversation,
    InMemoryJournalStore,
    Journal,
    JournalError,
    Kernel,
    Plan,
    ScriptedModel,
    SqliteJournalStore,
    UsageError,
    function,
)
from kernloom.kernel.errors import InvariantError
from kernloom.kernel.journal import Event, EventData, JournalStore, SessionLog, StoredEvent, diff
from kernloom.kernel.journal.edits import edit_answer, edit_arguments, edit_message, edit_result
from kernloom.kernel.journal.events import MessageAdded, ModelAnswered, PlanMade, RunStarted
from kernloom.kernel.messages import ToolResult, assistant, user
from kernloom.kernel.models.base import ChatRequest
from kernloom.kernel.models.scripted import call
from kernloom.kernel.policy import Policy

INVARIANTS = runpy.run_path(str(Path(__file__).with_name("test_invariants.py")))
HISTORIES: st.SearchStrategy[list[EventData]] = INVARIANTS["legal_histories"]()
ALLOW = Policy(effects={"write": "allow"})


class Bank:
    """Counts what was done under each key."""

    def __init__(self) -> None:
        self.paid: list[tuple[str, int]] = []

    @function(effects={"write"})
    async def pay(self, amount: int, context: Context) -> str:
        """Pay."""
        self.paid.append((str(context.idempotency_key), amount))
        return f"paid {amount}"

    @function
    def add(self, a: int, b: int) -> int:
        """The sum."""
        return a + b


def told(request: ChatRequest) -> str:
    parts = [p for m in request.messages for p in m.parts if isinstance(p, ToolResult)]
    return ",".join(p.content for p in parts)


def payer(kernel: Kernel, *replies: Any) -> AssistantAgent:
    return AssistantAgent("payer", kernel=kernel, model=ScriptedModel(replies))


def banking(store: Any = None, **more: Any) -> tuple[Kernel, Bank]:
    bank = Bank()
    kernel = Kernel(**{"journal": Journal(store or InMemoryJournalStore()), "policy": ALLOW, **more})
    kernel.add_plugin(bank, name="bank")
    return kernel, bank


async def rows(journal: Journal, session: str) -> list[StoredEvent]:
    return await journal.store.read(session)


def seq_of(log: SessionLog, kind: str, *, nth: int = 0) -> int:
    return [event.seq for event in log.events if event.kind == kind][nth]


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> JournalStore:
    return InMemoryJournalStore() if request.param == "memory" else SqliteJournalStore(tmp_path / "j.db")


async def test_an_edited_question_is_answered_anew_and_the_original_keeps_every_byte(
    store: JournalStore,
) -> None:
    kernel, _ = banking(store)
    async with kernel:
        reply = await payer(kernel, "Hello Ann.").run("I am Ann.")
        before = await rows(kernel.journal, reply.session)
        log = await kernel.journal.open(reply.session)
        asked = seq_of(log, "message")
        fork = await kernel.journal.fork(reply.session, at=asked, edit=edit_message("I am Bob."), by="eve")
        model = ScriptedModel(["Hello Bob."])
        again = await AssistantAgent("payer", kernel=kernel, model=model).resume(fork.id)
        assert again.text == "Hello Bob."
        assert [m.text for m in model.requests[0].messages] == ["I am Bob."]
        assert await rows(kernel.journal, reply.session) == before
        own = [row for row in await rows(kernel.journal, fork.id) if row.session == fork.id]
        assert own[0].seq == asked, "what comes before is shared, not copied"
        assert [row.kind for row in own][:3] == ["message", "forked", "run.resumed"]
        (forked,) = [event for event in fork.events if event.kind == "forked"]
        assert forked.actor == "eve"
        assert forked.data.model_dump() == {"kind": "forked", "of": log.id, "at": asked, "edited": True}
        (head,) = await kernel.journal.store.sessions(base=reply.session)
        assert head.base == (reply.session, asked - 1)


async def test_a_finished_conversation_is_carried_on_in_two_ways() -> None:
    kernel, _ = banking()
    reply = await payer(kernel, "Noted.").run("My name is Ann.")
    log = await kernel.journal.open(reply.session)
    fork = await kernel.journal.fork(reply.session, at=log.seq)
    assert (await payer(kernel).resume(fork.id)).text == "Noted.", "a finished run gives its reply again"
    model = ScriptedModel(["Ann."])
    await AssistantAgent("payer", kernel=kernel, model=model).run("Who am I?", session=fork.id)
    assert [m.text for m in model.requests[0].messages] == ["My name is Ann.", "Noted.", "Who am I?"]
    assert log.seq == len(await rows(kernel.journal, reply.session))


async def test_edited_arguments_are_called_with_and_under_another_key() -> None:
    kernel, bank = banking()
    reply = await payer(kernel, call("bank.pay", amount=5), told).run("Pay.")
    log = await kernel.journal.open(reply.session)
    fork = await kernel.journal.fork(
        log.id, at=seq_of(log, "model.answered"), edit=edit_arguments({"amount": 3})
    )
    assert (await payer(kernel, told).resume(fork.id)).text == "paid 3"
    assert [amount for _, amount in bank.paid] == [5, 3]
    assert len({key for key, _ in bank.paid}) == 2


async def test_an_edited_result_is_what_the_model_reads_and_nothing_is_called() -> None:
    kernel, bank = banking()
    reply = await payer(kernel, call("bank.pay", amount=5), told).run("Pay.")
    log = await kernel.journal.open(reply.session)
    fork = await kernel.journal.fork(
        log.id, at=seq_of(log, "function.finished"), edit=edit_result({"receipt": 7})
    )
    assert (await payer(kernel, told).resume(fork.id)).text == '{"receipt":7}'
    assert len(bank.paid) == 1


async def test_a_failure_is_edited_into_a_result() -> None:
    kernel, _ = banking()
    reply = await payer(kernel, call("bank.add", a="x", b=1), "It failed.").run("1+1?")
    log = await kernel.journal.open(reply.session)
    fork = await kernel.journal.fork(log.id, at=seq_of(log, "function.failed"), edit=edit_result("2"))
    assert (await payer(kernel, told).resume(fork.id)).text == "2"


async def test_an_edited_answer_of_the_model_takes_another_way() -> None:
    kernel, bank = banking()
    reply = await payer(kernel, "I cannot.").run("Pay.")
    log = await kernel.journal.open(reply.session)
    at = seq_of(log, "model.answered")
    calling = assistant("", call("bank.pay", amount=1).model_copy(update={"id": "c1"}))
    fork = await kernel.journal.fork(log.id, at=at, edit=edit_answer(calling))
    assert (await payer(kernel, told).resume(fork.id)).text == "paid 1"
    plain = await kernel.journal.fork(fork.id, at=at, edit=edit_answer("I will not."))
    assert (await payer(kernel).resume(plain.id)).text == "I will not."
    assert len(bank.paid) == 1


async def test_a_fork_in_the_middle_of_parallel_calls_makes_only_the_open_ones() -> None:
    kernel, bank = banking()
    three = assistant("", *(call("bank.pay", amount=n).model_copy(update={"id": str(n)}) for n in range(3)))
    reply = await payer(kernel, three, told).run("Pay all.")
    log = await kernel.journal.open(reply.session)
    for at in range(seq_of(log, "model.answered"), seq_of(log, "model.requested", nth=1)):
        bank.paid.clear()
        view = log.at(at)
        fork = await kernel.journal.fork(log.id, at=at)
        assert (await payer(kernel, told).resume(fork.id)).text == "paid 0,paid 1,paid 2"
        assert [str(n) for _, n in bank.paid] == [c.id for c in view.open_calls]
        other = await kernel.journal.fork(log.id, at=at)
        assert (await payer(kernel, "Stopped.").run("Never mind.", session=other.id)).text == "Stopped."
        assert "function.in_doubt" not in kinds(other.events), "in a fork what was open has not begun"


async def test_a_call_the_original_was_in_the_middle_of_is_made_anew_and_nobody_is_asked_about_it() -> None:
    class Crash(BaseException):
        pass

    kernel = Kernel(policy=ALLOW)
    keys: list[str] = []

    @function(effects={"write"})
    async def pay(context: Context) -> str:
        keys.append(str(context.idempotency_key))
        if len(keys) == 1:
            raise Crash
        return "paid"

    kernel.add_function(pay)
    with pytest.raises(Crash):
        await payer(kernel, call("pay")).run("Pay.")
    (info,) = await kernel.journal.sessions()
    log = await kernel.journal.open(info.id)
    fork = await kernel.journal.fork(log.id, at=log.seq)
    assert fork.history.intent(fork.history.open_calls()[0].id) is None
    assert log.history.intent(log.history.open_calls()[0].id) is not None
    assert (await payer(kernel, told).resume(fork.id)).text == "paid"
    assert len(set(keys)) == 2


async def test_a_permission_given_before_the_fork_stands_and_one_asked_for_is_asked_again() -> None:
    kernel, bank = banking(policy=Policy())
    with pytest.raises(ApprovalRequired) as caught:
        await payer(kernel, call("bank.pay", amount=5)).run("Pay.")
    session = str(caught.value.details["session"])
    log = await kernel.journal.open(session)
    fork = await kernel.journal.fork(session, at=log.seq)
    with pytest.raises(ApprovalRequired):
        await payer(kernel).resume(fork.id)
    conversation = await Conversation.open(kernel, fork.id)
    await conversation.answer(conversation.questions[0].question_id, "allow", by="ann")
    second = await kernel.journal.fork(fork.id, at=fork.seq, edit=edit_arguments({"amount": 2}))
    assert (await payer(kernel, told).resume(fork.id)).text == "paid 5"
    assert (await payer(kernel, told).resume(second.id)).text == "paid 2"
    assert log.history.questions() != (), "the original still waits"
    assert len(bank.paid) == 2


async def test_a_fork_before_the_question_was_written_asks_it() -> None:
    kernel, _ = banking()
    reply = await payer(kernel, "One.").run("Count.")
    fork = await kernel.journal.fork(reply.session, at=1)
    model = ScriptedModel(["One!"])
    again = await AssistantAgent("payer", kernel=kernel, model=model).resume(fork.id)
    assert (again.text, [m.text for m in model.requests[0].messages]) == ("One!", ["Count."])


async def test_a_fork_with_a_sub_agent_at_work_begins_its_task_anew() -> None:
    kernel, bank = banking()
    clerk = AssistantAgent(
        "clerk",
        kernel=kernel,
        functions=["bank"],
        model=ScriptedModel([call("bank.pay", amount=1), told] * 2),
    )
    boss = AssistantAgent(
        "boss",
        kernel=kernel,
        model=ScriptedModel([call("clerk", task="Pay 1."), told, told]),
        functions=[clerk.as_function()],
    )
    reply = await boss.run("See to it.")
    log = await kernel.journal.open(reply.session)
    fork = await kernel.journal.fork(log.id, at=seq_of(log, "function.started"))
    assert (await boss.resume(fork.id)).text == "paid 1"
    assert len({key for key, _ in bank.paid}) == 2
    assert len(await kernel.journal.sessions(parent=fork.id)) == 1


PLAN = Plan.from_dict(
    {
        "goal": "Sums",
        "steps": [
            {"id": "one", "call": "bank.add", "args": {"a": 1, "b": 1}},
            {"id": "two", "call": "bank.pay", "args": {"amount": "{{ steps.one.result }}"}},
            {"id": "three", "call": "bank.add", "args": {"a": "{{ steps.one.result }}", "b": 10}},
        ],
        "output": "{{ steps.two.result }} {{ steps.three.result }}",
    }
)


@pytest.mark.parametrize("kind", ["function.finished", "step.finished"])
async def test_a_plan_goes_on_from_an_edited_result(kind: str) -> None:
    kernel, bank = banking()
    log = await kernel.journal.create()
    assert await PLAN.run(kernel, {}, kernel.context(log=log)) == "paid 2 12"
    before = await rows(kernel.journal, log.id)
    fork = await kernel.journal.fork(log.id, at=seq_of(log, kind), edit=edit_result(5))
    outcome = await Plan.resume(kernel, fork.id)
    assert outcome.output == "paid 5 15"
    assert [amount for _, amount in bank.paid] == [2, 5]
    assert await rows(kernel.journal, log.id) == before


async def test_a_plan_can_be_forked_at_every_event_and_comes_to_the_same() -> None:
    kernel, bank = banking()
    log = await kernel.journal.create()
    await PLAN.run(kernel, {}, kernel.context(log=log))
    for at in range(seq_of(log, "plan.made"), log.seq + 1):
        fork = await kernel.journal.fork(log.id, at=at)
        assert (await Plan.resume(kernel, fork.id)).output == "paid 2 12"
    assert len({key for key, _ in bank.paid}) == len(bank.paid)


async def test_a_plan_itself_can_be_edited() -> None:
    kernel, _ = banking()
    log = await kernel.journal.create()
    await PLAN.run(kernel, {}, kernel.context(log=log))
    other = PLAN.model_copy(update={"output": "{{ steps.three.result }}"})
    fork = await kernel.journal.fork(
        log.id, at=seq_of(log, "plan.made"), edit=lambda _: PlanMade(plan=other.to_dict())
    )
    assert (await Plan.resume(kernel, fork.id)).output == 12


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (edit_message("x"), "run.started"),
        (edit_answer("x"), "message"),
        (edit_arguments({}), "message"),
        (edit_result(1), "message"),
    ],
)
async def test_an_edit_that_does_not_fit_its_event_is_refused_and_nothing_is_forked(
    edit: Any, kind: str
) -> None:
    kernel, _ = banking()
    log = await kernel.journal.create()
    await log.append(RunStarted(name="a"), MessageAdded(message=user("hi")), actor="a")
    with pytest.raises(UsageError) as caught:
        await kernel.journal.fork(log.id, at=seq_of(log, kind), edit=edit)
    assert caught.value.code == "journal.edit"
    assert len(await kernel.journal.sessions()) == 1


async def test_of_several_calls_one_must_be_named() -> None:
    kernel, _ = banking()
    two = assistant("", *(call("bank.add", a=n, b=n).model_copy(update={"id": str(n)}) for n in (1, 2)))
    reply = await payer(kernel, two, "done").run("Add.")
    log = await kernel.journal.open(reply.session)
    at = seq_of(log, "model.answered")
    for name in (None, "3"):
        with pytest.raises(UsageError, match="2 calls, 1, 2"):
            await kernel.journal.fork(log.id, at=at, edit=edit_arguments({"a": 5, "b": 5}, call_id=name))
    fork = await kernel.journal.fork(log.id, at=at, edit=edit_arguments({"a": 5, "b": 5}, call_id="2"))
    assert (await payer(kernel, told).resume(fork.id)).text == "2,10"


async def test_what_cannot_follow_or_is_not_there_is_refused() -> None:
    kernel, _ = banking()
    reply = await payer(kernel, "One.").run("Count.")
    log = await kernel.journal.open(reply.session)
    for at, edit in ((-1, None), (log.seq + 1, None), (0, edit_message("x"))):
        with pytest.raises(JournalError) as caught:
            await kernel.journal.fork(log.id, at=at, edit=edit)
        assert caught.value.code == "journal.unknown_event"
    with pytest.raises(InvariantError):
        await kernel.journal.fork(
            log.id, at=2, edit=lambda _: ModelAnswered(model="m", message=assistant("?"))
        )
    assert len(await kernel.journal.sessions()) == 1


@settings(deadline=None)
@given(HISTORIES)
async def test_every_fork_point_gives_a_session_that_can_go_on(data: list[EventData]) -> None:
    journal = Journal(InMemoryJournalStore())
    log = await journal.create()
    for item in data:
        await log.append(item, actor="writer", run="r")
    stored = await rows(journal, log.id)
    for at in range(log.seq + 1 if log.seq else 0):
        fork = await journal.fork(log.id, at=at)
        assert fork.events[:at] == log.events[:at]
        assert diff(fork.events[:at], log.events[:at]) is None
        assert fork.history.open_calls() == log.at(at).open_calls
        await fork.append(*fork.history.repair(), actor="kernloom")
        INVARIANTS["assert_providers_would_take"](fork.messages())
        again = await Journal(journal.store).open(fork.id)
        assert again.events == fork.events
    assert await rows(journal, log.id) == stored
