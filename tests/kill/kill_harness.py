"""Starts workers, kills them, lets a person answer, and tells what came of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kill_scenarios import SCENARIOS
from kill_server import PaymentServer, When

#: The errors of a disk: the run goes on when it is sound again.
_FAULTS = frozenset({"journal.io", "journal.full"})

WORKER = Path(__file__).with_name("kill_worker.py")


class Workers:
    """Forks a process for every job; ``wrap`` is what to start the one that forks with."""

    def __init__(self, *, home: Path, wrap: Sequence[str] = ()) -> None:
        # Nothing of the person running it is read; the fork has no handlers of the test runner.
        env = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [*wrap, sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=home,
            env=env,
        )

    def start(self, job: dict[str, Any]) -> int:
        """Begin a job; the process's id."""
        return int(self._ask({"start": job}))

    def wait(self, pid: int) -> int:
        """How it ended: 0, or a negative signal."""
        return int(self._ask({"wait": pid}))

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        said = self._process.stdout.readline()
        assert said, "the workers' parent has died"
        return json.loads(said)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


@dataclass(frozen=True)
class Told:
    """What a run comes to."""

    #: Of the last process.
    status: str
    output: Any
    code: str | None
    #: Transcript and outcomes of the session and of each child.
    sessions: list[str]
    endings: list[str]
    #: In the words of the last process.
    error: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Saved:
    """A world at rest: its journal's file and what was paid."""

    folder: Path
    applied: tuple[tuple[str, str], ...]


@dataclass
class World:
    """One journal, one payment server, and processes that work on them and die."""

    workers: Workers
    folder: Path
    scenario: str
    #: Where the journal is, if not in ``folder``.
    disk: Path | None = None
    #: What to go on from.
    saved: Saved | None = None
    server: PaymentServer = field(default_factory=PaymentServer)
    #: Processes killed so far.
    kills: int = 0
    #: Durable points that each process passed which lived to its end.
    points: list[int] = field(default_factory=list)
    #: Seconds that each resume took which came to an end.
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._results = count()
        self.db = (self.disk or self.folder) / "journal.db"
        if self.saved is not None:
            for file in self.saved.folder.glob("journal.db*"):
                shutil.copy(file, self.db.with_name(file.name))
            self.server.applied += self.saved.applied

    def save(self) -> Saved:
        """The world as it is, while no process is at work."""
        folder = self.folder / f"saved-{len(self.points)}"
        folder.mkdir()
        for file in self.db.parent.glob("journal.db*"):
            shutil.copy(file, folder / file.name)
        return Saved(folder, tuple(self.server.applied))

    def close(self) -> None:
        """Stop the server, drop the files. May be called twice."""
        self.server.close()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def start(self, act: str = "go", **options: Any) -> tuple[int, Path]:
        """Begin a process; its id, and where it will say what came of it."""
        result = self.folder / f"{next(self._results)}.json"
        job = {"act": act, "scenario": self.scenario, "db": str(self.db), "url": self.server.url}
        return self.workers.start({**job, "result": str(result), **options}), result

    def end(self, pid: int, result: Path) -> dict[str, Any] | None:
        """What a process has said at its end; None if it was killed."""
        status = self.workers.wait(pid)
        if status in (-signal.SIGKILL, -signal.SIGALRM):
            self.kills += 1
            return None
        assert status == 0, f"a worker failed: see its traceback above ({status})"
        told: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        if told["points"]:
            self.points.append(told["points"])
        return told

    def go(self, act: str = "go", **options: Any) -> dict[str, Any] | None:
        """One process to its end."""
        return self.end(*self.start(act, **options))

    def arm(self, at: int, when: When) -> None:
        """Have the payment server kill whoever makes its ``at``-th request from now."""
        self.server.kill_at, self.server.kill_when = at, when

    def finish(
        self,
        deaths: Iterable[dict[str, Any]] = (),
        *,
        act: str = "go",
        between: Callable[[], None] = lambda: None,
    ) -> Told:
        """Resume and answer in turn until it is over, beginning with ``act``.

        Each of ``deaths`` are options of one of the processes; ``between`` two something may happen.
        """
        dying = iter(deaths)
        for number in range(1_000):
            if number:
                between()
            told = self.go(act, **next(dying, {}))
            if told is None:
                continue
            if act == "go" and told.get("code") not in _FAULTS:
                self.seconds.append(told["seconds"])
                if told["status"] != "waiting":
                    return self._told(told)
            act = "answer" if told["status"] == "waiting" else "go"
        raise AssertionError("it never came to its end")

    def _told(self, last: dict[str, Any]) -> Told:
        told = self.go("tell")
        assert told is not None
        assert told["status"] == "told", told
        assert told["left"] == 0, "calls or questions are open after the end"
        code = last.get("code")
        return Told(
            last["status"], last.get("output"), code, told["sessions"], told["endings"], last.get("error")
        )

    def check(self, told: Told, unkilled: Told) -> None:
        """Nothing lost, nothing twice, and it reads as if nothing had happened."""
        assert (told.status, told.code) == (unkilled.status, unkilled.code), f"{told.status}: {told.error}"
        wanted = Counter(SCENARIOS[self.scenario].pays)
        assert self.server.paid() == wanted, f"paid {self.server.applied}, not {sorted(wanted)}"
        twice = [key for key, number in self.server.keys().items() if number > 1]
        assert not twice, f"applied twice: {twice}"
        assert told == unkilled, f"it differs: {_difference(told, unkilled)}"


def _difference(told: Told, unkilled: Told) -> str:
    """Where the two part, in a line or two."""
    for name in ("status", "code", "endings", "output"):
        one, other = getattr(told, name), getattr(unkilled, name)
        if one != other:
            return f"{name} is {one!r}, was {other!r}"
    for one, other in zip(told.sessions, unkilled.sessions, strict=False):
        if one != other:
            at = next(n for n, (a, b) in enumerate(zip(one + "\0", other + "\1", strict=False)) if a != b)
            return f"{one[max(0, at - 100) : at + 200]!r}, was {other[max(0, at - 100) : at + 200]!r}"
    return f"{len(told.sessions)} sessions, not {len(unkilled.sessions)}"


WorldMaker = Callable[..., World]
