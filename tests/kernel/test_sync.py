"""Code that is not async: one loop for all calls, and Ctrl-C that waits for what it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from kernloom.kernel.errors import UsageError
from kernloom.kernel.sync import run_sync


def test_all_calls_share_one_loop() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert run_sync(loop()) is run_sync(loop())


def test_what_is_raised_is_raised_here() -> None:
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        run_sync(fail())


async def test_a_call_from_its_own_work_is_refused_and_from_another_loop_is_not() -> None:
    async def inner() -> int:
        return 42

    async def outer() -> int:
        return run_sync(inner())

    assert run_sync(inner()) == 42
    with pytest.raises(UsageError, match="Await"):
        run_sync(outer())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_ctrl_c_is_raised_after_the_work_has_stopped() -> None:
    stopped = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            stopped.append("in order")

    with pytest.raises(KeyboardInterrupt):
        run_sync(work())
    assert stopped == ["in order"]
