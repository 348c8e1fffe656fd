"""What a command opens to work with: the kernel, the journal, the memory; and whom it asks for approval."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import click

from ..kernel.agents.limits import Limits
from ..kernel.journal import Journal, SqliteJournalStore
from ..kernel.kernel import Kernel
from ..kernel.policy import ApprovalRequest, Approver
from .screen import Screen


def open_journal(screen: Screen) -> Journal:
    """The project's journal; its folder is made if this is the first word ever."""
    screen.config.make_state_dir()
    return Journal(SqliteJournalStore(screen.config.journal_path))


@asynccontextmanager
async def open_kernel(screen: Screen, *, yes: bool = False, journal: bool = False) -> AsyncIterator[Kernel]:
    """The kernel as configured.

    Args:
        screen: whose settings count, and who is asked.
        yes: every call that needs approval has it.
        journal: keep what happens in the project's journal rather than in this process.
    """
    async with AsyncExitStack() as stack:
        kept = await stack.enter_async_context(open_journal(screen)) if journal else None
        config = screen.config
        kernel = Kernel(
            config=config, policy=config.policy(), approve=approver(screen, yes=yes), journal=kept
        )
        yield await stack.enter_async_context(kernel)


def limits(screen: Screen) -> Limits:
    """The bounds of one turn, as configured."""
    config = screen.config
    return Limits.model_validate({"passage_tokens": config.get("memory.tokens"), **config.limits})


def approver(screen: Screen, *, yes: bool) -> Approver | None:
    """Who says yes: ``--yes``, the person at the terminal, or nobody."""
    if yes:
        return _always
    return _ask_at(screen) if screen.talks else None


async def _always(_: ApprovalRequest) -> bool:
    return True


def _ask_at(screen: Screen) -> Approver:
    async def ask(request: ApprovalRequest) -> bool:
        screen.note(asked_about(request))
        # Read on this thread, while nothing else goes on: a thread blocked in a read cannot be stopped.
        with interruptible():
            return click.confirm("Allow this call?", default=False, err=True)

    return ask


def asked_about(request: ApprovalRequest) -> str:
    """What would be done, in full: a yes must not be given to something cut short."""
    arguments = json.dumps(request.arguments, ensure_ascii=False, indent=2)
    effects = ", ".join(request.effects) or "asks for approval"
    return f"{request.actor} wants to call {request.function} ({effects}) with\n{arguments}"


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises at once, also while asyncio's runner, which would only take note, is in charge."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def memory_path(screen: Screen, chosen: str | None) -> Path:
    """The memory to open: ``--memory PATH``, else the configured one."""
    return Path(chosen).expanduser() if chosen else screen.config.memory_path
