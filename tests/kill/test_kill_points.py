"""A process is killed at every point where something lasts, and goes on as if nothing had happened."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest
from kill_harness import Saved, Told, World, WorldMaker
from kill_server import When

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: The long session has a test of its own.
KINDS = ("agent", "plan", "failing", "review")


class Process(NamedTuple):
    """One of the processes of a run that nobody killed."""

    #: ``go``, or ``answer``: what a person says is a process of its own.
    act: str
    #: What it found.
    saved: Saved
    #: Durable points it passed.
    points: int


class Baseline(NamedTuple):
    """A run that nobody killed."""

    told: Told
    processes: list[Process]
    #: Requests to the payment server.
    effects: int


def baseline(new_world: WorldMaker, scenario: str) -> Baseline:
    world: World = new_world(scenario)
    saved = [world.save()]
    told = world.finish(between=lambda: saved.append(world.save()))
    world.check(told, told)
    assert world.kills == 0
    acts = itertools.cycle(("go", "answer"))
    processes = [Process(*each) for each in zip(acts, saved, world.points, strict=False)]
    return Baseline(told, processes, world.server.requests.total())


class Case(NamedTuple):
    """Where a world begins, and what its processes die of, one after the other."""

    process: Process
    deaths: tuple[dict[str, Any], ...]
    #: The payment server kills whoever makes this request, and when.
    request: tuple[int, When] | None = None


def every_point(processes: list[Process]) -> Iterator[Case]:
    for process in processes:
        for point in range(1, process.points + 1):
            yield Case(process, ({"die_at": point},))


def run(new_world: WorldMaker, scenario: str, unkilled: Baseline, cases: Iterable[Case]) -> None:
    """A world for each case; what went wrong is told of all of them."""
    wrong, seconds, kills, number = [], [], 0, 0
    for number, case in enumerate(cases, start=1):  # noqa: B007 - the last one is looked at
        world: World = new_world(scenario, saved=case.process.saved)
        if case.request is not None:
            world.arm(*case.request)
        try:
            world.check(world.finish(case.deaths, act=case.process.act), unkilled.told)
            assert world.kills, "nobody was killed"
        except AssertionError as exc:
            wrong.append(f"{case.deaths} {case.request or ''}: {exc}")
        finally:
            world.close()
        seconds += world.seconds
        kills += world.kills
    report(scenario, number, kills, seconds)
    if wrong:
        pytest.fail(f"{len(wrong)} of {number}:\n" + "\n".join(wrong[:8]), pytrace=False)


def report(scenario: str, points: int, kills: int, seconds: list[float]) -> None:
    """What it came to; shown with ``-s``, and asserted by nobody."""
    print(
        f"{scenario}: {points} points, {kills} kills, resumed in"
        f" {statistics.median(seconds):.3f} s (at most {max(seconds):.3f} s)"
    )


@pytest.mark.parametrize("scenario", KINDS)
def test_a_kill_at_any_durable_point_loses_and_repeats_nothing(
    new_world: WorldMaker, scenario: str
) -> None:
    unkilled = baseline(new_world, scenario)
    run(new_world, scenario, unkilled, every_point(unkilled.processes))


@pytest.mark.parametrize("scenario", KINDS)
def test_a_kill_around_any_effect_loses_and_repeats_nothing(new_world: WorldMaker, scenario: str) -> None:
    unkilled = baseline(new_world, scenario)
    first = unkilled.processes[0]
    requests = range(1, unkilled.effects + 1)
    run(
        new_world,
        scenario,
        unkilled,
        (Case(first, (), (number, when)) for number in requests for when in ("before", "after")),
    )


@pytest.mark.parametrize("scenario", KINDS)
def test_a_kill_during_recovery_loses_and_repeats_nothing(new_world: WorldMaker, scenario: str) -> None:
    """Killed at some point, killed again as it recovers, and again; sometimes after an effect as well."""
    unkilled = baseline(new_world, scenario)
    dice = random.Random(scenario)
    points = [(process, p) for process in unkilled.processes for p in range(1, process.points + 1)]

    def cases() -> Iterator[Case]:
        for process, point in dice.sample(points, 30):
            again = ({"die_at": dice.randint(1, 24)} for _ in range(dice.randint(1, 3)))
            when = dice.choice(("before", "after", None))
            request = (dice.randint(1, unkilled.effects), when) if when is not None else None
            yield Case(process, ({"die_at": point}, *again), request)

    run(new_world, scenario, unkilled, cases())
