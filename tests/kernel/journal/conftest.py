"""A PostgreSQL server of our own, on a socket in a folder, for as long as the tests run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class PostgresServer:
    """``initdb`` and ``postgres`` in ``folder``; nothing of it is on the network."""

    def __init__(self, binaries: Path, folder: Path, user: dict[str, Any]) -> None:
        self.binaries = binaries
        self.folder = folder
        self._user = user
        #: What :class:`~kernloom.kernel.journal.PostgresJournalStore` takes.
        self.dsn = f"host={folder} user=kernloom dbname=postgres"

    def make(self) -> None:
        self._run("initdb", "--username=kernloom", "--auth=trust", "--no-sync", "--encoding=UTF8")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        self._run("pg_ctl", "start", "--wait", f"--log={self.folder / 'log'}", "--options", options)

    def stop(self, mode: str = "fast") -> None:
        """``immediate`` is as good as a crash."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.binaries / program, f"--pgdata={self.folder / 'data'}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            check=False,
            **self._user,
        )
        if done.returncode:
            log = self.folder / "log"
            told = log.read_text(encoding="utf-8") if log.exists() else ""
            raise RuntimeError(f"{program} failed: {done.stderr.decode()} {told}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server, started once; tests take a schema each."""
    binaries = postgres_binaries()
    if binaries is None:
        reason = "there is no PostgreSQL server here (Debian: apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    # Not in pytest's folder: its path is too long for a socket, and closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="kernloom-pg-"))
    user = other_user(folder)
    server = PostgresServer(binaries, folder, user)
    try:
        server.make()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def postgres_binaries() -> Path | None:
    """Where ``initdb`` and ``pg_ctl`` are: on the path, or where Debian keeps the newest."""
    places = [Path(place) for place in os.environ.get("PATH", "").split(os.pathsep)]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "pg_ctl").exists():
            return place
    return None


def other_user(folder: Path) -> dict[str, Any]:
    """The server refuses to run as root: whom to run it as then, with ``folder`` given to them."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return {}
    import pwd  # there is none on Windows

    for name in ("postgres", "nobody"):
        try:
            known = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, known.pw_uid, known.pw_gid)
        return {"user": known.pw_uid, "group": known.pw_gid, "extra_groups": []}
    pytest.skip("root has no other user to run PostgreSQL as")
