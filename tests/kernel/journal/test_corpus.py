"""Histories that releases have written are read by this one, to the same conversation.

``tests/corpus/make.py`` writes them.
"""

import json
import runpy
from pathlib import Path

import pytest
from packaging.version import Version

from kernloom.kernel.discovery.installed import own_version
from kernloom.kernel.errors import JournalError
from kernloom.kernel.journal import History, InMemoryJournalStore, Journal, SqliteJournalStore, messages
from kernloom.kernel.journal.encryption import EncryptedJournalStore, new_key
from kernloom.kernel.journal.events import MODELS
from kernloom.kernel.journal.exchange import export_session, import_session
from kernloom.kernel.journal.forgetting import forget
from kernloom.kernel.journal.tombstones import FORGOTTEN, said

CORPUS = Path(__file__).parents[2] / "corpus"
RELEASES = sorted((folder.name for folder in CORPUS.iterdir() if folder.is_dir()), key=Version)
FILES = [file for release in RELEASES for file in sorted((CORPUS / release).glob("*.jsonl"))]


def lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")


def kinds_of(release: str) -> set[str]:
    files = (CORPUS / release).glob("*.jsonl")
    return {json.loads(line)["kind"] for file in files for line in lines_of(file) if '"data":' in line}


def told(file: Path) -> object:
    return json.loads(file.with_suffix(".transcript.json").read_text(encoding="utf-8"))


def all_told(folder: Path) -> dict[str, object]:
    return {file.stem: told(file) for file in folder.glob("*.jsonl")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
async def test_a_history_is_read_and_tells_what_it_told(file: Path) -> None:
    journal = Journal(InMemoryJournalStore())
    session = await import_session(journal, lines_of(file))
    log = await journal.open(session)
    assert [event.seq for event in log.events] == list(range(1, log.seq + 1))
    again = History([*(event.data for event in log.events), *log.history.repair()])
    assert (again.open_calls(), again.questions(), again.asked) == ((), (), None)
    assert [message.model_dump(mode="json") for message in messages(log.events)] == told(file)
    assert log.messages() == messages(log.events)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
async def test_a_history_is_the_same_in_every_store(file: Path, tmp_path: Path) -> None:
    plain = Journal(InMemoryJournalStore())
    session = await import_session(plain, lines_of(file))
    events = (await plain.open(session)).events
    async with Journal(
        EncryptedJournalStore(SqliteJournalStore(tmp_path / "journal.db"), [new_key()])
    ) as other:
        await import_session(other, lines_of(file))
        assert (await other.open(session)).events == events
        again = [line async for line in export_session(other, session)]
        assert "".join(again[1:-1]) == "\n".join(lines_of(file)[1:-2]) + "\n"


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
async def test_a_history_that_was_forgotten_is_still_one(file: Path) -> None:
    journal = Journal(InMemoryJournalStore())
    session = await import_session(journal, lines_of(file))
    whole = await journal.open(session)
    before, end = whole.messages(), whole.seq
    await forget(journal, session=session, force=True)
    log = await Journal(journal.store).open(session)
    assert log.history.open_calls() == ()
    assert {text for event in log.events[:end] for text in said(event.data)} <= {FORGOTTEN, "{}", ""}
    after = log.messages()[: len(before)]
    assert [(m.role, len(m.parts)) for m in after] == [(m.role, len(m.parts)) for m in before]


def test_this_release_has_written_its_histories() -> None:
    assert own_version() == RELEASES[-1]


async def test_the_histories_can_be_made_anew(tmp_path: Path) -> None:
    make = runpy.run_path(str(CORPUS / "make.py"))
    await make["write"](tmp_path)
    assert all_told(tmp_path) == all_told(CORPUS / RELEASES[-1])


def test_every_kind_of_event_is_in_the_newest_corpus() -> None:
    assert set(MODELS) - kinds_of(RELEASES[-1]) == set()


async def test_one_letter_changed_anywhere_in_a_history_is_noticed() -> None:
    file = CORPUS / RELEASES[-1] / "cancelled.jsonl"
    text = file.read_text(encoding="utf-8")
    for place in range(0, len(text) - 1, 41):
        changed = text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]
        with pytest.raises(JournalError):
            await import_session(Journal(InMemoryJournalStore()), changed.split("\n"))
