"""The SQLite store as a file among other files, processes and accidents."""

import asyncio
import os
import random
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from kernloom.kernel.errors import JournalError, KernloomError
from kernloom.kernel.journal import Journal, SqliteJournalStore
from kernloom.kernel.journal.events import MessageAdded
from kernloom.kernel.messages import user
from kernloom.testing.journal import rows, stored

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


async def written(path: Path, *, sessions: int = 1, events: int = 3) -> None:
    store = SqliteJournalStore(path)
    for number in range(sessions):
        await store.append(f"s{number}", rows(1, events, f"s{number}"), expected_seq=0)
    await store.close()


async def refused(path: Path, *, timeout: float = 5.0) -> JournalError:
    store = SqliteJournalStore(path, timeout=timeout)
    with pytest.raises(JournalError) as caught:
        await store.append("a", rows(1, 1), expected_seq=0)
    await store.close()
    assert caught.value.details["path"] == str(path)
    return caught.value


@posix_only
async def test_the_file_and_its_companions_are_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "journal.db"
    store = SqliteJournalStore(path)
    assert not path.parent.exists()
    await store.append("a", rows(1, 1), expected_seq=0)
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["journal.db", "journal.db-shm", "journal.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await store.close()
    assert list(path.parent.iterdir()) == [path]


async def test_people_can_read_it_with_sqlite_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal(SqliteJournalStore(path), clock=lambda: 0.0, new_id=lambda: "abc") as journal:
        log = await journal.create()
        await log.append(MessageAdded(message=user("hello")), actor="ann")
    connection = sqlite3.connect(path)
    try:
        said = "json_extract(text, '$.message.parts[0].text')"
        query = f"SELECT session, seq, at, actor, kind, {said} FROM journal"
        assert connection.execute(query).fetchall() == [
            ("abc", 1, "1970-01-01 00:00:00", "ann", "message", "hello")
        ]
    finally:
        connection.close()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes. " * 100)
    before = path.read_bytes()
    error = await refused(path)
    assert error.code == "journal.not_a_journal"
    assert path.read_bytes() == before


async def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE events (a)")
    connection.close()
    before = path.read_bytes()
    assert (await refused(path)).code == "journal.not_a_journal"
    assert path.read_bytes() == before


async def test_a_journal_of_a_later_release_is_refused_with_words(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await written(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    error = await refused(path)
    assert error.code == "journal.newer"
    assert "schema 7" in str(error)
    assert "Upgrade kernloom" in str(error)


async def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    assert (await refused(tmp_path)).code == "journal.unwritable"
    (tmp_path / "file").touch()
    assert (await refused(tmp_path / "file" / "journal.db")).code == "journal.unwritable"


async def test_an_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.touch()
    await written(path)
    assert path.stat().st_size > 0


async def test_many_may_make_the_same_journal_at_once(tmp_path: Path) -> None:
    for attempt in range(5):
        stores = [SqliteJournalStore(tmp_path / f"{attempt}.db") for _ in range(6)]
        await asyncio.gather(
            *(store.append(f"s{number}", rows(1, 2), expected_seq=0) for number, store in enumerate(stores))
        )
        for store in stores:
            assert len(await store.sessions()) == len(stores)
            await store.close()


async def test_events_lost_from_the_end_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal(SqliteJournalStore(path), new_id=lambda: "abc") as journal:
        await (await journal.create()).append(*[MessageAdded(message=user("hello"))] * 3, actor="ann")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM events WHERE place & 4294967295 = 3")
    connection.close()
    async with Journal(SqliteJournalStore(path)) as journal:
        with pytest.raises(
            JournalError, match="Event 3 of session 'abc' is damaged: it is missing"
        ) as caught:
            await journal.open("abc")
    assert caught.value.code == "journal.corrupt"


async def test_a_lock_is_waited_for_without_blocking_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await written(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    store = SqliteJournalStore(path)
    appending = asyncio.ensure_future(store.append("s0", rows(4, 4, "s0"), expected_seq=3))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not appending.done()
    assert await store.read("s0") == rows(1, 3, "s0")
    holder.execute("COMMIT")
    holder.close()
    await appending
    assert await store.read("s0") == rows(1, 4, "s0")
    await store.close()


@pytest.mark.parametrize("durable", [False, True])
async def test_a_lock_that_stays_is_an_error_and_nothing_is_written(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "journal.db"
    await written(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    store = SqliteJournalStore(path, timeout=0.02)
    with pytest.raises(JournalError, match=r"stayed locked for 0\.02 s") as caught:
        await store.append("s0", rows(4, 4, "s0"), expected_seq=3, durable=durable)
    assert caught.value.code == "journal.locked"
    holder.execute("COMMIT")
    holder.close()
    await store.append("s0", rows(4, 4, "s0"), expected_seq=3, durable=durable)
    assert await store.read("s0") == rows(1, 4, "s0")
    await store.close()


def limit_pages(store: SqliteJournalStore, pages: int) -> None:
    """SQLite's own limit stands in for a full disk: it gives the same error."""
    assert store._writer is not None
    store._writer.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_full_disk_is_an_error_and_writing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    store = SqliteJournalStore(tmp_path / "journal.db")
    await store.append("a", rows(1, 3), expected_seq=0, durable=True)
    limit_pages(store, 8)
    for durable in (False, True):
        with pytest.raises(JournalError, match="could not grow") as caught:
            await store.append("a", [stored(4, text="x" * 100_000)], expected_seq=3, durable=durable)
        assert caught.value.code == "journal.full"
    assert await store.read("a") == rows(1, 3)
    limit_pages(store, 1_000_000)
    await store.append("a", rows(4, 4), expected_seq=3)
    assert await store.read("a") == rows(1, 4)
    await store.close()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteJournalStore(tmp_path / "journal.db")
    await store.append("a", rows(1, 1), expected_seq=0)
    await store.close()
    with pytest.raises(JournalError) as caught:
        await store.append("a", rows(2, 2), expected_seq=1)
    assert caught.value.code == "journal.closed"
    with pytest.raises(JournalError):
        await store.read("a")


async def test_a_cancelled_durable_append_is_whole_and_the_store_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal(SqliteJournalStore(path)) as journal:
        log = await journal.create()
        for number in range(30):
            batch = [MessageAdded(message=user(f"{number}"))] * 3
            task = asyncio.ensure_future(log.append(*batch, actor="a", durable=True))
            await asyncio.sleep(0.0003 * (number % 5))
            task.cancel()
            [outcome] = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(outcome, (list, asyncio.CancelledError))
        await log.append(MessageAdded(message=user("last")), actor="a")
        assert log.seq % 3 == 1
    async with Journal(SqliteJournalStore(path)) as journal:
        assert (await journal.open(log.id)).events == log.events


async def test_the_log_is_written_back_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    store = SqliteJournalStore(path)
    big = "x" * 1_000_000
    for end in range(20):
        await store.append("a", [stored(end + 1, text=big)], expected_seq=end)
    sizes = {file.name: file.stat().st_size for file in os.scandir(tmp_path)}
    assert sizes["journal.db-wal"] < 10_000_000 < sizes["journal.db"]
    assert len(await store.read("a")) == 20
    await store.close()


def damaged(sound: bytes, dice: random.Random) -> bytes:
    """Cut off somewhere, or one bit flipped, half of them where SQLite keeps a page's header."""
    copy, place = bytearray(sound), dice.randrange(len(sound))
    if dice.random() < 0.15:
        return bytes(copy[:place])
    if dice.random() < 0.5:
        place = place // 2048 * 2048 + place % 100
    copy[place] ^= 1 << dice.randrange(8)
    return bytes(copy)


async def test_damage_to_the_file_gives_the_same_events_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal(SqliteJournalStore(path), new_id=lambda: "abc") as journal:
        log = await journal.create()
        for number in range(30):
            await log.append(MessageAdded(message=user(f"number {number} " * 20)), actor="ann")
    sound, dice, codes = path.read_bytes(), random.Random(7), set()
    for attempt in range(200):
        folder = tmp_path / f"{attempt}"
        folder.mkdir()
        (folder / "journal.db").write_bytes(damaged(sound, dice))
        async with Journal(SqliteJournalStore(folder / "journal.db", timeout=0.05)) as journal:
            try:
                again = await journal.open("abc")
            except KernloomError as error:
                codes.add(error.code)
            else:
                assert again.events == log.events
                codes.add("same")
    assert {"same", "journal.corrupt", "journal.not_a_journal"} <= codes
