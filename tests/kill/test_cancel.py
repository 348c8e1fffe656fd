"""Cancelled at any point: functions see it, every call has its outcome, and the journal says it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kill_scenarios import SCENARIOS, Scenario
from kill_server import PaymentServer
from kill_store import DyingStore

from kernloom import AssistantAgent, Context, Journal, Kernel, ScriptedModel, UsageError, function
from kernloom.kernel.journal.events import FunctionStarted, Outcome
from kernloom.kernel.messages import assistant
from kernloom.kernel.models.scripted import call
from kernloom.kernel.policy import Policy

ALLOW = Policy(effects={"write": "allow", "network": "allow"})


@pytest.fixture
def server() -> Iterator[PaymentServer]:
    server = PaymentServer()
    yield server
    server.close()


@pytest.mark.parametrize("effects", [(), ("write",)])
async def test_a_function_sees_that_it_is_cancelled_and_the_journal_says_so(
    effects: tuple[Any, ...],
) -> None:
    begun, seen = threading.Event(), threading.Event()
    stopped = asyncio.Event()

    @function(effects=effects)
    def in_a_thread(context: Context) -> str:
        """Works until it is told to stop."""
        begun.set()
        while not context.cancelled:
            time.sleep(0.001)
        seen.set()
        return "stopped"

    @function(effects=effects)
    async def on_the_loop() -> str:
        """Waits for ever."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return ""

    both = ScriptedModel([assistant("", call("in_a_thread"), call("on_the_loop"))])
    async with Kernel(policy=ALLOW) as kernel:
        agent = AssistantAgent("busy", kernel=kernel, model=both, functions=[in_a_thread, on_the_loop])
        task = asyncio.create_task(agent.run("Go."))
        assert await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stopped.is_set()
        assert await asyncio.to_thread(seen.wait, 20)
        [info] = await kernel.journal.sessions()
        assert info.status == "cancelled"
        log = await kernel.journal.open(info.id)
        kinds = [event.kind for event in log.events]
        outcome = "function.in_doubt" if effects else "function.failed"
        assert kinds[-1] == "run.cancelled"
        assert kinds.count(outcome) == 2
        with pytest.raises(UsageError, match="has ended"):
            await agent.resume(info.id)


class CancellingStore(DyingStore):  # type: ignore[misc]
    """Cancels the run at a point."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path)
        self._at = at
        self.task: asyncio.Task[Any] | None = None

    def _point(self) -> None:
        self.points += 1
        if self.points == self._at and self.task is not None:
            self.task.cancel()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["agent", "plan"])
async def test_cancelled_at_any_point_it_is_over_and_nothing_hangs_in_the_air(
    name: str, tmp_path: Path
) -> None:
    point = reached = 0
    while point == reached:
        point += 1
        server, store = PaymentServer(), CancellingStore(tmp_path / f"{point}.db", point)
        scenario: Scenario = SCENARIOS[name](Journal(store), server.url)
        task = store.task = asyncio.create_task(scenario.begin())
        await asyncio.wait([task])
        reached = min(point, store.points)
        if task.cancelled():
            await _over(scenario.kernel, server)
        await scenario.kernel.aclose()
        server.close()
    assert point > 60


async def _over(kernel: Kernel, server: PaymentServer) -> None:
    """Every run has its ending, every call its outcome; what was paid for is not said to have failed."""
    outcomes: dict[str, str] = {}
    for info in await kernel.journal.sessions(limit=None, children=True):
        log = await kernel.journal.open(info.id)
        assert log.history.open_calls() == ()
        assert info.status in ("cancelled", "finished", "failed"), info
        keys: dict[str, str] = {}
        for event in log.events:
            if isinstance(event.data, FunctionStarted):
                keys[event.data.call_id] = event.data.key
            elif isinstance(event.data, Outcome) and event.data.result.call_id in keys:
                outcomes[keys[event.data.result.call_id]] = event.kind
    for key, times in server.keys().items():
        assert times == 1
        assert outcomes[key] in ("function.finished", "function.in_doubt"), (key, outcomes[key])
