"""One writer at a time, across processes, by a lock of the operating system that dies with its holder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..kernel.errors import MemoryStoreError

if sys.platform == "win32":
    import msvcrt

    # Windows locks bytes against reading too, so the lock lies beyond the holder's pid.
    _LOCKED_BYTE = 1 << 20

    def _try_lock(fd: int) -> bool:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


@contextmanager
def writer_lock(
    path: Path, *, wait: float = 0.8, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Hold the lock file ``path`` (made when missing, never deleted) while the block runs.

    Raises:
        MemoryStoreError: ``memory.locked`` with the holder's pid, when it is not free in ``wait`` s.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = clock() + wait
        while not _try_lock(fd):
            if clock() >= deadline:
                raise _locked(path, _holder(fd))
            time.sleep(0.03)
        try:
            _write_holder(fd, str(os.getpid()))
            yield
        finally:
            with suppress(OSError):  # a full disk must not keep the lock
                _write_holder(fd, "")
            _unlock(fd)
    finally:
        os.close(fd)


def _write_holder(fd: int, holder: str) -> None:
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, holder.encode())


def _holder(fd: int) -> int | None:
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        return int(os.read(fd, 20))
    except (OSError, ValueError):
        return None


def _locked(path: Path, pid: int | None) -> MemoryStoreError:
    memory = path.with_suffix("")
    who = f"process {pid}" if pid else "another process"
    return MemoryStoreError(
        f"The memory {str(memory)!r} is being written by {who}.",
        code="memory.locked",
        hint="Wait until it is done, or stop it; reading works meanwhile.",
        path=str(memory),
        pid=pid,
    )
