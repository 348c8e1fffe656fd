"""Of two processes that resume one session exactly one wins, and the other can when that one has died."""

from __future__ import annotations

import os
import signal
import time

import pytest
from kill_harness import World, WorldMaker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_the_other_hears_why_and_takes_over_from_the_dead(new_world: WorldMaker) -> None:
    unkilled = new_world("agent").finish()
    world: World = new_world("agent")
    assert world.go(die_at=30) is None
    holder, said = world.start("hold")
    while not said.exists():
        time.sleep(0.01)
    refused = world.go()
    assert refused is not None
    assert refused["code"] == "journal.leased"
    assert f":{holder}:" in refused["error"]

    # Dead, but not yet asked after by its parent: its process id is still taken.
    os.kill(holder, signal.SIGKILL)
    world.check(world.finish(), unkilled)
    assert world.end(holder, said) is None


@pytest.mark.parametrize("point", [30, 45, 60, 75, 90])
def test_two_at_once_do_nothing_twice(new_world: WorldMaker, point: int) -> None:
    unkilled = new_world("agent").finish()
    world: World = new_world("agent")
    assert world.go(die_at=point) is None
    both = [world.start(), world.start()]
    told = [world.end(*each) for each in both]
    codes = [each["code"] for each in told if each is not None and each["status"] == "failed"]
    assert set(codes) <= {"journal.leased"}
    assert len(codes) <= 1
    world.check(world.finish(), unkilled)
