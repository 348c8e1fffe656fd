"""What a command opens to work with: kernel, journal, memory, agent; and whom it asks for approval."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..kernel.agents.assistant import AssistantAgent
from ..kernel.agents.limits import Limits
from ..kernel.errors import MemoryStoreError, NotFoundError, not_found
from ..kernel.journal import Journal, JournalStore, SessionLog, SqliteJournalStore
from ..kernel.journal.encryption import VARIABLE, EncryptedJournalStore, load_keys
from ..kernel.kernel import Kernel
from ..kernel.messages import Citation, Grounding
from ..kernel.policy import ApprovalRequest, Approver
from ..kernel.protocols import Grounder
from ..memory.memory import Memory
from .screen import Screen

#: Where a run's ``spec`` keeps how :func:`open_agent` made its agent.
OPENED = "command line"
#: The model that only quotes: without memory it has nothing to say.
EXTRACTIVE = "extractive"
_INSTRUCTIONS = "You are a helpful assistant. Answer briefly and in the language of the question."


#: For commands with an agent.
offer = click.option(
    "-f",
    "--function",
    "functions",
    multiple=True,
    metavar="NAME",
    help="Also offer it to the model: math, files.read, or * for all.",
)


def open_journal(screen: Screen) -> Journal:
    """The project's journal; its folder is made if this is the first word ever.

    It is encrypted if ``journal.encrypt`` says so, or if there is a key for it in the environment.

    Raises:
        ConfigError: ``journal.key_missing``, it is to be encrypted and there is no key.
    """
    screen.config.make_state_dir()
    return Journal(journal_store(screen, screen.config.journal_path))


def journal_store(screen: Screen, path: Path) -> JournalStore:
    """The file of a journal, with encryption around it where that is configured."""
    store = SqliteJournalStore(path)
    config = screen.config
    if not config.get("journal.encrypt") and not config.env.get(VARIABLE):
        return store
    return EncryptedJournalStore(store, load_keys(config.env))


@asynccontextmanager
async def recorded(screen: Screen, session: str) -> AsyncIterator[tuple[Journal, SessionLog]]:
    """The project's journal, and in it the session that :func:`open_session` finds.

    Raises:
        NotFoundError: ``journal.unknown_session``, also where nothing was ever said.
    """
    if not screen.config.journal_path.exists():
        raise not_found("session", session, (), code="journal.unknown_session")
    async with open_journal(screen) as journal:
        yield journal, await open_session(journal, session)


async def open_session(journal: Journal, session: str) -> SessionLog:
    """The session of that id, or of an id that begins so; ``last`` is the one used last.

    Raises:
        NotFoundError: ``journal.unknown_session``.
    """
    if session == "last":
        sessions = await journal.sessions(limit=1)
        if not sessions:
            raise NotFoundError(
                "Nothing was said yet.",
                code="journal.unknown_session",
                hint="Begin with kernloom ask or kernloom chat.",
            )
        session = sessions[0].id
    return await journal.open(session)


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
    stopped = False

    async def ask(request: ApprovalRequest) -> bool:
        nonlocal stopped
        if not stopped:
            screen.note(asked_about(request))
            # Read on this thread, while nothing else goes on: a thread blocked in a read cannot be stopped.
            try:
                with interruptible():
                    return click.confirm("Allow this call?", default=False, err=True)
            except (click.Abort, KeyboardInterrupt):
                stopped = True
                # Raised again where asyncio takes note: the run is cancelled, and its record says so.
                signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            stopped = False  # a chat goes on
        raise AssertionError("unreachable: the run was cancelled")

    return ask


def asked_about(request: ApprovalRequest) -> str:
    """What would be done, in full: a yes must not be given to something cut short."""
    arguments = json.dumps(request.arguments, ensure_ascii=False, indent=2)
    effects = ", ".join(request.effects) or "asks for approval"
    who = "You want" if request.actor == "person" else f"{request.actor} wants"
    return f"{who} to call {request.function} ({effects}) with\n{arguments}"


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


@asynccontextmanager
async def open_memory(
    screen: Screen, chosen: str | None = None, *, existing: bool = False
) -> AsyncIterator[Memory]:
    """The memory at ``--memory PATH`` or where it is configured.

    Args:
        screen: whose settings count.
        chosen: the path somebody gave.
        existing: refuse one that holds nothing yet.

    Raises:
        MemoryStoreError: ``memory.empty``.
    """
    path = memory_path(screen, chosen)
    if existing and not path.exists():
        raise nothing_stored(path)
    if chosen is None and path.parent == screen.config.state_dir:
        screen.config.make_state_dir()
    async with Memory(path, embedder=screen.config.get("memory.embedder")) as memory:
        if existing and not memory.info().documents:
            raise nothing_stored(path)
        yield memory


def nothing_stored(path: Path) -> MemoryStoreError:
    """What to do before anything can be found."""
    return MemoryStoreError(
        f"Memory is empty ({path}).",
        code="memory.empty",
        hint="Add your documents first: kernloom memory add docs/",
        path=str(path),
    )


@asynccontextmanager
async def open_agent(
    screen: Screen,
    *,
    model: str | None = None,
    memory: str | None = None,
    passages: int | None = None,
    functions: Sequence[str] = (),
    yes: bool = False,
) -> AsyncIterator[AssistantAgent]:
    """The project's assistant: its journal, its memory if there is something in it, its plugins.

    Raises:
        MemoryStoreError: ``memory.empty`` when the model can only quote and there is nothing to quote.
    """
    async with AsyncExitStack() as stack:
        kernel = await stack.enter_async_context(open_kernel(screen, yes=yes, journal=True))
        name = model or screen.config.default_model
        kernel.model(name)  # one that cannot be had is said before anything is opened
        store: Grounder | None = None
        try:
            store = await stack.enter_async_context(open_memory(screen, memory, existing=True))
        except MemoryStoreError as exc:
            if exc.code != "memory.empty" or name == EXTRACTIVE or memory is not None:
                raise
            screen.note(f"{exc.message} {name} answers without it. {exc.hint}")
        if store is not None and passages is not None:
            store = _First(store, passages)
        place = str(memory_path(screen, memory).absolute()) if memory is not None else None
        given = {"memory": place, "passages": passages, "functions": list(functions)}
        yield project_agent(screen, kernel, model=name, memory=store, given=given)


def project_agent(
    screen: Screen, kernel: Kernel, *, model: str, memory: Grounder | None, given: Mapping[str, Any]
) -> AssistantAgent:
    """The project's assistant in a kernel.

    Args:
        screen: whose settings count.
        kernel: where it works.
        model: who answers.
        memory: where it looks.
        given: what :func:`open_agent` was given, kept with each run so that it can be given again.
    """
    return AssistantAgent(
        "assistant",
        kernel=kernel,
        model=model,
        instructions=_INSTRUCTIONS,
        memory=memory,
        functions=["", *given["functions"]],  # "" stands for what is offered when nothing is named
        limits=limits(screen),
        spec={OPENED: dict(given)},
    )


@dataclass(frozen=True)
class _First:
    """A memory of which only the first few passages are shown."""

    memory: Grounder
    passages: int

    async def ground(self, query: str, *, tokens: int = 1200) -> Grounding:
        found = await self.memory.ground(query, tokens=tokens)
        return found.model_copy(update={"passages": found.passages[: self.passages]})

    async def cite(self, answer: str, grounding: Grounding) -> tuple[Citation, ...]:
        return await self.memory.cite(answer, grounding)
