"""YAML and JSON that came from somewhere, read as plain data with every surprise refused in words.

No tags, no aliases (ten of them can stand for a billion items), no dates guessed from text, no key twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml

from .errors import UsageError

#: Characters of one document.
MAX_SIZE = 1_000_000
#: Levels of lists and mappings within each other.
MAX_DEPTH = 50


def read_yaml(text: str, *, what: str) -> Any:
    """The data of a YAML document; ``what`` names it in errors.

    Raises:
        UsageError: ``data.malformed``; it says where.
    """
    _check_size(text, what)
    try:
        loader = _PlainLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        _refuse(what, " ".join(str(exc).split()) if str(exc) else "nested too deeply", exc)


def read_json(text: str, *, what: str) -> Any:
    """The data of a JSON document.

    Raises:
        UsageError: ``data.malformed``; it says where.
    """
    _check_size(text, what)
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as exc:
        _refuse(what, str(exc), exc)
    check_json(value, what=what)
    return value


def read_data(path: Path) -> Any:
    """The data of a file, YAML or JSON by its suffix.

    Raises:
        UsageError: ``data.malformed``, ``data.suffix``, or ``data.unreadable``.
    """
    reader = {".yaml": read_yaml, ".yml": read_yaml, ".json": read_json}.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"{path} is neither YAML nor JSON by its name.",
            code="data.suffix",
            hint="Name it .yaml, .yml or .json.",
        )
    try:
        if path.stat().st_size > 4 * MAX_SIZE:
            _refuse(str(path), f"more than {MAX_SIZE:,} characters", None)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} cannot be read: {exc}.", code="data.unreadable") from exc
    return reader(text, what=str(path))


def write_yaml(value: Any) -> str:
    """YAML in the order the data has, that :func:`read_yaml` reads back equal."""
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=100)


def check_json(value: Any, *, what: str) -> None:
    """See that ``value`` is what JSON can carry, and not nested without end.

    Raises:
        UsageError: ``data.malformed`` names what is not.
    """
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            _refuse(what, f"nested more than {MAX_DEPTH} levels deep", None)
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    _refuse(
                        what, f"the key {key!r} is a {type(key).__name__}, not text; put it in quotes", None
                    )
                stack.append((key, depth))
            stack.extend((child, depth + 1) for child in item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend((child, depth + 1) for child in item)
        elif isinstance(item, str):
            if not item.isascii() and any("\ud800" <= char <= "\udfff" for char in item):
                _refuse(what, f"the text {item[:40]!r} holds half a surrogate pair", None)
        elif isinstance(item, float):
            if not math.isfinite(item):
                _refuse(what, f"the number {item!r} has no JSON", None)
        elif item is not None and not isinstance(item, (bool, int)):
            _refuse(what, f"{item!r} is a {type(item).__name__}, which JSON cannot carry", None)


def _refuse(what: str, why: str, cause: Exception | None) -> NoReturn:
    raise UsageError(f"{what} cannot be used: {why.rstrip('.')}.", code="data.malformed") from cause


def _check_size(text: str, what: str) -> None:
    if len(text) > MAX_SIZE:
        _refuse(what, f"it has {len(text):,} characters, the limit is {MAX_SIZE:,}", None)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} occurs twice in one object")
        found[key] = value
    return found


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without aliases, merge keys, dates, binary, sets, and without end."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._refuse("aliases (*name) are not offered")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refuse(self, why: str) -> NoReturn:
        mark = cast("yaml.Mark", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        raise yaml.constructor.ConstructorError(None, None, why, mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not text; put it in quotes", key_node.start_mark
                )
            if key in found:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", key_node.start_mark
                )
            found[key] = self.construct_object(value_node, deep=True)
        return found


_PLAIN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
_PlainLoader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _PLAIN_TAGS
}
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in _PLAIN_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _PlainDumper(yaml.SafeDumper):
    """SafeDumper that repeats what occurs twice and writes long text as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    lines = text.split("\n")
    if not all(line.isprintable() for line in lines):
        style = '"'  # the other styles fold some of the rarer line ends into spaces
    elif len(lines) > 1 and all(line == line.rstrip() for line in lines):
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_PlainDumper.add_representer(str, _text)
