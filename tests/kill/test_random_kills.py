"""A hundred kills in a row, at moments nobody chose, of one long session."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from kill_harness import World, WorldMaker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KILLS = 100


def test_a_long_session_survives_a_hundred_kills(new_world: WorldMaker) -> None:
    """At durable points, right around effects, and by the system's own clock in the middle of anything."""
    unkilled = new_world("long").finish()
    world: World = new_world("long")
    dice = random.Random(7)

    def deaths() -> Iterator[dict[str, Any]]:
        while world.kills < KILLS:
            how = dice.choice(("point", "clock", "effect"))
            if how == "effect":
                world.arm(dice.randint(1, 5), dice.choice(("before", "after")))
                yield {}
            else:
                yield (
                    {"die_at": dice.randint(1, 30)}
                    if how == "point"
                    else {"alarm": dice.uniform(0.01, 0.1)}
                )
            world.server.kill_at = None

    told = world.finish(deaths())
    world.check(told, unkilled)
    assert world.kills >= KILLS
    print(f"long: {world.kills} kills, resumed in at most {max(world.seconds):.3f} s")
