"""Forgetting: the words are gone from every place they stood, and the history is as valid as before."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.kernel.errors import JournalError, UsageError
from kernloom.kernel.journal import (
    EventData,
    History,
    InMemoryJournalStore,
    Journal,
    SqliteJournalStore,
)
from kernloom.kernel.journal.encryption import EncryptedJournalStore, new_key
from kernloom.kernel.journal.events import (
    MODELS,
    FunctionFinished,
    FunctionRequested,
    FunctionStarted,
    MessageAdded,
    ModelAnswered,
    ModelRequested,
    PlanMade,
    QuestionAnswered,
    QuestionAsked,
    Retrieval,
    RunFinished,
    RunPaused,
    RunStarted,
    StepFinished,
    StepStarted,
)
from kernloom.kernel.journal.forgetting import Forgotten, Touched, forget
from kernloom.kernel.journal.leases import Leases
from kernloom.kernel.journal.tombstones import FORGOTTEN, STRUCTURE, named, said, tombstone
from kernloom.kernel.messages import Grounding, Message, Passage, ToolCall, ToolResult, assistant, user

WHERE = "I live in Hällby, Strandgatan 7"
CALL = ToolCall(id="c1", name="people.look_up", arguments=json.dumps({"street": "Strandgatan 7"}))
ODD = ToolCall(id="c2", name="people.look_up", arguments=json.dumps({"town": "Hällby"}))
PASSAGE = Passage(
    id="p",
    document="d",
    source="towns.md",
    text="Hällby is a town",
    start=0,
    end=16,
    line_start=1,
    line_end=1,
)


@pytest.fixture(params=["memory", "sqlite", "encrypted"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    store = InMemoryJournalStore() if request.param == "memory" else SqliteJournalStore(tmp_path / "j.db")
    names = (f"s{number}" for number in count(1))
    kept = EncryptedJournalStore(store, [new_key()]) if request.param == "encrypted" else store
    async with Journal(kept, clock=lambda: 5.0, new_id=lambda: next(names)) as made:
        yield made


async def a_run(journal: Journal, *, parent: tuple[str, int] | None = None) -> str:
    """What an assistant's run writes when Ann asks something that needs a function."""
    log = await journal.create(parent=parent)
    await log.append(RunStarted(name="librarian", input=WHERE), actor="librarian", run="r")
    await log.append(MessageAdded(message=user(WHERE)), actor="ann-margret", run="r")
    await log.append(
        Retrieval(grounding=Grounding(query=WHERE, passages=(PASSAGE,))), actor="memory", run="r"
    )
    await log.append(ModelRequested(model="m", messages=2), actor="librarian", run="r")
    await log.append(
        ModelAnswered(model="m", message=assistant("Let me look.", CALL, ODD)), actor="librarian", run="r"
    )
    await log.append(FunctionStarted(call_id="c1", name=CALL.name, effects=("read",)), actor="librarian")
    await log.append(
        FunctionFinished(
            result=ToolResult(call_id="c1", name=CALL.name, content='{"at": "Strandgatan 7"}'),
            value={"at": "Strandgatan 7", "rooms": 3},
        ),
        actor=CALL.name,
    )
    await log.append(
        QuestionAsked(question_id="c2", about="approval", text="look up", call=ODD), actor="librarian"
    )
    await log.append(QuestionAnswered(question_id="c2", answer="allow", by="ann-margret"), actor="person")
    await log.append(
        FunctionFinished(result=ToolResult(call_id="c2", name=ODD.name, content="ok")), actor=ODD.name
    )
    await log.append(ModelRequested(model="m", messages=4), actor="librarian", run="r")
    await log.append(
        ModelAnswered(model="m", message=assistant("It has three rooms.")), actor="librarian", run="r"
    )
    await log.append(RunFinished(output="It has three rooms."), actor="librarian", run="r")
    return log.id


async def everything(journal: Journal) -> str:
    """All that a reader of the store sees, with JSON within JSON unpacked."""
    rows = [row for head in await journal.store.sessions() for row in await journal.store.read(head.id)]
    events = [
        event for head in await journal.store.sessions() for event in (await journal.open(head.id)).events
    ]
    found = [row.text + row.actor for row in rows]
    found += [text for event in events for text in said(event.data)]
    return "\n".join(found)


async def test_what_a_person_said_is_gone_wherever_it_was_repeated(journal: Journal) -> None:
    session = await a_run(journal)
    report = await forget(journal, person="Ann-Margret")
    assert [(event.seq, event.kind) for event in report.events] == [
        (1, "run.started"), (2, "message"), (3, "retrieval"), (9, "question.answered"),
    ]  # fmt: skip
    assert "I live in" not in await everything(journal)
    log = await journal.open(session)
    assert [event.forgotten for event in log.events if event.forgotten] == [5.0] * 4
    assert log.events[1].actor == FORGOTTEN
    assert log.messages()[0] == user(FORGOTTEN)
    assert log.messages()[1].text == "Let me look."


async def test_a_text_is_found_inside_json_and_whatever_its_case(journal: Journal) -> None:
    session = await a_run(journal)
    report = await forget(journal, text="hÄLLBY")
    assert [event.seq for event in report.events] == [1, 2, 3, 5, 8]
    assert "H\\u00e4llby" not in await everything(journal)
    assert "Hällby" not in await everything(journal)
    log = await journal.open(session)
    answer = log.events[4].data
    assert isinstance(answer, ModelAnswered)
    assert answer.message.text == FORGOTTEN
    assert answer.message.tool_calls == (
        ToolCall(id="c1", name="people.look_up"), ToolCall(id="c2", name="people.look_up"),
    )  # fmt: skip


async def test_a_name_goes_also_where_the_words_went_before(journal: Journal) -> None:
    session = await a_run(journal)
    await forget(journal, text="Hällby")
    assert "ann-margret" in await everything(journal)
    assert [e.seq for e in (await forget(journal, person="ann-margret")).events] == [2, 9]
    assert "ann-margret" not in await everything(journal)
    assert (await journal.open(session)).events[1].actor == FORGOTTEN


async def test_calls_and_results_still_belong_together(journal: Journal) -> None:
    session = await a_run(journal)
    before = (await journal.open(session)).messages()
    await forget(journal, session=session)
    after = (await Journal(journal.store).open(session)).messages()
    shape = [(m.role, [getattr(p, "id", getattr(p, "call_id", None)) for p in m.parts]) for m in before]
    assert shape == [
        (m.role, [getattr(p, "id", getattr(p, "call_id", None)) for p in m.parts]) for m in after
    ]
    log = await journal.open(session)
    # The others had nothing in them that anybody said.
    assert [event.seq for event in log.events if not event.forgotten] == [4, 6, 11]
    assert not (await forget(journal, session=session)).events


async def test_a_session_may_go_on_after_it_forgot(journal: Journal) -> None:
    session = await a_run(journal)
    await forget(journal, person="ann-margret")
    log = await journal.open(session)
    await log.append(MessageAdded(message=user("And now?")), actor="ann-margret")
    assert (await Journal(journal.store).open(session)).seq == 14


async def test_forks_that_share_it_have_lost_it_too_and_are_named(journal: Journal) -> None:
    session = await a_run(journal)
    await journal.store.fork("fork", at=4, of=session)
    await journal.store.fork("early", at=1, of="fork")
    await journal.store.fork("other", at=0, of=session)
    await (await journal.open("fork")).append(
        ModelAnswered(model="m", message=assistant("Strandgatan 7?")), actor="librarian"
    )
    report = await forget(journal, text="Strandgatan", force=True)
    assert Forgotten("fork", 5, "model.answered") in report.events
    assert set(report.forks) == {
        Touched("fork", session, (1, 2, 3)),
        Touched("early", "fork", (1,)),
    }
    assert len(report.events) == len(set(report.events)) == 6
    assert "Strandgatan" not in await everything(journal)


async def test_through_a_fork_its_origin_is_changed_as_well(journal: Journal) -> None:
    session = await a_run(journal)
    await journal.store.fork("fork", at=2, of=session)
    report = await forget(journal, text="Hällby", session="fork", force=True)
    assert report.events == (Forgotten(session, 1, "run.started"), Forgotten(session, 2, "message"))
    assert report.forks == (Touched("fork", session, (1, 2)),)
    assert (await journal.open(session)).messages()[0] == user(FORGOTTEN)
    assert "Hällby" in await everything(journal)


async def test_a_session_is_forgotten_with_what_it_opened_and_no_other(journal: Journal) -> None:
    session = await a_run(journal)
    child = await a_run(journal, parent=(session, 6))
    stranger = await a_run(journal)
    report = await forget(journal, text="Strandgatan", session=session)
    assert {event.session for event in report.events} == {session, child}
    assert (await journal.open(stranger)).messages()[0] == user(WHERE)


async def test_a_rehearsal_changes_nothing_and_says_the_same(journal: Journal) -> None:
    await a_run(journal)
    before = await everything(journal)
    rehearsal = await forget(journal, person="ann-margret", dry_run=True)
    assert await everything(journal) == before
    report = await forget(journal, person="ann-margret")
    assert (rehearsal.events, rehearsal.forks) == (report.events, report.forks)
    assert any("Memory" in words for words in report.not_covered)


async def test_nobody_may_be_at_work_in_what_is_forgotten(journal: Journal) -> None:
    await a_run(journal)
    session = await a_run(journal)
    before = await everything(journal)
    await journal.store.lease(session, "another process", seconds=60, now=journal.now())
    with pytest.raises(JournalError) as caught:
        await forget(journal, person="ann-margret")
    assert caught.value.code == "journal.leased"
    assert await everything(journal) == before
    await journal.store.release(session, "another process")
    assert (await forget(journal, person="ann-margret")).events
    assert await journal.store.leases() == []


async def test_a_run_that_has_not_ended_is_kept_whole_unless_it_is_given_up(journal: Journal) -> None:
    log = await journal.create()
    await log.append(RunStarted(name="clerk"), actor="clerk", run="r")
    await log.append(FunctionRequested(call=CALL), actor="clerk", run="r")
    await log.append(RunPaused(questions=("q",)), actor="clerk", run="r")
    await journal.store.fork("fork", at=2, of="s1")
    before = await everything(journal)
    assert (await forget(journal, text="Strandgatan", dry_run=True)).given_up == ("fork", "s1")
    with pytest.raises(JournalError) as caught:
        await forget(journal, text="Strandgatan")
    assert caught.value.code == "journal.unfinished"
    assert caught.value.details == {"sessions": ["fork", "s1"]}
    assert await everything(journal) == before
    report = await forget(journal, text="Strandgatan", force=True)
    assert report.given_up == ("fork", "s1")
    for name in report.given_up:
        again = await Journal(journal.store).open(name)
        assert again.events[-1].kind == "run.cancelled"
        assert again.history.open_calls() == ()
    assert "Strandgatan" not in await everything(journal)


async def test_what_a_process_that_died_here_held_is_no_hindrance(journal: Journal) -> None:
    session = await a_run(journal)
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    mine = Leases(journal.store, clock=journal.now).holder
    holder = mine.replace(f":{os.getpid()}:", f":{gone.pid}:")
    await journal.store.lease(session, holder, seconds=60, now=journal.now())
    assert (await forget(journal, text="Strandgatan")).events


async def test_a_run_of_this_process_is_in_the_way_as_well(journal: Journal) -> None:
    session = await a_run(journal)
    async with (await journal.open(session)).claim("run"):
        with pytest.raises(JournalError) as caught:
            await forget(journal, text="Strandgatan")
    assert caught.value.code == "journal.leased"


async def test_where_a_name_holds_the_history_together_it_is_reported(journal: Journal) -> None:
    log = await journal.create()
    await log.append(RunStarted(name="hällby-agent"), RunFinished(), actor="hällby-agent", run="r")
    report = await forget(journal, text="Hällby")
    assert report.left == (Forgotten("s1", 1, "run.started"),)
    assert [event.actor for event in (await journal.open("s1")).events] == [FORGOTTEN] * 2


async def test_a_short_answer_is_found_again_only_as_a_text_of_its_own(journal: Journal) -> None:
    log = await journal.create()
    await log.append(MessageAdded(message=user("stop")), actor="ann-margret")
    await log.append(MessageAdded(message=user("stop it")), actor="bob")
    await log.append(
        ModelRequested(model="m", messages=1), ModelAnswered(model="m", message=assistant("no")), actor="m"
    )
    await log.append(RunStarted(name="x", input="stop"), RunFinished(), actor="x")
    report = await forget(journal, person="ann-margret")
    assert [event.seq for event in report.events] == [1, 5]


async def test_one_must_say_what(journal: Journal) -> None:
    for nothing in ({}, {"person": " "}, {"text": ""}):
        with pytest.raises(UsageError) as caught:
            await forget(journal, **nothing)  # type: ignore[arg-type]
        assert caught.value.code == "journal.forget_what"


async def test_what_cannot_be_read_cannot_be_searched_and_is_an_error(journal: Journal) -> None:
    session = await a_run(journal)
    [row] = await journal.store.read(session, after=6, limit=1)
    await journal.store.replace(session, 7, row._replace(text=row.text.replace("rooms", "doors")))
    with pytest.raises(JournalError) as caught:
        await forget(journal, person="ann-margret")
    assert caught.value.code == "journal.corrupt"


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


async def test_the_bytes_are_gone_from_the_file(tmp_path: Path) -> None:
    async with Journal(SqliteJournalStore(tmp_path / "journal.db")) as journal:
        session = await a_run(journal)
        await journal.store.fork("fork", at=5, of=session)
        await journal.store.lease("fork", "me", seconds=9, now=0.0)
        assert b"Strandgatan" in bytes_of(tmp_path)
        assert b"ann-margret" in bytes_of(tmp_path)
        await journal.store.release("fork", "me")
        await forget(journal, text="Strandgatan", force=True)
        assert b"Strandgatan" not in bytes_of(tmp_path)
        await forget(journal, person="ann-margret")
        assert b"ann-margret" not in bytes_of(tmp_path)
    assert b"Strandgatan" not in bytes_of(tmp_path)


JSON = st.recursive(
    st.none() | st.integers() | st.text() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PAYLOADS: st.SearchStrategy[EventData] = st.one_of(
    st.builds(RunStarted, name=st.just("x"), input=JSON),
    st.builds(PlanMade, plan=st.dictionaries(st.text(max_size=3), JSON, max_size=3)),
    st.builds(StepStarted, step=st.just("s"), call=st.just("p.f"), arguments=JSON),
    st.builds(StepFinished, step=st.just("s"), result=JSON),
    st.text().map(
        lambda text: MessageAdded(message=Message(role="user", parts=user(text).parts, name=text))
    ),
    st.text().map(lambda text: ModelAnswered(model="m", message=assistant(text, CALL))),
    st.text().map(lambda text: QuestionAnswered(question_id="q", answer=text, by=text)),
)


@given(PAYLOADS)
def test_nothing_that_was_said_is_left_in_a_tombstone(data: EventData) -> None:
    left = tombstone(data)
    assert set(said(left)) <= {FORGOTTEN, "{}", ""}
    assert list(named(left)) == list(named(data))
    assert type(left).model_validate_json(left.model_dump_json()) == left
    assert tombstone(left) == left


def test_the_decision_of_an_approval_stays_and_who_made_it_goes() -> None:
    assert tombstone(
        QuestionAnswered(question_id="q", answer="deny", by="ann-margret")
    ) == QuestionAnswered(question_id="q", answer="deny", by=FORGOTTEN)


def test_a_history_with_tombstones_is_a_history() -> None:
    data: list[Any] = [
        ModelRequested(model="m", messages=1),
        ModelAnswered(model="m", message=assistant("x", CALL)),
        FunctionFinished(result=ToolResult(call_id="c1", name=CALL.name, content="x"), value=[1]),
    ]
    assert History(map(tombstone, data)).open_calls() == ()


def test_what_goes_and_what_stays_was_decided_for_every_field_of_every_kind() -> None:
    """A new field of text or of any value must be put here, or among what holds a history together."""
    going = {
        f"{kind}.{name}"
        for kind, model in MODELS.items()
        for name, field in model.model_fields.items()
        if field.annotation in (str, Any, dict[str, Any], dict[str, Any] | None) and name not in STRUCTURE
    }
    assert going == {
        "run.started.input", "run.finished.output", "run.failed.error", "model.failed.error",
        "function.finished.value", "question.asked.text", "question.answered.answer",
        "question.answered.by", "question.answered.arguments", "question.answered.result",
        "plan.made.plan", "step.started.arguments", "step.finished.result", "step.failed.error",
        "step.skipped.reason",
    }  # fmt: skip
