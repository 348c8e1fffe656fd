"""Who is dead: asked of the system, with everything that makes an id lie."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kernloom import InMemoryJournalStore, Journal
from kernloom.kernel.errors import JournalError
from kernloom.kernel.journal.leases import Leases, died_here

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this is asked of /proc")


def mine() -> list[str]:
    """Host, process id and the rest of what this process calls itself."""
    return Leases(InMemoryJournalStore(), clock=lambda: 0.0).holder.split(":")


def test_who_asks_is_alive() -> None:
    assert not died_here(":".join(mine()))


def test_who_has_ended_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    host, _, rest = mine()
    assert died_here(f"{host}:{child.pid}:{rest}")


@linux
def test_who_was_killed_is_dead_before_its_parent_has_asked_after_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        host, _, _ = mine()
        begun, place = _tail_of(child.pid)
        holder = f"{host}:{child.pid}:abc.{begun}.{place}"
        assert not died_here(holder)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and its id still taken
        assert died_here(holder)


@linux
def test_an_id_that_went_to_another_process_is_a_dead_one() -> None:
    """The first process of a container always has the same id: here its holder began earlier than it."""
    host, pid, rest = mine()
    token, begun, place = rest.split(".")
    assert died_here(f"{host}:{pid}:{token}.{int(begun) - 1}.{place}")


@linux
def test_where_ids_are_counted_otherwise_nobody_is_called_dead() -> None:
    """Another container of the same host name: its process 999999 may well be alive."""
    host, _, rest = mine()
    token, begun, _ = rest.split(".")
    assert not died_here(f"{host}:999999:{token}.{begun}.0a1b2c3d-4026531836")
    assert not died_here(f"elsewhere:999999:{rest}")


async def test_a_lease_that_cannot_be_given_back_hides_nothing() -> None:
    class Store(InMemoryJournalStore):
        async def release(self, session: str, holder: str) -> None:
            raise JournalError("The disk is full.", code="journal.full")

    log = await Journal(Store()).create()
    async with log.claim("fine"):
        pass
    with pytest.raises(ValueError, match="mine"):
        async with log.claim("not fine"):
            raise ValueError("mine")


def _tail_of(pid: int) -> tuple[str, str]:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        begun = file.read().rpartition(")")[2].split()[19]
    return begun, mine()[2].split(".")[2]
