"""Who was asked, who answered, what came of it."""

import json

import pytest

from kernloom.kernel.errors import JournalError
from kernloom.kernel.journal import InMemoryJournalStore, Journal
from kernloom.kernel.journal.audit import AuditLine, audit
from kernloom.kernel.journal.events import (
    FunctionFinished,
    FunctionRequested,
    QuestionAnswered,
    QuestionAsked,
)
from kernloom.kernel.messages import ToolCall, ToolResult


async def lines(
    journal: Journal, session: str | None = None, since: float | None = None
) -> list[AuditLine]:
    return [line async for line in audit(journal, session=session, since=since)]


def ticking() -> Journal:
    now = iter(range(100, 200))
    names = iter("abcdefgh")
    return Journal(InMemoryJournalStore(), clock=lambda: float(next(now)), new_id=lambda: next(names))


CALL = ToolCall(id="c1", name="bank.pay", arguments='{"amount": 7}')
ASKED = QuestionAsked(question_id="c1", about="approval", text="bank.pay (spend)", call=CALL)


async def approved(journal: Journal) -> None:
    log = await journal.create()
    await log.append(FunctionRequested(call=CALL), actor="clerk", run="r")
    await log.append(ASKED, actor="clerk", run="r")
    await log.append(QuestionAnswered(question_id="c1", answer="allow", by="ann"), actor="person", run="r")
    await log.append(
        FunctionFinished(result=ToolResult(call_id="c1", name="bank.pay", content="paid")), actor="bank.pay"
    )


async def test_a_line_says_who_approved_what_when_and_what_came_of_it() -> None:
    journal = ticking()
    await approved(journal)
    assert [json.loads(line.model_dump_json()) for line in await lines(journal)] == [
        {
            "session": "a", "run": "r", "seq": 2, "asked_at": 101.0, "asked_by": "clerk",
            "about": "approval", "text": "bank.pay (spend)", "function": "bank.pay", "call_id": "c1",
            "arguments": '{"amount": 7}', "answer": "allow", "instead": None, "answered_by": "ann",
            "answered_at": 102.0, "outcome": "finished", "outcome_at": 103.0,
        }
    ]  # fmt: skip


async def test_what_nobody_has_answered_yet_is_a_line_as_well() -> None:
    journal = ticking()
    log = await journal.create()
    await log.append(ASKED, actor="clerk")
    [line] = await lines(journal)
    assert (line.answer, line.answered_by, line.outcome) == (None, None, None)


async def test_what_the_person_changed_before_saying_yes_is_told() -> None:
    journal = ticking()
    log = await journal.create()
    await log.append(ASKED, actor="clerk")
    said = QuestionAnswered(question_id="c1", answer="allow", by="ann", arguments={"amount": 5})
    await log.append(said, actor="ann")
    [line] = await lines(journal)
    assert (line.arguments, line.instead) == ('{"amount": 7}', {"amount": 5})


async def test_a_forks_lines_are_its_own() -> None:
    journal = ticking()
    await approved(journal)
    log = await journal.create()
    await log.append(ASKED, actor="clerk")
    await journal.store.fork("f1", at=4, of="a")
    await journal.store.fork("f2", at=1, of="b")
    await (await journal.open("f2")).append(
        QuestionAnswered(question_id="c1", answer="deny", by="bob"), actor="person"
    )
    found = [(line.session, line.answer, line.answered_by) for line in await lines(journal)]
    assert found == [("a", "allow", "ann"), ("b", None, None), ("f2", "deny", "bob")]
    assert [line.answer for line in await lines(journal, "f1")] == ["allow"]


async def test_lines_since_a_time() -> None:
    journal = ticking()
    await approved(journal)
    await approved(journal)
    assert [line.session for line in await lines(journal, since=104.0)] == ["b"]


async def test_an_audit_with_holes_is_none() -> None:
    journal = ticking()
    await approved(journal)
    [row] = await journal.store.read("a", after=1, limit=1)
    await journal.store.replace("a", 2, row._replace(text=row.text.replace("7", "8")))
    with pytest.raises(JournalError) as caught:
        await lines(journal)
    assert caught.value.code == "journal.corrupt"
