"""Stores whose process is killed and whose disk refuses: real kills, a real full disk."""

import asyncio
import errno
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernloom.kernel.errors import JournalError, KernloomError
from kernloom.kernel.journal import Journal, JournalStore, PostgresJournalStore, SqliteJournalStore
from kernloom.kernel.journal.events import MessageAdded
from kernloom.kernel.journal.syncing import FileSyncer
from kernloom.kernel.messages import user
from kernloom.testing.journal import refused, rows, stored

PROLOGUE = """
import asyncio, itertools, json, os, sys
from kernloom.kernel.errors import JournalError
from kernloom.kernel.journal import PostgresJournalStore, SqliteJournalStore
from kernloom.testing.journal import rows, stored
kind, place, *rest = sys.argv[1:]
if kind == "sqlite":
    store = SqliteJournalStore(place, timeout=30)
else:
    store = PostgresJournalStore(place, schema=rest[0])

async def go():
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
"""

# Takes a lease and goes on living.
HOLDER = """
async def main():
    await store.lease("a", f"holder:{os.getpid()}", seconds=30, now=1000.0)
    await go()
asyncio.run(main())
"""

# Wants what its rivals want, and says what it got.
RIVAL = """
async def main():
    await store.leases()
    await go()
    won = []
    for number in range(80):
        try:
            await store.lease(f"s{number}", f"{os.getpid()}", seconds=30, now=1000.0)
        except JournalError as error:
            assert error.code == "journal.leased", error
        else:
            won.append(number)
    await store.close()
    print(json.dumps(won))
asyncio.run(main())
"""

# A chain of forks that grows at its end and is deleted at its beginning, for ever.
FORKER = """
async def main():
    first = max(int(head.id) for head in await store.sessions())
    await go()
    for number in itertools.count(first):
        at = 400 + number % 7 * 10
        name = str(number + 1)
        await store.fork(name, at=at, of=str(number))
        await store.append(name, rows(at + 1, 470, name), expected_seq=at, durable=number % 3 == 0)
        await store.fork(f"-{name}", at=at - 5, of=str(number))
        await store.delete(str(number - 1))
        await store.delete(f"-{number - 2}")
asyncio.run(main())
"""

_SCHEMAS = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """What the children are told of the storage."""
    if request.param == "sqlite":
        return ["sqlite", str(tmp_path / "journal.db")]
    return ["postgres", request.getfixturevalue("postgres").dsn, f"faults{next(_SCHEMAS)}"]


def opened(where: list[str]) -> JournalStore:
    if where[0] == "sqlite":
        return SqliteJournalStore(where[1], timeout=30)
    return PostgresJournalStore(where[1], schema=where[2])


@pytest.fixture
def started(where: list[str]) -> Iterator[Callable[[str], Any]]:
    """Starts children, and sees that none outlives the test."""
    children: list[Any] = []

    def start(script: str) -> Any:
        child = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + script, *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def test_the_lease_of_a_killed_process_ends_when_it_said_and_another_has_it_then(
    where: list[str], started: Callable[[str], Any]
) -> None:
    child = started(HOLDER)

    async def scenario() -> None:
        store = opened(where)
        error = await refused(store.lease("a", "heir", seconds=30, now=1010.0))
        assert error.code == "journal.leased"
        assert error.details["holder"] == f"holder:{child.pid}"
        child.kill()
        child.wait()
        await refused(store.lease("a", "heir", seconds=30, now=1029.9))
        await store.lease("a", "heir", seconds=30, now=1030.0)
        assert [lease.holder for lease in await store.leases()] == ["heir"]
        await store.close()

    asyncio.run(scenario())


def test_of_processes_that_want_the_same_leases_exactly_one_gets_each(
    where: list[str], started: Callable[[str], Any]
) -> None:
    children = [started(RIVAL) for _ in range(3)]
    for child in children:
        child.stdin.write(b"go\n")
    won = [json.loads(child.communicate(timeout=50)[0]) for child in children]
    assert sorted(number for mine in won for number in mine) == list(range(80))


async def sound(where: list[str]) -> None:
    """Every session is whole, made of what was written in it and in those it shares with."""
    store = opened(where)
    for head in await store.sessions():
        events = await store.read(head.id)
        assert [event.seq for event in events] == list(range(1, head.seq + 1))
        assert events == [stored(event.seq, session=event.session) for event in events]
        assert (
            head.base is None
            or await store.read(head.base[0], limit=head.base[1]) == (events[: head.base[1]])
        )
    await store.close()


def test_a_kill_amid_forks_and_deletes_leaves_before_or_after(
    where: list[str], started: Callable[[str], Any]
) -> None:
    async def begun() -> None:
        store = opened(where)
        await store.append("1", rows(1, 470, "1"), expected_seq=0)
        await store.close()

    asyncio.run(begun())
    dice = random.Random(11)
    for _ in range(6):
        child = started(FORKER)
        child.stdin.write(b"go\n")
        time.sleep(0.05 + dice.random() * 0.15)
        child.kill()
        child.wait()
        asyncio.run(sound(where))


async def test_what_was_deleted_and_replaced_is_gone_from_the_bytes_after_compacting(
    tmp_path: Path,
) -> None:
    store = SqliteJournalStore(tmp_path / "journal.db")

    def found(what: bytes) -> bool:
        return any(what in (tmp_path / name).read_bytes() for name in os.listdir(tmp_path))

    secret = '{"said": "my-secret-number"}'
    await store.append(
        "a", [stored(1), stored(2, text=secret * 200), stored(3, text=secret)], expected_seq=0
    )
    await store.fork("f", at=3, of="a")
    await store.append("b", [stored(1, session="b", text='"other-secret"')], expected_seq=0, durable=True)
    assert found(b"my-secret-number")
    assert found(b"other-secret")
    for seq in (2, 3):
        await store.replace("f", seq, stored(seq, text='"forgotten"'))
    await store.delete("b")
    await store.compact()
    assert not found(b"my-secret-number")
    assert not found(b"other-secret")
    assert found(b"forgotten")
    assert [event.text for event in await store.read("a", after=1)] == ['"forgotten"'] * 2
    await store.append("a", rows(4, 4), expected_seq=3)
    await store.close()


async def test_compacting_waits_for_readers_and_says_so_when_they_stay(tmp_path: Path) -> None:
    store = SqliteJournalStore(tmp_path / "journal.db", timeout=0.05)
    await store.append("a", rows(1, 3), expected_seq=0)
    other = SqliteJournalStore(tmp_path / "journal.db")
    await other.read("a")
    assert other._reader is not None
    other._reader.execute("BEGIN")
    other._reader.execute("SELECT count(*) FROM events").fetchall()
    await store.append("a", rows(4, 4), expected_seq=3)
    assert (await refused(store.compact())).code == "journal.locked"
    other._reader.execute("COMMIT")
    await store.compact()
    assert await other.read("a") == rows(1, 4)
    await store.close()
    await other.close()


# Fills what there is, sees what the store says, makes room and goes on. Prints what happened.
FULL = """
import resource
folder, limit = os.path.dirname(place), int(rest[0]) if rest else 0

async def main():
    await store.append("a", rows(1, 3), expected_seq=0, durable=True)
    if limit:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    else:
        filler = open(os.path.join(folder, "filler"), "wb", buffering=0)
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass
    end, codes = 3, []
    while len(codes) < 6:
        try:
            text = "x" * 20_000
            await store.append("a", [stored(end + 1, text=text)], expected_seq=end, durable=end % 2 == 0)
            end += 1
        except JournalError as error:
            codes.append(error.code)
            try:
                await (store.delete("a") if len(codes) % 2 else store.fork("f", at=2, of="a"))
            except JournalError as again:
                codes.append(again.code)
            else:
                codes.append("done")
                if len(codes) % 2 == 0 and await store.read("f"):
                    await store.delete("f")
    seen = await store.read("a")
    assert seen[:3] == rows(1, 3) or not seen, seen[:3]
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    else:
        filler.close()
        os.remove(os.path.join(folder, "filler"))
    end = len(seen)
    await store.append("a", rows(end + 1, end + 9), expected_seq=end, durable=True)
    assert await store.read("a") == seen + rows(end + 1, end + 9)
    await store.close()
    print(json.dumps(codes))
asyncio.run(main())
"""


def codes_of(command: list[str], path: Path, *rest: str) -> set[str]:
    done = subprocess.run(
        [*command, sys.executable, "-c", PROLOGUE + FULL, "sqlite", str(path), *rest],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a file system of its own needs Linux")
def test_a_disk_that_is_full_is_an_error_and_writing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=600k tmpfs "$0" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("may not mount a small file system here")
    assert "journal.full" in codes_of(command, tmp_path / "journal.db") <= {"journal.full", "done"}


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_a_write_that_fails_is_an_error_and_writing_goes_on_when_it_can(tmp_path: Path) -> None:
    codes = codes_of([], tmp_path / "journal.db", "200000")
    assert "journal.io" in codes <= {"journal.io", "journal.full", "done"}


class Disk:
    """Stands for the system call, which can hardly be made to fail on purpose."""

    def __init__(self) -> None:
        self.broken = False
        self.calls = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, descriptor: int) -> None:
        self.entered.set()
        self.gate.wait(10)
        self.calls += 1
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(descriptor)


async def test_an_event_the_disk_did_not_take_is_an_error_until_all_of_it_is_safe(tmp_path: Path) -> None:
    path, disk = tmp_path / "journal.db", Disk()
    store = SqliteJournalStore(path)
    store._disk = FileSyncer(path.with_name("journal.db-wal"), sync=disk)
    log = await Journal(store).create()
    said = MessageAdded(message=user("hello"))
    await log.append(said, actor="ann", durable=True)
    disk.broken = True
    with pytest.raises(JournalError, match="the disk did not take it") as caught:
        await log.append(said, actor="ann", durable=True)
    assert caught.value.code == "journal.io"
    calls = disk.calls
    # Not asked again: the system may have forgotten what it could not write. The database takes it.
    await log.append(said, actor="ann", durable=True)
    assert disk.calls == calls
    assert path.stat().st_size > 0
    disk.broken = False
    await log.append(said, actor="ann", durable=True)
    assert disk.calls == calls + 1
    assert log.seq == 4
    assert (await Journal(store).open(log.id)).events == log.events
    await store.close()


async def test_all_who_ask_while_the_disk_is_busy_share_the_next_wait(tmp_path: Path) -> None:
    path, disk = tmp_path / "file", Disk()
    path.touch()
    syncer = FileSyncer(path, sync=disk)
    disk.gate.clear()
    first = asyncio.ensure_future(syncer.sync())
    await asyncio.to_thread(disk.entered.wait, 5)
    others = [asyncio.ensure_future(syncer.sync()) for _ in range(20)]
    await asyncio.sleep(0)
    others[3].cancel()
    disk.gate.set()
    await first
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert disk.calls == 2
    assert [outcome for outcome in outcomes if outcome is not None] == [outcomes[3]]
    assert isinstance(outcomes[3], asyncio.CancelledError)
    disk.broken = True
    outcomes = await asyncio.gather(*(syncer.sync() for _ in range(3)), return_exceptions=True)
    assert [getattr(outcome, "errno", outcome) for outcome in outcomes] == [errno.EIO] * 3
    syncer.close()
    with pytest.raises(OSError, match="closed"):
        await syncer.sync()


async def test_a_closed_store_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    store = SqliteJournalStore(tmp_path / "journal.db")
    await store.append("a", rows(1, 1), expected_seq=0, durable=True)
    mine = [thread for thread in set(threading.enumerate()) - before if thread.name == "kernloom-disk"]
    assert len(mine) == 1
    await store.close()
    for thread in mine:
        await asyncio.to_thread(thread.join, 5)
    assert not any(thread.is_alive() for thread in mine)


def damaged(whole: bytes, dice: random.Random) -> bytes:
    """Cut off somewhere, or one bit flipped."""
    copy, place = bytearray(whole), dice.randrange(len(whole))
    if dice.random() < 0.1:
        return bytes(copy[:place])
    copy[place] ^= 1 << dice.randrange(8)
    return bytes(copy)


async def test_damage_to_a_file_with_forks_gives_the_same_events_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    names = iter(["base-of-all", "fork-of-base", "fork-of-fork"])
    async with Journal(SqliteJournalStore(path), new_id=lambda: next(names)) as journal:
        log = await journal.create()
        for number in range(5):
            await log.append(MessageAdded(message=user(f"{number}")), actor="ann")
    store = SqliteJournalStore(path)
    await store.fork("fork-of-base", at=4, of="base-of-all")
    async with Journal(store) as journal:
        log = await journal.open("fork-of-base")
        await log.append(*[MessageAdded(message=user("and so?"))] * 3, actor="ben")
        await store.fork("fork-of-fork", at=5, of="fork-of-base")
        last = await journal.open("fork-of-fork")
        await last.append(MessageAdded(message=user("or so?")), actor="ben")
        truth = {log.id: log.events, last.id: last.events}
    whole, dice, codes = path.read_bytes(), random.Random(8), set()
    for attempt in range(400):
        copy = tmp_path / f"{attempt}" / "journal.db"
        copy.parent.mkdir()
        copy.write_bytes(damaged(whole, dice))
        async with Journal(SqliteJournalStore(copy, timeout=0.05)) as journal:
            for name, events in truth.items():
                try:
                    again = await journal.open(name)
                except KernloomError as error:
                    codes.add(error.code)
                else:
                    assert again.events == events
                    codes.add("same")
    assert {"same", "journal.corrupt"} <= codes
