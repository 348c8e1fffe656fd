"""What stands in a plan's values: text, templates, expressions, and what those refer to.

A text that is one whole ``{{ … }}`` is an expression and keeps its type; other text with ``{{ … }}`` in it
is rendered; anything else stands for itself. Lists and mappings are looked through.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..kernel.prompts.templates import (
    Expression,
    Template,
    expression,
    is_template,
    template,
    whole_expression,
)

#: One thing a value refers to: ``("steps", "total", "result")``.
Reference = tuple[str, ...]


def program(text: str) -> Expression | Template | None:
    """What has to be evaluated to get this text's value; None if it stands for itself.

    Raises:
        UsageError: ``template.syntax``.
        LimitReached: ``template.too_costly``.
    """
    if not is_template(text):
        return None
    whole = whole_expression(text)
    return template(text) if whole is None else expression(whole)


def condition(text: str) -> Expression:
    """A bare expression, as ``when`` and ``foreach`` have them; braces around it do no harm.

    Raises:
        UsageError: ``template.syntax``.
    """
    return expression(whole_expression(text) or text)


def evaluate(value: Any, names: Mapping[str, Any]) -> Any:
    """The value with everything in it evaluated once; what comes out is not looked at again.

    Raises:
        UsageError: ``template.undefined``, ``template.forbidden``, ``template.failed``.
        LimitReached: ``template.too_costly``.
    """
    if isinstance(value, str):
        found = program(value)
        if found is None:
            return value
        return found.evaluate(names) if isinstance(found, Expression) else found.render(names)
    if isinstance(value, Mapping):
        return {key: evaluate(item, names) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [evaluate(item, names) for item in value]
    return value


def literal(value: Any) -> Any:
    """What to write into a plan so that ``value`` stands for itself, whatever is in it."""
    if isinstance(value, str):
        return f"{{{{ {quoted(value)} }}}}" if is_template(value) else value
    if isinstance(value, Mapping):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [literal(item) for item in value]
    return value


def quoted(text: str) -> str:
    """``text`` as a string within an expression."""
    return json.dumps(text, ensure_ascii=False)


def is_literal(value: Any) -> bool:
    """Whether there is nothing in ``value`` to evaluate."""
    return not any(is_template(text) for text in texts(value))


def texts(value: Any) -> Iterator[str]:
    """Every text in ``value`` that is evaluated; keys of mappings are not."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item)


def references(value: Any) -> set[Reference]:
    """Everything ``value`` refers to.

    Raises:
        UsageError: ``template.syntax``.
    """
    found: set[Reference] = set()
    for text in texts(value):
        inside = program(text)
        if inside is not None:
            found |= inside.references
    return found


def steps_in(refs: Iterable[Reference]) -> set[str]:
    """The ids of the steps referred to."""
    return {ref[1] for ref in refs if ref[0] == "steps" and len(ref) > 1}
