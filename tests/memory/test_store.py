"""The store keeps whole documents, one writer at a time, and leaves a file it does not understand alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from kernloom.kernel.errors import JournalError, MemoryStoreError
from kernloom.kernel.journal import Journal, SqliteJournalStore
from kernloom.kernel.journal.events import MessageAdded
from kernloom.kernel.messages import user
from kernloom.memory.chunking import chunk_document
from kernloom.memory.records import Document
from kernloom.memory.schema import SCHEMA_VERSION
from kernloom.memory.store import Entry, MemoryStore, text_hash

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def entry(
    id: str = "a", text: str = "One.\n\n# Two\n\nThree.", *, namespace: str = "", origin: str | None = None
) -> Entry:
    document = Document(id=id, source=f"{id}.md", text=text, namespace=namespace, metadata={"kind": "test"})
    chunks = chunk_document(document)
    return Entry(document, chunks, [c.text.encode() for c in chunks], text.encode(), origin, origin)


def vectors(of: Entry, dimensions: int = 4) -> dict[bytes, np.ndarray]:
    return {h: np.full(dimensions, n, dtype=np.float32) for n, h in enumerate(of.hashes, start=1)}


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    return MemoryStore(tmp_path / "memory.db", now=lambda: NOON)


def elsewhere(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in another process, with ``path`` in its arguments."""
    return subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, env=os.environ
    )


def test_what_is_put_is_read_back_exactly(store: MemoryStore) -> None:
    put = entry()
    store.put(put, vectors(put), "e")
    chunks = store.chunks()
    assert [(c.text, c.title, c.ordinal, c.line_start) for c in chunks] == [
        ("One.", "", 0, 1),
        ("# Two\n\nThree.", "Two", 1, 3),
    ]
    keys, array = store.vectors("e")
    assert keys == [c.key for c in chunks]
    assert array.dtype == np.float32
    assert array.tolist() == [[1.0] * 4, [2.0] * 4]
    (info,) = store.documents()
    assert (info.id, info.source, info.chunks, info.added_at) == ("a", "a.md", 2, NOON)
    assert info.sha256 == text_hash(put.document.text)
    assert info.metadata == {"kind": "test"}
    assert store.text("a") == put.document.text


def test_an_empty_store_has_nothing_and_says_so(store: MemoryStore) -> None:
    assert store.chunks() == []
    assert store.vectors("e")[0] == []
    assert store.text("a") is None
    assert store.counts() == (0, 0, 0)


def test_every_commit_moves_the_revision_and_nothing_else_does(store: MemoryStore) -> None:
    put = entry()
    assert store.revision == 0
    store.put(put, {}, None)
    store.chunks()
    assert store.revision == 1
    store.put_vectors(vectors(put), "e")
    assert store.revision == 2
    assert store.remove([]) == 0
    assert store.revision == 2


def test_putting_again_replaces_and_never_reuses_a_key(store: MemoryStore) -> None:
    store.put(entry(), {}, None)
    before = {c.key for c in store.chunks()}
    store.put(entry(text="Other."), {}, None)
    after = store.chunks()
    assert [c.text for c in after] == ["Other."]
    assert before.isdisjoint(c.key for c in after)


def test_the_same_id_in_two_namespaces_is_two_documents(store: MemoryStore) -> None:
    store.put(entry(namespace="north", text="North."), {}, None)
    store.put(entry(namespace="south", text="South."), {}, None)
    assert store.text("a", "south") == "South."
    assert [i.namespace for i in store.documents()] == ["north", "south"]
    assert store.counts("north") == (1, 1, 6)


def test_vectors_live_as_long_as_somebody_needs_them(store: MemoryStore) -> None:
    one, two = entry("a", "Shared."), entry("b", "Shared.")
    store.put(one, vectors(one), "e")
    assert store.embedded(two.hashes, "e") == set(two.hashes)
    store.put(two, {}, "e")
    store.remove(store.matching("a"))
    assert len(store.vectors("e")[0]) == 1
    store.remove(store.matching("b"))
    assert store.embedded(one.hashes, "e") == set()


def test_vectors_of_two_embedders_never_mix(store: MemoryStore) -> None:
    put = entry()
    store.put(put, vectors(put, 4), "small")
    store.put_vectors(vectors(put, 8), "large")
    assert store.vectors("small")[1].shape == (2, 4)
    assert store.vectors("large")[1].shape == (2, 8)
    assert store.unembedded("other", limit=9) == [
        (h, c.title, c.text) for h, c in zip(put.hashes, put.chunks, strict=True)
    ]


def test_a_failed_put_leaves_nothing_behind(store: MemoryStore) -> None:
    put = entry()
    with pytest.raises(ValueError, match="zip"):
        store.put(Entry(put.document, put.chunks, put.hashes[:1], b""), {}, None)
    assert store.counts() == (0, 0, 0)
    assert store.revision == 0


def test_removed_text_is_gone_from_the_file(store: MemoryStore, tmp_path: Path) -> None:
    store.put(entry(text="The word is xylophone-quartz."), {}, None)
    store.remove(store.matching("a"))
    assert not any(b"xylophone-quartz" in file.read_bytes() for file in tmp_path.iterdir())


def test_a_text_that_no_longer_fits_its_hash_is_not_read(store: MemoryStore, tmp_path: Path) -> None:
    store.put(entry(), {}, None)
    store.close()
    with sqlite3.connect(tmp_path / "memory.db") as raw:
        raw.execute("UPDATE documents SET text = replace(text, 'One', 'Two')")
    raw.close()
    reopened = MemoryStore(tmp_path / "memory.db")
    assert reopened.text("a") is None
    assert reopened.text_of_chunk(1) is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps access lists instead")
def test_only_the_owner_may_read_the_files(store: MemoryStore, tmp_path: Path) -> None:
    store.put(entry(), {}, None)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert set(modes) >= {"memory.db", "memory.db-wal", "memory.db.lock"}
    assert set(modes.values()) == {0o600}


def test_another_process_sees_what_is_committed(store: MemoryStore, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from kernloom.memory.store import MemoryStore as S\n"
    code += "s = S(Path(sys.argv[1])); print(s.revision, [c.text for c in s.chunks()])"
    store.put(entry(text="One."), {}, None)
    with store.writing():  # readers are not kept out by a writer
        assert elsewhere(code, tmp_path / "memory.db").stdout == "1 ['One.']\n"


def test_a_second_writing_process_is_told_who_writes(store: MemoryStore, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from kernloom.memory.store import MemoryStore as S\n"
    code += "from kernloom.kernel.errors import MemoryStoreError\n"
    code += "try:\n    with S(Path(sys.argv[1])).writing(): print('wrote')\n"
    code += "except MemoryStoreError as e: print(e.code, e.details['pid'])"
    with store.writing():
        assert elsewhere(code, tmp_path / "memory.db").stdout == f"memory.locked {os.getpid()}\n"
    assert elsewhere(code, tmp_path / "memory.db").stdout == "wrote\n"


def test_threads_of_one_process_wait_for_each_other(store: MemoryStore) -> None:
    def put(name: str) -> None:
        for n in range(10):
            store.put(entry(f"{name}{n}"), {}, None)

    threads = [threading.Thread(target=put, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.revision == 40
    assert store.counts().documents == 40


def test_a_snapshot_reads_one_revision(store: MemoryStore, tmp_path: Path) -> None:
    other = MemoryStore(tmp_path / "memory.db")
    store.put(entry("a"), {}, None)
    with store.snapshot():
        assert store.revision == 1
        other.put(entry("b"), {}, None)
        assert (store.revision, store.counts().documents) == (1, 1)
    assert (store.revision, store.counts().documents) == (2, 2)


@pytest.mark.parametrize(
    "content", [b"this is not a database, it is a letter" * 40, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_damaged_file_is_refused_and_left_as_it_was(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "memory.db"
    path.write_bytes(content)
    with pytest.raises(MemoryStoreError) as caught:
        MemoryStore(path)
    assert caught.value.code == "memory.corrupt"
    assert caught.value.hint
    assert path.read_bytes() == content


def test_damage_inside_the_file_is_an_error_not_an_answer(store: MemoryStore, tmp_path: Path) -> None:
    for n in range(40):
        store.put(entry(str(n), f"{n} " * 500), {}, None)
    store.close()
    path = tmp_path / "memory.db"
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(MemoryStoreError) as caught:
        MemoryStore(path).chunks()
    assert caught.value.code == "memory.corrupt"


def test_a_newer_memory_is_refused_with_what_to_do(store: MemoryStore, tmp_path: Path) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "memory.db") as raw:
        raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    raw.close()
    with pytest.raises(MemoryStoreError, match="Upgrade") as caught:
        MemoryStore(tmp_path / "memory.db")
    assert caught.value.code == "memory.newer"


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "bookmarks.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE bookmarks (url TEXT)")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(MemoryStoreError) as caught:
        MemoryStore(path)
    assert caught.value.code == "memory.foreign"
    assert path.read_bytes() == before


def test_a_path_that_is_a_folder_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(MemoryStoreError) as caught:
        MemoryStore(tmp_path)
    assert caught.value.code == "memory.unreadable"


def test_documents_are_matched_by_id_source_and_folder(store: MemoryStore) -> None:
    for name in ("docs/a", "docs/sub/b", "documents/c"):
        store.put(entry(name), {}, None)
    assert len(store.matching("docs/a")) == 1
    assert len(store.matching("docs/a.md")) == 1
    assert len(store.matching("docs/")) == 2
    assert len(store.matching("docs")) == 2
    assert store.matching("doc") == []


async def test_a_journal_is_not_taken_for_a_memory_nor_a_memory_for_a_journal(tmp_path: Path) -> None:
    kept, said = tmp_path / "memory.db", tmp_path / "journal.db"
    MemoryStore(kept).close()
    async with Journal(SqliteJournalStore(said)) as journal:
        await (await journal.create()).append(MessageAdded(message=user("Hello")), actor="ann")
    with pytest.raises(MemoryStoreError) as foreign:
        MemoryStore(said)
    assert foreign.value.code == "memory.foreign"
    with pytest.raises(JournalError) as refused:
        await Journal(SqliteJournalStore(kept)).sessions()
    assert refused.value.code == "journal.not_a_journal"
