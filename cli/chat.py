"""``kernloom chat``: one conversation, streamed, that can be gone on with later or elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing

import click

from ..kernel.agents.assistant import AssistantAgent
from ..kernel.agents.reply import Reply
from ..kernel.errors import KernloomError, PersonRequired
from ..kernel.journal import Event
from ..kernel.models.base import TextDelta
from . import answers
from .commands import Command
from .questions import say_how_to_answer
from .screen import Screen
from .workspace import offer, open_agent, open_session

_HELP = "/quit leaves, Ctrl-C stops an answer; what was said is kept."


@click.command(cls=Command)
@click.option("-m", "--model", metavar="PROVIDER:MODEL", help="Who answers; extractive only quotes.")
@click.option("--memory", metavar="PATH", help="Another memory than the project's.")
@click.option("--session", metavar="ID", help="Go on with this session; 'last' is the one used last.")
@offer
@click.option("-y", "--yes", is_flag=True, help="Approve every call the model makes.")
@click.pass_obj
def chat(
    screen: Screen,
    model: str | None,
    memory: str | None,
    session: str | None,
    functions: tuple[str, ...],
    yes: bool,
) -> None:
    """Talk; --session goes on with an earlier session.

    Without a terminal, each line of stdin is one message.
    """
    with asyncio.Runner() as runner, contextlib.ExitStack() as cleanup:
        stack = AsyncExitStack()
        cleanup.callback(lambda: runner.run(stack.aclose()))
        opening = open_agent(screen, model=model, memory=memory, functions=functions, yes=yes)
        agent = runner.run(stack.enter_async_context(opening))
        talk = _Talk(screen, agent)
        if session is not None:
            runner.run(talk.resume(session))
        if screen.talks:
            screen.note(screen.paint(_HELP, "dim", err=True))
        try:
            for text in _said(screen):
                _turn(runner, talk, text)
        finally:
            talk.leave()


def _said(screen: Screen) -> Iterator[str]:
    """What the person says, line by line, until ``/quit`` or the end."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    with contextlib.suppress(ImportError):  # line editing and history, where the platform has them
        import readline  # noqa: F401
    while True:
        try:
            text = input("you> ").strip()
        except EOFError:
            click.echo(err=True)
            return
        if text in ("/quit", "/exit"):
            return
        if text.startswith("/"):
            screen.note(f"There is no {text.split()[0]}. {_HELP}")
        elif text:
            yield text


def _turn(runner: asyncio.Runner, talk: _Talk, text: str) -> None:
    """One message and its answer. An error or Ctrl-C ends the turn, not the session."""
    screen = talk.screen
    try:
        runner.run(talk.say(text))
    except KeyboardInterrupt:
        screen.say("")
        if not sys.stdin.isatty():
            raise  # nobody sits there to go on
        screen.note("Stopped; what was said is kept.")
    except KernloomError as exc:
        if not screen.talks:
            raise
        screen.say("")
        screen.error(exc.code, exc.message, exc.hint, exc.details)


class _Talk:
    """A conversation and where it is shown."""

    def __init__(self, screen: Screen, agent: AssistantAgent) -> None:
        self.screen = screen
        self.agent = agent
        self.session: str | None = None

    async def resume(self, session: str) -> None:
        """Go on with an earlier session, reminding of where it stood."""
        log = await open_session(self.agent.kernel.journal, session)
        self.session = log.id
        screen = self.screen
        so_far = f"session {log.id}, {len(log.messages())} messages so far"
        screen.note(screen.paint(so_far, "dim", err=True))
        said = {message.role: message.text for message in log.messages() if message.text}
        for role, who in (("user", "you"), ("assistant", self.agent.name)):
            if role in said:
                screen.note(f"{screen.paint(who, 'dim', err=True)}> {said[role]}")

    async def say(self, text: str) -> None:
        """One message; its answer is shown as it arrives."""
        self.screen.progress("reading …")
        try:
            await self._say(text)
        except PersonRequired as exc:
            assert self.session is not None  # noqa: S101 - its first event names it
            await say_how_to_answer(exc, self.agent.kernel.journal, self.session)
            raise

    async def _say(self, text: str) -> None:
        screen, wrote = self.screen, False
        async with aclosing(self.agent.stream(text, session=self.session)) as items:
            async for item in items:
                if isinstance(item, Event):
                    self.session = item.session
                    if not wrote and (said := answers.going_on(item)):
                        screen.progress(said)
                elif isinstance(item, TextDelta) and not screen.json:
                    wrote = True
                    screen.write(item.text)
                elif isinstance(item, Reply):
                    self._finish(item, wrote=wrote)

    def leave(self) -> None:
        """Say how to come back."""
        if self.session is not None:
            self.screen.note(f"Go on with: kernloom chat --session {self.session}")

    def _finish(self, reply: Reply, *, wrote: bool) -> None:
        screen = self.screen
        if screen.json:
            screen.line(answers.as_data(reply))
            return
        screen.say("" if wrote else reply.text)
        if listed := answers.sources(screen, reply):
            screen.say(f"\n{listed}")
        screen.note(answers.footing(screen, reply) + "\n")
