"""What it takes to go on after a kill, and to stop when cancelled.

Run: ``python benchmarks/recovery.py [--kills 40]``. The processes, the runs and the payment server
are those
of the kill test (``tests/kill``). A resume is timed from the start of the new process's work to the end of
the run: it opens the journal, settles what was in flight, and does all that was left to do. The start of an
interpreter and the import of kernloom are printed beside it. The targets are 2 s for a resume, and 1 s
until a function sees that it is cancelled and the journal says so.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kill"))

from kill_harness import Workers, World  # pyright: ignore[reportMissingImports] - found by the line above

from kernloom import AssistantAgent, Context, Journal, Kernel, ScriptedModel, SqliteJournalStore, function
from kernloom.kernel.models.scripted import call


def resumes(folder: Path, scenario: str, kills: int) -> list[float]:
    """Seconds that each resume took, of runs killed at points all over them."""
    dice, seconds = random.Random(1), []
    with Workers(home=folder) as workers:
        whole = World(workers, folder / "whole", scenario)
        whole.finish()
        points = whole.points[0]
        whole.close()
        for number in range(kills):
            world = World(workers, folder / f"{number}", scenario)
            world.finish([{"die_at": dice.randint(1, points)}])
            seconds += world.seconds
            world.close()
    return seconds


async def cancels(path: Path, rounds: int) -> list[float]:
    """Seconds from ``task.cancel()`` until a function in a thread has seen it and the journal says it."""
    seconds = []
    for _ in range(rounds):
        begun, seen = threading.Event(), threading.Event()

        @function
        def work(context: Context) -> str:
            """Works until it is told to stop."""
            events: tuple[threading.Event, threading.Event] = context.deps
            events[0].set()
            while not context.cancelled:
                time.sleep(0.001)
            events[1].set()
            return ""

        async with Kernel(journal=Journal(SqliteJournalStore(path))) as kernel:
            agent = AssistantAgent(
                "busy", kernel=kernel, model=ScriptedModel([call("work")]), functions=[work]
            )
            task = asyncio.create_task(agent.run("Go.", deps=(begun, seen)))
            await asyncio.to_thread(begun.wait)
            at = time.perf_counter()
            task.cancel()
            await asyncio.wait([task])
            await asyncio.to_thread(seen.wait)
            seconds.append(time.perf_counter() - at)
            [info, *_] = await kernel.journal.sessions()
            assert info.status == "cancelled"
    return seconds


def started() -> float:
    """Seconds to start an interpreter that imports what a worker does."""
    at = time.perf_counter()
    imports = "from kernloom import AssistantAgent, Conversation, Journal, Kernel, SqliteJournalStore"
    subprocess.run([sys.executable, "-c", imports], check=True)
    return time.perf_counter() - at


def show(name: str, seconds: list[float]) -> None:
    """One line."""
    print(f"{name:<34}{statistics.median(seconds) * 1e3:>8.1f} ms   (at most {max(seconds) * 1e3:.1f})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40)
    options = parser.parse_args()
    for scenario in ("agent", "plan", "long"):
        with tempfile.TemporaryDirectory() as folder:
            show(f"resume after a kill: {scenario}", resumes(Path(folder), scenario, options.kills))
    with tempfile.TemporaryDirectory() as folder:
        show("cancelled, seen and on record", asyncio.run(cancels(Path(folder) / "journal.db", 20)))
    show("start and import", [started() for _ in range(5)])


if __name__ == "__main__":
    main()
