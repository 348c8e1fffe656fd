"""The stores of the house against the kit that every store must pass."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from kernloom.kernel.journal import (
    InMemoryJournalStore,
    JournalStore,
    PostgresJournalStore,
    SqliteJournalStore,
)
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


_SCHEMAS = itertools.count(1)


class TestPostgresJournalStore(JournalStoreConformance):
    @pytest.fixture
    def open_store(self, postgres: Any) -> OpenStore:
        schema = f"conformance {next(_SCHEMAS)}"
        return lambda: PostgresJournalStore(postgres.dsn, schema=schema)


@pytest.mark.parametrize(
    "store",
    [InMemoryJournalStore(), SqliteJournalStore("never-opened.db"), PostgresJournalStore("host=nowhere")],
)
def test_stores_are_of_the_protocol(store: object) -> None:
    assert isinstance(store, JournalStore)
