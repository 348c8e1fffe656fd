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
from ..kernel.journal.stores import JournalStore, Lease, SessionHead, Snapshot, StoredEvent

OpenStore = Callable[[], JournalStore]

#: Text that tends to get lost: other scripts, an emoji, a quote, NUL as JSON writes it, 100 kB.
AWKWARD = ("", "tårn 塔 🗼", "'\"\\;--", '{"a": "\\u0000\\n"}', "x" * 100_000)


def stored(
    seq: int,
    *,
    session: str = "a",
    kind: str = "message",
    at: float | None = None,
    text: str | None = None,
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
        text=f'{{"{session}": {seq}}}' if text is None else text,
        session=session,
    )


def rows(first: int, last: int, session: str = "a") -> list[StoredEvent]:
    """Rows ``first`` to ``last``, both inclusive, as ``session`` writes them."""
    return [stored(seq, session=session) for seq in range(first, last + 1)]


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
            await store.append("b", rows(1, 1, "b"), expected_seq=0)
            await store.append("a", rows(4, 4), expected_seq=3)
            assert await store.read("a") == rows(1, 4)
            assert await store.read("b") == rows(1, 1, "b")
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
                    batch = rows(end + 1, end + 2, session)
                    await store.append(session, batch, expected_seq=end, durable=end == 4)

            names = [f"s{number}" for number in range(8)]
            await asyncio.gather(*(write(name) for name in names))
            for name in names:
                assert await store.read(name) == rows(1, 10, name)

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

    def test_an_event_keeps_the_session_it_was_written_in(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            other = stored(1, session="elsewhere")
            await store.append("a", [other, stored(2)._replace(session="")], expected_seq=0)
            assert await store.read("a") == [other, stored(2)]

        run(open_store, scenario)

    def test_a_fork_begins_with_the_events_of_its_base_and_goes_its_own_way(
        self, open_store: OpenStore
    ) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 5), expected_seq=0, parent=("p", 7))
            await store.fork("f", at=3, of="a")
            assert await store.read("f") == rows(1, 3)
            assert await heads(store, "f") == [SessionHead("f", 3, 1.0, 3.0, ("p", 7), ("a", 3))]
            await store.append("f", rows(4, 5, "f"), expected_seq=3, durable=True)
            await store.append("a", rows(6, 6), expected_seq=5)
            async with opened(open_store) as other:
                assert await other.read("f") == rows(1, 3) + rows(4, 5, "f")
                assert await other.read("a") == rows(1, 6)
                assert await heads(other, "f") == [SessionHead("f", 5, 1.0, 5.0, ("p", 7), ("a", 3))]

        run(open_store, scenario)

    def test_reads_a_part_of_a_fork(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await family(store)
            whole = await store.read("g")
            assert whole == rows(1, 3) + rows(4, 5, "f") + rows(6, 7, "g")
            for after in range(9):
                assert await store.read("g", after=after) == whole[after:]
                for limit in range(9):
                    rest = whole[after:]
                    assert await store.read("g", after=after, limit=limit) == rest[:limit]
                    newest = await store.read("g", after=after, limit=limit, newest=True)
                    assert newest == rest[max(0, len(rest) - limit) :]
            assert await store.read("g", kinds={"message"}, limit=4) == whole[:4]
            assert await store.read("g", kinds={"other"}) == []

        run(open_store, scenario)

    def test_a_fork_at_an_event_its_base_shares_is_one_of_that(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await family(store)
            await store.fork("early", at=2, of="g")
            await store.append("early", rows(3, 3, "early"), expected_seq=2)
            assert await store.read("early") == rows(1, 2) + rows(3, 3, "early")
            assert [head.base for head in await heads(store, "early")] == [("g", 2)]
            await store.fork("empty", at=0, of="early")
            assert await store.read("empty") == []
            assert await heads(store, "empty") == [SessionHead("empty", 0, 1.0, 1.0, None, ("early", 0))]
            await store.append("empty", [stored(1, at=9.0, session="empty")], expected_seq=0)
            assert await heads(store, "empty") == [SessionHead("empty", 1, 9.0, 9.0, None, ("early", 0))]

        run(open_store, scenario)

    def test_lists_the_forks_of_a_session(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await family(store)
            await store.fork("h", at=1, of="a")
            assert [head.id for head in await store.sessions(base="a")] == ["f", "h"]
            assert [head.id for head in await store.sessions(base="f")] == ["g"]
            assert await store.sessions(base="g") == []

        run(open_store, scenario)

    def test_refuses_forks_of_what_is_not_there_and_over_what_is(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 3), expected_seq=0)
            for of, at in (("a", 4), ("a", -1), ("x", 0)):
                error = await refused(store.fork("f", at=at, of=of))
                assert error.code == "journal.unknown_event"
            await store.fork("f", at=1, of="a")
            for name in ("a", "f"):
                assert (await refused(store.fork(name, at=1, of="a"))).code == "journal.conflict"
            error = await refusal(store, "f", 0)
            assert (error.code, error.details["actual"]) == ("journal.conflict", 1)
            assert await store.read("a") == rows(1, 3)
            assert await store.read("f") == rows(1, 1)

        run(open_store, scenario)

    def test_a_deleted_session_is_gone_with_all_that_was_beside_it(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 3), expected_seq=0)
            await store.append("b", rows(1, 2, "b"), expected_seq=0)
            for name in ("a", "b"):
                await store.lease(name, "me", seconds=60, now=0)
                await store.put_snapshot(name, "k", Snapshot(2, 1, "s"))
            await store.delete("a")
            await store.delete("a")
            assert await store.read("a") == []
            assert [head.id for head in await store.sessions()] == ["b"]
            assert [lease.session for lease in await store.leases()] == ["b"]
            assert await store.get_snapshot("a", "k") is None
            assert await store.get_snapshot("b", "k") == Snapshot(2, 1, "s")
            assert await store.read("b") == rows(1, 2, "b")
            await store.append("a", rows(1, 1), expected_seq=0)
            assert await store.read("a") == rows(1, 1)

        run(open_store, scenario)

    def test_deleting_a_base_leaves_every_fork_as_it_was(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            names = "afghiz"
            for number, order in enumerate(
                (names[:3], ["f", "a"], ["g", "f"], ["a", "h", "f"], ["i", "a"])
            ):
                at = {name: f"{name}{number}" for name in names}
                await family(store, str(number))
                await store.fork(at["h"], at=5, of=at["a"])
                await store.append(at["h"], rows(6, 6, at["h"]), expected_seq=5)
                await store.fork(at["i"], at=2, of=at["f"])
                await store.fork(at["z"], at=0, of=at["a"])
                expected = {name: await store.read(name) for name in at.values()}
                for gone in order:
                    await store.delete(at[gone])
                    expected[at[gone]] = []
                    for name, events in expected.items():
                        assert await store.read(name) == events, (order, gone, name)
                for head in await store.sessions():
                    assert head.base is None or await heads(store, head.base[0])
                for name in at.values():
                    await store.delete(name)
                assert await store.sessions() == []

        run(open_store, scenario)

    def test_the_fork_that_shares_most_takes_over_from_a_deleted_base(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 9), expected_seq=0)
            for name, end in (("less", 3), ("most", 7), ("same", 7)):
                await store.fork(name, at=end, of="a")
            await store.fork("late", at=2, of="most")
            await store.delete("a")
            bases = {head.id: head.base for head in await store.sessions()}
            assert bases == {"less": ("most", 3), "most": None, "same": ("most", 7), "late": ("most", 2)}
            await store.delete("most")
            bases = {head.id: head.base for head in await store.sessions()}
            assert bases == {"less": ("same", 3), "same": None, "late": ("same", 2)}
            assert await store.read("less") == rows(1, 3)
            assert await store.read("late") == rows(1, 2)
            await store.append("same", rows(8, 8, "same"), expected_seq=7)
            assert await store.read("same") == rows(1, 7) + rows(8, 8, "same")

        run(open_store, scenario)

    def test_a_replaced_event_is_replaced_for_all_who_share_it(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await family(store)
            for name in ("a", "f", "g"):
                await store.put_snapshot(name, "k", Snapshot(2, 1, name))
            new = StoredEvent(2, 2.0, "nobody", None, "tombstone", 3, "f" * 16, "{}")
            await store.replace("g", 2, new)
            for name in ("a", "f", "g"):
                assert (await store.read(name))[1] == new._replace(session="a")
                assert await store.get_snapshot(name, "k") is None
                assert len(await store.read(name)) == {"a": 5, "f": 6, "g": 7}[name]
            for name in ("a", "f", "g"):
                await store.put_snapshot(name, "k", Snapshot(2, 1, name))
            await store.replace("f", 4, new._replace(seq=4))
            assert (await store.read("a"))[3] == stored(4)
            for name in ("f", "g"):
                assert (await store.read(name))[3] == new._replace(seq=4, session="f")
            kept = [await store.get_snapshot(name, "k") for name in ("a", "f", "g")]
            assert kept == [Snapshot(2, 1, "a"), None, None]
            await store.replace("f", 6, new._replace(seq=6))
            assert (await store.read("g"))[5] == stored(6, session="g")
            await store.compact()
            assert (await store.read("f"))[5] == new._replace(seq=6, session="f")

        run(open_store, scenario)

    def test_refuses_to_replace_what_was_not_written(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 3), expected_seq=0)
            await store.fork("f", at=2, of="a")
            for name, seq in (("a", 4), ("a", 0), ("f", 3), ("x", 1)):
                error = await refused(store.replace(name, seq, stored(seq, text="new")))
                assert error.code == "journal.unknown_event"
                assert error.details == {"session": name, "seq": seq}
            assert await store.read("a") == rows(1, 3)

        run(open_store, scenario)

    def test_compacting_changes_nothing_that_can_be_read(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.compact()
            await family(store)
            await store.append("b", rows(1, 50, "b"), expected_seq=0)
            await store.delete("b")
            await store.compact()
            assert await store.read("g") == rows(1, 3) + rows(4, 5, "f") + rows(6, 7, "g")
            await store.append("g", rows(8, 8, "g"), expected_seq=7, durable=True)
            assert await store.read("g", after=7) == rows(8, 8, "g")

        run(open_store, scenario)

    def test_a_lease_is_one_holders_until_it_ends(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.lease("a", "me", seconds=30, now=1000.0)
            async with opened(open_store) as other:
                error = await refused(other.lease("a", "you", seconds=30, now=1029.5))
                assert error.code == "journal.leased"
                assert error.details == {"session": "a", "holder": "me", "until": 1030.0}
                assert "'me'" in error.message
                await other.lease("b", "you", seconds=5, now=1029.5)
                assert await store.leases() == [Lease("a", "me", 1030.0), Lease("b", "you", 1034.5)]
                await store.lease("a", "me", seconds=30, now=1010.0)
                assert (await refused(other.lease("a", "you", seconds=30, now=1039.9))).code == error.code
                await other.lease("a", "you", seconds=30, now=1040.0)
                error = await refused(store.lease("a", "me", seconds=30, now=1041.0))
                assert error.details["holder"] == "you"
            assert await store.sessions() == []

        run(open_store, scenario)

    def test_a_lease_is_released_by_its_holder_only(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.lease("a", "me", seconds=30, now=0.0)
            await store.release("a", "you")
            await store.release("b", "me")
            assert await store.leases() == [Lease("a", "me", 30.0)]
            await store.release("a", "me")
            await store.release("a", "me")
            assert await store.leases() == []
            await store.lease("a", "you", seconds=30, now=0.0)

        run(open_store, scenario)

    def test_of_two_who_want_a_lease_at_once_exactly_one_wins(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            async with opened(open_store) as other:
                for number in range(20):
                    now = 100.0 * number
                    outcomes = await asyncio.gather(
                        *(
                            asker.lease("a", f"{name}{number}", seconds=50, now=now)
                            for name, asker in (("x", store), ("y", other), ("z", store))
                        ),
                        return_exceptions=True,
                    )
                    lost = [outcome for outcome in outcomes if outcome is not None]
                    assert len(lost) == 2
                    assert all(
                        isinstance(one, JournalError) and one.code == "journal.leased" for one in lost
                    )
                    [lease] = await store.leases()
                    winner = f"{'xyz'[outcomes.index(None)]}{number}"
                    assert lease == Lease("a", winner, now + 50)

        run(open_store, scenario)

    def test_keeps_the_last_snapshot_of_each_kind(self, open_store: OpenStore) -> None:
        async def scenario(store: JournalStore) -> None:
            await store.append("a", rows(1, 3), expected_seq=0)
            assert await store.get_snapshot("a", "k") is None
            await store.put_snapshot("a", "k", Snapshot(1, 1, "one"))
            await store.put_snapshot("a", "k", Snapshot(3, 2, AWKWARD[1]))
            await store.put_snapshot("a", "l", Snapshot(2, 1, ""))
            async with opened(open_store) as other:
                assert await other.get_snapshot("a", "k") == Snapshot(3, 2, AWKWARD[1])
                assert await other.get_snapshot("a", "l") == Snapshot(2, 1, "")
                assert await other.get_snapshot("b", "k") is None

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


async def family(store: JournalStore, tail: str = "") -> None:
    """``a`` with 5 events, its fork ``f`` at 3 with 6, and the fork ``g`` of that at 5 with 7."""
    a, f, g = f"a{tail}", f"f{tail}", f"g{tail}"
    await store.append(a, rows(1, 5, a), expected_seq=0)
    await store.fork(f, at=3, of=a)
    await store.append(f, rows(4, 6, f), expected_seq=3)
    await store.fork(g, at=5, of=f)
    await store.append(g, rows(6, 7, g), expected_seq=5)


async def heads(store: JournalStore, session: str) -> list[SessionHead]:
    """The head of a session, if it is there."""
    return [head for head in await store.sessions(prefix=session) if head.id == session]


async def refusal(store: JournalStore, session: str, expected_seq: int) -> JournalError:
    """The error that an append behind ``expected_seq`` must raise."""
    return await refused(store.append(session, [stored(expected_seq + 1)], expected_seq=expected_seq))


async def refused(doing: Awaitable[None]) -> JournalError:
    """The error that ``doing`` must raise."""
    try:
        await doing
    except JournalError as error:
        return error
    raise AssertionError("it was accepted")
