"""A disk that is full, or broken, in the middle of a run: an error that says so; then the run goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_harness import Told, Workers, World, WorldMaker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FAULTS = {"journal.full", "journal.io"}


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workers, Path] | None]:
    """Workers that have a disk of two megabytes at a path; None where nobody may mount one."""
    disk = tmp_path_factory.mktemp("disk")
    mount = 'mount -t tmpfs -o size=2m,mode=700 none "$0" && exec "$@"'
    wrap = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(disk)]
    try:
        allowed = subprocess.run([*wrap, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        yield None
        return
    with Workers(home=tmp_path_factory.mktemp("home"), wrap=wrap) as workers:
        yield workers, disk


@pytest.mark.parametrize("scenario", ["agent", "plan"])
def test_a_failing_write_is_an_error_and_the_same_process_goes_on(
    new_world: WorldMaker, scenario: str
) -> None:
    """At every point: what was to be written stands there, or it does not, and nobody knows which."""
    world: World = new_world(scenario)
    unkilled = world.finish()
    wrong, failed = [], 0
    for point in range(1, world.points[0] + 1):
        faulty: World = new_world(scenario)
        told = faulty.go(fail_at=point, fails=1 + point % 3, again=True)
        assert told is not None
        failed += "first" in told
        assert told.get("first", {}).get("code") in (None, "journal.io")
        try:
            faulty.check(faulty.finish(), unkilled)
        except AssertionError as exc:
            wrong.append(f"{point}: {exc}")
        faulty.close()
    assert failed > 40
    if wrong:
        pytest.fail(f"{len(wrong)} of {world.points[0]}:\n" + "\n".join(wrong[:8]), pytrace=False)


@pytest.mark.parametrize("scenario", ["agent", "plan"])
def test_a_file_that_may_not_grow_is_an_io_error(new_world: WorldMaker, scenario: str) -> None:
    unkilled = new_world(scenario).finish()
    failed = 0
    for size in range(20_000, 400_000, 20_000):
        world: World = new_world(scenario)
        told = world.go(fsize=size)
        assert told is not None
        failed += _went_wrong(world, told)
        world.check(world.finish(), unkilled)
        world.close()
    assert failed > 5


@pytest.mark.parametrize("scenario", ["agent", "plan"])
def test_a_full_disk_is_an_error_and_goes_on_when_there_is_room(
    new_world: WorldMaker, small_disk: tuple[Workers, Path] | None, tmp_path: Path, scenario: str
) -> None:
    """Where no disk can be mounted, the limit of a file's size is the fullest a disk can be made."""
    unkilled = new_world(scenario).finish()
    if small_disk is None:
        world: World = new_world(scenario)
        told = world.go(fsize=60_000)
        assert told is not None
        assert _went_wrong(world, told)
        world.check(world.finish(), unkilled)
        return
    failed = 0
    workers, disk = small_disk
    for number, room in enumerate(range(0, 480_000, 20_000)):
        world = World(workers, tmp_path / f"full-{number}", scenario, disk=disk / f"{scenario}-{number}")
        try:
            failed += _full(world, room, unkilled)
        finally:
            world.close()
    assert failed > 10


def _full(world: World, room: int, unkilled: Told) -> bool:
    """Run with ``room`` bytes left on the disk, then with more; whether it met the end."""
    assert world.go("fill", leave=room) is not None
    told = world.go()
    assert told is not None
    failed = _went_wrong(world, told)
    assert world.go("fill", leave=None) is not None
    world.check(world.finish(), unkilled)
    assert world.go("wipe") is not None
    return failed


def _went_wrong(world: World, told: dict[str, object]) -> bool:
    """Whether a run met the fault; if so, in words, and with all that came before still readable."""
    if told["status"] != "failed" or told["code"] == "plan.step_failed":
        return False
    assert told["code"] in FAULTS, told
    read = world.go("read")
    assert read is not None
    if told["events"]:
        assert read["status"] == "read", read
        assert read["events"] >= int(str(told["events"])), "what was written before is gone"
    return True
