"""A project of its own for each test, and the command line run in it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kernloom.cli import main


@dataclass(frozen=True)
class Done:
    """What one command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The result, as ``--json`` printed it."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error, as ``--json`` printed it."""
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


Run = Callable[..., Done]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, a home beside it, and no embedder: these tests are about words."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "kernloom.toml").write_text("[memory]\nembedder = 'none'\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KERNLOOM_HOME", str(tmp_path / "home"))
    for name in os.environ:
        if name.startswith("KERNLOOM_") and "__" in name:
            monkeypatch.delenv(name)
    return folder


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """One command line in the project, in this process; nobody sits at a terminal."""

    def run(*words: str, stdin: str = "") -> Done:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with redirect_stdout(out), redirect_stderr(err):
            code = main(words)
        return Done(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def documents(project: Path) -> Path:
    """Three small pages."""
    folder = project / "docs"
    folder.mkdir()
    (folder / "travel.md").write_text(
        "# Travel\n\nTravel above EUR 2000 must be approved in writing by the head of department.\n\n"
        "Trains are preferred to flights for journeys below five hours.\n"
    )
    (folder / "bread.md").write_text("# Bread\n\nBread is baked on Fridays in the oven by the mill.\n")
    (folder / "boats.md").write_text("# Boats\n\nThe spare key of the boat house hangs behind the clock.\n")
    return folder


@pytest.fixture
def script(project: Path) -> Callable[[str], str]:
    """A model that answers from a script: ``-m script(...)``."""

    def write(text: str) -> str:
        (project / "script.yaml").write_text(text)
        return "script:script.yaml"

    return write
