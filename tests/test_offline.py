"""Silent by default: the whole demo works with the network cut off, and opens no socket beyond loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Runs the command line under an audit hook that writes down every address anybody looks up or connects to.
WATCHED = """
import atexit, json, runpy, sys
seen = []
def watch(event, args):
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        seen.append([event, str(args[1][0])])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        seen.append([event, str(args[0])])
sys.addaudithook(watch)
report = sys.argv.pop(1)
atexit.register(lambda: open(report, "w").write(json.dumps(seen)))
runpy.run_module("kernloom", run_name="__main__", alter_sys=True)
"""


def _environment(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SYSTEMROOT") if name in os.environ}
    return {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home)}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo_reaches_for_nothing_beyond_this_machine(tmp_path: Path) -> None:
    report = tmp_path / "sockets.json"
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(report), "demo"],
        cwd=ROOT, env=_environment(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    beyond = [s for s in json.loads(report.read_text()) if s[1] not in ("127.0.0.1", "::1", "localhost")]
    assert beyond == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo_works_with_the_network_cut_off(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    flags = ["-n"] if os.name == "posix" and os.geteuid() == 0 else ["-rn"]
    if unshare is None or subprocess.run([unshare, *flags, "true"], check=False).returncode != 0:
        assert not os.environ.get("CI"), "CI must be able to cut the network off"
        pytest.skip("this system cannot make a network namespace (unshare)")
    done = subprocess.run(
        [unshare, *flags, sys.executable, "-m", "kernloom", "demo"],
        cwd=ROOT, env=_environment(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[1]" in done.stdout
