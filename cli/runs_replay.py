"""``kernloom runs replay``: a session's runs again, from the journal alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from ..kernel.conversations.conversation import Conversation
from ..kernel.errors import UsageError
from ..kernel.journal import Event, SessionLog
from ..kernel.journal.events import Retrieval, RunStarted
from ..kernel.kernel import Kernel
from ..kernel.replay import ReplayKernel, ReplayLog, ReplayReport, Stage, replay
from ..kernel.replay.stand_ins import RecordedMemory
from ..planners.plan import Plan
from .commands import Command
from .screen import Screen
from .workspace import OPENED, open_kernel, open_session, project_agent, recorded


@click.command("replay", cls=Command)
@click.argument("session")
@click.pass_obj
def replay_(screen: Screen, session: str) -> int:
    """Run a session's runs again, from the journal alone.

    No model is asked and no function called. Exits with 0 if every event comes out as it is on record, with
    1 and the first that does not otherwise: a setting, a plugin or a release has changed what it does.
    """
    report = asyncio.run(_replay(screen, session))
    screen.result(report.to_dict(), report.render())
    return 0 if report.equal else 1


async def _replay(screen: Screen, session: str) -> ReplayReport:
    async with recorded(screen, session) as (_, found):
        name = found.id
    async with open_kernel(screen, journal=True) as kernel:
        log = await open_session(kernel.journal, name)
        started = [event.data for event in log.events if isinstance(event.data, RunStarted)]
        if any(one.what == "plan" for one in started):
            return await Plan.replay(kernel, log.id)
        if not any(_is_ours(one) for one in started):
            raise _nothing(log, started)
        return await _agent(screen, kernel, log)


async def _agent(screen: Screen, kernel: Kernel, log: SessionLog) -> ReplayReport:
    """Each run by an agent made as the one of that time, in a kernel where nothing is alive."""

    async def play(stage: Stage, stand_in: ReplayKernel, fresh: ReplayLog) -> None:
        spec = stage.started.spec or {}
        memory = RecordedMemory(stand_in.tape) if _looked(log.events, stage.run) else None
        agent = project_agent(screen, stand_in, model=spec["model"], memory=memory, given=spec[OPENED])
        text = None if stage.resumed else str(stage.started.input)
        async for _ in agent.stream(text, session=Conversation(fresh)):
            pass

    return await replay(log, kernel=kernel, owns=_is_ours, play=play)


def _is_ours(started: RunStarted) -> bool:
    return started.what == "agent" and OPENED in (started.spec or {})


def _looked(events: Sequence[Event], run: str) -> bool:
    return any(event.run == run and isinstance(event.data, Retrieval) for event in events)


def _nothing(log: SessionLog, started: Sequence[RunStarted]) -> UsageError:
    ran = ", ".join(sorted({one.name for one in started})) or "nobody"
    agents = any(one.what == "agent" for one in started)
    return UsageError(
        f"Session {log.id!r} has no run that can be replayed here; {ran} ran in it.",
        code="replay.nothing",
        hint="A program's agent is replayed by the program: await agent.replay(session)."
        if agents
        else "Agents and plans can be; a single call has nothing to it that could go another way.",
        session=log.id,
    )
