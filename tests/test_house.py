"""The house keeps its shape: floors, packages and nothing heavy at the door."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: From the ground up; a floor may import those before it.
FLOORS = ("kernel", "memory", "planners", "plugins")
FACE = ("cli", "__init__", "__main__", "testing")


def _modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        inside = path.relative_to(ROOT)
        top = inside.parts[0].removesuffix(".py")
        if top in (*FLOORS, *FACE):
            yield inside, top


def _imports(path: Path) -> Iterator[str]:
    """The top-level rooms of this house that a module imports."""
    inside = path.relative_to(ROOT)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = inside.parent.parts[: len(inside.parent.parts) - (node.level - 1)]
                target = [*base, *(node.module.split(".") if node.module else [])]
                if target:
                    yield target[0]
                else:
                    yield from (alias.name for alias in node.names)
            elif node.module and node.module.split(".")[0] == "kernloom":
                yield [*node.module.split("."), "__init__"][1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "kernloom":
                    yield [*alias.name.split("."), "__init__"][1]


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_only_the_floors_below_it(floor: str) -> None:
    allowed = FLOORS[: FLOORS.index(floor) + 1]
    climbing = [
        f"{inside} imports {target}"
        for inside, top in _modules()
        if top == floor
        for target in _imports(ROOT / inside)
        if target in (*FLOORS, *FACE) and target not in allowed
    ]
    assert climbing == []


def test_nothing_imports_the_face_or_the_testing_kit() -> None:
    guilty = [
        f"{inside} imports {target}"
        for inside, top in _modules()
        for target in _imports(ROOT / inside)
        if target in ("cli", "testing") and top not in (target, "__main__", "__init__")
    ]
    assert guilty == []


def test_the_package_list_equals_the_tree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(settings["tool"]["setuptools"]["packages"])
    found = {"kernloom"}
    for inside, top in _modules():
        if inside.name == "__init__.py" and len(inside.parts) > 1 and top in (*FLOORS, *FACE):
            found.add(".".join(("kernloom", *inside.parent.parts)))
    assert listed == found


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {inside.parent for inside, _ in _modules() if len(inside.parts) > 1}
    assert [str(f) for f in sorted(folders) if not (ROOT / f / "__init__.py").exists()] == []


def test_no_text_is_ever_run_as_code_or_unpickled() -> None:
    """Data stays data: no eval, exec, pickle, marshal, unsafe YAML or shell strings in the house."""
    forbidden = {"eval", "exec", "compile", "__import__"}
    modules = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    found = []
    for inside, _ in _modules():
        for node in ast.walk(ast.parse((ROOT / inside).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in forbidden:
                found.append(f"{inside}:{node.lineno} {node.func.id}")
            if isinstance(node, ast.Call) and any(
                k.arg == "shell" and isinstance(k.value, ast.Constant) and k.value.value
                for k in node.keywords
            ):
                found.append(f"{inside}:{node.lineno} shell=True")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("yaml.load", "os.system"):
                found.append(f"{inside}:{node.lineno} {ast.unparse(node)}")
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [f"{inside} imports {n}" for n in names if n.split(".")[0] in modules]
    assert found == []
