"""The documentation tells the truth: every Python block runs, and prints what the page says it prints."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md")]
)


def _run(example: Example) -> None:
    """Run a Python block in the names the page's blocks before it left."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(str(example.parsed), f"{example.path}:{example.line}", "exec"), example.namespace)
    example.namespace["printed by the last block"] = out.getvalue()


def _compare(example: Example) -> None:
    """A text block after a Python block is what that block prints."""
    printed = example.namespace.pop("printed by the last block", None)
    if printed is not None:
        assert str(printed).strip() == str(example.parsed).strip(), f"{example.path}:{example.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_block_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip = shutil.ignore_patterns("build", "*.egg-info")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=skip)
    monkeypatch.chdir(tmp_path)
    sybil = Sybil(parsers=[CodeBlockParser("python", _run), CodeBlockParser("text", _compare)])
    for example in sybil.parse(page).examples():
        example.evaluate()


def _codes_raised() -> set[str]:
    """Every error code the house can raise, read from its source."""
    codes: set[str] = set()
    for floor in ("kernel", "memory", "planners", "plugins", "cli", "testing"):
        for path in (ROOT / floor).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                value = _code_given(node)
                if isinstance(value, ast.Constant) and isinstance(value.value, str) and "." in value.value:
                    codes.add(value.value)
    return codes


def _code_given(node: ast.AST) -> ast.expr | None:
    """The value of ``code=…`` in a call or ``code = …`` in a class."""
    if isinstance(node, ast.keyword) and node.arg == "code":
        return node.value
    if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["code"]:
        return node.value
    return None


def test_every_error_code_has_its_entry() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^## `([a-z_.]+)`$", page, flags=re.MULTILINE))
    assert _codes_raised() - documented == set(), "raised but not documented"
    assert documented - _codes_raised() == set(), "documented but never raised"
