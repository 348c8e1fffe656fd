"""The state as of any event is what somebody who looked then would have seen."""

import itertools
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom import (
    ApprovalRequired,
    AssistantAgent,
    InMemoryJournalStore,
    Journal,
    JournalError,
    Kernel,
    Plan,
    ScriptedModel,
    function,
)
from kernloom.kernel.journal import EventData, History, View, messages
from kernloom.kernel.models.scripted import call
from kernloom.kernel.policy import Policy

INVARIANTS = runpy.run_path(str(Path(__file__).with_name("test_invariants.py")))
HISTORIES: st.SearchStrategy[list[EventData]] = INVARIANTS["legal_histories"]()


@given(HISTORIES)
def test_a_view_is_what_its_events_come_to(data: list[EventData]) -> None:
    told = INVARIANTS["wrapped"](data)
    for end in range(len(data) + 1):
        view = View.of("s", told[:end])
        assert view.seq == end
        assert list(view.messages) == messages(told[:end])
        assert view.open_calls == History(data[:end]).open_calls()


def ticking() -> Journal:
    ticks = itertools.count(100)
    return Journal(InMemoryJournalStore(), clock=lambda: float(next(ticks)))


async def test_time_travel_through_a_run_that_waited_for_a_person() -> None:
    @function(effects={"write"})
    def pay(amount: int) -> str:
        return f"paid {amount}"

    kernel = Kernel(journal=ticking(), policy=Policy())
    model = ScriptedModel([call("pay", amount=5), "Done."])
    agent = AssistantAgent("payer", kernel=kernel, model=model, functions=[pay])
    with pytest.raises(ApprovalRequired) as caught:
        await agent.run("Pay 5.")
    log = await kernel.journal.open(str(caught.value.details["session"]))
    kinds: list[str] = [event.kind for event in log.events]
    waiting = log.at(log.seq)
    assert (waiting.status, [q.text for q in waiting.questions]) == ("waiting", ["pay (write)"])
    assert [c.name for c in waiting.open_calls] == ["pay"]
    assert waiting.usage.requests == 1

    assert log.at(0) == View.of(log.id, [])
    assert (log.at(0).status, log.at(0).at, log.at(0).messages) == ("none", None, ())
    asked = log.at(kinds.index("model.requested") + 1)
    assert (asked.status, asked.open_calls, asked.usage.requests) == ("unfinished", (), 0)
    assert [m.text for m in asked.messages] == ["Pay 5."]
    assert log.as_of(log.events[2].at) == asked
    assert log.as_of(99.0).seq == 0
    assert log.as_of(1e9) == waiting
    for wrong in (-1, log.seq + 1):
        with pytest.raises(JournalError, match="no event"):
            log.at(wrong)


async def test_a_view_of_a_plan_says_how_its_steps_stand() -> None:
    kernel = Kernel(journal=ticking())

    def double(n: int) -> int:
        return 2 * n

    kernel.add_function(double)
    steps: list[dict[str, Any]] = [
        {"id": "a", "call": "double", "args": {"n": 1}},
        {"id": "b", "call": "double", "args": {"n": "{{ steps.a.result }}"}},
        {"id": "c", "call": "double", "args": {"n": 1}, "when": "steps.b.result > 9"},
    ]
    log = await kernel.journal.create()
    await Plan.from_dict({"goal": "g", "steps": steps}).run(kernel, {}, kernel.context(log=log))
    seen = [dict(log.at(seq).steps) for seq in range(log.seq + 1)]
    assert seen[-1] == {"a": "finished", "b": "finished", "c": "skipped"}
    assert {"a": "finished", "b": "started"} in seen
    assert log.at(log.seq).status == "finished"
