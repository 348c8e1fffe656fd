"""Makes the kill test's own modules importable to its tests, and starts the workers once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kill_harness import Saved, Workers, World, WorldMaker


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Processes to be killed, forked from one that has imported kernloom already."""
    with Workers(home=tmp_path_factory.mktemp("workers")) as workers:
        yield workers


@pytest.fixture
def new_world(workers: Workers, tmp_path: Path) -> Iterator[WorldMaker]:
    """Makes worlds: a journal and a payment server each. The servers are stopped afterwards."""
    made: list[World] = []

    def make(scenario: str, *, saved: Saved | None = None) -> World:
        world = World(workers, tmp_path / f"world-{len(made)}", scenario, saved=saved)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()
