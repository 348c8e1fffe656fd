"""Events of every release can be read, or are refused in words that say what to do."""

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.kernel.errors import JournalError, UsageError
from kernloom.kernel.journal.events import MODELS, Event, RunStarted, checksum
from kernloom.kernel.journal.migrations import SCHEMA, VERSIONS, EventSchema
from kernloom.kernel.journal.records import pack, unpack
from kernloom.kernel.journal.stores import SessionHead, StoredEvent
from kernloom.kernel.messages import Frozen

HEAD = SessionHead("s", 1, 1.0, 1.0)


class RunStartedLater(Frozen):
    """``run.started`` as it might be two releases from now: ``name`` became ``who``, ``tags`` came."""

    kind: Literal["run.started"] = "run.started"
    who: str
    tags: tuple[str, ...]
    input: Any = None
    spec: dict[str, Any] | None = None


def later(*, versions: int = 3) -> EventSchema:
    return EventSchema({**MODELS, "run.started": RunStartedLater}, {**VERSIONS, "run.started": versions})


def renamed(data: dict[str, Any]) -> dict[str, Any]:
    data["who"] = data.pop("name")
    return data


def tagged(data: dict[str, Any]) -> dict[str, Any]:
    data["tags"] = [data.pop("what")]
    return data


def whole() -> EventSchema:
    schema = later()
    schema.migrates("run.started", 1, 2)(renamed)
    schema.migrates("run.started", 2, 3)(tagged)
    return schema


def row(kind: str, version: int, text: str) -> StoredEvent:
    mark = checksum("s", 1, 1.0, "ann", None, version, text)
    return StoredEvent(1, 1.0, "ann", None, kind, version, mark, text, "s")


def refused(schema: EventSchema, stored: StoredEvent) -> JournalError:
    with pytest.raises(JournalError) as caught:
        unpack(HEAD, stored, schema=schema)
    return caught.value


def same(event: Event, data: object) -> bool:
    """Whether the event's data is ``data``, which no release of today knows."""
    return event.data == data


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_an_old_event_is_walked_up_the_chain_and_what_is_free_in_it_stays_as_it_was(value: object) -> None:
    event, stored = pack(HEAD, 1, 1.0, "ann", None, RunStarted(name="librarian", input=value))
    assert isinstance(event.data, RunStarted)
    again = unpack(HEAD, stored, schema=whole())
    assert again.version == 1
    assert same(again, RunStartedLater(who="librarian", tags=("agent",), input=event.data.input))


def test_an_event_in_the_middle_of_the_chain_goes_the_rest_of_the_way() -> None:
    text = '{"kind":"run.started","who":"librarian","what":"plan","input":null}'
    event = unpack(HEAD, row("run.started", 2, text), schema=whole())
    assert same(event, RunStartedLater(who="librarian", tags=("plan",)))


def test_a_migration_may_jump_over_a_version() -> None:
    schema = later()
    schema.migrates("run.started", 1, 3)(lambda data: tagged(renamed(data)))
    schema.migrates("run.started", 2, 3)(tagged)
    _, stored = pack(HEAD, 1, 1.0, "ann", None, RunStarted(name="librarian"))
    assert same(unpack(HEAD, stored, schema=schema), RunStartedLater(who="librarian", tags=("agent",)))
    assert schema.gaps() == []


def test_a_missing_link_is_refused_and_names_kind_and_versions() -> None:
    schema = later()
    schema.migrates("run.started", 1, 2)(renamed)
    _, stored = pack(HEAD, 1, 1.0, "ann", None, RunStarted(name="librarian"))
    error = refused(schema, stored)
    assert error.code == "journal.version"
    assert "'run.started', version 1" in error.message
    assert "reads version 3" in error.message
    assert "from version 2" in error.message
    assert error.details == {"kind": "run.started", "version": 1, "known": 3, "session": "s", "seq": 1}
    assert schema.gaps() == [("run.started", 2)]


def test_a_later_version_is_refused_and_says_what_is_known() -> None:
    error = refused(SCHEMA, row("run.started", 2, '{"kind":"run.started","who":"x","tags":[]}'))
    assert error.code == "journal.version"
    assert "up to version 1" in error.message
    assert "Upgrade kernloom" in str(error)


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_that_never_was_is_refused(version: int) -> None:
    error = refused(SCHEMA, row("run.started", version, '{"kind":"run.started","name":"x"}'))
    assert error.code == "journal.version"


def test_a_kind_of_a_later_release_is_refused_and_damage_is_not_taken_for_one() -> None:
    error = refused(SCHEMA, row("run.dreamt", 1, '{"kind":"run.dreamt"}'))
    assert error.code == "journal.version"
    assert "'run.dreamt'" in error.message
    assert refused(SCHEMA, row("run.dreamt", 1, '{"kind":"run.cancelled"}')).code == "journal.corrupt"
    assert refused(SCHEMA, row("run.dreamt", 1, "[]")).code == "journal.corrupt"


def test_data_that_breaks_a_migration_is_damage() -> None:
    error = refused(whole(), row("run.started", 1, '{"kind":"run.started"}'))
    assert error.code == "journal.corrupt"
    assert "Event 1 of session 's'" in error.message


@pytest.mark.parametrize(
    ("kind", "from_", "to"),
    [("run.started", 1, 4), ("run.started", 2, 2), ("run.started", 0, 1), ("run.dreamt", 1, 2)],
)
def test_a_migration_that_leads_nowhere_is_refused(kind: str, from_: int, to: int) -> None:
    with pytest.raises(UsageError) as caught:
        later().migrates(kind, from_, to)(renamed)
    assert caught.value.code == "journal.migration"


def test_two_migrations_from_one_version_are_refused() -> None:
    with pytest.raises(UsageError, match="two migrations") as caught:
        whole().migrates("run.started", 1, 3)(renamed)
    assert caught.value.code == "journal.migration"


def test_this_release_reads_every_version_it_ever_wrote() -> None:
    assert SCHEMA.gaps() == []
    assert set(VERSIONS) == set(MODELS)


def test_what_is_written_today_is_of_the_version_of_today() -> None:
    data = RunStartedLater(who="x", tags=())
    event, stored = pack(HEAD, 1, 1.0, "ann", None, data, schema=whole())  # type: ignore[arg-type]
    assert (event.version, stored.version) == (3, 3)
    assert unpack(HEAD, stored, schema=whole()) == event


ODD = ['{"forgotten":', '{"forgotten":1', '{"forgotten":x,"kind":"run.cancelled"}', "[" * 10_000, "{"]
ODD += ['{"forgotten":1.5,"kind":"run.cancelled"}', '{"kind":"run.cancelled"']


@given(
    kind=st.sampled_from([*MODELS, "run.dreamt", ""]),
    version=st.integers(-1, 3),
    text=st.text() | st.builds(json.dumps, JSON) | st.sampled_from(ODD),
)
def test_any_text_is_an_event_or_a_typed_error(kind: str, version: int, text: str) -> None:
    try:
        event = unpack(HEAD, row(kind, version, text))
    except JournalError as error:
        assert error.code in ("journal.corrupt", "journal.version")
    else:
        assert event.kind == kind
