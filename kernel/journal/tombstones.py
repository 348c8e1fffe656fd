"""What is left of an event when its payload is forgotten. Pure.

Ids, kinds, names of functions, codes, numbers and the pairing of calls and results stay, so that the
history is as valid as it was. Texts become ``[forgotten]``, arguments ``{}``, values null.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast, get_origin

from pydantic_core import from_json

from ..messages import Frozen, Grounding, Message
from .events import EventData, QuestionAnswered

#: What stands where a text was.
FORGOTTEN = "[forgotten]"

#: Texts that hold a history together, or name what is public anyway. Any other is forgotten.
STRUCTURE = frozenset({
    "call", "call_id", "code", "digest", "effects", "finish_reason", "functions", "id", "key", "model",
    "name", "of", "parent", "question_id", "questions", "run", "session", "spec", "step", "what",
})  # fmt: skip
#: Answers that decided something: they are the record of a decision, not of a person.
_DECISIONS = frozenset({"allow", "deny", "done", "not_done", "abandon", "withdrawn"})
#: Texts that have a form to keep. (The one name that goes is a message's.)
_INSTEAD = {"arguments": "{}", "name": None}
#: Levels of JSON within JSON text that are looked into.
_DEPTH = 4


def tombstone(data: EventData) -> EventData:
    """``data`` with nothing left in it that somebody said."""
    return cast("EventData", _model(data))


def said(value: Any) -> Iterator[str]:
    """Every text that :func:`tombstone` would take away, keys and numbers included.

    Where a text is JSON, what it says as well: a name may be escaped in it.
    """
    return _texts(value, "", _DEPTH)


def named(value: Frozen) -> Iterator[str]:
    """Every name and id that it would leave."""
    if isinstance(value, Grounding):
        return
    for name, item in _fields(value):
        for inner in item if isinstance(item, tuple) else (item,):
            if isinstance(inner, Frozen):
                yield from named(inner)
            elif isinstance(inner, (str, dict)) and _stays(value, name):
                yield from _texts(inner, name, _DEPTH)


def _texts(value: Any, name: str, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        if depth and value[:1] in ("{", "[", '"'):
            try:
                inner = from_json(value)
            except ValueError:
                return
            yield from _texts(inner, name, depth - 1)
    elif isinstance(value, Frozen):
        for field, item in _fields(value):
            if isinstance(item, Frozen) or not _stays(value, field):
                yield from _texts(item, field, depth)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item, name, depth)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, name, depth)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)


def _model(value: Frozen) -> Frozen:
    if isinstance(value, Grounding):
        return Grounding(query=FORGOTTEN, found=value.found, reason=FORGOTTEN)
    left: dict[str, Any] = {}
    for name, item in _fields(value):
        if _is_free(value, name):
            left[name] = FORGOTTEN if isinstance(item, str) else None
        elif not _stays(value, name):
            left[name] = _left(name, item)
    return value.model_copy(update=left)


def _is_free(value: Frozen, name: str) -> bool:
    return type(value).model_fields[name].annotation is Any


def _fields(value: Frozen) -> Iterator[tuple[str, Any]]:
    return ((name, getattr(value, name)) for name in type(value).model_fields)


def _stays(value: Frozen, name: str) -> bool:
    """Whether a field holds the history together rather than what somebody said."""
    item = getattr(value, name)
    if _is_free(value, name):
        return False
    if isinstance(item, (int, float)) or get_origin(type(value).model_fields[name].annotation) is Literal:
        return True
    if isinstance(value, Message) and name == "name":
        return value.role == "assistant"
    if isinstance(value, QuestionAnswered) and name == "answer":
        return value.answer in _DECISIONS
    return name in STRUCTURE and isinstance(item, (str, tuple, dict))


def _left(name: str, item: Any) -> Any:
    if isinstance(item, Frozen):
        return _model(item)
    if isinstance(item, tuple):
        return tuple(_left(name, inner) for inner in item)
    if isinstance(item, dict):
        return {}
    if isinstance(item, str):
        return _INSTEAD.get(name, FORGOTTEN) if item else ""
    return None
