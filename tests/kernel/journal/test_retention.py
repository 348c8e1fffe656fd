"""Pruning: what is old or named goes, with its children; what is unfinished or shared stays."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

from kernloom.kernel.errors import NotFoundError, UsageError
from kernloom.kernel.journal import (
    EventData,
    InMemoryJournalStore,
    Journal,
    SessionLog,
    SqliteJournalStore,
)
from kernloom.kernel.journal.encryption import EncryptedJournalStore, new_key
from kernloom.kernel.journal.events import MessageAdded, RunFinished, RunStarted
from kernloom.kernel.journal.retention import Kept, prune
from kernloom.kernel.messages import user

DAY = 86_400.0


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def said(text: str) -> EventData:
    return MessageAdded(message=user(text))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "encrypted"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Journal]:
    store = InMemoryJournalStore() if request.param == "memory" else SqliteJournalStore(tmp_path / "j.db")
    names = (f"s{number}" for number in count(1))
    kept = EncryptedJournalStore(store, [new_key()]) if request.param == "encrypted" else store
    async with Journal(kept, clock=clock, new_id=lambda: next(names)) as made:
        yield made


async def a_run(
    journal: Journal, *, parent: tuple[str, int] | None = None, over: bool = True
) -> SessionLog:
    log = await journal.create(parent=parent)
    await log.append(RunStarted(name="librarian"), said(f"hello from {log.id}"), actor="ann")
    if over:
        await log.append(RunFinished(), actor="librarian")
    return log


async def names(journal: Journal) -> set[str]:
    return {head.id for head in await journal.store.sessions()}


async def test_what_is_old_goes_and_what_is_not_stays(journal: Journal, clock: Clock) -> None:
    await a_run(journal)
    clock.now += 10 * DAY
    await a_run(journal)
    rehearsal = await prune(journal, older_than=5 * DAY, dry_run=True)
    assert await names(journal) == {"s1", "s2"}
    report = await prune(journal, older_than=5 * DAY)
    assert (report.pruned, report.kept, report.forks, report.events) == (("s1",), (), (), 3)
    assert (rehearsal.pruned, rehearsal.dry_run, report.dry_run) == (report.pruned, True, False)
    assert await names(journal) == {"s2"}
    assert (await prune(journal, older_than=5 * DAY)).pruned == ()


async def test_a_session_goes_with_all_it_opened_the_lowest_first(journal: Journal) -> None:
    await a_run(journal)
    await a_run(journal, parent=("s1", 2))
    await a_run(journal, parent=("s2", 2))
    await a_run(journal)
    assert (await prune(journal, sessions=["s1"])).pruned == ("s3", "s2", "s1")
    assert await names(journal) == {"s4"}


async def test_a_parent_is_as_young_as_its_youngest_child(journal: Journal, clock: Clock) -> None:
    await a_run(journal)
    clock.now += 10 * DAY
    await a_run(journal, parent=("s1", 2))
    assert (await prune(journal, older_than=5 * DAY)).pruned == ()


async def test_what_has_not_ended_is_kept_with_the_reason_unless_forced(journal: Journal) -> None:
    await a_run(journal)
    await a_run(journal, parent=("s1", 2), over=False)
    report = await prune(journal, sessions=["s1"])
    assert report.pruned == ()
    assert report.kept == (Kept("s1", "the last run of s2 has not ended"),)
    assert (await prune(journal, sessions=["s1"], force=True)).pruned == ("s2", "s1")
    assert await names(journal) == set()


async def test_what_somebody_is_at_work_in_is_kept_even_if_forced(journal: Journal) -> None:
    await a_run(journal)
    await journal.store.lease("s1", "another process", seconds=60, now=journal.now())
    for dry_run in (True, False):
        report = await prune(journal, sessions=["s1"], force=True, dry_run=dry_run)
        assert report.kept == (Kept("s1", "another process is at work in s1"),)
    assert await names(journal) == {"s1"}


async def test_forks_stay_and_keep_what_they_shared(journal: Journal) -> None:
    await a_run(journal)
    await journal.store.fork("f1", at=2, of="s1")
    await journal.store.fork("f2", at=1, of="f1")
    await (await journal.open("f1")).append(said("instead"), actor="ann")
    before = [(await journal.open(name)).events for name in ("f1", "f2")]
    report = await prune(journal, sessions=["s1"])
    assert (report.pruned, report.forks, report.events) == (("s1",), ("f1", "f2"), 1)
    again = Journal(journal.store)
    assert [(await again.open(name)).events for name in ("f1", "f2")] == before
    assert (await prune(journal, sessions=["f1", "f2"], force=True)).events == 3
    assert await names(journal) == set()


async def test_a_fork_of_a_child_does_not_go_with_the_parent(journal: Journal) -> None:
    await a_run(journal)
    await a_run(journal, parent=("s1", 2))
    await journal.store.fork("f1", at=2, of="s2")
    assert (await prune(journal, sessions=["s1"])).forks == ("f1",)
    assert await names(journal) == {"f1"}


async def test_a_pruned_session_is_gone_for_whoever_had_it_open(journal: Journal) -> None:
    await a_run(journal)
    await prune(journal, sessions=["s1"])
    with pytest.raises(NotFoundError):
        await journal.open("s1")


async def test_age_and_names_add_up(journal: Journal, clock: Clock) -> None:
    await a_run(journal)
    clock.now += 10 * DAY
    for _ in range(2):
        await a_run(journal)
    assert set((await prune(journal, older_than=DAY, sessions=["s3"])).pruned) == {"s1", "s3"}
    assert await names(journal) == {"s2"}


async def test_one_must_say_what(journal: Journal) -> None:
    with pytest.raises(UsageError) as caught:
        await prune(journal)
    assert caught.value.code == "journal.prune_what"
    with pytest.raises(NotFoundError):
        await prune(journal, sessions=["nobody"])


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_what_was_pruned_is_gone_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal(SqliteJournalStore(path)) as journal:
        log = await a_run(journal)
        await a_run(journal)
        said = f"hello from {log.id}".encode()
        assert said in bytes_of(tmp_path)
        await prune(journal, sessions=[log.id])
        assert said not in bytes_of(tmp_path)
