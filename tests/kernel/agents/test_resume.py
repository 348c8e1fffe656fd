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
    Journal,
    JournalError,
    Kernel,
    NotFoundError,
    ScriptedModel,
    SqliteJournalStore,
    UsageError,
    function,
)
from kernloom.kernel.errors import ResolutionRequired
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
