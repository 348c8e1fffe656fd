"""A plan that stopped goes on in another process as it would have, had it not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kernloom import (
    Context,
    Conversation,
    Journal,
    JournalError,
    Kernel,
    PlanError,
    SqliteJournalStore,
    function,
)
from kernloom.kernel.errors import ApprovalRequired, LimitReached
from kernloom.kernel.policy import Policy
from kernloom.planners.plan import Plan

ALLOW = Policy(effects={"write": "allow"})


class Crash(BaseException):
    """Stands for the death of the process: nothing in the house catches it."""


class DyingStore(SqliteJournalStore):
    """The process dies right after an event of a kind that says a word: it writes nothing any more."""

    def __init__(self, path: Path, kind: str, word: str) -> None:
        super().__init__(path)
        self._wanted: tuple[str, str] | None = (kind, word)

    async def append(self, session: str, events: Any, **kwargs: Any) -> None:
        if self._wanted is None:
            self.after()
        await super().append(session, events, **kwargs)
        if self._wanted is not None:
            kind, word = self._wanted
            if any(event.kind == kind and word in event.text for event in events):
                self._wanted = None
                self.now()

    def now(self) -> None:
        """That event was written."""
        raise Crash

    def after(self) -> None:
        """Something more is to be written."""
        raise Crash


class FailingStore(DyingStore):
    """Its disk fails once instead."""

    def now(self) -> None:
        raise JournalError("The disk failed.", code="journal.io")

    def after(self) -> None:
        """It is sound again."""


class Lab:
    """Functions that show what was done."""

    name = "lab"

    def __init__(self) -> None:
        self.made: list[str] = []

    @function
    def note(self, what: str) -> str:
        """Take note."""
        self.made.append(what)
        return what

    @function(effects={"write"}, idempotent=True)
    async def work(self, what: str) -> str:
        """Take note, after others had their turn."""
        await asyncio.sleep(0.05)
        self.made.append(what)
        return what

    @function
    async def broken(self) -> str:
        """Never works."""
        raise ValueError("broken")

    @function
    async def full(self) -> str:
        """Meets a limit."""
        raise LimitReached("That is enough.", code="limit.enough")

    @function(approval="ask")
    async def ask(self) -> str:
        """Needs a person."""
        return "asked"

    @function
    async def flaky(self, context: Context) -> str:
        """Works the second time, when somebody was asked something meanwhile."""
        await asyncio.sleep(0.02)
        if "#" not in str(context.call_id):
            raise ValueError("not yet")
        return "at last"


def kernel_with(lab: Lab, store: SqliteJournalStore) -> Kernel:
    kernel = Kernel(journal=Journal(store), policy=ALLOW)
    kernel.add_plugin(lab)
    return kernel


def plan_of(*steps: dict[str, Any], output: Any = None) -> Plan:
    return Plan.from_dict({"goal": "Test", "steps": list(steps), "output": output})


async def started(kernel: Kernel, plan: Plan) -> None:
    log = await kernel.journal.create()
    await plan.run(kernel, {}, kernel.context(log=log))


async def resumed(kernel: Kernel) -> Any:
    [info] = await kernel.journal.sessions()
    return (await Plan.resume(kernel, info.id)).output


async def dies(path: Path, lab: Lab, plan: Plan, kind: str, word: str) -> None:
    """A session whose process died after that event."""
    kernel = kernel_with(lab, DyingStore(path, kind, word))
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group around the crash, or the crash
        await started(kernel, plan)
    assert not isinstance(caught.value, Exception)
    await kernel.aclose()


async def test_an_error_that_was_made_up_for_is_known_after_a_crash(tmp_path: Path) -> None:
    plan = plan_of(
        {"id": "bad", "call": "lab.broken", "on_error": {"default": 0}},
        {"id": "each", "call": "lab.broken", "foreach": [1], "args": {}, "on_error": "skip"},
        {"id": "after", "call": "lab.note", "args": {"what": "x"}, "needs": ["bad", "each"]},
        output="{{ steps.bad.error }} {{ steps.each.error }}",
    )
    lab = Lab()
    async with kernel_with(lab, SqliteJournalStore(tmp_path / "a.db")) as kernel:
        alive = await kernel.invoke(plan)
    assert "broken" in alive
    await dies(tmp_path / "b.db", lab, plan, "step.started", "after")
    async with kernel_with(lab, SqliteJournalStore(tmp_path / "b.db")) as kernel:
        assert await resumed(kernel) == alive


async def test_a_plan_that_had_failed_begins_nothing_and_ends_what_had_begun(tmp_path: Path) -> None:
    plan = plan_of(
        {"id": "late", "call": "lab.note", "args": {"what": "late"}, "needs": ["busy"]},
        {"id": "busy", "call": "lab.work", "args": {"what": "busy"}},
        {"id": "bad", "call": "lab.broken"},
    )
    lab = Lab()
    await dies(tmp_path / "j.db", lab, plan, "step.failed", "bad")
    assert lab.made == []
    async with kernel_with(lab, SqliteJournalStore(tmp_path / "j.db")) as kernel:
        for _ in range(2):  # and says so again
            with pytest.raises(PlanError, match="Step 'bad'"):
                await resumed(kernel)
        assert lab.made == ["busy"]
        [info] = await kernel.journal.sessions()
        kinds = [event.kind for event in (await kernel.journal.open(info.id)).events]
    assert kinds[-1] == "run.failed"
    assert "function.in_doubt" not in kinds


async def test_a_limit_is_a_limit_after_a_crash(tmp_path: Path) -> None:
    plan = plan_of({"id": "much", "call": "lab.full", "retry": {"attempts": 3, "wait": 0}})
    lab = Lab()
    for number, kind in enumerate(("function.failed", "step.failed", "run.failed")):
        path = tmp_path / f"{number}.db"
        await dies(path, lab, plan, kind, "limit.enough")
        async with kernel_with(lab, SqliteJournalStore(path)) as kernel:
            with pytest.raises(LimitReached, match="That is enough"):
                await resumed(kernel)


async def test_a_step_that_may_be_tried_again_is_not_failed_by_one_that_waits(tmp_path: Path) -> None:
    plan = plan_of(
        {"id": "person", "call": "lab.ask"},
        {"id": "flaky", "call": "lab.flaky", "retry": {"attempts": 2, "wait": 0}},
        output="{{ steps.person.result }} {{ steps.flaky.result }}",
    )
    async with kernel_with(Lab(), SqliteJournalStore(tmp_path / "j.db")) as kernel:
        with pytest.raises(ApprovalRequired) as caught:
            await started(kernel, plan)
        conversation = await Conversation.open(kernel, str(caught.value.details["session"]))
        await conversation.answer(str(caught.value.details["question"]), "allow")
        assert await resumed(kernel) == "asked at last"


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("run.started", ""),
        ("step.started", "one"),
        ("function.requested", "one"),
        ("function.started", "one"),
        ("function.finished", "one"),
        ("step.finished", "one"),
        ("step.started", "all"),
        ("function.finished", "first"),
        ("step.finished", "all"),
        ("run.finished", ""),
    ],
)
async def test_a_plan_whose_journal_fails_has_not_ended(tmp_path: Path, kind: str, word: str) -> None:
    plan = plan_of(
        {"id": "one", "call": "lab.work", "args": {"what": "one"}, "on_error": "skip"},
        {
            "id": "all",
            "call": "lab.work",
            "foreach": ["first", "second"],
            "args": {"what": "{{ item }}"},
            "on_error": {"default": "made up"},
        },
        output="{{ steps.one.result }} {{ steps.all.result }}",
    )
    async with kernel_with(Lab(), FailingStore(tmp_path / "j.db", kind, word)) as kernel:
        with pytest.raises(JournalError, match="The disk failed"):
            await started(kernel, plan)
        assert await resumed(kernel) == "one ['first', 'second']"
