"""A run that stopped goes on in another kernel: nothing on record is done again, nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kernloom import (
    ApprovalRequired,
    AssistantAgent,
    Context,
    Conversation,
    InMemoryJournalStore,
    Journal,
    JournalError,
    Kernel,
    NotFoundError,
    ScriptedModel,
    SqliteJournalStore,
    UsageError,
    function,
)
from kernloom.kernel.errors import ProviderError, ResolutionRequired
from kernloom.kernel.functions import Done
from kernloom.kernel.messages import ToolResult, assistant
from kernloom.kernel.models.base import ChatRequest
from kernloom.kernel.models.scripted import call
from kernloom.kernel.policy import Approval, Policy

ALLOW = Policy(effects={"write": "allow", "network": "allow"})


class Crash(BaseException):
    """Stands for the death of the process: nothing in the house catches it."""


class Bank:
    """The world: it outlives kernels, and counts what was done under each key."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.crash_before = False
        self.crash_after = False

    def pay(self, key: str) -> str:
        if self.crash_before:
            self.crash_before = False
            raise Crash
        self.paid.append(key)
        if self.crash_after:
            self.crash_after = False
            raise Crash
        return f"receipt {len(self.paid)}"


def kernel_at(path: Path, **more: Any) -> Kernel:
    return Kernel(journal=Journal(SqliteJournalStore(path / "journal.db")), **{"policy": ALLOW, **more})


def paying(bank: Bank, **options: Any) -> Any:
    @function(effects={"write"}, **options)
    async def pay(amount: int, context: Context) -> str:
        """Pay."""
        assert context.idempotency_key is not None
        return bank.pay(context.idempotency_key)

    return pay


def said(request: ChatRequest) -> str:
    return [p for m in request.messages for p in m.parts if isinstance(p, ToolResult)][-1].content


def payer(kernel: Kernel, pay: Any, *replies: Any) -> AssistantAgent:
    return AssistantAgent("payer", kernel=kernel, model=ScriptedModel(replies), functions=[pay])


async def stop(kernel: Kernel) -> None:
    """What the death of a process leaves: its lease, held by nobody alive."""
    await kernel.aclose()


async def crashed(path: Path, pay: Any) -> str:
    """A session whose process died in the middle of ``pay``."""
    kernel = kernel_at(path)
    with pytest.raises(Crash):
        await payer(kernel, pay, call("pay", amount=5)).run("Pay 5.")
    (info,) = await kernel.journal.sessions()
    assert info.status == "unfinished"
    await stop(kernel)
    return info.id


@pytest.mark.parametrize("before", [True, False])
async def test_an_idempotent_function_is_called_again_with_the_same_key(
    tmp_path: Path, before: bool
) -> None:
    bank = Bank()
    bank.crash_before, bank.crash_after = before, not before
    pay = paying(bank, idempotent=True)
    session = await crashed(tmp_path, pay)
    async with kernel_at(tmp_path) as kernel:
        reply = await payer(kernel, pay, said).resume(session)
    assert reply.text.startswith("receipt")
    assert len(set(bank.paid)) == 1


@pytest.mark.parametrize("before", [True, False])
async def test_reconcile_is_asked_before_anything_is_done_again(tmp_path: Path, before: bool) -> None:
    bank = Bank()
    bank.crash_before, bank.crash_after = before, not before

    def was_it_paid(key: str) -> Done | None:
        return Done("receipt found") if key in bank.paid else None

    pay = paying(bank, reconcile=was_it_paid)
    session = await crashed(tmp_path, pay)
    async with kernel_at(tmp_path) as kernel:
        reply = await payer(kernel, pay, said).resume(session)
    assert reply.text == ("receipt 1" if before else "receipt found")
    assert len(bank.paid) == 1


@pytest.mark.parametrize(
    ("answer", "result", "text", "paid"),
    [
        ("done", "receipt by phone", "receipt by phone", 1),
        ("not_done", None, "receipt 2", 2),
        ("abandon", None, "In doubt: whether its effect happened was never found out.", 1),
    ],
)
async def test_a_call_in_doubt_waits_for_a_person(
    tmp_path: Path, answer: str, result: str | None, text: str, paid: int
) -> None:
    bank = Bank()
    bank.crash_after = True
    pay = paying(bank)
    session = await crashed(tmp_path, pay)
    async with kernel_at(tmp_path) as kernel:
        with pytest.raises(ResolutionRequired, match="not known"):
            await payer(kernel, pay).resume(session)
        with pytest.raises(
            ResolutionRequired
        ) as caught:  # asked again, it is one question, no second payment
            await payer(kernel, pay).resume(session)
        assert len(bank.paid) == 1
        question = str(caught.value.details["question"])
        conversation = await Conversation.open(kernel, session)
        assert [q.question_id for q in conversation.questions] == [question]
        with pytest.raises(UsageError, match="Say abandon or done or not_done"):
            await conversation.answer(question, "perhaps")
        with pytest.raises(NotFoundError):
            await conversation.answer("another", "done")
        await conversation.answer(question, answer, result=result, by="ann")
    async with kernel_at(tmp_path) as kernel:
        reply = await payer(kernel, pay, said).resume(session)
        assert reply.text == text
        assert len(bank.paid) == paid
        assert (await payer(kernel, pay).resume(session)).text == text, (
            "a finished run gives its reply again"
        )


async def test_an_outcome_on_record_is_used_and_the_model_is_not_asked_again_for_it(tmp_path: Path) -> None:
    bank = Bank()
    pay = paying(bank)

    def die(request: ChatRequest) -> str:
        raise Crash

    kernel = kernel_at(tmp_path)
    with pytest.raises(Crash):
        await payer(kernel, pay, call("pay", amount=5), die).run("Pay 5.")
    (info,) = await kernel.journal.sessions()
    await stop(kernel)
    async with kernel_at(tmp_path) as kernel:
        agent = payer(kernel, pay, said)
        reply = await agent.resume(info.id)
        assert reply.text == "receipt 1"
        assert reply.usage.requests == 2
        assert len(agent.model.requests) == 1  # type: ignore[attr-defined]
    assert len(bank.paid) == 1


async def test_an_approval_pending_at_a_crash_is_pending_after_it(tmp_path: Path) -> None:
    bank = Bank()
    pay = paying(bank)
    kernel = kernel_at(tmp_path, policy=Policy())
    with pytest.raises(ApprovalRequired) as caught:
        await payer(kernel, pay, call("pay", amount=5)).run("Pay 5.")
    session = str(caught.value.details["session"])
    await stop(kernel)
    async with kernel_at(tmp_path, policy=Policy()) as kernel:
        for _ in range(5):  # five looks at it, nothing happens
            with pytest.raises(ApprovalRequired):
                await payer(kernel, pay).resume(session)
        conversation = await Conversation.open(kernel, session)
        (question,) = conversation.questions
        assert question.about == "approval"
        assert question.call is not None
        assert question.call.parsed() == {"amount": 5}
        await conversation.answer(question.question_id, "allow", arguments={"amount": 3}, by="ann")
        reply = await payer(kernel, pay, said).resume(session)
    assert reply.text == "receipt 1"
    assert len(bank.paid) == 1


async def test_a_person_may_change_the_arguments(tmp_path: Path) -> None:
    @function(effects={"write"})
    async def pay(amount: int) -> str:
        return f"paid {amount}"

    async def approve(_: Any) -> Approval:
        return Approval(allow=True, arguments={"amount": "3"}, by="ann")

    async with kernel_at(tmp_path, policy=Policy(), approve=approve) as kernel:
        assert (await payer(kernel, pay, call("pay", amount=500), said).run("Pay.")).text == "paid 3"


async def test_something_new_gives_the_unfinished_run_up(tmp_path: Path) -> None:
    bank = Bank()
    pay = paying(bank)
    kernel = kernel_at(tmp_path, policy=Policy())
    with pytest.raises(ApprovalRequired) as caught:
        await payer(kernel, pay, call("pay", amount=5)).run("Pay 5.")
    session = str(caught.value.details["session"])
    reply = await payer(kernel, pay, said).run("Never mind.", session=session)
    assert reply.text.startswith("Not run")
    assert (await Conversation.open(kernel, session)).questions == ()
    assert bank.paid == []


async def test_of_two_resumers_one_wins_and_the_other_hears_why(tmp_path: Path) -> None:
    bank = Bank()
    bank.crash_before = True
    begun, go = asyncio.Event(), asyncio.Event()

    @function(effects={"write"}, idempotent=True)
    async def pay(amount: int, context: Context) -> str:
        if not bank.crash_before:
            begun.set()
            await go.wait()
        return bank.pay(str(context.idempotency_key))

    session = await crashed(tmp_path, pay)
    async with kernel_at(tmp_path) as one, kernel_at(tmp_path) as two:
        first = asyncio.create_task(payer(one, pay, said).resume(session))
        await begun.wait()
        with pytest.raises(JournalError) as caught:
            await payer(two, pay).resume(session)
        assert caught.value.code == "journal.leased"
        go.set()
        assert (await first).text == "receipt 1"
        assert (await payer(two, pay).resume(session)).text == "receipt 1"
    assert len(bank.paid) == 1


async def test_a_sub_agent_is_resumed_with_its_caller(tmp_path: Path) -> None:
    bank = Bank()
    bank.crash_after = True
    pay = paying(bank, idempotent=True)

    def boss(kernel: Kernel, replies: list[Any], inner: list[Any]) -> AssistantAgent:
        clerk = payer(kernel, pay, *inner)
        return AssistantAgent(
            "boss", kernel=kernel, model=ScriptedModel(replies), functions=[clerk.as_function()]
        )

    kernel = kernel_at(tmp_path)
    with pytest.raises(Crash):
        await boss(kernel, [call("payer", task="Pay 5.")], [call("pay", amount=5)]).run("See to it.")
    (info,) = await kernel.journal.sessions()
    await stop(kernel)
    async with kernel_at(tmp_path) as kernel:
        reply = await boss(kernel, [said], ["Paid."]).resume(info.id)
        assert reply.text == "Paid."
        (child,) = await kernel.journal.sessions(parent=info.id)
        assert child.status == "finished"
    assert len(set(bank.paid)) == 1


async def test_a_session_where_nobody_ran_has_nothing_to_resume(tmp_path: Path) -> None:
    async with kernel_at(tmp_path) as kernel:
        conversation = await Conversation.open(kernel)
        with pytest.raises(UsageError, match="No run was started"):
            await payer(kernel, add).resume(conversation)


def add(a: int, b: int) -> int:
    return a + b


async def test_memory_of_what_was_said_survives_in_parallel_calls(tmp_path: Path) -> None:
    """Of three parallel calls one had its outcome, one was in the middle, one had not begun."""
    bank = Bank()
    order: list[int] = []

    @function(effects={"write"}, idempotent=True)
    async def pay(n: int, context: Context) -> str:
        order.append(n)
        if n == 1 and order.count(1) == 1:
            await asyncio.sleep(0.05)
            raise Crash
        return bank.pay(str(context.idempotency_key))

    three = assistant("", *(call("pay", n=i).model_copy(update={"id": str(i)}) for i in range(3)))
    kernel = kernel_at(tmp_path)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - a group around the crash
        await payer(kernel, pay, three).run("Pay all.")
    (info,) = await kernel.journal.sessions()
    await stop(kernel)
    async with kernel_at(tmp_path) as kernel:
        await payer(kernel, pay, "done").resume(info.id)
    assert len(bank.paid) == len(set(bank.paid)) == 3


async def test_what_was_said_of_the_first_crash_is_not_true_of_the_second(tmp_path: Path) -> None:
    bank = Bank()
    bank.crash_before = True
    pay = paying(bank)
    session = await crashed(tmp_path, pay)
    kernel = kernel_at(tmp_path)
    with pytest.raises(ResolutionRequired) as first:
        await payer(kernel, pay).resume(session)
    conversation = await Conversation.open(kernel, session)
    await conversation.answer(str(first.value.details["question"]), "not_done", by="ann")
    bank.crash_after = True
    with pytest.raises(Crash):
        await payer(kernel, pay).resume(session)
    await stop(kernel)
    async with kernel_at(tmp_path) as kernel:
        with pytest.raises(ResolutionRequired) as second:
            await payer(kernel, pay).resume(session)
        assert second.value.details["question"] != first.value.details["question"]
        conversation = await Conversation.open(kernel, session)
        await conversation.answer(str(second.value.details["question"]), "done", result="seen", by="ann")
        assert (await payer(kernel, pay, said).resume(session)).text == "seen"
    assert len(bank.paid) == 1


async def test_where_reconcile_cannot_say_a_person_is_asked_and_it_is_asked_again(tmp_path: Path) -> None:
    bank = Bank()
    bank.crash_after = True
    down = True

    def was_it_paid(key: str) -> Done | None:
        if down:
            raise ConnectionError("the bank is closed")
        return Done("receipt found") if key in bank.paid else None

    pay = paying(bank, reconcile=was_it_paid)
    session = await crashed(tmp_path, pay)
    async with kernel_at(tmp_path) as kernel:
        for _ in range(2):
            with pytest.raises(ResolutionRequired, match="the bank is closed"):
                await payer(kernel, pay).resume(session)
        down = False
        assert (await payer(kernel, pay, said).resume(session)).text == "receipt found"
        assert (await Conversation.open(kernel, session)).questions == ()
    assert len(bank.paid) == 1


async def test_a_person_may_say_what_reconcile_could_not(tmp_path: Path) -> None:
    bank = Bank()
    bank.crash_after = True

    def was_it_paid(key: str) -> Done | None:
        raise ConnectionError("the bank is closed")

    pay = paying(bank, reconcile=was_it_paid)
    session = await crashed(tmp_path, pay)
    async with kernel_at(tmp_path) as kernel:
        with pytest.raises(ResolutionRequired) as caught:
            await payer(kernel, pay).resume(session)
        conversation = await Conversation.open(kernel, session)
        await conversation.answer(
            str(caught.value.details["question"]), "done", result="by phone", by="ann"
        )
        assert (await payer(kernel, pay, said).resume(session)).text == "by phone"
    assert len(bank.paid) == 1


async def test_an_effect_is_in_doubt_when_making_its_call_again_fails(tmp_path: Path) -> None:
    """The first attempt may have paid: told that it failed, a model would pay once more."""
    bank = Bank()
    bank.crash_after = True
    calls: list[int] = []

    @function(effects={"write"}, idempotent=True)
    async def pay(amount: int, context: Context) -> str:
        calls.append(amount)
        if len(calls) > 1:
            raise ConnectionError("no way to the bank")
        return bank.pay(str(context.idempotency_key))

    session = await crashed(tmp_path, pay)
    async with kernel_at(tmp_path) as kernel:
        reply = await payer(kernel, pay, said).resume(session)
    assert reply.text.startswith("In doubt: ")
    assert "no way to the bank" in reply.text


async def test_an_effect_is_in_doubt_when_its_function_is_gone(tmp_path: Path) -> None:
    bank = Bank()
    bank.crash_after = True
    session = await crashed(tmp_path, paying(bank))
    async with kernel_at(tmp_path) as kernel:
        reply = await payer(kernel, add, said).resume(session)
    assert reply.text.startswith("In doubt: ")
    assert "There is no function 'pay'" in reply.text


class FailingStore(InMemoryJournalStore):
    """Fails at the ``at``-th write, before it or after it; then it is sound again."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    async def append(self, *args: Any, **kwargs: Any) -> None:
        self._maybe_fail()
        await super().append(*args, **kwargs)
        self._maybe_fail()

    def _maybe_fail(self) -> None:
        self.left -= 1
        if not self.left:
            raise JournalError("The disk failed.", code="journal.io")


@pytest.mark.parametrize("at", range(1, 21))
async def test_a_run_whose_journal_fails_has_not_ended(at: int) -> None:
    """No outcome and no ending is made up: it goes on when there is room again."""
    bank = Bank()
    pay = paying(bank, idempotent=True)
    kernel = Kernel(policy=ALLOW, journal=Journal(FailingStore(at)))
    clerk = AssistantAgent(
        "clerk", kernel=kernel, model=Answers([call("pay", amount=5), said]), functions=[pay]
    )
    boss = AssistantAgent(
        "boss",
        kernel=kernel,
        model=Answers([call("clerk", task="Pay."), said]),
        functions=[clerk.as_function()],
    )
    with pytest.raises(JournalError, match="The disk failed"):
        await boss.run("See to it.")
    sessions = await kernel.journal.sessions()
    reply = await (boss.resume(sessions[0].id) if sessions else boss.run("See to it."))
    assert reply.text == "receipt 1"
    assert len(set(bank.paid)) == 1
    for info in await kernel.journal.sessions(children=True):
        kinds = [event.kind for event in (await kernel.journal.open(info.id)).events]
        assert kinds.count("run.finished") == 1
        assert "function.failed" not in kinds


class Answers(ScriptedModel):
    """Says what stands at the place where the conversation is, however often it is asked."""

    def __init__(self, script: list[Any]) -> None:
        def answer(request: ChatRequest) -> Any:
            reply = script[sum(1 for message in request.messages if message.tool_calls)]
            return reply(request) if callable(reply) else reply

        super().__init__([answer] * 20)


async def test_a_sub_agent_that_failed_is_told_of_in_the_same_words_after_a_crash(tmp_path: Path) -> None:
    def boss(kernel: Kernel, clerk_says: Any, *replies: Any) -> AssistantAgent:
        clerk = AssistantAgent("clerk", kernel=kernel, model=ScriptedModel([clerk_says]), functions=[])
        return AssistantAgent(
            "boss", kernel=kernel, model=ScriptedModel(replies), functions=[clerk.as_function()]
        )

    down = ProviderError("The model is down.", hint="Wait.")
    async with kernel_at(tmp_path) as kernel:
        alive = await boss(kernel, down, call("clerk", task="Go."), said).run("Go.")
    assert alive.text == "clerk failed: The model is down. Wait."

    store = DiesAfter("run.failed", tmp_path / "other.db")
    kernel = Kernel(policy=ALLOW, journal=Journal(store))
    with pytest.raises(Crash):
        await boss(kernel, down, call("clerk", task="Go.")).run("Go.")
    (info,) = await kernel.journal.sessions()
    await stop(kernel)
    async with Kernel(journal=Journal(SqliteJournalStore(tmp_path / "other.db"))) as kernel:
        reply = await boss(kernel, "never asked", said).resume(info.id)
    assert reply.text == alive.text


class DiesAfter(SqliteJournalStore):
    """The process dies right after the first event of a kind."""

    def __init__(self, kind: str, path: Path) -> None:
        super().__init__(path)
        self._kind = kind

    async def append(self, session: str, events: Any, **kwargs: Any) -> None:
        await super().append(session, events, **kwargs)
        if any(event.kind == self._kind for event in events):
            self._kind = ""
            raise Crash
