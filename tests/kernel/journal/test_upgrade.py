"""A file that release 0.1.0 wrote (``data/journal-v1.db``, schema 1) in the hands of this one."""

import asyncio
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from kernloom.kernel.errors import JournalError
from kernloom.kernel.journal import Journal, SqliteJournalStore
from kernloom.kernel.journal.events import FunctionFinished
from kernloom.testing.journal import rows

OLD = Path(__file__).parent / "data" / "journal-v1.db"

OPENER = """
import asyncio, sys
from kernloom.kernel.journal import SqliteJournalStore
store = SqliteJournalStore(sys.argv[1])
print("ready", flush=True)
print(len(asyncio.run(store.sessions())), flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "journal.db").write_bytes(OLD.read_bytes())
    return tmp_path / "journal.db"


def backup(path: Path) -> Path:
    return path.with_name("journal.db.v1-backup")


def everything(path: Path) -> list[tuple[object, ...]]:
    """What stands in the tables, as far as both schemas have it."""
    sessions = "SELECT number, id, seq, created, updated, parent_session, parent_seq FROM sessions"
    events = "SELECT place, at, actor, run, kind, version, checksum, text FROM events"
    with closing(sqlite3.connect(path)) as connection:
        return [*connection.execute(sessions), *connection.execute(events)]


def version(path: Path) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def shape(path: Path) -> dict[str, object]:
    """Tables, indexes and views, and what columns they have."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        return {name: connection.execute(f"PRAGMA table_xinfo('{name}')").fetchall() for name in names}


async def test_every_event_of_the_old_file_can_be_read_and_the_session_goes_on(path: Path) -> None:
    before = everything(path)
    async with Journal(SqliteJournalStore(path)) as journal:
        found = await journal.sessions(children=True)
        assert [(info.id, info.events, info.title, info.status) for info in found] == [
            ("unfinished", 2, "x" * 79 + "…", "unfinished"),
            ("conversation", 9, "Who approves travel over 2000 euros?", "finished"),
            ("child", 3, "Is that so?", "finished"),
        ]
        log = await journal.open("conversation")
        outcome = log.events[5].data
        assert isinstance(outcome, FunctionFinished)
        assert (outcome.result.content, outcome.value) == ("2000 EUR, blåbær 塔 🗼", {"limit": 2000.0})
        assert (await journal.open("child")).parent == ("conversation", 5)
        assert log.messages()[-1].text == "The head of the department."
    store = SqliteJournalStore(path)
    await store.fork("f", at=9, of="conversation")
    await store.append("f", rows(10, 10, "f"), expected_seq=9)
    await store.append("unfinished", rows(3, 3, "unfinished"), expected_seq=2)
    await store.close()
    assert set(before) - set(everything(path)) == {row for row in before if row[1] == "unfinished"}


async def test_it_is_kept_as_it_was_and_becomes_what_a_new_file_is(path: Path, tmp_path: Path) -> None:
    before = everything(path)
    for _ in range(2):
        async with Journal(SqliteJournalStore(path)) as journal:
            await journal.sessions()
    assert everything(path) == before
    assert version(path) == 2
    assert everything(backup(path)) == before
    assert version(backup(path)) == 1
    assert shape(backup(path)) == shape(OLD)
    new = SqliteJournalStore(tmp_path / "new.db")
    await new.append("a", rows(1, 1), expected_seq=0)
    await new.close()
    assert shape(path) == shape(tmp_path / "new.db")
    assert sorted(os.listdir(tmp_path)) == ["journal.db", "journal.db.v1-backup", "new.db"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
async def test_the_backup_is_for_this_user_alone(path: Path) -> None:
    async with Journal(SqliteJournalStore(path)) as journal:
        await journal.sessions()
    assert stat.S_IMODE(backup(path).stat().st_mode) == 0o600


async def test_events_still_in_the_log_of_the_old_file_are_in_the_backup_too(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("INSERT INTO sessions VALUES (9, 'late', 0, 1.0, 1.0, NULL, NULL)")
        assert path.with_name("journal.db-wal").stat().st_size > 0
        async with Journal(SqliteJournalStore(path)) as journal:
            await journal.sessions()
    assert (9, "late", 0, 1.0, 1.0, None, None) in everything(backup(path))


async def test_many_may_upgrade_at_once(path: Path) -> None:
    before = everything(path)
    stores = [SqliteJournalStore(path) for _ in range(6)]
    found = await asyncio.gather(*(store.sessions() for store in stores))
    for store in stores:
        await store.close()
    assert all(heads == found[0] for heads in found)
    assert everything(path) == everything(backup(path)) == before


async def test_where_no_backup_can_be_made_nothing_is_changed(path: Path) -> None:
    backup(path).with_name("journal.db.v1-backup.part").mkdir()
    store = SqliteJournalStore(path)
    with pytest.raises(JournalError) as caught:
        await store.sessions()
    await store.close()
    assert caught.value.code == "journal.unwritable"
    assert everything(path) == everything(OLD)
    assert version(path) == 1


async def test_compacting_removes_the_backup_which_would_keep_what_was_deleted(path: Path) -> None:
    store = SqliteJournalStore(path)
    await store.delete("conversation")
    assert b"2000 EUR" in backup(path).read_bytes()
    await store.compact()
    assert not backup(path).exists()
    await store.close()


def test_a_kill_during_the_upgrade_leaves_the_old_file_or_the_new_one(path: Path) -> None:
    with closing(sqlite3.connect(path)) as old, old:
        old.execute(
            "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
            " INSERT INTO events SELECT (100 << 32) + i, i, 'a', NULL, 'message', 1, '', hex(zeroblob(200))"
            " FROM n"
        )
    big, dice, versions = path.read_bytes(), random.Random(5), set()
    for attempt in range(12):
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(big)
        with subprocess.Popen(
            [sys.executable, "-c", OPENER, str(path)], stdout=subprocess.PIPE, bufsize=0
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(dice.random() * 0.15 if attempt else 2.0)
            child.kill()
        copy = path.with_name("copy.db")
        shutil.copy(path, copy)
        if os.path.exists(f"{path}-wal"):
            shutil.copy(f"{path}-wal", f"{copy}-wal")
        versions.add(version(copy))
        if version(copy) == 2 or backup(path).exists():
            assert version(backup(path)) == 1
            assert len(everything(backup(path))) == 20_000 + len(everything(OLD))
        assert len(asyncio.run(SqliteJournalStore(path).sessions())) == 3
        assert version(path) == 2
    assert versions == {1, 2}
