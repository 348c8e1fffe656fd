"""Memory follows folders and records, finds passages, and checks what is cited."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernloom.kernel.errors import MemoryStoreError, MissingExtraError, NotFoundError, UsageError
from kernloom.kernel.protocols import Grounder
from kernloom.memory import Document, Memory
from kernloom.memory.store import MemoryStore
from kernloom.testing.embedders import HashEmbedder

TRAVEL = "# Travel\n\nBook early.\n\n## Hotels\n\nA hotel in Oslo may cost up to 180 euros.\n"
LEAVE = "# Annual leave\n\nEverybody has 28 days. Requests go to the team lead.\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``docs`` of two files, in the current directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("docs")
    write(folder / "travel.md", TRAVEL)
    write(folder / "people" / "leave.md", LEAVE)
    return folder


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[Memory]:
    async with Memory(tmp_path / "memory.db", embedder=HashEmbedder()) as opened:
        yield opened


async def ids(memory: Memory) -> list[str]:
    return [info.id for info in await memory.list()]


async def test_a_folder_becomes_documents_named_by_their_path(memory: Memory, docs: Path) -> None:
    report = await memory.add(docs)
    assert (report.added, report.chunks, report.embedder) == (2, 3, "hash-256")
    assert [(i.id, i.source, i.title) for i in await memory.list()] == [
        ("people/leave.md", "docs/people/leave.md", "Annual leave"),
        ("travel.md", "docs/travel.md", "Travel"),
    ]


async def test_adding_again_touches_nothing_that_is_unchanged(memory: Memory, docs: Path) -> None:
    await memory.add(docs)
    before = memory.info()
    embedder = memory.embedder
    assert isinstance(embedder, HashEmbedder)
    embedder.calls.clear()
    report = await memory.add("docs/")
    assert (report.added, report.updated, report.unchanged, report.removed) == (0, 0, 2, 0)
    assert memory.info() == before
    assert embedder.calls == []


async def test_only_what_changed_is_written_and_only_new_text_embedded(memory: Memory, docs: Path) -> None:
    await memory.add(docs)
    embedder = memory.embedder
    assert isinstance(embedder, HashEmbedder)
    embedder.calls.clear()
    (docs / "travel.md").write_text(TRAVEL + "\n## Trains\n\nSecond class.\n")
    report = await memory.add(docs)
    assert (report.updated, report.unchanged) == (1, 1)
    assert embedder.calls == [["Travel > Trains\n## Trains\n\nSecond class."]]


async def test_what_is_gone_from_the_folder_is_removed_and_nothing_else(memory: Memory, docs: Path) -> None:
    news = write(docs / ".." / "other" / "news.txt", "News.")
    await memory.add(docs)
    await memory.add("other")
    await memory.add_text("Kept.", id="note")
    (docs / "travel.md").unlink()
    news.unlink()
    report = await memory.add(docs)
    assert (report.removed, report.unchanged) == (1, 1)
    assert await ids(memory) == ["news.txt", "note", "people/leave.md"]


async def test_a_moved_file_is_not_embedded_again(memory: Memory, docs: Path) -> None:
    await memory.add(docs)
    embedder = memory.embedder
    assert isinstance(embedder, HashEmbedder)
    embedder.calls.clear()
    (docs / "travel.md").rename(docs / "trips.md")
    report = await memory.add(docs)
    assert (report.added, report.removed) == (1, 1)
    assert embedder.calls == []


async def test_a_file_and_its_folder_share_one_document(memory: Memory, docs: Path) -> None:
    await memory.add("docs/travel.md")
    await memory.add(docs)
    await memory.add("docs/people")
    assert await ids(memory) == ["people/leave.md", "travel.md"]
    (docs / "travel.md").unlink()
    await memory.add(docs)
    assert await ids(memory) == ["people/leave.md"]


async def test_equal_names_in_two_folders_stay_two_documents(memory: Memory, docs: Path) -> None:
    other = write(Path("other/travel.md"), "# Travel\n\nOf the other company.\n").parent
    await memory.add(docs)
    await memory.add(other)
    assert await ids(memory) == ["other/travel.md", "people/leave.md", "travel.md"]
    assert (await memory.add(other)).unchanged == 1


def test_a_project_can_be_moved_with_its_memory(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write(tmp_path / "project" / "notes.txt", "Not added.").parent
    docs.rename(project / "docs")
    monkeypatch.chdir(project)
    with Memory(".kernloom/memory.db", embedder=None) as memory:
        memory.add_sync("docs")
    moved = tmp_path / "elsewhere"
    monkeypatch.chdir(tmp_path)
    project.rename(moved)
    monkeypatch.chdir(moved)
    with Memory(".kernloom/memory.db", embedder=None) as memory:
        assert (memory.add_sync("docs")).unchanged == 2


async def test_files_without_text_are_reported_and_their_old_text_dropped(
    memory: Memory, docs: Path
) -> None:
    await memory.add(docs)
    (docs / "travel.md").write_text("")
    (docs / "scan.pdf").write_bytes(b"%PDF-1.4 broken")
    (docs / "logo.png").write_bytes(b"\x89PNG")
    report = await memory.add(docs)
    assert [(s.path, s.reason.split(":")[0]) for s in report.skipped] == [
        ("docs/logo.png", "not a kind of file memory reads (.png)"),
        ("docs/scan.pdf", "not a readable PDF"),
        ("docs/travel.md", "empty"),
    ]
    assert await ids(memory) == ["people/leave.md"]


async def test_a_path_that_is_not_there_says_what_is_near(memory: Memory, docs: Path) -> None:
    with pytest.raises(NotFoundError, match=r"Did you mean 'docs/travel\.md'") as caught:
        await memory.add("docs/travle.md")
    assert caught.value.code == "memory.no_such_path"
    with pytest.raises(NotFoundError, match="does not download"):
        await memory.add("https://example.com/page.html")


async def test_progress_counts_every_file_once(memory: Memory, docs: Path) -> None:
    (docs / "logo.png").write_bytes(b"\x89PNG")
    seen: list[tuple[int, int, str]] = []
    await memory.add(docs, progress=lambda done, total, path: seen.append((done, total, path)))
    assert [(done, total) for done, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert sorted(path for _, _, path in seen) == [
        "docs/logo.png",
        "docs/people/leave.md",
        "docs/travel.md",
    ]


async def test_records_keep_the_callers_ids(memory: Memory) -> None:
    records: list[Any] = [
        {"id": "q1", "text": "Oslo is in Norway.", "title": "Oslo", "metadata": {"year": 2024}},
        Document(id="q2", source="https://example.com/2", text="Bergen is in Norway too."),
        {"id": 3, "text": "  "},
    ]
    report = await memory.add_records(records)
    assert (report.added, report.skipped) == (2, (("3", "holds no text"),))
    assert [(i.id, i.source, i.metadata) for i in await memory.list()] == [
        ("q1", "q1", {"year": "2024"}),
        ("q2", "https://example.com/2", {}),
    ]
    assert (await memory.add_records(records)).unchanged == 2


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"text": "no id"}, "Record 2 has no id"),
        ({"id": "", "text": "no id"}, "Record 2 has no id"),
        ({"id": "b"}, "has no text"),
        ({"id": "a", "text": "again"}, "as a record before it"),
        ({"id": "b", "text": "x", "colour": "red"}, "'colour'"),
        ({"id": "b", "text": "x", "metadata": "m"}, "not a mapping"),
    ],
)
async def test_one_bad_record_and_nothing_is_written(
    memory: Memory, bad: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        await memory.add_records([{"id": "a", "text": "good"}, bad])
    assert caught.value.code == "memory.record_invalid"
    assert await ids(memory) == []


async def test_a_text_cannot_take_the_id_of_a_file(memory: Memory, docs: Path) -> None:
    await memory.add(docs)
    with pytest.raises(UsageError) as caught:
        await memory.add_text("Mine.", id="travel.md")
    assert caught.value.code == "memory.id_taken"
    assert await memory.read("travel.md") == TRAVEL


async def test_equal_texts_without_an_id_are_one_document(memory: Memory) -> None:
    await memory.add_text("The door code changes on Monday.")
    await memory.add_text("The door code changes on Monday.")
    assert memory.info().documents == 1


async def test_remove_takes_an_id_a_source_or_a_folder(memory: Memory, docs: Path) -> None:
    await memory.add(docs)
    assert await memory.remove("docs/people") == 1
    assert await memory.remove("travel.md") == 1
    assert await memory.remove("travel.md") == 0
    with pytest.raises(UsageError):
        await memory.remove("")


async def test_search_finds_the_passage_with_its_lines(memory: Memory, docs: Path) -> None:
    await memory.add(docs)
    best = (await memory.search("what may a hotel cost in Oslo", 2))[0]
    assert (best.chunk.document, best.chunk.line_start, best.chunk.line_end) == ("travel.md", 5, 7)
    assert best.keyword_rank == best.vector_rank == 1


async def test_search_follows_what_is_added_and_removed(memory: Memory, docs: Path) -> None:
    assert await memory.search("hotel") == []
    await memory.add(docs)
    assert (await memory.search("hotel"))[0].chunk.document == "travel.md"
    await memory.remove("travel.md")
    assert all(hit.chunk.document != "travel.md" for hit in await memory.search("hotel"))


async def test_without_an_embedder_words_are_enough(tmp_path: Path, docs: Path) -> None:
    async with Memory(tmp_path / "words.db", embedder=None) as memory:
        report = await memory.add(docs)
        assert report.embedder is None
        hit = (await memory.search("hotel in Oslo"))[0]
        assert (hit.chunk.document, hit.vector_rank) == ("travel.md", None)


async def test_an_embedder_that_comes_later_catches_up(tmp_path: Path, docs: Path) -> None:
    path = tmp_path / "later.db"
    async with Memory(path, embedder=None) as memory:
        await memory.add(docs)
    async with Memory(path, embedder=HashEmbedder()) as memory:
        assert (memory.info().chunks, memory.info().embedded) == (3, 0)
        assert (await memory.search("hotel"))[0].vector_rank is None
        assert (await memory.add(docs)).unchanged == 2
        assert memory.info().embedded == 3
        assert (await memory.search("hotel"))[0].vector_rank == 1
    async with Memory(path, embedder=HashEmbedder(32)) as memory:
        assert await memory.embed() == 3


async def test_memory_is_what_the_kernel_grounds_with(memory: Memory, docs: Path) -> None:
    await memory.add(docs)
    assert isinstance(memory, Grounder)
    grounding = await memory.ground("How many days of annual leave does everybody have?")
    assert grounding.passages[0].source == "docs/people/leave.md"
    (citation,) = await memory.cite("Everybody has 28 days [1].", grounding)
    assert (citation.quote, citation.place, citation.verified) == (
        "Everybody has 28 days",
        "docs/people/leave.md:3",
        True,
    )


async def test_a_citation_of_text_that_changed_is_not_verified(memory: Memory, docs: Path) -> None:
    await memory.add(docs)
    grounding = await memory.ground("How many days of annual leave does everybody have?")
    (docs / "people" / "leave.md").write_text(LEAVE.replace("28", "30"))
    await memory.add(docs)
    (citation,) = await memory.cite("Everybody has 28 days [1].", grounding)
    assert not citation.verified


async def test_a_bound_memory_sees_its_namespace_only(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    async with (
        Memory(path, embedder=HashEmbedder(), namespace="north") as north,
        Memory(path, embedder=HashEmbedder(), namespace="south") as south,
        Memory(path, embedder=HashEmbedder()) as everything,
    ):
        await north.add_text("The north opens at nine.", id="hours")
        await south.add_text("The south opens at ten.", id="hours")
        assert [h.chunk.text for h in await north.search("when opens")] == ["The north opens at nine."]
        assert await south.read("hours") == "The south opens at ten."
        grounding = await south.ground("when opens the south")
        assert [p.text for p in grounding.passages] == ["The south opens at ten."]
        assert await south.cite("At ten [1].", grounding)
        assert len(await everything.search("when opens")) == 2
        assert len(await everything.search("when opens", namespace="north")) == 1
        with pytest.raises(UsageError, match="bound to the namespace"):
            await north.search("when opens", namespace="south")
        with pytest.raises(UsageError, match="bound to the namespace"):
            await north.add_records([{"id": "x", "text": "y", "namespace": "south"}])
        assert await north.remove("hours") == 1
        assert await south.read("hours") == "The south opens at ten."


async def test_sync_twins_work_inside_a_running_loop(memory: Memory, docs: Path) -> None:
    assert memory.add_sync(docs).added == 2
    assert memory.search_sync("hotel", 1)[0].chunk.document == "travel.md"
    assert memory.ground_sync("hotel").passages


def test_sync_twins_work_without_a_loop_and_the_file_stays(tmp_path: Path, docs: Path) -> None:
    with Memory(tmp_path / "m.db", embedder=None) as memory:
        memory.add_sync(docs)
    with Memory(tmp_path / "m.db", embedder=None) as memory:
        assert memory.search_sync("hotel", 1)[0].chunk.document == "travel.md"


async def test_a_cancelled_add_stops_keeps_what_is_done_and_resumes(tmp_path: Path, docs: Path) -> None:
    for n in range(300):
        (docs / f"{n:03}.txt").write_text(f"File number {n}.")
    reached, may_go_on = threading.Event(), threading.Event()

    def pause(done: int, total: int, path: str) -> None:
        if done == 100:
            reached.set()
            may_go_on.wait(20)

    async with Memory(tmp_path / "m.db", embedder=None) as memory:
        adding = asyncio.create_task(memory.add(docs, progress=pause))
        await asyncio.to_thread(reached.wait, 20)
        adding.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert memory.info().documents == 100
        report = await memory.add(docs)
        assert (report.unchanged, report.added) == (100, 202)


async def test_a_cancelled_add_that_still_waits_for_its_turn_ends_at_once(
    tmp_path: Path, docs: Path
) -> None:
    reached, may_go_on = threading.Event(), threading.Event()

    def pause(done: int, total: int, path: str) -> None:
        reached.set()
        may_go_on.wait(20)

    async with Memory(tmp_path / "m.db", embedder=None) as memory:
        first = asyncio.create_task(memory.add(docs, progress=pause))
        await asyncio.to_thread(reached.wait, 20)
        second = asyncio.create_task(memory.add_text("Never to be kept.", id="note"))
        await asyncio.sleep(0)
        second.cancel()
        ended, _ = await asyncio.wait([second], timeout=5)
        may_go_on.set()
        await first
        assert ended == {second}
        assert {document.id for document in await memory.list()} == {"travel.md", "people/leave.md"}


async def test_what_fails_after_it_was_cancelled_is_not_complained_of_later(
    tmp_path: Path, docs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reached, may_go_on = threading.Event(), threading.Event()

    def fail(done: int, total: int, path: str) -> None:
        reached.set()
        may_go_on.wait(20)
        raise OSError("the terminal is gone")

    async with Memory(tmp_path / "m.db", embedder=None) as memory:
        adding = asyncio.create_task(memory.add(docs, progress=fail))
        await asyncio.to_thread(reached.wait, 20)
        adding.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await adding
    del adding
    gc.collect()
    assert caplog.messages == []


async def test_adds_at_the_same_time_wait_for_each_other(memory: Memory, docs: Path) -> None:
    reports = await asyncio.gather(
        *(memory.add(docs) for _ in range(4)), memory.add_text("More.", id="more")
    )
    assert sum(report.added for report in reports) == 3
    assert memory.info().documents == 3


async def test_a_second_process_is_refused_while_this_one_adds(tmp_path: Path, docs: Path) -> None:
    path = tmp_path / "m.db"
    script = "import sys; from kernloom.memory import Memory\n"
    script += "Memory(sys.argv[1], embedder=None).add_sync('docs')"

    def intrude(done: int, total: int, path_: str) -> None:
        ran = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
        )
        assert ran.returncode
        refusals.append(ran.stderr.strip().splitlines()[-1])

    refusals: list[str] = []
    (docs / "travel.md").unlink()
    async with Memory(path, embedder=None) as memory:
        await memory.add(docs, progress=intrude)
    assert f"is being written by process {os.getpid()}." in refusals[0]


def test_lone_surrogates_become_replacement_characters_one_for_one() -> None:
    with Memory(embedder=None) as memory:
        asyncio.run(memory.add_text("a\ud800b", id="s"))
        assert asyncio.run(memory.read("s")) == "a\ufffdb"


def test_a_closed_memory_says_so() -> None:
    memory = Memory(embedder=None)
    memory.close()
    memory.close()
    with pytest.raises(MemoryStoreError, match="closed"):
        memory.search_sync("anything")


NAMES = st.sampled_from(["a.md", "b.txt", "sub/a.md", "sub/deep/c.md"])
CHANGES = st.lists(
    st.tuples(NAMES, st.sampled_from(["", "One.", "Two.", "# H\n\nOne.\n\n# I\n\nTwo."])), max_size=8
)


@given(rounds=st.lists(CHANGES, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_memory_holds_exactly_what_the_folder_holds(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, str]]]
) -> None:
    base = tmp_path_factory.mktemp("sync")
    folder = base / "docs"
    folder.mkdir()
    with Memory(base / "m.db", embedder=HashEmbedder(16)) as memory:
        for changes in rounds:
            for name, text in changes:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                if text:
                    path.write_text(text)
            memory.add_sync(folder)
            held = {info.id: asyncio.run(memory.read(info.id)) for info in asyncio.run(memory.list())}
            assert held == {
                p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.*") if p.is_file()
            }
            assert memory.info().embedded == memory.info().chunks


ADD = """
import sys
from kernloom.memory import Memory
from kernloom.testing.embedders import HashEmbedder
with Memory(sys.argv[1], embedder=HashEmbedder(32)) as memory:
    print("ready", flush=True)
    memory.add_sync(sys.argv[2], progress=lambda done, total, path: print(done, flush=True))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_any_moment_only_whole_documents_remain_and_adding_goes_on(tmp_path: Path) -> None:
    texts = {
        f"{n:03}.md": "".join(f"# Part {p}\n\nText {n} of part {p}.\n\n" for p in range(n % 7 + 1))
        for n in range(400)
    }
    folder, path = tmp_path / "docs", tmp_path / "m.db"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    chance = random.Random(4)
    kept = 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", ADD, str(path), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 60)):  # so far it may come, then it is killed wherever it is
            if not process.stdout.readline():
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = MemoryStore(path)
        held = {info.id: info.chunks for info in store.documents()}
        assert all(store.text(name) == texts[name] for name in held)
        assert all(chunks == texts[name].count("# Part") for name, chunks in held.items())
        keys, _ = store.vectors("hash-32")
        assert keys == [chunk.key for chunk in store.chunks()]
        assert len(held) >= kept
        kept = len(held)
        store.close()
    with Memory(path, embedder=HashEmbedder(32)) as memory:
        report = memory.add_sync(folder)
        assert 0 < kept < 400
        assert (report.unchanged, report.added) == (kept, 400 - kept)
        assert json.dumps(sorted(texts)) == json.dumps([info.id for info in asyncio.run(memory.list())])


def test_a_missing_extra_is_named_before_anything_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rank_bm25", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kernloom\[memory\]'"):
        Memory(embedder=None)
