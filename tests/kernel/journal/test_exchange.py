"""A session as lines, from one journal into another: whole, exact, or refused with the line named."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernloom.kernel.errors import InvariantError, JournalError, NotFoundError
from kernloom.kernel.journal import (
    EventData,
    History,
    InMemoryJournalStore,
    Journal,
    JournalStore,
    SqliteJournalStore,
)
from kernloom.kernel.journal.encryption import EncryptedJournalStore, new_key
from kernloom.kernel.journal.events import (
    FunctionFinished,
    FunctionRequested,
    MessageAdded,
    ModelAnswered,
    ModelRequested,
    RunCancelled,
    RunStarted,
    checksum,
)
from kernloom.kernel.journal.exchange import export_session, import_session
from kernloom.kernel.messages import ToolCall, ToolResult, assistant, user

JSON = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
TEXT = st.text(max_size=20) | st.sampled_from(['","data":', "a\nb\r\u2028\x85\x00", '}\\"', ',"data":{}'])
DATA: st.SearchStrategy[EventData] = st.one_of(
    st.builds(RunStarted, name=TEXT, input=JSON),
    TEXT.map(lambda text: MessageAdded(message=user(text))),
    st.just(RunCancelled()),
    st.just(ModelRequested(model="m", messages=1)),
    TEXT.map(lambda text: ModelAnswered(model="m", message=assistant(text))),
    TEXT.map(lambda name: FunctionRequested(call=ToolCall(id=name, name="plugin.do"))),
    st.builds(
        FunctionFinished,
        result=st.builds(ToolResult, call_id=TEXT, name=st.just("plugin.do"), content=TEXT),
        value=JSON,
    ),
)


async def lines_of(journal: Journal, session: str) -> list[str]:
    return [line async for line in export_session(journal, session)]


async def a_session(store: JournalStore | None = None, *, parent: tuple[str, int] | None = None) -> Journal:
    journal = Journal(store or InMemoryJournalStore(), clock=lambda: 1.5, new_id=lambda: "abc")
    log = await journal.create(parent=parent)
    await log.append(RunStarted(name="librarian", input={"a": 1}), actor="librarian", run="r")
    await log.append(MessageAdded(message=user("Hello")), RunCancelled(), actor="ann", run="r")
    return journal


async def refused(lines: Iterable[str], journal: Journal | None = None) -> JournalError:
    journal = journal or Journal(InMemoryJournalStore())
    before = await journal.store.sessions()
    with pytest.raises(JournalError) as caught:
        await import_session(journal, lines)
    assert await journal.store.sessions() == before
    return caught.value


def sealed(lines: list[str]) -> list[str]:
    """The lines with an end that fits them, as somebody who edits them might write it."""
    body = [line if line.endswith("\n") else line + "\n" for line in lines]
    digest = hashlib.sha256("".join(body).encode()).hexdigest()
    return [*body, json.dumps({"digest": f"sha256:{digest}", "lines": len(body)})]


async def test_a_session_goes_from_one_journal_to_another_byte_for_byte(tmp_path: Path) -> None:
    journal = await a_session(parent=("above", 3))
    lines = await lines_of(journal, "ab")
    async with Journal(SqliteJournalStore(tmp_path / "journal.db")) as other:
        assert await import_session(other, lines) == "abc"
        assert await other.store.read("abc") == await journal.store.read("abc")
        assert (await other.open("abc")).events == (await journal.open("abc")).events
        assert (await other.open("abc")).parent == ("above", 3)
        assert await lines_of(other, "abc") == lines


async def test_every_line_is_json_that_other_tools_read() -> None:
    header, first, *_, end = [json.loads(line) for line in await lines_of(await a_session(), "abc")]
    assert header == {
        "kernloom": "session", "format": 1, "release": header["release"], "session": "abc", "parent": None,
        "base": None, "events": 3,
    }  # fmt: skip
    assert first["data"] == RunStarted(name="librarian", input={"a": 1}).model_dump()
    assert (first["seq"], first["at"], first["actor"], first["run"]) == (1, 1.5, "librarian", "r")
    assert end["lines"] == 4


@given(data=st.lists(DATA, min_size=1, max_size=20), actor=TEXT, run=st.none() | TEXT)
@settings(deadline=None)
async def test_whatever_was_said_comes_back_the_same(
    data: list[EventData], actor: str, run: str | None
) -> None:
    history, legal = History(), []
    for item in data:
        try:
            history.apply(item)
        except InvariantError:
            continue
        legal.append(item)
    journal, other = (Journal(InMemoryJournalStore(), new_id=lambda: "abc") for _ in range(2))
    log = await journal.create()
    if not await log.append(*legal, actor=actor, run=run):
        return
    text = "".join(await lines_of(journal, "abc"))
    assert await import_session(other, text.split("\n")) == "abc"
    assert (await other.open("abc")).events == log.events
    assert await other.store.read("abc") == await journal.store.read("abc")
    assert await import_session(journal, text.split("\n")) == "abc"


async def test_importing_what_is_there_already_does_nothing() -> None:
    journal = await a_session()
    lines = await lines_of(journal, "abc")
    before = await journal.store.sessions()
    assert await import_session(journal, lines) == "abc"
    assert await journal.store.sessions() == before


async def test_another_session_of_that_id_is_in_the_way() -> None:
    journal = await a_session()
    lines = await lines_of(journal, "abc")
    await (await journal.open("abc")).append(MessageAdded(message=user("more")), actor="ann")
    error = await refused(lines, journal)
    assert (error.code, error.details) == ("journal.exists", {"session": "abc"})
    assert "new id" in str(error)


async def test_under_a_new_id_it_is_a_session_of_its_own() -> None:
    journal = await a_session(parent=("above", 3))
    lines = await lines_of(journal, "abc")
    other = Journal(journal.store, new_id=lambda: "new")
    assert await import_session(other, lines, new_id=True) == "new"
    log = await other.open("new")
    assert log.parent is None
    assert [event.data for event in log.events] == [
        event.data for event in (await other.open("abc")).events
    ]
    assert {event.session for event in log.events} == {"new"}


async def test_a_fork_takes_along_what_it_shares() -> None:
    journal = await a_session()
    await journal.store.fork("fork", at=2, of="abc")
    await (await journal.open("fork")).append(MessageAdded(message=user("instead")), actor="ann")
    lines = await lines_of(journal, "fork")
    assert json.loads(lines[0])["base"] == ["abc", 2]
    other = Journal(InMemoryJournalStore())
    await import_session(other, lines)
    assert (await other.open("fork")).events == (await journal.open("fork")).events
    assert await other.store.read("fork") == await journal.store.read("fork")
    assert await import_session(journal, lines) == "fork"
    await import_session(Journal(other.store, new_id=lambda: "new"), lines, new_id=True)
    assert {event.session for event in (await other.open("new")).events} == {"new"}


async def test_an_encrypted_session_is_exported_in_clear_and_sealed_where_it_is_imported() -> None:
    one, two = InMemoryJournalStore(), InMemoryJournalStore()
    journal = await a_session(EncryptedJournalStore(one, [new_key()]))
    lines = await lines_of(journal, "abc")
    assert "Hello" in "".join(lines)
    other = Journal(EncryptedJournalStore(two, [new_key()]))
    await import_session(other, lines)
    assert (await other.open("abc")).events == (await journal.open("abc")).events
    assert all("Hello" not in row.text for row in await two.read("abc"))


async def test_what_is_damaged_is_not_exported() -> None:
    journal = await a_session()
    [row] = await journal.store.read("abc", after=1, limit=1)
    await journal.store.replace("abc", 2, row._replace(text=row.text.replace("Hello", "Hullo")))
    with pytest.raises(JournalError) as caught:
        await lines_of(journal, "abc")
    assert (caught.value.code, caught.value.details["seq"]) == ("journal.corrupt", 2)


async def test_an_unknown_session_is_not_exported() -> None:
    with pytest.raises(NotFoundError):
        await lines_of(Journal(InMemoryJournalStore()), "nobody")


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
async def test_what_breaks_off_is_refused(kept: int) -> None:
    lines = await lines_of(await a_session(), "abc")
    error = await refused(lines[:kept])
    assert (error.code, error.details["line"]) == ("journal.export_truncated", kept)


@pytest.mark.parametrize("left_out", [1, 2, 3])
async def test_a_line_that_is_missing_is_noticed(left_out: int) -> None:
    lines = await lines_of(await a_session(), "abc")
    del lines[left_out]
    error = await refused(lines)
    assert error.code in ("journal.export_damaged", "journal.export_truncated")
    assert error.details["line"] == (left_out + 1 if left_out < 3 else 4)


@pytest.mark.parametrize(
    "lines", [[], [""], ["Hello"], ["{}"], ["[" * 100_000], ['{"kernloom":"plan"}'], ["7"]]
)
async def test_what_is_no_export_is_said_to_be_none(lines: list[str]) -> None:
    assert (await refused(lines)).code == "journal.not_an_export"


async def test_a_later_format_is_refused_with_words() -> None:
    lines = await lines_of(await a_session(), "abc")
    error = await refused([lines[0].replace('"format":1', '"format":2'), *lines[1:]])
    assert error.code == "journal.export_newer"
    assert "format 2" in error.message


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (0, '"events":3', '"events":"many"'),
        (0, '"session":"abc"', '"session":""'),
        (0, '"events":3', '"events":3,"more":1'),
        (1, '"seq":1', '"seq":2'),
        (1, '"actor":"librarian"', '"actor":"eve"'),
        (1, '"version":1', '"version":9'),
        (2, "Hello", "Hullo"),
        (2, '"data":', '"date":'),
        (2, "}\n", "\n"),
        (2, '"at":1.5', '"at":"now"'),
    ],
)
async def test_an_edited_line_is_refused_and_named(line: int, old: str, new: str) -> None:
    lines = await lines_of(await a_session(), "abc")
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    error = await refused(sealed(lines[:-1]))
    assert (error.code, error.details["line"]) == ("journal.export_damaged", line + 1)
    assert f"Line {line + 1} " in error.message


async def test_an_edited_end_is_refused_and_so_is_what_follows_it() -> None:
    lines = await lines_of(await a_session(), "abc")
    for end in (lines[-1].replace("sha256:", "sha256:0"), "{}", lines[1]):
        error = await refused([*lines[:-1], end])
        assert (error.code, error.details["line"]) == ("journal.export_damaged", 5)
    error = await refused([*lines, "", lines[1]])
    assert (error.code, error.details["line"]) == ("journal.export_damaged", 7)
    assert await import_session(Journal(InMemoryJournalStore()), [*lines, "\n", ""]) == "abc"


async def test_a_history_that_could_not_have_been_is_refused_even_if_every_sum_is_right() -> None:
    lines = await lines_of(await a_session(), "abc")
    text = ModelAnswered(model="m", message=assistant("I was not asked")).model_dump_json()
    mark = checksum("abc", 3, 1.5, "ann", "r", 1, text)
    envelope: dict[str, Any] = {
        "seq": 3, "at": 1.5, "actor": "ann", "run": "r", "kind": "model.answered", "version": 1,
        "checksum": mark, "session": "abc",
    }  # fmt: skip
    lines[3] = json.dumps(envelope)[:-1] + ',"data":' + text + "}"
    error = await refused(sealed(lines[:-1]))
    assert (error.code, error.details["line"]) == ("journal.export_damaged", 4)
    assert "nobody had asked" in error.message


async def test_an_event_of_a_later_release_is_refused_as_such() -> None:
    lines = await lines_of(await a_session(), "abc")
    text = '{"kind":"run.dreamt"}'
    mark = checksum("abc", 3, 1.5, "ann", None, 1, text)
    lines[3] = (
        '{"seq":3,"at":1.5,"actor":"ann","run":null,"kind":"run.dreamt","version":1,'
        f'"checksum":"{mark}","session":"abc","data":{text}}}'
    )
    error = await refused(sealed(lines[:-1]))
    assert (error.code, error.details["line"]) == ("journal.version", 4)


@given(data=st.data())
@settings(deadline=None, max_examples=200)
async def test_any_lines_are_a_session_or_a_typed_error(data: st.DataObject) -> None:
    lines = await lines_of(await a_session(), "abc")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        line = lines[place]
        at = data.draw(st.integers(0, max(0, len(line) - 1)))
        new = data.draw(
            st.text(max_size=3) | st.sampled_from(['"', "}", "[", "\\", "1e999", "null", "NaN"])
        )
        lines[place] = line[:at] + new + line[at + data.draw(st.integers(0, 3)) :]
    other = Journal(InMemoryJournalStore())
    try:
        session = await import_session(other, lines)
    except JournalError as error:
        assert error.code.startswith("journal.")
        assert await other.store.sessions() == []
    else:
        same = await a_session()
        assert (await other.open(session)).events == (await same.open("abc")).events


async def test_keys_in_the_environment_are_in_no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert "sk-very-secret" not in "".join(await lines_of(await a_session(), "abc"))
