"""``kernloom runs resume``: the run's agent, plan or call is made again from the record, and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import click

from ..kernel.agents.assistant import AssistantAgent
from ..kernel.conversations.runs import last_run
from ..kernel.errors import PersonRequired, UsageError
from ..kernel.journal import Journal, SessionLog
from ..kernel.journal.events import PlanMade, RunStarted
from ..planners.plan import Plan
from . import answers, own_calls
from .ask import answer
from .commands import Command
from .functions import show_result
from .plan import show_outcome, told
from .questions import ask_here, say_how_to_answer
from .screen import Screen
from .workspace import OPENED, open_agent, open_kernel, recorded

_T = TypeVar("_T")


@click.command(cls=Command)
@click.argument("session")
@click.option("-m", "--model", metavar="PROVIDER:MODEL", help="Another model than the one it began with.")
@click.option("-y", "--yes", is_flag=True, help="Approve every call it makes from here on.")
@click.pass_obj
def resume(screen: Screen, session: str, model: str | None, yes: bool) -> None:
    """Go on with a run that died or waited for a person.

    Nothing that is on record is done again. A run that has finished gives its result once more. At a
    terminal you are asked what it waits for; elsewhere it exits with 3 and says what to type.
    """
    asyncio.run(_resume(screen, session, model, yes))


async def _resume(screen: Screen, session: str, model: str | None, yes: bool) -> None:
    async with recorded(screen, session) as (journal, log):
        root = await _root(screen, journal, log)
        run, started = _last_run(root)
    if started.what == "plan":
        await _plan(screen, root.id, run, yes)
    elif started.what == "function":
        await _function(screen, root.id, run, yes)
    else:
        await _agent(screen, root, started, model, yes)


async def _root(screen: Screen, journal: Journal, log: SessionLog) -> SessionLog:
    """The session whose run is to be resumed: who was called by another goes on when that one does.

    A fork of such a session has left its caller, and goes on by itself.
    """
    while log.parent is not None and (await journal.find(log.id)).base is None:
        log = await journal.open(log.parent[0])
        screen.note(f"It was opened by {log.id}, which is resumed.")
    return log


def _last_run(log: SessionLog) -> tuple[str, RunStarted]:
    run = last_run(log.events)
    for event in reversed(log.events):
        if isinstance(event.data, RunStarted) and event.run == run and run is not None:
            return run, event.data
    raise UsageError(
        f"No run was started in session {log.id!r}.",
        code="run.nothing_to_resume",
        hint=f"See what is there: kernloom runs show {log.id}.",
    )


async def _agent(
    screen: Screen, log: SessionLog, started: RunStarted, model: str | None, yes: bool
) -> None:
    spec = started.spec or {}
    given = spec.get(OPENED)
    if not isinstance(given, Mapping):
        raise _foreign(log.id, started.name)
    opening = open_agent(screen, model=model or spec.get("model"), yes=yes, **given)
    async with opening as agent:
        _check_functions(log, agent)
        reply = await _answering(
            screen, agent.kernel.journal, log.id, lambda: answer(screen, agent, None, session=log.id)
        )
    screen.result(answers.as_data(reply), answers.whole(screen, reply))
    screen.note(answers.footing(screen, reply))


async def _plan(screen: Screen, session: str, run: str, yes: bool) -> None:
    async with open_kernel(screen, yes=yes, journal=True) as kernel:
        log = await kernel.journal.open(session)
        made = [e.data.plan for e in log.events if isinstance(e.data, PlanMade) and e.run == run]
        if not made:
            raise _foreign(session, "a planner")
        plan = Plan.from_dict(made[-1], source=f"the plan of session {session!r}")
        plan.ensure(kernel)  # before a word is written: a function may be missing here
        screen.progress("going on …")
        outcome = await _answering(screen, kernel.journal, session, lambda: Plan.resume(kernel, session))
    show_outcome(screen, told(plan, outcome, session))


async def _function(screen: Screen, session: str, run: str, yes: bool) -> None:
    async with open_kernel(screen, yes=yes, journal=True) as kernel:
        log = await kernel.journal.open(session)
        value = await _answering(screen, kernel.journal, session, lambda: own_calls.go_on(kernel, log, run))
    name = next(e.data.name for e in log.events if isinstance(e.data, RunStarted))
    show_result(screen, name, value)


async def _answering(
    screen: Screen, journal: Journal, session: str, go_on: Callable[[], Awaitable[_T]]
) -> _T:
    """Go on, asking whoever sits there as often as an answer is needed."""
    while True:
        try:
            return await go_on()
        except PersonRequired as exc:
            screen.clear()
            if not screen.talks or not await ask_here(screen, journal, session):
                await say_how_to_answer(exc, journal, session)
                raise


def _check_functions(log: SessionLog, agent: AssistantAgent) -> None:
    """A call that had begun must find its function again, or nobody could say what became of it."""
    history = log.history
    for call in history.open_calls():
        if history.intent(call.id) is not None and call.name not in agent.functions:
            raise UsageError(
                f"The run was in the middle of {call.name}, which is not there any more.",
                code="run.function_missing",
                hint="Install and allow its plugin again, then resume: kernloom plugins list.",
                function=call.name,
                session=log.id,
            )


def _foreign(session: str, name: str) -> UsageError:
    return UsageError(
        f"The run of {name!r} in session {session!r} was begun by a program; only that can make it again.",
        code="run.of_a_program",
        hint=f"Resume it there: await agent.resume({session!r}).",
        session=session,
    )
