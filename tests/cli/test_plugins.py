"""``plugins``: seen before it runs, allowed by name, refused when it changes."""

from __future__ import annotations

import base64
import hashlib
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

CODE = '''\
"""Tides."""
from kernloom import function

print("tides: imported")

class Tides:
    @function(effects={"read"})
    def high(self, place: str) -> str:
        """When the water is high at a place."""
        return f"high water at {place}: noon"
'''
INFO = "kernloom_tides-1.2.dist-info"
MANIFEST = """\
api = 1
[plugins.tides]
description = "High water."
entry = "kernloom_tides:Tides"
functions.high.effects = ["read"]
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with one plugin, as an installer leaves it; the package's folder."""
    site = tmp_path / "site"
    files = {
        "kernloom_tides/__init__.py": CODE,
        "kernloom_tides/kernloom-plugin.toml": MANIFEST,
        f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: kernloom-tides\nVersion: 1.2\n",
        f"{INFO}/entry_points.txt": "[kernloom.plugins]\ntides = kernloom_tides:Tides\n",
    }
    record = []
    for name, text in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(text)}")
    (site / INFO / "RECORD").write_text("\n".join([*record, ""]))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "kernloom_tides", raising=False)
    return site / "kernloom_tides"


def status(run: Run, name: str) -> str:
    found: str = {record["name"]: record["status"] for record in run("plugins", "list", "--json").json}[
        name
    ]
    return found


def test_our_own_plugins_are_listed(run: Run) -> None:
    assert {"files", "math", "memory", "text", "time"} <= {
        record["name"] for record in run("plugins", "list", "--json").json
    }


def test_a_plugin_is_seen_before_any_of_its_code_has_run(run: Run, installed: Path) -> None:
    listed, shown = run("plugins", "list"), run("plugins", "show", "tides")
    assert "blocked" in listed.out
    assert "tides.high" in shown.out
    assert "kernloom-tides 1.2" in shown.out
    assert "kernloom plugins allow tides" in shown.out
    assert "imported" not in listed.out + shown.out
    assert "kernloom_tides" not in sys.modules


def test_list_allow_call_change_refused_allow_again(run: Run, installed: Path, project: Path) -> None:
    blocked = run("call", "tides.high", "place=Oslo")
    assert blocked.code == 1
    assert "kernloom plugins allow tides" in blocked.err

    assert run("plugins", "allow", "tides").code == 0
    assert (project / "kernloom.lock").exists()
    assert "high water at Oslo" in run("call", "tides.high", "place=Oslo").out

    (installed / "__init__.py").write_text(CODE.replace("noon", "midnight"))
    changed = run("call", "tides.high", "place=Oslo", "--json")
    assert changed.code == 1
    assert changed.error["code"] == "plugin.drift"

    again = run("plugins", "allow", "tides")
    assert "not as installed" in again.err
    assert status(run, "tides") == "ok"
    assert run("plugins", "disallow", "tides").code == 0
    assert status(run, "tides") == "blocked"
    assert run("plugins", "disallow", "tides").code == 1


def test_a_plugin_can_be_switched_off_and_on(run: Run) -> None:
    assert run("plugins", "disable", "math").code == 0
    assert status(run, "math") == "disabled"
    assert run("call", "math.evaluate", "expression=1").code == 1
    assert run("plugins", "enable", "math").code == 0
    assert run("call", "math.evaluate", "expression=1").code == 0


def test_an_unknown_plugin_is_answered_with_the_near_one(run: Run) -> None:
    for command in ("show", "allow", "disable", "enable"):
        done = run("plugins", command, "mth")
        assert done.code == 2
        assert "'math'" in done.err


def test_no_plugins_keeps_installed_ones_out(run: Run, installed: Path) -> None:
    records = {r["name"]: r["status"] for r in run("--no-plugins", "plugins", "list", "--json").json}
    assert records["tides"] == "disabled"
    assert records["math"] == "ok"


def test_one_broken_plugin_does_not_stop_the_others(run: Run, installed: Path) -> None:
    (installed / "__init__.py").write_text("raise RuntimeError('low water')\n")
    run("plugins", "allow", "tides")
    assert run("functions").code == 0
    assert run("call", "math.evaluate", "expression=1").out == "1\n"
    assert "low water" in run("call", "tides.high", "place=Oslo").err
