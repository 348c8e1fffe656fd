"""A file that was cut off or has a bit flipped: the same conversations or a typed error, nothing else.

With all that can be in one: a fork that shares events, tombstones, a child, snapshots, sealed payloads.
"""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from kernloom.kernel.errors import KernloomError
from kernloom.kernel.journal import Event, Journal, JournalStore, SqliteJournalStore
from kernloom.kernel.journal.encryption import EncryptedJournalStore, new_key
from kernloom.kernel.journal.events import (
    MessageAdded,
    ModelAnswered,
    ModelRequested,
    RunFinished,
    RunStarted,
)
from kernloom.kernel.journal.forgetting import forget
from kernloom.kernel.messages import Message, assistant, user

KEY = new_key()
NAMES = ("root", "fork", "twig", "child")
View = dict[str, tuple[list[Event], list[Message]]]


def store_at(path: Path, *, encrypted: bool) -> JournalStore:
    plain = SqliteJournalStore(path, timeout=0.05)
    return EncryptedJournalStore(plain, [KEY]) if encrypted else plain


async def a_journal(path: Path, *, encrypted: bool) -> None:
    names = iter(("root", "child", *map(str, range(99))))
    async with Journal(store_at(path, encrypted=encrypted), new_id=lambda: next(names)) as journal:
        await turns(journal, "", 8)
        await turns(journal, "", 3, parent=("root", 4))
        await journal.store.fork("fork", at=9, of="root")
        await turns(journal, "fork", 3)
        await journal.store.fork("twig", at=11, of="fork")
        await turns(journal, "twig", 2)
        await forget(journal, text="number 2 of root")


async def turns(
    journal: Journal, session: str, much: int, *, parent: tuple[str, int] | None = None
) -> None:
    log = await journal.open(session) if session else await journal.create(parent=parent)
    await log.append(
        *log.history.repair(), RunStarted(name="librarian", input="x" * 300), actor="librarian"
    )
    for number in range(much):
        await log.append(MessageAdded(message=user(f"number {number} of {log.id} " * 9)), actor="ann")
        await log.append(ModelRequested(model="m", messages=1), actor="librarian")
        await log.append(ModelAnswered(model="m", message=assistant(f"{number}!")), actor="librarian")
    await log.append(RunFinished(), actor="librarian")


async def view(path: Path, *, encrypted: bool) -> tuple[View, set[str]]:
    """Every session that can be read, and the codes of those that cannot."""
    seen: View = {}
    codes: set[str] = set()
    async with Journal(store_at(path, encrypted=encrypted)) as journal:
        for name in NAMES:
            try:
                log = await journal.open(name)
                seen[name] = list(log.events), log.messages()
            except KernloomError as error:
                codes.add(error.code)
        try:
            await journal.sessions(children=True)
        except KernloomError as error:
            codes.add(error.code)
    return seen, codes


def damaged(sound: bytes, dice: random.Random) -> bytes:
    """Cut off somewhere, or one bit flipped, half of them where SQLite keeps a page's header."""
    copy, place = bytearray(sound), dice.randrange(len(sound))
    if dice.random() < 0.15:
        return bytes(copy[:place])
    if dice.random() < 0.5:
        place = place // 2048 * 2048 + place % 100
    copy[place] ^= 1 << dice.randrange(8)
    return bytes(copy)


def bits_near(sound: bytes, words: bytes, reach: int) -> list[int]:
    """The bits beside every place where ``words`` stand."""
    places, at = set[int](), sound.find(words)
    while at >= 0:
        places.update(range(at * 8 - 8 * reach, (at + len(words) + reach) * 8))
        at = sound.find(words, at + 1)
    return sorted(bit for bit in places if 0 <= bit < len(sound) * 8)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_random_damage_gives_the_same_conversations_or_an_error(
    tmp_path: Path, encrypted: bool
) -> None:
    path = tmp_path / "journal.db"
    await a_journal(path, encrypted=encrypted)
    whole, none = await view(path, encrypted=encrypted)
    assert (set(whole), none) == (set(NAMES), set())
    assert [event.seq for event in whole["twig"][0] if event.forgotten] == [8]
    sound, dice, codes = path.read_bytes(), random.Random(11), set[str]()
    for attempt in range(200):
        file = tmp_path / f"{attempt}" / "journal.db"
        file.parent.mkdir()
        file.write_bytes(damaged(sound, dice))
        seen, said = await view(file, encrypted=encrypted)
        for name, told in seen.items():
            assert told == whole[name]
        codes |= said or {"same"}
    assert {"same", "journal.corrupt"} <= codes


async def test_damage_to_what_a_fork_is_of_is_no_other_conversation(tmp_path: Path) -> None:
    await a_journal(tmp_path / "journal.db", encrypted=False)
    sound = (tmp_path / "journal.db").read_bytes()
    bits = [bit for name in (b"fork", b"twig", b"child") for bit in bits_near(sound, name, 40)]
    await flipped(tmp_path, random.Random(5).sample(bits, 200))


async def test_damage_to_what_an_event_says_of_itself_is_noticed(tmp_path: Path) -> None:
    """Every bit of one event's row before its text, the types of its columns among them."""
    await a_journal(tmp_path / "journal.db", encrypted=False)
    sound = (tmp_path / "journal.db").read_bytes()
    first = sound.index(b"librarianrun.started") * 8
    await flipped(tmp_path, range(first - 24 * 8, first + 20 * 8))


async def flipped(folder: Path, bits: Iterable[int]) -> None:
    """With each bit flipped by itself, whatever can be read is what was written."""
    whole, _ = await view(folder / "journal.db", encrypted=False)
    sound = (folder / "journal.db").read_bytes()
    for bit in bits:
        copy = bytearray(sound)
        copy[bit // 8] ^= 1 << bit % 8
        file = folder / f"{bit}" / "journal.db"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(copy))
        seen, _ = await view(file, encrypted=False)
        for name, told in seen.items():
            assert told == whole[name], f"bit {bit}"
