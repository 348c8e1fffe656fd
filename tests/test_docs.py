"""The documentation tells the truth: every Python block runs, and prints what the page says it prints."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

from kernloom.kernel.config.settings import ANY, SETTINGS, dotted
from kernloom.kernel.journal.events import EventData
from kernloom.kernel.messages import Frozen

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md")]
)


def _run(example: Example) -> None:
    """Run a Python block in the names the page's blocks before it left."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        # Not inheriting: this module's __future__ imports are not the reader's.
        code = compile(str(example.parsed), f"{example.path}:{example.line}", "exec", dont_inherit=True)
        exec(code, example.namespace)
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


SOURCES = [
    path
    for floor in ("kernel", "memory", "planners", "plugins", "cli", "testing")
    for path in sorted((ROOT / floor).rglob("*.py"))
]
#: What looks like a code and is a file's name.
_FILES = re.compile(r"\.(db|json|lock|safetensors|toml|ya?ml)$")


def _codes_raised() -> set[str]:
    """Every error code the house can raise, read from its source.

    Codes are given as ``code=…`` or stand in a class; those that are chosen from a table, a tuple or an
    argument are known by their first word, which another code has.
    """
    nodes = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    codes = {code for node in nodes for code in _codes_given(node)}
    first_words = {code.partition(".")[0] for code in codes}
    others = {*_kinds(), *(dotted(spec.key) for spec in SETTINGS)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            word, dot, rest = node.value.partition(".")
            looks_so = dot and word in first_words - {"kernloom"} and re.fullmatch(r"[a-z_]+", rest)
            if looks_so and node.value not in others and not _FILES.search(node.value):
                codes.add(node.value)
    return codes | _problems_of_plans()


def _codes_given(node: ast.AST) -> Iterator[str]:
    """The value of ``code=…`` in a call or ``code = …`` in a class."""
    in_call = isinstance(node, ast.keyword) and node.arg == "code"
    in_class = isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == ["code"]
    value = getattr(node, "value", None) if in_call or in_class else None
    for given in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
        if isinstance(given, ast.Constant) and isinstance(given.value, str) and "." in given.value:
            yield given.value


def _problems_of_plans() -> set[str]:
    """What checking a plan can find: there the codes are written without ``plan.``."""
    source = (ROOT / "planners" / "check.py").read_text(encoding="utf-8")
    given: list[ast.expr] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_problem":
            given.append(node.args[1])
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            given += node.value.elts[:1] if len(node.value.elts) == 3 else []
    return {
        f"plan.{code.value}"
        for code in given
        if isinstance(code, ast.Constant) and isinstance(code.value, str)
    }


def _kinds() -> dict[str, type[Frozen]]:
    """The kinds of events, each with its model."""
    union, _ = get_args(EventData)
    return {model.model_fields["kind"].default: model for model in get_args(union)}


def test_every_error_code_has_its_entry() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## `([a-z_.]+)`$", page, flags=re.MULTILINE)
    assert _codes_raised() - set(headings) == set(), "raised but not documented"
    assert set(headings) - _codes_raised() == set(), "documented but never raised"
    assert headings == sorted(set(headings)), "in the order of the alphabet, each once"


def test_every_kind_of_event_is_in_the_table_with_its_fields() -> None:
    page = (ROOT / "docs" / "journal.md").read_text(encoding="utf-8")
    for kind, model in _kinds().items():
        about = " ".join((model.__doc__ or "").split()).replace("``", "`")
        fields = ", ".join(f"`{name}`" for name in model.model_fields if name != "kind")
        assert f"| `{kind}` | {about} | {fields} |" in page


def test_every_setting_is_documented_with_its_default() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", page, flags=re.MULTILINE))
    for spec in SETTINGS:
        name = ".".join("*" if part == ANY else part for part in spec.key)
        documented = {re.sub(r"<\w+>", "*", row): default.strip() for row, default in rows.items()}
        assert name in documented, f"{name} is not documented"
        shown = "" if spec.default is None else f"`{json.dumps(spec.default)}`"
        assert documented[name] == shown, f"the default of {name}"


def test_every_variable_of_the_environment_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    read = {
        name
        for path in SOURCES
        for name in re.findall(
            r'"((?:KERNLOOM|OPENAI|HF)_[A-Z]+(?:_[A-Z]+)*)"', path.read_text(encoding="utf-8")
        )
    }
    assert len(read) >= 7
    assert {name for name in read if f"`{name}" not in page} == set()
