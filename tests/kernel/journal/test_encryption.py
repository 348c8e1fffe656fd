"""An encrypted journal: every store's promises, nothing readable in the file, and keys that change."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail

from kernloom.kernel.errors import ConfigError, JournalError
from kernloom.kernel.journal import (
    InMemoryJournalStore,
    Journal,
    JournalStore,
    SqliteJournalStore,
)
from kernloom.kernel.journal.encryption import (
    VARIABLE,
    EncryptedJournalStore,
    load_keys,
    new_key,
)
from kernloom.kernel.journal.events import MessageAdded, RunStarted
from kernloom.kernel.journal.stores import Snapshot
from kernloom.kernel.messages import user
from kernloom.testing.journal import JournalStoreConformance, OpenStore

KEY, OTHER, THIRD = new_key(), new_key(), new_key()
SECRET = "the safe stands behind the painting"


class TestOverInMemoryJournalStore(JournalStoreConformance):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        store = InMemoryJournalStore()
        return lambda: EncryptedJournalStore(store, [KEY])


class TestOverSqliteJournalStore(JournalStoreConformance):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: EncryptedJournalStore(SqliteJournalStore(tmp_path / "journal.db"), [KEY])


def encrypted(path: Path, *keys: str) -> Journal:
    return Journal(EncryptedJournalStore(SqliteJournalStore(path), keys or [KEY]))


async def told(journal: Journal) -> str:
    log = await journal.create()
    await log.append(
        RunStarted(name="librarian", input=SECRET), MessageAdded(message=user(SECRET)), actor="ann-margret"
    )
    await journal.store.lease(log.id, "me", seconds=10, now=0.0)
    await journal.store.put_snapshot(log.id, "transcript", Snapshot(2, 1, SECRET))
    await journal.store.release(log.id, "me")
    return log.id


def bytes_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(path.name + "*")))


def test_it_is_a_store() -> None:
    assert isinstance(EncryptedJournalStore(InMemoryJournalStore(), [KEY]), JournalStore)


async def test_nothing_of_what_was_said_and_no_name_is_readable_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with encrypted(path) as journal:
        session = await told(journal)
        assert SECRET.encode() not in bytes_of(path)
        assert b"ann-margret" not in bytes_of(path)
        [info] = await journal.sessions()
        assert (info.id, info.title, info.agent, info.status) == (
            session,
            SECRET,
            "librarian",
            "unfinished",
        )
        log = await journal.open(session)
        assert log.messages() == [user(SECRET)]
        assert {event.actor for event in log.events} == {"ann-margret"}
        assert await journal.store.get_snapshot(session, "transcript") == Snapshot(2, 1, SECRET)


async def test_the_checksum_that_would_confirm_a_guess_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with encrypted(path) as journal:
        rows = await journal.store.read(await told(journal))
    assert all(row.checksum.encode() not in bytes_of(path) for row in rows)


async def test_what_lists_need_stays_readable_without_the_key(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with encrypted(path) as journal:
        session = await told(journal)
    async with Journal(SqliteJournalStore(path)) as journal:
        assert [head.id for head in await journal.store.sessions()] == [session]
        assert [row.kind for row in await journal.store.read(session)] == ["run.started", "message"]


async def test_a_wrong_key_is_said_to_be_one_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with encrypted(path) as journal:
        session = await told(journal)
    async with encrypted(path, OTHER) as journal:
        with pytest.raises(JournalError) as caught:
            await journal.open(session)
        assert caught.value.code == "journal.key"
        assert caught.value.details == {"session": session, "seq": 1}
        assert VARIABLE in str(caught.value)
        assert [info.status for info in await journal.sessions()] == ["damaged"]
        assert await journal.store.get_snapshot(session, "transcript") is None
    async with encrypted(path) as journal:
        assert (await journal.open(session)).messages() == [user(SECRET)]


async def test_a_journal_without_encryption_says_that_an_encrypted_one_cannot_be_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"
    async with encrypted(path) as journal:
        session = await told(journal)
    async with Journal(SqliteJournalStore(path)) as journal:
        with pytest.raises(JournalError) as caught:
            await journal.open(session)
        assert caught.value.code == "journal.key"
        assert "sealed" in caught.value.message


async def test_damage_is_not_taken_for_a_wrong_key(tmp_path: Path) -> None:
    store = InMemoryJournalStore()
    journal = Journal(EncryptedJournalStore(store, [KEY]))
    session = await told(journal)
    [first, _] = await store.read(session)
    text = first.text[:-40] + ("A" if first.text[-40] != "A" else "B") + first.text[-39:]
    await store.replace(session, 1, first._replace(text=text))
    with pytest.raises(JournalError) as caught:
        await Journal(EncryptedJournalStore(store, [KEY])).open(session)
    assert caught.value.code == "journal.corrupt"


async def test_sealed_events_cannot_change_places() -> None:
    store = InMemoryJournalStore()
    session = await told(Journal(EncryptedJournalStore(store, [KEY])))
    first, second = await store.read(session)
    await store.replace(session, 1, second)
    await store.replace(session, 2, first)
    with pytest.raises(JournalError) as caught:
        await Journal(EncryptedJournalStore(store, [KEY])).open(session)
    assert caught.value.code == "journal.corrupt"


async def test_after_rotation_the_old_key_is_needed_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with encrypted(path) as journal:
        session = await told(journal)
        await journal.store.fork("fork", at=1, of=session)
        log = await journal.open("fork")
        await log.append(MessageAdded(message=user("more")), actor="bob")
    async with encrypted(path, OTHER, KEY) as journal:
        assert (await journal.open(session)).messages() == [user(SECRET)]
        store = journal.store
        assert isinstance(store, EncryptedJournalStore)
        assert await store.rotate() == 3
    async with encrypted(path, OTHER) as journal:
        assert (await journal.open(session)).messages() == [user(SECRET)]
        assert (await journal.open("fork")).messages() == [user("more")]
    async with encrypted(path, KEY) as journal:
        with pytest.raises(JournalError):
            await journal.open(session)


async def test_a_journal_written_in_clear_is_read_and_sealed_by_rotation(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal(SqliteJournalStore(path)) as journal:
        session = await told(journal)
    assert SECRET.encode() in bytes_of(path)
    async with encrypted(path) as journal:
        log = await journal.open(session)
        assert log.messages() == [user(SECRET)]
        await log.append(MessageAdded(message=user("now sealed")), actor="ann-margret")
        store = journal.store
        assert isinstance(store, EncryptedJournalStore)
        await store.rotate()
    assert SECRET.encode() not in bytes_of(path)
    assert b"ann-margret" not in bytes_of(path)
    async with encrypted(path) as journal:
        assert (await journal.open(session)).messages() == [user(SECRET), user("now sealed")]


def test_keys_come_from_the_environment_newest_first() -> None:
    assert load_keys({VARIABLE: f" {KEY} ,{OTHER},"}) == (KEY, OTHER)


class Drawer(KeyringBackend):
    """A keyring that lasts as long as the test."""

    priority = 1  # pyright: ignore[reportAssignmentType] - keyring declares a class property

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


def test_without_the_variable_the_keyring_is_asked() -> None:
    before = keyring.get_keyring()
    try:
        keyring.set_keyring(Drawer())
        keyring.set_password("kernloom", "journal", KEY)
        assert load_keys({}) == (KEY,)
        assert load_keys({VARIABLE: OTHER}) == (OTHER,)
        keyring.set_keyring(fail.Keyring())  # type: ignore[no-untyped-call]
        with pytest.raises(ConfigError) as caught:
            load_keys({})
        assert caught.value.code == "journal.key_missing"
        assert VARIABLE in str(caught.value)
    finally:
        keyring.set_keyring(before)


@pytest.mark.parametrize("key", ["short", "x" * 44, "", "ключ", KEY[:-2]])
def test_a_malformed_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EncryptedJournalStore(InMemoryJournalStore(), [KEY, key])
    assert caught.value.code == "journal.key_malformed"
    assert "Key 2" in str(caught.value)
    assert not key or key not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        EncryptedJournalStore(InMemoryJournalStore(), [])
    assert caught.value.code == "journal.key_missing"


def test_encryption_loads_only_when_it_is_used() -> None:
    code = (
        "import sys, kernloom.kernel.journal.encryption\n"
        "assert not {'cryptography', 'keyring'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_people_still_see_in_sqlite_what_happened_when(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with encrypted(path) as journal:
        session = await told(journal)
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT session, seq, kind, json_valid(text) FROM journal").fetchall()
        assert found == [(session, 1, "run.started", 1), (session, 2, "message", 1)]
    finally:
        connection.close()
