"""The PostgreSQL store against a real server, its crashes, locks and refusals among it."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from kernloom.kernel.errors import ConfigError, JournalError
from kernloom.kernel.journal import Journal, PostgresJournalStore
from kernloom.kernel.journal.events import MessageAdded
from kernloom.kernel.journal.postgres_connections import translated
from kernloom.kernel.messages import user
from kernloom.testing.journal import refused, rows, stored

_SCHEMAS = itertools.count(1)


@pytest.fixture
def schema() -> str:
    return f"journal{next(_SCHEMAS)}"


@pytest.fixture
async def store(postgres: Any, schema: str) -> AsyncIterator[PostgresJournalStore]:
    made = PostgresJournalStore(postgres.dsn, schema=schema, timeout=10)
    yield made
    await made.close()


@pytest.fixture
async def beside(postgres: Any, schema: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """Another connection to the same tables."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        await connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
        yield connection


async def test_a_conversation_goes_on_in_it(store: PostgresJournalStore) -> None:
    log = await Journal(store).create()
    await log.append(MessageAdded(message=user("Blåbær 塔 🗼")), actor="ann", durable=True)
    again = await Journal(store).open(log.id[:-2])
    assert again.events == log.events
    assert again.messages() == log.messages()


async def test_only_what_is_durable_waits_for_the_servers_disk(
    store: PostgresJournalStore, beside: psycopg.AsyncConnection
) -> None:
    await store.append("a", rows(1, 1), expected_seq=0)
    await beside.execute("CREATE TABLE seen (seq integer, how text)")
    await beside.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO seen VALUES (NEW.seq, current_setting('synchronous_commit')); RETURN NULL; END $$"
    )
    await beside.execute("CREATE TRIGGER note AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION note()")
    await store.append("a", rows(2, 2), expected_seq=1, durable=True)
    await store.append("a", rows(3, 3), expected_seq=2)
    await store.append("a", rows(4, 4), expected_seq=3, durable=True)
    await store.append("b", rows(1, 1, "b"), expected_seq=0)
    await store.append("c", rows(9, 9, "c"), expected_seq=0, durable=True)
    seen = await (await beside.execute("SELECT * FROM seen")).fetchall()
    assert seen == [(2, "on"), (3, "off"), (4, "on"), (1, "off"), (9, "on")]


async def test_a_server_that_crashes_is_an_error_and_nothing_durable_is_lost(
    postgres: Any, store: PostgresJournalStore
) -> None:
    await store.append("a", rows(1, 3), expected_seq=0, durable=True)
    await asyncio.gather(*(store.read("a") for _ in range(4)))
    await asyncio.to_thread(postgres.stop, "immediate")
    try:
        for _ in range(2):
            error = await refused(store.append("a", rows(4, 4), expected_seq=3))
            assert error.code == "journal.io"
    finally:
        await asyncio.to_thread(postgres.start)
    assert await store.read("a") == rows(1, 3)
    await store.append("a", rows(4, 4), expected_seq=3)
    assert await store.read("a") == rows(1, 4)


async def test_after_a_lost_connection_the_session_is_looked_up(
    store: PostgresJournalStore, beside: psycopg.AsyncConnection
) -> None:
    log = await Journal(store).create()
    said = MessageAdded(message=user("hello"))
    await log.append(said, actor="ann")
    await beside.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    with pytest.raises(JournalError) as caught:
        await log.append(said, actor="ann")
    assert caught.value.code == "journal.io"
    await log.append(said, actor="ann")
    assert (await Journal(store).open(log.id)).events == log.events


async def test_a_lock_that_stays_is_an_error_and_nothing_is_written(
    postgres: Any, schema: str, store: PostgresJournalStore, beside: psycopg.AsyncConnection
) -> None:
    await store.append("a", rows(1, 1), expected_seq=0)
    hurried = PostgresJournalStore(postgres.dsn, schema=schema, timeout=0.05)
    async with beside.transaction():
        await beside.execute("LOCK TABLE events")
        assert (await refused(hurried.append("a", rows(2, 2), expected_seq=1))).code == "journal.locked"
        assert (await refused(hurried.delete("a"))).code == "journal.locked"
        waiting = asyncio.ensure_future(store.append("a", rows(2, 2), expected_seq=1))
        await asyncio.sleep(0.01)
        assert not waiting.done()
    await waiting
    assert await hurried.read("a") == rows(1, 2)
    await hurried.close()


async def test_a_cancelled_append_is_whole_or_not_there_and_the_store_goes_on(
    store: PostgresJournalStore,
) -> None:
    log = await Journal(store).create()
    for number in range(20):
        batch = [MessageAdded(message=user(f"{number}"))] * 3
        task = asyncio.ensure_future(log.append(*batch, actor="a", durable=True))
        await asyncio.sleep(0.0005 * (number % 5))
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, (list, asyncio.CancelledError))
    await log.append(MessageAdded(message=user("last")), actor="a")
    assert log.seq % 3 == 1
    assert (await Journal(store).open(log.id)).events == log.events


async def test_deletes_forks_and_appends_of_one_family_may_meet(
    store: PostgresJournalStore,
) -> None:
    await store.append("s0", rows(1, 9, "s0"), expected_seq=0)

    async def branch(number: int) -> None:
        name = f"s{number}"
        await store.fork(name, at=5, of="s0" if number < 4 else f"s{number - 3}")
        for end in range(5, 9):
            await store.append(name, rows(end + 1, end + 1, name), expected_seq=end)

    for first in (1, 4, 7):
        await asyncio.gather(*(branch(number) for number in range(first, first + 3)))
    goners = [0, 2, 4, 6, 8]
    reading = [store.read(f"s{number}") for number in (1, 3, 5, 7, 9) for _ in range(5)]
    found = await asyncio.gather(*(store.delete(f"s{number}") for number in goners), *reading)
    for number, events in zip([1, 3, 5, 7, 9], found[len(goners) :: 5], strict=True):
        assert events == rows(1, 5, "s0") + rows(6, 9, f"s{number}")
    for number in (1, 3, 5, 7, 9):
        assert await store.read(f"s{number}") == rows(1, 5, "s0") + rows(6, 9, f"s{number}")


def test_it_serves_one_event_loop_after_another(postgres: Any, schema: str) -> None:
    store = PostgresJournalStore(postgres.dsn, schema=schema)
    for end in range(3):
        asyncio.run(store.append("a", [stored(end + 1)], expected_seq=end))
    assert asyncio.run(store.read("a")) == rows(1, 3)
    asyncio.run(store.close())


async def test_many_may_make_the_same_tables_at_once(postgres: Any, schema: str) -> None:
    stores = [PostgresJournalStore(postgres.dsn, schema=schema) for _ in range(6)]
    await asyncio.gather(
        *(made.append(f"s{number}", rows(1, 2), expected_seq=0) for number, made in enumerate(stores))
    )
    for made in stores:
        assert len(await made.sessions()) == len(stores)
        await made.close()


async def test_tables_of_a_later_release_are_refused_with_words(
    postgres: Any, schema: str, store: PostgresJournalStore, beside: psycopg.AsyncConnection
) -> None:
    await store.sessions()
    await beside.execute("UPDATE about SET version = 7")
    later = PostgresJournalStore(postgres.dsn, schema=schema)
    error = await refused(later.append("a", rows(1, 1), expected_seq=0))
    await later.close()
    assert error.code == "journal.newer"
    assert "schema 7" in error.message
    assert "Upgrade kernloom" in str(error)


async def test_who_may_not_is_told_so(postgres: Any, schema: str, beside: psycopg.AsyncConnection) -> None:
    await beside.execute("DROP ROLE IF EXISTS guest")
    await beside.execute("CREATE ROLE guest LOGIN")
    store = PostgresJournalStore(postgres.dsn.replace("user=kernloom", "user=guest"), schema=schema)
    error = await refused(store.append("a", rows(1, 1), expected_seq=0))
    await store.close()
    assert error.code == "journal.unwritable"


async def test_a_server_that_is_not_there_is_an_error_and_a_password_is_not_told() -> None:
    store = PostgresJournalStore("host=/nowhere user=me password=open-sesame")
    error = await refused(store.append("a", rows(1, 1), expected_seq=0))
    assert error.code == "journal.io"
    assert "open-sesame" not in str(error)
    await store.close()
    store = PostgresJournalStore("password=open-sesame host")
    with pytest.raises(ConfigError) as caught:
        await store.sessions()
    assert "open-sesame" not in str(caught.value)
    assert caught.value.code == "journal.dsn"
    await store.close()


async def test_a_closed_store_says_so(store: PostgresJournalStore) -> None:
    await store.append("a", rows(1, 1), expected_seq=0)
    await store.close()
    assert (await refused(store.append("a", rows(2, 2), expected_seq=1))).code == "journal.closed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (psycopg.errors.DiskFull, "journal.full"),
        (psycopg.errors.OutOfMemory, "journal.full"),
        (psycopg.errors.TooManyConnections, "journal.io"),
        (psycopg.errors.IoError, "journal.io"),
        (psycopg.errors.AdminShutdown, "journal.io"),
        (psycopg.OperationalError, "journal.io"),
        (psycopg.errors.DataCorrupted, "journal.corrupt"),
        (psycopg.errors.DeadlockDetected, "journal.locked"),
        (psycopg.errors.LockNotAvailable, "journal.locked"),
        (psycopg.errors.ReadOnlySqlTransaction, "journal.unwritable"),
        (psycopg.errors.UndefinedTable, "journal.failed"),
    ],
)
def test_what_the_server_says_becomes_a_code(error: type[psycopg.Error], code: str) -> None:
    assert translated(error("so it is")).code == code


def test_without_the_extra_its_pip_line_is_told() -> None:
    script = """
import sys
sys.modules["psycopg"] = None
from kernloom.kernel.errors import MissingExtraError
from kernloom.kernel.journal import PostgresJournalStore
try:
    PostgresJournalStore("host=nowhere")
except MissingExtraError as error:
    print(error.hint)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "Run: pip install 'kernloom[postgres]'.\n"


def test_the_journal_is_imported_without_psycopg() -> None:
    script = "import sys, kernloom.kernel.journal; print('psycopg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
