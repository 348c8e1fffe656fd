"""Somebody else's plugin, as its author publishes it and a person installs it.

The wheels are built from ``examples/kernloom-units`` and from kernloom itself and installed into an
environment that has nothing else of its own; their dependencies are borrowed from the environment the tests
run in, so that no network is needed. Everything is then done as a person would, by the command line.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "kernloom-units"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What ``--json`` printed."""
        return json.loads(self.out)


class Environment:
    """A fresh virtual environment with kernloom in it, and a project to stand in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"))
        scripts = "Scripts" if os.name == "nt" else "bin"
        self.python = next((folder / "venv" / scripts).glob("python*"))
        places = run(str(self.python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        self.site = Path(places.strip())
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.site / "borrowed.pth").write_text("\n".join(sorted(borrowed)), encoding="utf-8")
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "kernloom.toml").touch()
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KERNLOOM", "PYTHON", "PIP_", "VIRTUAL_ENV"))
        }
        self.env["KERNLOOM_HOME"] = str(folder / "home")

    def install(self, *what: str) -> None:
        """As ``pip install`` does, from local files alone; byte code is left to the first import."""
        run(
            sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-index",
            "--no-deps", "--no-build-isolation", "--no-compile", *what,
        )  # fmt: skip

    def kernloom(self, *arguments: str) -> Answer:
        """One command of the command line, in the project."""
        done = subprocess.run(
            [str(self.python), "-m", "kernloom", *arguments],
            cwd=self.project,
            env=self.env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def units(self) -> dict[str, Any]:
        """The record of the plugin, as ``plugins list`` gives it."""
        listed = self.kernloom("plugins", "list", "--json")
        assert listed.code == 0, listed.err
        (record,) = [record for record in listed.data if record["name"] == "units"]
        return dict(record)

    def call(self) -> Answer:
        """26.2 miles in kilometres."""
        return self.kernloom("call", "units.convert", "value=26.2", "from_unit=miles", "to_unit=km")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, wheels: Path) -> Path:
    """The wheel of a source tree; the tree is used up by it."""
    before = set(wheels.glob("*.whl"))
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
        "--wheel-dir", str(wheels), str(source),
    )  # fmt: skip
    (wheel,) = set(wheels.glob("*.whl")) - before
    return wheel


def copy(source: Path, target: Path) -> Path:
    """The tree as a clone would have it, without what tools and builds left in it."""
    left = (".*", "build", "dist", "node_modules", "__pycache__", "*.egg-info", "tests", "benchmarks")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left))
    return target


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheels of kernloom, of the plugin, and of the plugin's next version, which does a little more."""
    work = tmp_path_factory.mktemp("wheels")
    built = {
        "kernloom": build(copy(ROOT, work / "kernloom"), work),
        "0.1.0": build(copy(EXAMPLE, work / "units"), work),
    }
    following = copy(EXAMPLE, work / "next")
    project = following / "pyproject.toml"
    project.write_text(project.read_text("utf-8").replace('"0.1.0"', '"0.2.0"'), encoding="utf-8")
    code = following / "kernloom_units" / "plugin.py"
    code.write_text(
        code.read_text("utf-8").replace("@function(inline=True)", '@function(effects={"read"})', 1)
    )
    manifest = following / "kernloom_units" / "kernloom-plugin.toml"
    said = manifest.read_text("utf-8").replace("convert.effects = []", 'convert.effects = ["read"]')
    manifest.write_text(said, encoding="utf-8")
    return {**built, "0.2.0": build(following, work)}


@pytest.fixture(scope="module")
def environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("fresh"))
    made.install(str(wheels["kernloom"]))
    return made


def test_a_wheel_is_listed_allowed_called_changed_and_upgraded(
    environment: Environment, wheels: dict[str, Path]
) -> None:
    environment.install(str(wheels["0.1.0"]))
    package = environment.site / "kernloom_units"
    imported = package / "__pycache__"  # Python leaves it at the first import, and nothing else does

    # Installed is not trusted: it is listed with all it says of itself, and none of it has run.
    record = environment.units()
    assert (record["status"], record["distribution"], record["version"]) == (
        "blocked",
        "kernloom-units",
        "0.1.0",
    )
    assert record["functions"] == {"convert": [], "list_units": []}
    refused = environment.call()
    assert refused.code == 1
    assert "kernloom plugins allow units" in refused.err
    assert environment.kernloom("plugins", "show", "units").code == 0
    assert not imported.exists()

    # Allowing pins it, and still runs nothing.
    allowed = environment.kernloom("plugins", "allow", "units", "--yes")
    assert allowed.code == 0, allowed.err
    assert environment.units()["status"] == "ok"
    lock = environment.project / "kernloom.lock"
    assert "kernloom-units" in lock.read_text("utf-8")
    assert not imported.exists()

    called = environment.call()
    assert (called.code, called.out.strip()) == (0, "42.1648128"), called.err
    assert imported.exists()
    assert environment.call().code == 0  # its own byte code is no change

    # A changed file is refused, by name.
    tables = package / "tables.py"
    original = tables.read_text("utf-8")
    tables.write_text(original + "\n# a change\n", encoding="utf-8")
    refused = environment.call()
    assert refused.code == 1
    assert "file kernloom_units/tables.py changed" in refused.err
    assert environment.units()["code"] == "plugin.drift"
    tables.write_text(original, encoding="utf-8")
    assert environment.call().code == 0

    # So is an upgrade, which says what is different about it.
    environment.install("--upgrade", "--force-reinstall", str(wheels["0.2.0"]))
    refused = environment.call()
    assert refused.code == 1
    for words in ("version 0.1.0 → 0.2.0", "function convert now also: read", "plugins allow units"):
        assert words in refused.err
    assert environment.units()["status"] == "blocked"

    allowed = environment.kernloom("plugins", "allow", "units", "--yes")
    assert allowed.code == 0, allowed.err
    assert "0.2.0" in lock.read_text("utf-8")
    called = environment.call()
    assert (called.code, called.out.strip()) == (0, "42.1648128"), called.err

    # It can be switched off and on without losing that.
    assert environment.kernloom("plugins", "disable", "units").code == 0
    assert environment.units()["status"] == "disabled"
    assert environment.kernloom("plugins", "enable", "units").code == 0
    assert environment.call().code == 0


def test_kernloom_as_a_wheel_brings_its_own_plugins(environment: Environment) -> None:
    listed = environment.kernloom("plugins", "list", "--json")
    own = {record["name"]: record for record in listed.data if record["own"]}
    assert {"time", "math", "text", "files", "memory"} <= own.keys()
    assert {record["status"] for record in own.values()} == {"ok"}
    called = environment.kernloom("call", "math.evaluate", "expression=6*7")
    assert (called.code, called.out.strip()) == (0, "42"), called.err


@pytest.mark.parametrize("layout", ["flat", "src"])
def test_an_editable_install_is_pinned_by_its_source(
    wheels: dict[str, Path], tmp_path: Path, layout: str
) -> None:
    source = copy(EXAMPLE, tmp_path / "work")
    package = source / "kernloom_units"
    if layout == "src":
        (source / "src").mkdir()
        package = package.rename(source / "src" / "kernloom_units")
        with (source / "pyproject.toml").open("a", encoding="utf-8") as project:
            project.write('\n[tool.setuptools.package-dir]\n"" = "src"\n')
    environment = Environment(tmp_path)
    environment.install(str(wheels["kernloom"]))
    environment.install("--editable", str(source))
    assert environment.units()["status"] == "blocked"
    assert environment.kernloom("plugins", "allow", "units", "--yes").code == 0
    assert environment.call().out.strip() == "42.1648128"
    with (package / "tables.py").open("a", encoding="utf-8") as file:
        file.write("\n# a change\n")
    refused = environment.call()
    assert refused.code == 1
    assert "file kernloom_units/tables.py changed" in refused.err


def test_the_example_passes_its_own_tests(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLE), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
