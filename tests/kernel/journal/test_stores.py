"""The two stores of the house against the kit that every store must pass."""

from pathlib import Path

import pytest

from kernloom.kernel.journal import InMemoryJournalStore, JournalStore, SqliteJournalStore
from kernloom.testing.journal import JournalStoreConformance, OpenStore


class TestInMemoryJournalStore(JournalStoreConformance):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        store = InMemoryJournalStore()
        return lambda: store


class TestSqliteJournalStore(JournalStoreConformance):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: SqliteJournalStore(tmp_path / "journal.db")


@pytest.mark.parametrize("store", [InMemoryJournalStore(), SqliteJournalStore("never-opened.db")])
def test_stores_are_of_the_protocol(store: object) -> None:
    assert isinstance(store, JournalStore)
