"""The conformance kit of journal stores.

Whoever writes a :class:`~kernloom.kernel.journal.stores.JournalStore` subclasses it and supplies one
fixture, ``open_store``, a callable that opens the same storage again each time it is called (as another
process would), empty at the start of each test::

    class TestMyStore(JournalStoreConformance):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda: MyStore(tmp_path / "journal")

The tests are plain functions with loops of their own: no pytest plugin is needed.
"""
# ruff: noqa: S101 - assertions are what a kit is made of

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ..kernel.errors import JournalError
from ..kernel.journal.stores import JournalStore, SessionHead, StoredEvent

OpenStore = Callable[[], JournalStore]

#: Text that tends to get lost: other scripts, an emoji, a quote, NUL as JSON writes it, 100 kB.
AWKWARD = ("", "tårn 塔 🗼", "'\"\\;--", '{"a": "\\u0000\\n"}', "x" * 100_000)


def stored(
    seq: int, *, kind: str = "message", at: float | None = None, text: str | None = None
) -> StoredEvent:
    """A row that says where it belongs. Stores do not look into it."""
    return StoredEvent(
        seq=seq,
        at=float(seq) if at is None else at,
        actor="kit",
        run=None if seq % 2 else f"run-{seq}",
        kind=kind,
        version=1,
        checksum=f"{seq:016x}",
        text=f'{{"seq": {seq}}}' if text is None else text,
    )


def rows(first: int, last: int) -> list[StoredEvent]:
    """Rows ``first`` to ``last``, both inclusive."""
    return [stored(seq) for seq in range(first, last + 1)]


class JournalStoreConformance:
    """What every store must do. Subclass it, name the subclass ``Test…``, supply ``open_store``."""

    def test_reads_back_what_was_appended(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            first = [stored(seq, text=text) for seq, text in enumerate(AWKWARD, start=1)]
            await store.append("a", first, expected_seq=0)
            await store.append("a", [stored(6)], expected_seq=5, durable=True)
            assert await store.read("a") == [*first, stored(6)]

        run(open_store, scenario)

    def test_keeps_sessions_apart(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 3), expected_seq=0)
            await store.append("b", rows(1, 1), expected_seq=0)
            await store.append("a", rows(4, 4), expected_seq=3)
            assert await store.read("a") == rows(1, 4)
            assert await store.read("b") == rows(1, 1)
            assert await store.read("c") == []

        run(open_store, scenario)

    def test_what_is_appended_is_seen_by_who_opens_it_again(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 3), expected_seq=0, parent=("p", 7))
            async with opened(open_store) as other:
                assert await other.read("a") == rows(1, 3)
                assert await other.sessions() == [SessionHead("a", 3, 1.0, 3.0, ("p", 7))]
                await other.append("a", rows(4, 4), expected_seq=3)
            assert await store.read("a", after=3) == rows(4, 4)

        run(open_store, scenario)

    def test_refuses_an_append_behind_anything_but_the_end(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 3), expected_seq=0)
            for session, expected, actual in (("a", 0, 3), ("a", 2, 3), ("a", 4, 3), ("new", 1, 0)):
                error = await refusal(store, session, expected)
                assert error.code == "journal.conflict"
                assert (error.details["expected"], error.details["actual"]) == (expected, actual)
            assert await store.read("a") == rows(1, 3)
            assert [head.id for head in await store.sessions()] == ["a"]

        run(open_store, scenario)

    def test_of_two_writers_at_once_exactly_one_wins(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 1), expected_seq=0)
            async with opened(open_store) as other:
                for end in range(1, 21):
                    outcomes = await asyncio.gather(
                        *(
                            writer.append("a", [stored(end + 1)], expected_seq=end, durable=end % 2 == 0)
                            for writer in (store, other)
                        ),
                        return_exceptions=True,
                    )
                    lost = [outcome for outcome in outcomes if outcome is not None]
                    assert len(lost) == 1
                    assert isinstance(lost[0], JournalError)
                    assert lost[0].code == "journal.conflict"
            assert await store.read("a") == rows(1, 21)

        run(open_store, scenario)

    def test_many_sessions_append_at_once_and_all_arrive(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            async def write(session: str) -> None:
                for end in range(0, 10, 2):
                    await store.append(session, rows(end + 1, end + 2), expected_seq=end, durable=end == 4)

            names = [f"s{number}" for number in range(8)]
            await asyncio.gather(*(write(name) for name in names))
            for name in names:
                assert await store.read(name) == rows(1, 10)

        run(open_store, scenario)

    def test_an_append_of_nothing_is_none(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", [], expected_seq=0)
            assert await store.sessions() == []

        run(open_store, scenario)

    def test_reads_a_part(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 9), expected_seq=0)
            assert await store.read("a", after=7) == rows(8, 9)
            assert await store.read("a", after=9) == []
            assert await store.read("a", limit=2) == rows(1, 2)
            assert await store.read("a", after=3, limit=2) == rows(4, 5)
            assert await store.read("a", limit=2, newest=True) == rows(8, 9)
            assert await store.read("a", after=8, limit=2, newest=True) == rows(9, 9)
            assert await store.read("a", limit=0) == []

        run(open_store, scenario)

    def test_reads_some_kinds(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            mixed = [stored(seq, kind=kind) for seq, kind in enumerate("xyzxyz", start=1)]
            await store.append("a", mixed, expected_seq=0)
            assert await store.read("a", kinds={"x", "z"}) == [row for row in mixed if row.kind != "y"]
            assert await store.read("a", kinds={"x"}, limit=1) == [mixed[0]]
            assert await store.read("a", kinds={"x", "y"}, limit=1, newest=True) == [mixed[4]]
            assert await store.read("a", kinds={"y"}, after=2) == [mixed[4]]
            assert await store.read("a", kinds=set()) == []

        run(open_store, scenario)

    def test_lists_sessions_last_updated_first(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            for name, at in (("b", 10.0), ("c", 20.0), ("a", 20.0)):
                await store.append(name, [stored(1, at=at)], expected_seq=0)
            await store.append("b", [stored(2, at=30.5)], expected_seq=1)
            heads = await store.sessions()
            assert heads == [
                SessionHead("b", 2, 10.0, 30.5),
                SessionHead("c", 1, 20.0, 20.0),
                SessionHead("a", 1, 20.0, 20.0),
            ]
            assert await store.sessions(limit=2) == heads[:2]

        run(open_store, scenario)

    def test_finds_sessions_by_prefix_and_by_parent(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            names = ("ab", "abc", "ab%", "b", "AB")
            for at, name in enumerate(names):
                parent = ("b", 1) if name.startswith("ab") else None
                await store.append(name, [stored(1, at=-at)], expected_seq=0, parent=parent)

            async def found(prefix: str = "", parent: str | None = None, roots: bool = False) -> list[str]:
                return [head.id for head in await store.sessions(prefix=prefix, parent=parent, roots=roots)]

            assert await found() == list(names)
            assert await found(prefix="ab") == ["ab", "abc", "ab%"]
            assert await found(prefix="ab%") == ["ab%"]
            assert await found(prefix="x") == []
            assert await found(parent="b") == ["ab", "abc", "ab%"]
            assert await found(parent="b", prefix="abc") == ["abc"]
            assert await found(roots=True) == ["b", "AB"]

        run(open_store, scenario)

    def test_can_be_closed_twice(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 1), expected_seq=0)
            await store.close()
            await store.close()

        run(open_store, scenario)


@asynccontextmanager
async def opened(open_store: OpenStore) -> AsyncIterator[JournalStore]:
    """A store for a while."""
    store = open_store()
    try:
        yield store
    finally:
        await store.close()


def run(open_store: OpenStore, scenario: Callable[[JournalStore], Awaitable[None]]) -> None:
    """``scenario`` with a freshly opened store, in a loop of its own."""

    async def whole() -> None:
        async with opened(open_store) as store:
            await scenario(store)

    asyncio.run(whole())


async def refusal(store: JournalStore, session: str, expected_seq: int) -> JournalError:
    """The error that an append behind ``expected_seq`` must raise."""
    try:
        await store.append(session, [stored(expected_seq + 1)], expected_seq=expected_seq)
    except JournalError as error:
        return error
    raise AssertionError(f"an append to {session!r} behind {expected_seq} was accepted")
