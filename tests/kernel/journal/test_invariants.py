"""The journal's promises over generated histories.

What may follow what is judged here a second time, by :class:`Oracle`, written from the design's words and
sharing nothing with the state machine under test.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from kernloom.kernel.errors import InvariantError, JournalError
from kernloom.kernel.journal import (
    Event,
    EventData,
    History,
    InMemoryJournalStore,
    Journal,
    JournalStore,
    SessionLog,
    SqliteJournalStore,
    messages,
)
from kernloom.kernel.journal.events import (
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    FunctionRequested,
    FunctionStarted,
    MessageAdded,
    ModelAnswered,
    ModelFailed,
    ModelRequested,
    RunFinished,
    RunStarted,
)
from kernloom.kernel.messages import Message, TextPart, ToolCall, ToolResult, assistant, tool, user

# Few ids, so that they collide and meet.
IDS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
TEXT = st.text(max_size=8)
CALLS = IDS.map(lambda name: ToolCall(id=name, name="plugin.do"))
RESULTS = st.builds(ToolResult, call_id=IDS, name=st.just("plugin.do"), content=TEXT, error=st.booleans())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def answers(text: str, calls: list[ToolCall], partial: bool) -> ModelAnswered:
    return ModelAnswered(model="m", message=assistant(text, *calls), partial=partial)


def done(result: ToolResult) -> EventData:
    return FunctionFinished(result=result)


DATA: st.SearchStrategy[EventData] = st.one_of(
    st.builds(RunStarted, name=TEXT, input=JSON),
    st.builds(RunFinished, output=JSON),
    TEXT.map(lambda text: MessageAdded(message=user(text))),
    RESULTS.map(lambda result: MessageAdded(message=tool(result))),
    st.just(ModelRequested(model="m", messages=1)),
    st.just(ModelRequested(model="m", messages=1)),
    st.builds(answers, TEXT, st.lists(CALLS, max_size=3), st.sampled_from([False, False, False, True])),
    st.just(ModelFailed(model="m", code="c", error="e")),
    st.builds(FunctionRequested, call=CALLS),
    st.builds(
        FunctionStarted,
        call_id=IDS,
        name=st.just("plugin.do"),
        effects=st.sampled_from([None, (), ("read",), ("read", "write")]),
    ),
    st.builds(FunctionFinished, result=RESULTS, value=JSON),
    st.builds(FunctionFailedEvent, result=RESULTS, code=st.just("function.failed")),
    st.builds(FunctionInDoubtEvent, result=RESULTS),
)


class Oracle:
    """What may follow, by the design's words."""

    def __init__(self) -> None:
        self.asked = False
        self.open: set[str] = set()
        self.closed: set[str] = set()

    def copy(self) -> "Oracle":
        twin = Oracle()
        twin.asked, twin.open, twin.closed = self.asked, set(self.open), set(self.closed)
        return twin

    def moves(self) -> list[EventData]:
        """Some of what may come next; ids are made up as the history grows."""
        new = [
            ToolCall(id=f"new-{len(self.open | self.closed) + extra}", name="plugin.do") for extra in (0, 1)
        ]
        if self.asked:
            calling, talking = assistant("Let me see.", *new), assistant("So it is.")
            return [ModelAnswered(model="m", message=message) for message in (calling, calling, talking)]
        if not self.open:
            return [ModelRequested(model="m", messages=1), MessageAdded(message=user("And?"))]
        results = [ToolResult(call_id=name, name="plugin.do", content=name) for name in sorted(self.open)]
        return [*map(done, results), FunctionRequested(call=new[0]), MessageAdded(message=user("Wait."))]

    def accept(self, data: EventData) -> bool:
        """Whether ``data`` may come next; if so, it has come."""
        known = self.open | self.closed
        match data:
            case MessageAdded():
                return data.message.role != "tool"
            case ModelRequested():
                if self.asked or self.open:
                    return False
                self.asked = True
            case ModelFailed():
                if not self.asked:
                    return False
                self.asked = False
            case ModelAnswered():
                ids = [] if data.partial else [call.id for call in data.message.tool_calls]
                if not self.asked or len(set(ids)) < len(ids) or known & set(ids):
                    return False
                self.asked = False
                self.open |= set(ids)
            case FunctionRequested():
                if data.call.id in known:
                    return False
                self.open.add(data.call.id)
            case FunctionStarted():
                return data.call_id in self.open
            case FunctionFinished() | FunctionFailedEvent() | FunctionInDoubtEvent():
                if data.result.call_id not in self.open:
                    return False
                self.open.remove(data.result.call_id)
                self.closed.add(data.result.call_id)
            case _:
                pass
        return True


def wrapped(data: list[EventData]) -> list[Event]:
    return [Event(seq, "s", 0.0, "test", item) for seq, item in enumerate(data, start=1)]


def assert_providers_would_take(sent: list[Message]) -> None:
    """Chat providers' rules: calls are answered at once, all, once, and in order; nothing is empty."""
    for index, message in enumerate(sent):
        assert message.parts
        if message.role == "tool":
            asked = [call.id for call in sent[index - 1].tool_calls] if index else []
            told = [part.call_id for part in message.parts if isinstance(part, ToolResult)]
            assert told == asked
            assert len(set(asked)) == len(asked) == len(message.parts)
        else:
            assert all(isinstance(part, TextPart) and part.text for part in message.parts) or (
                message.role == "assistant"
            )
        if message.tool_calls:
            assert sent[index + 1].role == "tool"


@st.composite
def legal_histories(draw: st.DrawFn) -> list[EventData]:
    oracle = Oracle()
    return [data for data in draw(st.lists(DATA, max_size=60)) if oracle.accept(data)]


@given(legal_histories())
def test_every_prefix_is_valid_to_a_provider_and_can_be_repaired(data: list[EventData]) -> None:
    for end in range(len(data) + 1):
        history = History(data[:end])
        assert_providers_would_take(messages(wrapped(data[:end])))
        repaired = [*data[:end], *history.repair()]
        again = History(repaired)
        assert again.open_calls() == ()
        again.apply(ModelRequested(model="m", messages=1))
        sent = messages(wrapped(repaired))
        assert_providers_would_take(sent)
        asked = [call for item in repaired if isinstance(item, ModelAnswered) and not item.partial
                 for call in item.message.tool_calls]  # fmt: skip
        assert [call for message in sent for call in message.tool_calls] == asked


@given(st.lists(DATA, max_size=40))
def test_messages_are_valid_to_a_provider_whatever_the_events(data: list[EventData]) -> None:
    assert_providers_would_take(messages(wrapped(data)))


@given(st.lists(DATA, max_size=40))
def test_the_state_machine_agrees_with_the_design(data: list[EventData]) -> None:
    oracle, history = Oracle(), History()
    for item in data:
        if oracle.accept(item):
            history.apply(item)
        else:
            with pytest.raises(InvariantError):
                history.apply(item)
        assert {call.id for call in history.open_calls()} == oracle.open
        assert (history.asked is not None) == oracle.asked


class Writers(RuleBasedStateMachine):
    """Two writers of one session, each with its own view of it, against a plain list."""

    def open_store(self) -> JournalStore:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    @initialize()
    def begin(self) -> None:
        self.store = self.open_store()
        self.other = self.open_store()
        self.truth: list[EventData] = []
        self.oracle = Oracle()
        self.id = ""
        first = MessageAdded(message=user("hello"))
        self.truth.append(first)

        async def two() -> tuple[SessionLog, SessionLog]:
            log = await Journal(self.store, clock=lambda: 1.5).create(parent=("above", 3))
            await log.append(first, actor="first")
            return log, await Journal(self.other, clock=lambda: 2.5).open(log.id)

        self.logs = self.runner.run(two())

    @rule(which=st.sampled_from([0, 1]), data=st.lists(DATA, min_size=1, max_size=4), durable=st.booleans())
    def append(self, which: int, data: list[EventData], durable: bool) -> None:
        log = self.logs[which]
        view = Oracle()
        for event in log.events:
            assert view.accept(event.data)
        legal = all(view.accept(item) for item in data)
        self.attempt(log, data, legal=legal, durable=durable)

    @rule(which=st.sampled_from([0, 1]), choose=st.data(), size=st.integers(1, 3))
    def go_on(self, which: int, choose: st.DataObject, size: int) -> None:
        """What may come next in this writer's eyes, so that histories grow long."""
        log, view = self.logs[which], Oracle()
        for event in log.events:
            assert view.accept(event.data)
        batch = []
        for _ in range(size):
            data = choose.draw(st.sampled_from(view.moves()))
            assert view.accept(data)
            batch.append(data)
        self.attempt(log, batch, legal=True, durable=False)

    def attempt(self, log: SessionLog, data: list[EventData], *, legal: bool, durable: bool) -> None:
        before = list(log.events)
        appending = log.append(*data, actor="writer", run="r", durable=durable)
        if legal and len(before) == len(self.truth):
            self.runner.run(appending)
            self.truth += data
            return
        with pytest.raises((InvariantError, JournalError)) as caught:
            self.runner.run(appending)
        assert caught.value.code == ("journal.conflict" if legal else "journal.invariant")
        assert log.events == before

    @rule(which=st.sampled_from([0, 1]))
    def refresh(self, which: int) -> None:
        log = self.logs[which]
        before = len(log.events)
        assert self.runner.run(log.refresh()) == log.events[before:]
        assert [event.data for event in log.events] == self.truth

    @rule(which=st.sampled_from([0, 1]))
    def reopen(self, which: int) -> None:
        log = self.logs[which]
        again = self.runner.run(Journal(self.store).open(log.id))
        assert [event.data for event in again.events] == self.truth
        assert again.events[: len(log.events)] == log.events
        assert again.parent == ("above", 3)

    @invariant()
    def seqs_have_no_gaps(self) -> None:
        for log in getattr(self, "logs", ()):
            assert [event.seq for event in log.events] == list(range(1, log.seq + 1))
            assert [event.data for event in log.events] == self.truth[: log.seq]
            assert log.messages() == messages(log.events)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.close())
            self.runner.run(self.other.close())
        self.runner.close()


class InMemoryWriters(Writers):
    def open_store(self) -> JournalStore:
        if not hasattr(self, "kept"):
            self.kept = InMemoryJournalStore()
        return self.kept


class SqliteWriters(Writers):
    def open_store(self) -> JournalStore:
        if not hasattr(self, "folder"):
            self.folder = tempfile.mkdtemp()
        return SqliteJournalStore(Path(self.folder) / "journal.db")

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


@pytest.mark.parametrize(("machine", "examples"), [(InMemoryWriters, 60), (SqliteWriters, 25)])
def test_two_writers_never_write_what_may_not_follow_and_lose_nothing(
    machine: type[Writers], examples: int
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
