from __future__ import annotations

import os
import py_compile
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kernloom.kernel.config.config import Config
from kernloom.kernel.discovery.installed import Place
from kernloom.kernel.discovery.manifest import Touches
from kernloom.kernel.discovery.registry import PluginRegistry
from kernloom.kernel.discovery.trust import Lock, Pin, drift, fingerprint
from kernloom.kernel.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from tests.kernel.conftest import Site

PIN = Pin(
    distribution="kernloom-toy",
    version="1.0",
    entry="kernloom_toy:Toy",
    digest="sha256:aa",
    functions={"hello": frozenset({"read"}), "old": frozenset()},
    models=("toy",),
    touches=Touches(hosts=("a.example",), env=("KEY",)),
    files={"a.py": "11", "b.py": "22"},
)


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    return Lock(tmp_path / "project" / "kernloom.lock")


# -- the file ------------------------------------------------------------------------------------------


def test_a_lock_that_is_not_there_trusts_nobody(lock: Lock) -> None:
    assert lock.pins == {}
    assert lock.disabled == frozenset()
    assert not lock.disallow("toy")
    assert not lock.path.exists()


def test_what_is_pinned_is_read_back(lock: Lock) -> None:
    lock.allow("toy", PIN)
    lock.disable("jira")
    assert Lock(lock.path).pins == {"toy": PIN}
    assert Lock(lock.path).disabled == {"jira"}
    assert lock.enable("jira")
    assert lock.disallow("toy")
    assert Lock(lock.path).pins == {}


def test_the_file_does_not_depend_on_the_order_of_what_was_done(tmp_path: Path) -> None:
    one, other = Lock(tmp_path / "one.lock"), Lock(tmp_path / "other.lock")
    for lock, names in ((one, ["a", "b", "c"]), (other, ["c", "a", "b"])):
        for name in names:
            lock.allow(name, PIN)
            lock.disable(name)
    assert one.path.read_bytes() == other.path.read_bytes()
    assert b"kernloom plugins allow" in one.path.read_bytes().splitlines()[0]


def test_writing_leaves_no_other_file_behind(lock: Lock) -> None:
    lock.allow("toy", PIN)
    lock.allow("toy", PIN)
    assert os.listdir(lock.path.parent) == ["kernloom.lock"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_lock_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    with pytest.raises(ConfigError, match="cannot be written"):
        Lock(tmp_path / "nowhere" / "kernloom.lock").allow("toy", PIN)


def test_a_lock_of_a_later_version_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "kernloom.lock"
    path.write_text("version = 2\nallowed_by = 'ann'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has version 2, this kernloom reads 1"):
        _ = Lock(path).pins


@pytest.mark.parametrize(
    "content",
    [
        b"<<<<<<< HEAD\n",
        b"\xff\xfe",
        b"version = 2\n",
        b"version = 1\n[plugins.a]\nversion = '1'\n",
        b"x = 1\n",
    ],
)
def test_a_damaged_lock_trusts_nobody_and_is_never_overwritten(
    site: Site, project: Path, content: bytes
) -> None:
    site.install()
    registry = PluginRegistry(config=Config.load(project, env={}))
    registry.allow("toy")
    registry.lock.path.write_bytes(content)
    registry.refresh()
    record = registry.record("toy")
    assert (record.status, record.where) == ("blocked", "lock")
    assert "kernloom.lock" in record.why
    assert registry.record("math").status == "ok"
    with pytest.raises(ConfigError, match="version control"):
        registry.allow("toy")
    assert registry.lock.path.read_bytes() == content
    assert not site.ran()


# -- drift ---------------------------------------------------------------------------------------------


def test_nothing_changed_is_no_drift() -> None:
    assert drift(PIN, PIN.model_copy()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "1.1"}, ["version 1.0 → 1.1"]),
        ({"distribution": "evil-toy"}, ["distribution kernloom-toy → evil-toy"]),
        ({"entry": "kernloom_toy:Other"}, ["entry point kernloom_toy:Toy → kernloom_toy:Other"]),
        (
            {"functions": {"hello": frozenset({"read", "exec"}), "new": frozenset({"write"})}},
            ["function hello now also: exec", "new function new (write)", "function old is gone"],
        ),
        ({"functions": {**PIN.functions, "hello": frozenset()}}, ["function hello no longer: read"]),
        ({"models": ("toy", "more")}, ["new model more"]),
        (
            {"touches": Touches(hosts=("a.example", "b.example"))},
            ["new host b.example", "environment variable KEY is gone"],
        ),
        (
            {"digest": "sha256:bb", "files": {"a.py": "12", "c.py": "33"}},
            ["file a.py changed", "file b.py is gone", "new file c.py"],
        ),
        ({"digest": "sha256:bb"}, ["its files changed"]),
        (
            {"digest": "sha256:bb", "files": {**PIN.files, **{f"n{i}.py": "1" for i in range(9)}}},
            [f"new file n{i}.py" for i in range(5)] + ["4 more files changed"],
        ),
    ],
)
def test_drift_says_exactly_what_changed(changes: dict[str, object], words: list[str]) -> None:
    assert drift(PIN, PIN.model_copy(update=changes)) == words


def test_one_changed_byte_is_refused_until_allowed_again(site: Site, project: Path) -> None:
    package = site.install(files={"kernloom_toy/data/table.csv": "a,b\n"})
    registry = PluginRegistry(config=Config.load(project, env={}))
    registry.allow("toy")
    for path in ("__init__.py", "data/table.csv", "kernloom-plugin.toml"):
        with (package / path).open("a") as file:
            file.write("\n")
        registry = PluginRegistry(config=Config.load(project, env={}))
        with pytest.raises(PluginError, match=f"file kernloom_toy/{path} changed") as caught:
            registry.load("toy")
        assert caught.value.code == "plugin.drift"
        assert "kernloom plugins allow toy" in str(caught.value)
        assert not site.ran()
        assert path in " ".join(registry.altered("toy"))
        registry.allow("toy")
        assert registry.record("toy").status == "ok"
    assert registry.load("toy") is not None


def test_a_change_between_listing_and_loading_is_noticed(site: Site, project: Path) -> None:
    package = site.install()
    registry = PluginRegistry(config=Config.load(project, env={}))
    registry.allow("toy")
    assert registry.record("toy").status == "ok"
    (package / "__init__.py").write_text("import os", encoding="utf-8")
    with pytest.raises(PluginError, match="changed since it was allowed"):
        registry.load("toy")
    assert registry.record("toy").status == "blocked"


def test_an_upgrade_is_refused_until_allowed_again(site: Site, project: Path) -> None:
    site.install()
    PluginRegistry(config=Config.load(project, env={})).allow("toy")
    info = site.folder / "kernloom_toy-1.0.dist-info"
    for file in info.iterdir():
        file.unlink()
    info.rmdir()
    site.install(version="2.0")
    registry = PluginRegistry(config=Config.load(project, env={}))
    assert registry.record("toy").why == "it changed since it was allowed: version 1.0 → 2.0"
    registry.allow("toy")
    assert registry.load("toy") is not None


def test_another_distribution_under_a_trusted_name_is_refused(site: Site, project: Path) -> None:
    site.install()
    PluginRegistry(config=Config.load(project, env={})).allow("toy")
    (site.folder / "kernloom_toy-1.0.dist-info" / "entry_points.txt").unlink()
    site.install("kernloom-thief", package="kernloom_thief", entry_points="toy = kernloom_thief:Toy")
    record = PluginRegistry(config=Config.load(project, env={})).record("toy")
    assert record.status == "blocked"
    assert "distribution kernloom-toy → kernloom-thief" in record.why


def test_what_an_installed_plugin_writes_for_itself_is_no_drift_but_new_code_is(
    site: Site, project: Path
) -> None:
    package = site.install()
    registry = PluginRegistry(config=Config.load(project, env={}))
    registry.allow("toy")
    (package / "cache.json").write_text("{}", encoding="utf-8")
    registry.refresh()
    assert registry.record("toy").status == "ok"
    (package / "more.py").write_text("", encoding="utf-8")
    registry.refresh()
    assert "new file kernloom_toy/more.py" in registry.record("toy").why


# -- files ---------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "toy"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("x = 1\n", encoding="utf-8")
    return folder


def files_of(package: Path) -> dict[str, str]:
    return fingerprint(Place(root=package.parent, code=package, manifest=None))


def test_byte_code_that_repeats_its_source_is_left_out(package: Path) -> None:
    before = files_of(package)
    py_compile.compile(str(package / "__init__.py"), doraise=True)
    assert (package / "__pycache__").is_dir()
    assert files_of(package) == before


def test_byte_code_that_runs_whatever_the_source_says_counts(package: Path) -> None:
    before = files_of(package)
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(package / "__init__.py"), doraise=True, invalidation_mode=unchecked)
    assert len(files_of(package)) == len(before) + 1


def test_a_rename_changes_the_digest(package: Path) -> None:
    (package / "a.py").write_text("y", encoding="utf-8")
    before = files_of(package)
    (package / "a.py").rename(package / "b.py")
    assert files_of(package).keys() != before.keys()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_are_followed_and_circles_end(package: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "real.py").write_text("1", encoding="utf-8")
    (package / "linked.py").symlink_to(elsewhere / "real.py")
    (package / "folder").symlink_to(elsewhere, target_is_directory=True)
    (package / "again").symlink_to(package, target_is_directory=True)
    before = files_of(package)
    assert {"toy/linked.py", "toy/folder/real.py"} <= before.keys()
    (elsewhere / "real.py").write_text("2", encoding="utf-8")
    assert {p for p, value in files_of(package).items() if value != before[p]} == {
        "toy/linked.py",
        "toy/folder/real.py",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_what_is_no_ordinary_file_is_refused_without_waiting_for_it(package: Path) -> None:
    os.mkfifo(package / "pipe.py")
    with pytest.raises(PluginError, match="no ordinary file"):
        files_of(package)


@pytest.mark.skipif(sys.platform != "linux", reason="names must be text elsewhere")
def test_names_that_are_no_text_can_be_pinned(package: Path, lock: Lock) -> None:
    with open(os.fsencode(package) + b"/\xff.py", "wb"):
        pass
    lock.allow("toy", PIN.model_copy(update={"files": files_of(package)}))
    assert len(lock.pins["toy"].files) == 2


def test_a_large_file_is_hashed_without_being_held(package: Path) -> None:
    with (package / "large.bin").open("wb") as file:
        file.seek(64 * 1024 * 1024)
        file.write(b"x")
    assert "toy/large.bin" in files_of(package)
