"""One sync shell over the async core: a loop of its own, in a thread, for as long as the program lives.

All sync calls share that loop, so a client opened in one call still works in the next, and calling from
inside a running loop (a notebook) is no special case.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from .errors import UsageError

_T = TypeVar("_T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run_sync(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end from code that is not async.

    Ctrl-C cancels the work, waits for it to stop, and is raised here; a second one does not wait.

    Raises:
        UsageError: ``usage.run_sync`` when called from work that ``run_sync`` itself is running.
    """
    loop = _shared_loop()
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop:
        work.close()
        raise UsageError(
            "A sync call was made from inside async work.",
            code="usage.run_sync",
            hint="Await the async method instead.",
        )
    over = threading.Event()
    tasks: list[asyncio.Task[_T]] = []

    def start() -> None:
        tasks.append(loop.create_task(work))
        tasks[0].add_done_callback(lambda _: over.set())

    def stop() -> None:
        if tasks:
            tasks[0].cancel()
        else:  # Ctrl-C came before the loop was told to start
            work.close()
            over.set()

    try:
        loop.call_soon_threadsafe(start)
        over.wait()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(stop)
        over.wait()
        raise
    return tasks[0].result()


def _shared_loop() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603 - one loop per process is the point
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="kernloom-sync", daemon=True).start()
        return _loop
