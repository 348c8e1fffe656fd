"""Stores over generated families of forks, against a model that copies what they share."""

import asyncio
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kernloom.kernel.errors import JournalError
from kernloom.kernel.journal import (
    InMemoryJournalStore,
    JournalStore,
    PostgresJournalStore,
    Snapshot,
    SqliteJournalStore,
    StoredEvent,
)
from kernloom.testing.journal import rows

_NUMBERS = itertools.count(1)
SOME = st.integers(0, 1000)


class Families(RuleBasedStateMachine):
    """Sessions that are forked, deleted, appended to and changed, in any order."""

    def open_store(self) -> JournalStore:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = self.open_store()
        self.truth: dict[str, list[StoredEvent]] = {}
        #: Who has a snapshot: that of another who does not share what was changed must stay.
        self.snapshots: set[str] = set()
        self.names = (f"s{number}" for number in itertools.count())

    def any(self, number: int) -> str:
        return list(self.truth)[number % len(self.truth)]

    @rule(size=st.integers(1, 4))
    def begin(self, size: int) -> None:
        name = next(self.names)
        self.truth[name] = rows(1, size, name)
        self.runner.run(self.store.append(name, self.truth[name], expected_seq=0))

    @precondition(lambda self: self.truth)
    @rule(which=SOME, size=st.integers(1, 3), durable=st.booleans(), off=st.sampled_from([0, 0, 0, 1]))
    def append(self, which: int, size: int, durable: bool, off: int) -> None:
        name = self.any(which)
        end = len(self.truth[name]) + off
        more = rows(end + 1, end + size, name)
        appending = self.store.append(name, more, expected_seq=end, durable=durable)
        if off:
            with pytest.raises(JournalError, match="another writer was there"):
                self.runner.run(appending)
        else:
            self.runner.run(appending)
            self.truth[name] += more

    @precondition(lambda self: self.truth)
    @rule(which=SOME, at=SOME)
    def fork(self, which: int, at: int) -> None:
        of, name = self.any(which), next(self.names)
        at %= len(self.truth[of]) + 1
        self.runner.run(self.store.fork(name, at=at, of=of))
        self.truth[name] = self.truth[of][:at]

    @precondition(lambda self: self.truth)
    @rule(which=SOME)
    def delete(self, which: int) -> None:
        name = self.any(which)
        self.runner.run(self.store.delete(name))
        del self.truth[name]
        self.snapshots.discard(name)

    @precondition(lambda self: any(self.truth.values()))
    @rule(which=SOME, seq=SOME)
    def replace(self, which: int, seq: int) -> None:
        name = self.any(which)
        if not self.truth[name]:
            return
        seq = seq % len(self.truth[name]) + 1
        old = self.truth[name][seq - 1]
        new = old._replace(text=f"new {next(_NUMBERS)}", checksum="new", kind="tombstone")
        self.runner.run(self.store.replace(name, seq, new))
        for other, events in self.truth.items():
            # An event is the same one for all who share it: what was written once is here once.
            if len(events) >= seq and events[seq - 1] == old:
                events[seq - 1] = new
                self.snapshots.discard(other)

    @precondition(lambda self: self.truth)
    @rule(which=SOME)
    def snapshot(self, which: int) -> None:
        name = self.any(which)
        self.runner.run(self.store.put_snapshot(name, "k", Snapshot(1, 1, name)))
        self.snapshots.add(name)

    @rule()
    def compact(self) -> None:
        self.runner.run(self.store.compact())

    @invariant()
    def each_session_is_what_the_copies_say(self) -> None:
        async def check() -> None:
            heads = {head.id: head for head in await self.store.sessions()}
            assert heads.keys() == self.truth.keys()
            for name, events in self.truth.items():
                assert await self.store.read(name) == events
                assert heads[name].seq == len(events)
                base = heads[name].base
                if base is not None:
                    assert await self.store.read(base[0], limit=base[1]) == events[: base[1]]
                kept = await self.store.get_snapshot(name, "k")
                assert kept == (Snapshot(1, 1, name) if name in self.snapshots else None)

        self.runner.run(check())

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()


class InMemoryFamilies(Families):
    def open_store(self) -> JournalStore:
        return InMemoryJournalStore()


class SqliteFamilies(Families):
    def open_store(self) -> JournalStore:
        self.folder = tempfile.mkdtemp()
        return SqliteJournalStore(Path(self.folder) / "journal.db")

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


class PostgresFamilies(Families):
    dsn = ""

    def open_store(self) -> JournalStore:
        return PostgresJournalStore(self.dsn, schema=f"model{next(_NUMBERS)}")


@pytest.mark.parametrize(
    ("machine", "examples"), [(InMemoryFamilies, 80), (SqliteFamilies, 40), (PostgresFamilies, 8)]
)
def test_forks_share_and_yet_each_is_as_if_it_were_a_copy(
    request: pytest.FixtureRequest, machine: type[Families], examples: int
) -> None:
    if machine is PostgresFamilies:
        server: Any = request.getfixturevalue("postgres")
        PostgresFamilies.dsn = server.dsn
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
