"""``kernloom ask``: one question, answered from your documents, with the places that say so."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, aclosing

import click

from ..kernel.agents.assistant import AssistantAgent
from ..kernel.agents.reply import Reply
from ..kernel.errors import PersonRequired, UsageError
from ..kernel.journal import Event
from . import answers
from .commands import Command, text_or_stdin
from .questions import say_how_to_answer
from .screen import Screen
from .workspace import offer, open_agent


@click.command(cls=Command)
@click.argument("question")
@click.option("-m", "--model", metavar="PROVIDER:MODEL", help="Who answers; extractive only quotes.")
@click.option("--memory", metavar="PATH", help="Another memory than the project's.")
@click.option("--k", "passages", type=click.IntRange(min=1), help="How many passages the model is given.")
@click.option("--session", metavar="ID", help="Go on with an earlier session.")
@offer
@click.option("-y", "--yes", is_flag=True, help="Approve every call the model makes.")
@click.pass_obj
def ask(
    screen: Screen,
    question: str,
    model: str | None,
    memory: str | None,
    passages: int | None,
    session: str | None,
    functions: tuple[str, ...],
    yes: bool,
) -> None:
    """Ask one question of your documents.

    QUESTION is text, or - to read it from stdin. The model may call what allowed plugins offer, and
    what -f names.
    """
    text = text_or_stdin(question)
    if not text.strip():
        raise UsageError("The question is empty.", code="ask.empty")
    opening = open_agent(
        screen, model=model, memory=memory, passages=passages, functions=functions, yes=yes
    )
    reply = asyncio.run(_ask(screen, opening, text, session))
    screen.result(answers.as_data(reply), answers.whole(screen, reply))
    screen.note(answers.footing(screen, reply))


async def _ask(
    screen: Screen, opening: AbstractAsyncContextManager[AssistantAgent], text: str, session: str | None
) -> Reply:
    async with opening as agent:
        return await answer(screen, agent, text, session=session)


async def answer(
    screen: Screen, agent: AssistantAgent, text: str | None, *, session: str | None = None
) -> Reply:
    """The whole reply, saying on the way what is going on; without ``text`` that of a resumed run.

    Raises:
        PersonRequired: it waits for a person; the hint names the session and what to type.
    """
    screen.progress("reading …")
    try:
        async with aclosing(agent.stream(text, session=session)) as items:
            async for item in items:
                if isinstance(item, Reply):
                    screen.clear()
                    return item
                if isinstance(item, Event):
                    session = item.session
                if said := answers.going_on(item):
                    screen.progress(said)
    except PersonRequired as exc:
        assert session is not None  # noqa: S101 - its first event names it
        await say_how_to_answer(exc, agent.kernel.journal, session)
        raise
    raise AssertionError("a run that does not raise ends with its reply")
