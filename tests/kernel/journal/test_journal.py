"""Sessions: made, found, appended to by several at once, and listed."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kernloom.kernel.errors import InvariantError, JournalError, NotFoundError, UsageError
from kernloom.kernel.journal import (
    EventData,
    InMemoryJournalStore,
    Journal,
    JournalStore,
    SqliteJournalStore,
    StoredEvent,
    new_session_id,
)
from kernloom.kernel.journal.events import (
    FunctionFinished,
    FunctionRequested,
    MessageAdded,
    ModelAnswered,
    ModelRequested,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    checksum,
)
from kernloom.kernel.messages import ToolCall, ToolResult, assistant, system, user

ASK = ModelRequested(model="m", messages=1)


def said(text: str) -> MessageAdded:
    return MessageAdded(message=user(text))


def answered(text: str) -> ModelAnswered:
    return ModelAnswered(model="m", message=assistant(text))


def ticking(start: float = 100.0) -> Callable[[], float]:
    ticks = count()
    return lambda: start + next(ticks)


def named(*names: str) -> Callable[[], str]:
    given = iter(names)
    return lambda: next(given)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JournalStore]:
    made: JournalStore = (
        InMemoryJournalStore() if request.param == "memory" else SqliteJournalStore(tmp_path / "journal.db")
    )
    yield made
    await made.close()


async def test_a_conversation_reopened_by_id_goes_on_where_it_was(store: JournalStore) -> None:
    log = await Journal(store).create()
    await log.append(said("hello"), ASK, actor="ann")
    await log.append(answered("Good morning."), actor="librarian")

    again = await Journal(store).open(log.id)
    assert again.events == log.events
    assert again.messages() == [user("hello"), assistant("Good morning.")]
    await again.append(said("and you?"), actor="ann")
    assert again.seq == 4


async def test_two_terminals_take_turns_on_one_conversation(store: JournalStore) -> None:
    first = await Journal(store).create()
    await first.append(said("from the first"), actor="ann")
    second = await Journal(store).open(first.id)
    [written] = await second.append(said("from the second"), actor="bob")

    with pytest.raises(JournalError, match="ends at event 2, not at 1") as caught:
        await first.append(said("too late"), actor="ann")
    assert caught.value.code == "journal.conflict"
    assert caught.value.details == {"session": first.id, "expected": 1, "actual": 2}

    assert await first.refresh() == [written]
    await first.append(said("now then"), actor="ann")
    await second.refresh()
    assert [event.actor for event in second.events] == ["ann", "bob", "ann"]
    assert await second.refresh() == []


async def test_an_event_says_where_when_by_whom_and_in_which_run(store: JournalStore) -> None:
    journal = Journal(store, clock=lambda: 1234.5, new_id=named("child"))
    log = await journal.create(parent=("above", 7))
    first, second = await log.append(said("a"), said("b"), actor="ann", run="run-1")
    assert (first.seq, second.seq) == (1, 2)
    for event in (first, second, (await Journal(store).open("child")).events[0]):
        assert (event.session, event.at, event.actor, event.run) == ("child", 1234.5, "ann", "run-1")
        assert event.parent == ("above", 7)
        assert event.kind == "message"


async def test_nothing_of_a_batch_is_written_when_one_event_cannot_follow(store: JournalStore) -> None:
    log = await Journal(store).create()
    await log.append(said("a"), actor="ann")
    with pytest.raises(InvariantError):
        await log.append(ASK, said("b"), ASK, actor="ann")
    assert log.seq == 1
    assert (await Journal(store).open(log.id)).seq == 1
    assert log.history.asked is None
    await log.append(ASK, actor="ann")


async def test_parallel_tasks_may_append_to_one_session(store: JournalStore) -> None:
    log = await Journal(store).create()
    calls = [ToolCall(id=f"c{number}", name="a.b") for number in range(8)]
    await log.append(*(FunctionRequested(call=call) for call in calls), actor="plan")

    async def finish(call: ToolCall) -> None:
        result = ToolResult(call_id=call.id, name=call.name, content="ok")
        await log.append(FunctionFinished(result=result), actor="step", durable=call.id in {"c2", "c5"})

    await asyncio.gather(*map(finish, calls))
    assert log.history.open_calls() == ()
    assert (await Journal(store).open(log.id)).events == log.events


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {"a": {1}},
        datetime(2026, 1, 2, tzinfo=UTC),
        math.nan,
        {1: "one"},
        [1.5, None],
        b"text",
        "text",
    ],
)
async def test_what_a_log_holds_is_what_will_be_read_back(store: JournalStore, value: object) -> None:
    log = await Journal(store).create()
    await log.append(RunStarted(name="a", input=value), RunFinished(output={"deep": value}), actor="a")
    assert (await Journal(store).open(log.id)).events == log.events


async def test_changing_a_value_after_it_was_journaled_changes_nothing(store: JournalStore) -> None:
    log = await Journal(store).create()
    value: dict[str, Any] = {"list": [1]}
    [event] = await log.append(RunStarted(name="a", input=value), actor="a")
    value["list"].append(2)
    assert isinstance(event.data, RunStarted)
    assert event.data.input == {"list": [1]}


async def test_half_a_surrogate_pair_becomes_a_replacement_character(store: JournalStore) -> None:
    log = await Journal(store).create()
    await log.append(said("half \ud83d, whole 😀"), actor="ann")
    assert log.messages() == [user("half \ufffd, whole 😀")]
    assert (await Journal(store).open(log.id)).events == log.events


@pytest.mark.parametrize("value", [object(), {"a": print}, b"\xff", [10**5000]])
async def test_a_value_that_is_no_json_is_refused(store: JournalStore, value: object) -> None:
    log = await Journal(store).create()
    with pytest.raises(UsageError, match=r"'run\.finished' cannot be journaled") as caught:
        await log.append(said("a"), RunFinished(output=[value]), actor="a")
    assert caught.value.code == "journal.not_json"
    assert await store.sessions() == []
    assert log.seq == 0


async def test_a_session_is_found_by_the_start_of_its_id() -> None:
    journal = Journal(InMemoryJournalStore(), new_id=named("01abc", "01abd", "01ab"))
    for _ in range(3):
        await (await journal.create()).append(said("a"), actor="ann")
    assert (await journal.open("01abc")).id == "01abc"
    assert (await journal.open(" 01ab ")).id == "01ab"

    with pytest.raises(NotFoundError, match="3 sessions start with '01a'") as caught:
        await journal.open("01a")
    assert caught.value.code == "journal.ambiguous_session"
    with pytest.raises(NotFoundError, match="Did you mean '01abc'") as caught:
        await journal.open("01xbc")
    assert caught.value.code == "journal.unknown_session"
    for nothing in ("", "  "):
        with pytest.raises(NotFoundError):
            await journal.open(nothing)


async def test_a_session_opened_again_is_the_same_log_brought_up_to_date(store: JournalStore) -> None:
    journal = Journal(store)
    log = await journal.create()
    await log.append(said("a"), actor="ann")
    await (await Journal(store).open(log.id)).append(said("b"), actor="bob")
    assert await journal.open(log.id) is log
    assert await journal.open(log.id[:15]) is log
    assert log.seq == 2


async def test_a_session_without_events_is_not_there_yet(store: JournalStore) -> None:
    journal = Journal(store)
    log = await journal.create()
    assert await log.append(actor="ann") == []
    assert await log.refresh() == []
    assert await journal.sessions() == []


async def test_a_session_is_found_by_its_id_though_many_of_its_children_are_younger() -> None:
    """The ids of children begin with their parent's, and they were all used after it."""
    journal = Journal(InMemoryJournalStore(), clock=ticking())
    parent = await journal.create()
    await parent.append(said("a"), actor="ann")
    child = await journal.child(parent, "call")
    await child.append(said("b"), actor="bob")
    for number in range(30):
        await (await journal.child(child, str(number))).append(said("c"), actor="cy")
    again = Journal(journal.store)
    assert (await again.open(parent.id)).seq == 1
    assert (await again.open(child.id)).seq == 1


async def test_a_child_whose_first_event_was_not_written_is_still_that_child() -> None:
    journal = Journal(InMemoryJournalStore())
    parent = await journal.create()
    await parent.append(said("a"), actor="ann")
    child = await journal.child(parent, "call")
    assert await journal.child(parent, "call") is child
    assert child.seq == 0


async def test_a_session_at_work_stays_the_same_however_many_others_are_opened() -> None:
    journal = Journal(InMemoryJournalStore())
    log = await journal.create()
    await log.append(said("a"), actor="ann")
    async with log.claim("run"):
        for _ in range(100):
            await journal.create()
        assert await journal.open(log.id) is log
    for _ in range(100):
        await journal.create()
    assert await journal.open(log.id) is not log


def test_ids_are_short_and_sort_by_time() -> None:
    moments = [0.0, 1_700_000_000.0, 1_700_000_000.001, 1_800_000_000.0, 4_000_000_000.0]
    ids = [new_session_id(at) for at in moments]
    assert ids == sorted(ids)
    assert {len(name) for name in ids} == {16}
    assert set("".join(ids)) <= set("0123456789abcdefghjkmnpqrstvwxyz")
    assert len({new_session_id(1.0) for _ in range(1000)}) == 1000


async def test_the_list_shows_who_said_what_and_how_it_ended(store: JournalStore) -> None:
    journal = Journal(store, clock=ticking(), new_id=named("a", "b", "c", "d", "e"))
    started = RunStarted(name="librarian")
    failure = RunFailed(code="x", error="y")
    histories: dict[str, Sequence[EventData]] = {
        "a": [
            MessageAdded(message=system("Be brief.")),
            said("\n First line \nsecond"),
            started,
            RunFinished(),
        ],
        "b": [started, failure, RunStarted(name="critic"), said("x" * 100)],
        "c": [started, failure],
        "d": [started, RunCancelled()],
        "e": [ASK],
    }
    for name, data in histories.items():
        log = await journal.create(parent=("a", 3) if name == "c" else None)
        await log.append(*data, actor="ann")

    infos = await journal.sessions(children=True)
    assert [(info.id, info.title, info.agent, info.status) for info in infos] == [
        ("e", "", "", "none"),
        ("d", "", "librarian", "cancelled"),
        ("c", "", "librarian", "failed"),
        ("b", "x" * 79 + "…", "critic", "unfinished"),
        ("a", "First line", "librarian", "finished"),
    ]
    assert (infos[4].created, infos[4].updated, infos[4].events) == (100.0, 100.0, 4)
    assert [info.id for info in await journal.sessions()] == ["e", "d", "b", "a"]
    assert [info.id for info in await journal.sessions(limit=2)] == ["e", "d"]
    assert [(info.id, info.parent) for info in await journal.sessions(parent="a")] == [("c", ("a", 3))]


async def test_a_log_outlives_its_event_loop() -> None:
    log = await Journal(SlowStore(0.001)).create()

    async def both() -> None:
        await asyncio.gather(*(log.append(said("a"), actor="ann") for _ in range(3)))

    for _ in range(2):
        await asyncio.to_thread(asyncio.run, both())
    assert log.seq == 6


class SlowStore(InMemoryJournalStore):
    """A store that takes its time to say that it has written, as one behind a network may."""

    def __init__(self, delay: float) -> None:
        super().__init__()
        self.delay = delay

    async def append(
        self,
        session: str,
        events: Sequence[StoredEvent],
        *,
        expected_seq: int,
        parent: tuple[str, int] | None = None,
        durable: bool = False,
    ) -> None:
        await super().append(session, events, expected_seq=expected_seq, parent=parent, durable=durable)
        await asyncio.sleep(self.delay)


async def test_an_append_cancelled_in_mid_air_is_looked_up_before_the_next() -> None:
    store = SlowStore(0)
    log = await Journal(store).create()
    await log.append(said("a"), actor="ann")
    store.delay = 60
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(log.append(said("b"), ASK, actor="ann"), timeout=0.01)
    store.delay = 0
    with pytest.raises(InvariantError):
        await log.append(ASK, actor="ann")
    await log.append(*log.history.repair(), said("c"), actor="ann")
    assert [event.kind for event in log.events] == [
        "message", "message", "model.requested", "model.failed", "message",
    ]  # fmt: skip
    assert (await Journal(store).open(log.id)).events == log.events


async def test_a_long_session_is_read_in_pages(store: JournalStore) -> None:
    log = await Journal(store).create()
    await log.append(*(said(str(number)) for number in range(2500)), actor="ann")
    assert (await Journal(store).open(log.id)).events == log.events


async def with_one_event_changed(**changes: object) -> JournalError:
    """What opening says of a session whose second event is not as it was written."""
    store = InMemoryJournalStore()
    journal = Journal(store)
    log = await journal.create()
    await log.append(said("a"), ASK, answered("c"), actor="ann")
    rows = await store.read(log.id)
    other = InMemoryJournalStore()
    tampered = [rows[0], rows[1]._replace(**changes), rows[2]]  # type: ignore[arg-type]
    await other.append(log.id, tampered, expected_seq=0)
    with pytest.raises(JournalError) as caught:
        await Journal(other).open(log.id)
    assert caught.value.details["session"] == log.id
    assert caught.value.details["seq"] == 2
    return caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {"text": '{"kind":"model.requested","model":"n","messages":1,"functions":[]}'},
        {"text": None},
        {"at": 1.0},
        {"actor": "eve"},
        {"run": "other"},
        {"checksum": "0" * 16},
        {"kind": "message"},
        {"seq": 5},
    ],
)
async def test_an_event_that_is_not_as_it_was_written_is_refused(changes: dict[str, object]) -> None:
    error = await with_one_event_changed(**changes)
    assert error.code == "journal.corrupt"
    assert "Event 2 of session" in error.message


async def test_a_history_that_could_not_have_been_written_is_refused() -> None:
    asking, answering = InMemoryJournalStore(), InMemoryJournalStore()
    log = await Journal(asking, new_id=named("a")).create()
    await log.append(ASK, answered("x"), actor="ann")
    rows = await asking.read("a")
    # The same session, written by something that is not kernloom: an answer nobody had asked for.
    mark = checksum("a", 1, rows[1].at, "ann", None, 1, rows[1].text)
    await answering.append("a", [rows[1]._replace(seq=1, checksum=mark)], expected_seq=0)
    with pytest.raises(JournalError, match="nobody had asked") as caught:
        await Journal(answering).open("a")
    assert caught.value.code == "journal.corrupt"


async def test_an_event_of_a_later_version_is_refused_with_words() -> None:
    store = InMemoryJournalStore()
    text = '{"kind":"message"}'
    mark = checksum("a", 1, 1.0, "ann", None, 99, text)
    await store.append("a", [StoredEvent(1, 1.0, "ann", None, "message", 99, mark, text)], expected_seq=0)
    with pytest.raises(JournalError, match="version 99, cannot be read") as caught:
        await Journal(store).open("a")
    assert caught.value.code == "journal.version"
    assert caught.value.details == {"session": "a", "seq": 1, "kind": "message", "version": 99, "known": 1}


async def test_one_damaged_session_does_not_hide_the_others() -> None:
    store = InMemoryJournalStore()
    journal = Journal(store, clock=ticking(), new_id=named("good", "copied"))
    await (await journal.create()).append(said("hello"), actor="ann")
    [row] = await store.read("good")
    await store.append("bad", [row._replace(session="bad")], expected_seq=0)
    assert {info.id: (info.title, info.status) for info in await journal.sessions()} == {
        "good": ("hello", "none"),
        "bad": ("", "damaged"),
    }
