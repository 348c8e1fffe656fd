"""Who may work on a session: a lease in the store, so that of two processes exactly one does.

A lease that its holder does not renew ends by itself. A holder that died on this machine is noticed at
once, so that resuming after a crash does not wait for its lease to end.

To be sure that a process is no more, it has to be known which one it was: its id may have gone to another
(the first process of a container always has the same one), and in another container of the same host name
the same id is somebody else. So a holder's name says when it began, and by which count of processes its id
is meant (Linux). Where that cannot be compared, the lease ends by itself.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from ..errors import JournalError
from .stores import JournalStore

#: How long a lease lasts unless it is renewed, which happens three times in that span.
SECONDS = 30.0


class Leases:
    """The leases of one journal's sessions, taken in the name of this process."""

    def __init__(
        self, store: JournalStore, *, clock: Callable[[], float], seconds: float = SECONDS
    ) -> None:
        self._store = store
        self._clock = clock
        self._seconds = seconds
        self._token = secrets.token_hex(4)

    @property
    def holder(self) -> str:
        """``host:pid:token.begun.place``: the token tells two journals of one process apart."""
        pid = os.getpid()  # asked anew: it may have forked
        begun = _process(pid).begun if _PLACE else ""
        return f"{socket.gethostname()}:{pid}:{self._token}.{begun}.{_PLACE}"

    @asynccontextmanager
    async def hold(self, session: str) -> AsyncIterator[None]:
        """Keep the lease of ``session`` while the block runs.

        Raises:
            JournalError: ``journal.leased``, another process is at work in it.
        """
        holder = self.holder
        try:
            await self._take(session, holder)
        except asyncio.CancelledError:  # it may be ours all the same
            with suppress(JournalError):
                await self._store.release(session, holder)
            raise
        renewal = _Every(self._seconds / 3, lambda: self._lease(session, holder))
        try:
            yield
        finally:
            await renewal.stop()
            # What was done is done, and what went wrong is told by its own error: the lease ends by itself.
            with suppress(JournalError):
                await self._store.release(session, holder)

    async def _take(self, session: str, holder: str) -> None:
        try:
            await self._lease(session, holder)
        except JournalError as exc:
            other = exc.details.get("holder")
            if exc.code != "journal.leased" or not isinstance(other, str) or not died_here(other):
                raise
            await self._store.release(session, other)
            await self._lease(session, holder)

    async def _lease(self, session: str, holder: str) -> None:
        await self._store.lease(session, holder, seconds=self._seconds, now=self._clock())


class _Every:
    """Calls something again and again on the loop; costs nothing until the first time comes."""

    def __init__(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        self._seconds = seconds
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._handle = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._repeat(), name="kernloom-lease")

    async def _repeat(self) -> None:
        while True:
            # A renewal that fails is not the run's failure: if another takes over, the next append says so.
            with suppress(JournalError):
                await self._work()
            await asyncio.sleep(self._seconds)

    async def stop(self) -> None:
        """Stop calling, and wait for the call that is under way."""
        self._handle.cancel()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


class _Process(NamedTuple):
    """What the system knows of a process."""

    alive: bool
    #: When it began, in the system's own count; empty where it does not say.
    begun: str


def _process(pid: int) -> _Process:
    """The process of that id, by Linux' /proc (see proc_pid_stat(5)).

    One that has died and was not yet asked after by its parent (a zombie) is dead.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return _Process(alive=False, begun="")
    return _Process(alive=fields[0] not in "ZX", begun=fields[19])


def _place() -> str:
    """By which count process ids are meant: this boot and this namespace; empty if unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read(8)
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


_PLACE = _place()


def died_here(holder: str) -> bool:
    """Whether a holder was a process of this machine that is no more."""
    host, _, rest = holder.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdigit() or os.name == "nt":
        return False  # elsewhere, or where asking for a process would touch it: its lease ends by itself
    _, begun, place = [*holder.rpartition(":")[2].split("."), "", ""][:3]
    if place != _PLACE:
        return False
    if place:
        process = _process(int(rest))
        return not process.alive or process.begun != begun
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
