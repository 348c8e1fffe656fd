"""A site-packages of the test's own, with real distributions in it: metadata, RECORD, files."""

from __future__ import annotations

import base64
import hashlib
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernloom.kernel.config.config import Config
from kernloom.kernel.discovery.registry import PluginRegistry

#: What ``toy`` is unless a test says otherwise: it leaves a mark where its code has run.
TOY_CODE = """
from pathlib import Path
from kernloom.kernel.functions import function

Path(__file__).with_name("ran").touch()

class Toy:
    @function
    def hello(self, name: str) -> str:
        return f"hello {name}"
"""
TOY_MANIFEST = """
api = 1
[plugins.toy]
description = "Says hello."
functions.hello.effects = []
"""


class Site:
    """Installs distributions the way an installer does, without one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        distribution: str = "kernloom-toy",
        version: str = "1.0",
        *,
        files: dict[str, str] | None = None,
        code: str = TOY_CODE,
        manifest: str | None = TOY_MANIFEST,
        entry_points: str = "toy = kernloom_toy:Toy",
        package: str = "kernloom_toy",
        metadata: str | None = None,
    ) -> Path:
        """Write a distribution of one package; gives back the package's folder."""
        written = {f"{package}/__init__.py": code}
        if manifest is not None:
            written[f"{package}/kernloom-plugin.toml"] = manifest
        written |= files or {}
        info = f"{distribution.replace('-', '_')}-{version}.dist-info"
        written[f"{info}/METADATA"] = (
            metadata
            if metadata is not None
            else f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n\nA toy.\n"
        )
        written[f"{info}/entry_points.txt"] = f"[kernloom.plugins]\n{textwrap.dedent(entry_points)}\n"
        rows = []
        for path, text in written.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text), encoding="utf-8")
            digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()
            rows.append(f"{path},sha256={digest.rstrip('=')},{file.stat().st_size}")
        (self.folder / info / "RECORD").write_text(
            "\n".join([*rows, f"{info}/RECORD,,", ""]), encoding="utf-8"
        )
        return self.folder / package

    def ran(self, package: str = "kernloom_toy") -> bool:
        """Whether the package's code has been imported."""
        return (self.folder / package / "ran").exists() or package in sys.modules

    def forget(self, package: str = "kernloom_toy") -> None:
        """As if this process had just begun: the package is not imported and has left no mark."""
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            del sys.modules[name]
        (self.folder / package / "ran").unlink(missing_ok=True)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site-packages, on the path; what was imported from it is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield Site(folder)
    (folder / "over").touch()
    for thread in threading.enumerate():
        if thread.name.startswith("kernloom-load-"):
            thread.join()
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "kernloom.toml").touch()
    return folder


@pytest.fixture
def registry(site: Site, project: Path) -> PluginRegistry:
    """The plugins of ``site``, as the project sees them; little patience for slow ones."""
    return PluginRegistry(config=Config.load(project, env={}), seconds=0.5)
