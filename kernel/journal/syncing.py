"""Waiting for the disk off the event loop: one thread, and one wait for all who ask meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

if sys.platform == "darwin":
    import fcntl

_Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]

#: Seconds after which an idle thread ends.
_IDLE = 10.0


def to_disk(descriptor: int) -> None:
    """Have what was written to a file survive the death of the machine; raises OSError."""
    if sys.platform == "darwin":
        # There fsync only gets as far as the drive's own memory.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    elif sys.platform == "win32":
        os.fsync(descriptor)
    else:
        os.fdatasync(descriptor)


class FileSyncer:
    """Sees that what others write to the file ``path`` reaches the disk.

    The file must stay the same one until :meth:`close`. ``sync`` is what is called with its descriptor.
    """

    def __init__(self, path: Path, *, sync: Callable[[int], None] = to_disk) -> None:
        self._path = path
        self._sync = sync
        self._descriptor: int | None = None
        #: Who waits, and in which loop.
        self._waiting: list[_Waiter] = []
        #: Guards the queue and whether there is a thread; the semaphore counts its wake-up calls.
        self._lock = threading.Lock()
        self._wake = threading.Semaphore(0)
        self._running = False
        #: Held while the file is in use.
        self._in_use = threading.Lock()
        self._closed = False

    async def sync(self) -> None:
        """Return when what was written before is on the disk; several at once share one wait.

        Raises:
            OSError: it may not be there.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiting.append((loop, future))
            if not self._running:
                self._running = True
                threading.Thread(target=self._work, name="kernloom-disk", daemon=True).start()
        self._wake.release()
        await future

    def close(self) -> None:
        """Give the file back. Whoever still waits is told that it may not be on the disk."""
        with self._in_use:
            self._closed = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
        self._wake.release()

    def _work(self) -> None:
        while True:
            called = self._wake.acquire(timeout=_IDLE)
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch and (self._closed or not called):
                    self._running = False
                    return
            if batch:
                self._tell(batch, self._attempt())

    def _attempt(self) -> OSError | None:
        try:
            with self._in_use:
                if self._closed:
                    return OSError(errno.EBADF, "the journal was closed meanwhile")
                if self._descriptor is None:
                    self._descriptor = _opened(self._path)
                self._sync(self._descriptor)
        except OSError as exc:
            return exc
        return None

    @staticmethod
    def _tell(batch: list[_Waiter], error: OSError | None) -> None:
        for loop, future in batch:
            try:
                loop.call_soon_threadsafe(_settle, future, error)
            except RuntimeError:  # the loop is closed, and nobody waits any more
                continue


def _opened(path: Path) -> int:
    """The file, whose name is on the disk as well."""
    descriptor = os.open(path, os.O_RDWR)
    if sys.platform != "win32":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return descriptor


def _settle(future: asyncio.Future[None], error: OSError | None) -> None:
    if future.done():  # its waiter was cancelled
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
