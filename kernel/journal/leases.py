"""Who may work on a session: a lease in the store, so that of two processes exactly one does.

A lease that its holder does not renew ends by itself. A holder that died on this machine is noticed at
once, so that resuming after a crash does not wait for its lease to end.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

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
        """``host:pid:token``: the token tells two journals of one process apart, the pid follows a fork."""
        return f"{socket.gethostname()}:{os.getpid()}:{self._token}"

    @asynccontextmanager
    async def hold(self, session: str) -> AsyncIterator[None]:
        """Keep the lease of ``session`` while the block runs.

        Raises:
            JournalError: ``journal.leased``, another process is at work in it.
        """
        holder = self.holder
        await self._take(session, holder)
        renewal = _Every(self._seconds / 3, lambda: self._lease(session, holder))
        try:
            yield
        finally:
            await renewal.stop()
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


def died_here(holder: str) -> bool:
    """Whether a holder was a process of this machine that is no more."""
    host, _, rest = holder.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdigit() or os.name == "nt":
        return False  # elsewhere, or where asking for a process would touch it: its lease ends by itself
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
