"""Several processes, some of which die: real ones, at moments nobody chose."""

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from kernloom.kernel.journal import Journal, SqliteJournalStore
from kernloom.kernel.journal.events import MessageAdded
from kernloom.kernel.messages import user

# Appends batches of one to three messages, for ever, and says on stdout how many are acknowledged.
WRITER = """
import asyncio, os, sys
from kernloom.kernel.journal import Journal, SqliteJournalStore
from kernloom.kernel.journal.events import MessageAdded
from kernloom.kernel.messages import user

async def main():
    journal = Journal(SqliteJournalStore(sys.argv[1]), new_id=lambda: "abc")
    log = await (journal.open("abc") if len(sys.argv) > 2 else journal.create())
    while True:
        size = log.seq % 3 + 1
        tail = "." * (log.seq * 37 % 3000)
        batch = [MessageAdded(message=user(f"{log.seq + number + 1}{tail}")) for number in range(size)]
        await log.append(*batch, actor="child", durable=log.seq % 20 == 0)
        os.write(1, b"%d\\n" % log.seq)

asyncio.run(main())
"""

# Appends the same number of events as its rivals do, to the same session, refreshing after each conflict.
RIVAL = """
import asyncio, json, sys
from kernloom.kernel.errors import JournalError
from kernloom.kernel.journal import Journal, SqliteJournalStore
from kernloom.kernel.journal.events import MessageAdded
from kernloom.kernel.messages import user

async def main():
    path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    journal = Journal(SqliteJournalStore(path, timeout=30))
    log = await journal.open("abc")
    written = []
    print("ready", flush=True)
    sys.stdin.readline()
    while len(written) < count:
        try:
            said, durable = MessageAdded(message=user(name)), len(written) % 7 == 0
            [event] = await log.append(said, actor=name, durable=durable)
            written.append(event.seq)
        except JournalError as error:
            assert error.code == "journal.conflict", error
            await log.refresh()
    await journal.close()
    print(json.dumps(written))

asyncio.run(main())
"""


def started(script: str, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )


def read(child: "subprocess.Popen[bytes]") -> bytes:
    """The child's next line."""
    assert child.stdout is not None
    return child.stdout.readline()


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path, dice = tmp_path / "journal.db", random.Random(3)
    before = 0
    for round_ in range(6):
        with started(WRITER, str(path), *(["again"] if round_ else [])) as child:
            try:
                acknowledged = [int(read(child))]
                time.sleep(dice.random() * 0.1)
            finally:
                child.kill()
            said = child.communicate()[0].split(b"\n")
        # The last line may have been cut by the kill; whole ones are promises.
        acknowledged += [int(line) for line in said[:-1]]
        assert acknowledged[0] > before

        events = asyncio.run(reopened(path))
        assert len(events) >= acknowledged[-1]
        assert [text.split(".")[0] for text in events] == [str(seq) for seq in range(1, len(events) + 1)]
        before = len(events)


async def reopened(path: Path) -> list[str]:
    async with Journal(SqliteJournalStore(path)) as journal:
        log = await journal.open("abc")
        assert [event.seq for event in log.events] == list(range(1, log.seq + 1))
        return [event.data.message.text for event in log.events if isinstance(event.data, MessageAdded)]


def test_rival_processes_lose_races_but_no_events(tmp_path: Path) -> None:
    path, count = tmp_path / "journal.db", 60
    asyncio.run(seeded(path))
    answers = []
    with (
        started(RIVAL, str(path), "one", str(count)) as one,
        started(RIVAL, str(path), "two", str(count)) as two,
    ):
        try:
            for child in (one, two):
                assert read(child) == b"ready\n"
            for child in (one, two):
                assert child.stdin is not None
                child.stdin.write(b"go\n")
            for child in (one, two):
                answers.append(json.loads(child.communicate(timeout=50)[0]))
                assert child.returncode == 0
        finally:
            one.kill()
            two.kill()
    assert sorted(answers[0] + answers[1]) == list(range(2, 2 * count + 2))
    said = asyncio.run(reopened(path))
    assert [seq for seq, name in enumerate(said, start=1) if name == "one"] == answers[0]
    assert [seq for seq, name in enumerate(said, start=1) if name == "two"] == answers[1]


async def seeded(path: Path) -> None:
    async with Journal(SqliteJournalStore(path), new_id=lambda: "abc") as journal:
        await (await journal.create()).append(MessageAdded(message=user("first")), actor="parent")
