"""What an event costs: CPU microseconds per event, in memory and in SQLite, alone and in batches.

Run: ``python benchmarks/journal.py [--events 6000] [--rounds 5] [--folder DIR]``. The median of the rounds
is printed (and the best), user and system time together. The targets are 10 µs in memory and 25 µs in
SQLite for an event of a batch, and 150 µs for a durable one, which leaves the loop.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kernloom.kernel.journal import (
    EventData,
    InMemoryJournalStore,
    Journal,
    JournalStore,
    SqliteJournalStore,
)
from kernloom.kernel.journal.events import (
    FunctionFinished,
    FunctionStarted,
    MessageAdded,
    ModelAnswered,
    ModelRequested,
    RunFinished,
    RunStarted,
)
from kernloom.kernel.messages import ToolCall, ToolResult, Usage, assistant, user

TEXT = "Who approves travel over 2000 euros, and is there an exception for conferences? " * 4


def turn(number: int) -> list[EventData]:
    """One run of an agent that calls one function: nine events of the sizes they have in life."""
    call = ToolCall(id=f"call_{number}", name="expenses.limit", arguments='{"country": "NO", "year": 2026}')
    result = ToolResult(call_id=call.id, name=call.name, content="2000 EUR, by the head of the department")
    return [
        RunStarted(name="librarian", input=TEXT),
        MessageAdded(message=user(TEXT)),
        ModelRequested(model="openai:gpt-4.1-mini", messages=2, functions=("expenses.limit", "time.now")),
        ModelAnswered(
            model="openai:gpt-4.1-mini", message=assistant("", call), usage=Usage(input=900, output=30)
        ),
        FunctionStarted(call_id=call.id, name=call.name, effects=("read",)),
        FunctionFinished(result=result),
        ModelRequested(model="openai:gpt-4.1-mini", messages=4, functions=("expenses.limit", "time.now")),
        ModelAnswered(
            model="openai:gpt-4.1-mini", message=assistant(TEXT), usage=Usage(input=990, output=80)
        ),
        RunFinished(output=TEXT, usage=Usage(input=1890, output=110, requests=2)),
    ]


async def append_all(
    store: JournalStore, events: list[EventData], batch: int, *, durable: bool = False
) -> float:
    """CPU microseconds per event, appended ``batch`` at a time."""
    async with Journal(store) as journal:
        log = await journal.create()
        await log.append(MessageAdded(message=user("warm up")), actor="bench")
        begun = time.process_time()
        for start in range(0, len(events), batch):
            await log.append(
                *events[start : start + batch], actor="librarian", run="run_1", durable=durable
            )
        return (time.process_time() - begun) / len(events) * 1e6


def run(
    new_store: Callable[[], JournalStore], events: list[EventData], batch: int, *, durable: bool = False
) -> float:
    """:func:`append_all` to a new store, in a loop of its own."""
    return asyncio.run(append_all(new_store(), events, batch, durable=durable))


async def reopen(store: SqliteJournalStore, events: list[EventData]) -> tuple[float, float]:
    """CPU microseconds per event to open a session, and to make its messages."""
    journal = Journal(store)
    log = await journal.create()
    await log.append(*events, actor="librarian")
    begun = time.process_time()
    again = await Journal(store).open(log.id)
    opened = time.process_time()
    again.messages()
    told = time.process_time()
    await journal.close()
    return (opened - begun) / len(events) * 1e6, (told - opened) / len(events) * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the SQLite files go (default: temporary)"
    )
    options = parser.parse_args()
    events = [event for number in range(options.events // 9 + 1) for event in turn(number)][
        : options.events
    ]

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        files = (Path(folder) / f"{number}.db" for number in range(10**6))

        def new_file() -> SqliteJournalStore:
            return SqliteJournalStore(next(files))

        def measure(name: str, once: Callable[[], float]) -> None:
            figures = [once() for _ in range(options.rounds)]
            print(f"{name:<34}{statistics.median(figures):>8.1f} µs   (best {min(figures):.1f})")

        for batch in (1, 2, 3, 9):
            measure(f"memory, batches of {batch}", partial(run, InMemoryJournalStore, events, batch))
        for batch in (1, 2, 3, 9):
            measure(f"sqlite, batches of {batch}", partial(run, new_file, events, batch))
        few = events[: max(90, options.events // 4)]
        measure("sqlite, durable, one at a time", partial(run, new_file, few, 1, durable=True))
        pairs = [asyncio.run(reopen(new_file(), events)) for _ in range(options.rounds)]
        for name, column in (("open a session, per event", 0), ("messages(), per event", 1)):
            figures = [pair[column] for pair in pairs]
            print(f"{name:<34}{statistics.median(figures):>8.1f} µs   (best {min(figures):.1f})")


if __name__ == "__main__":
    main()
