"""Where two histories part: the first event that is not the same in both, and what differs in it.

::

    parting = diff(before.events, after.events, times=False, ids=False)
    if parting is not None:
        print(parting.render())
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

from ..messages import Frozen, ToolCall
from .events import Event

#: Fields that hold an id which means nothing but which of several it is.
_IDS = frozenset({"call_id", "question_id", "questions", "of"})
#: Characters of a value that are shown.
_SHOWN = 72


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first place where two histories are not the same."""

    #: The place in both, counted from 1; an event's seq where the histories are whole sessions.
    seq: int
    #: The path of what differs, e.g. ``result.content``; empty where an event has no counterpart.
    field: str
    #: The events there; None where a history has ended.
    first: Event | None
    second: Event | None
    #: What stands at the path in each.
    values: tuple[Any, Any] = (None, None)
    #: What the histories are called.
    names: tuple[str, str] = ("the first", "the second")
    #: What else is known of why.
    note: str = ""

    @property
    def words(self) -> str:
        """The difference in a sentence."""
        return f"Event {self.seq}: {self._difference()}." + (f" {self.note}" if self.note else "")

    def render(self) -> str:
        """The difference for a person at a terminal, a line for each side."""
        wide = max(map(len, self.names))
        head = f"They part at event {self.seq}"
        if self.field and self.first is not None:
            head += f", {_title(self.first)}: {self.field} differs"
            shown = _excerpts(*self.values)
        else:
            shown = (_title(self.first), _title(self.second))
        lines = [f"  {name:<{wide}}  {said}" for name, said in zip(self.names, shown, strict=True)]
        return "\n".join([f"{head}.", *lines, *([f"  {self.note}"] if self.note else [])])

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON-able data."""
        return {
            "seq": self.seq,
            "field": self.field,
            "words": self.words,
            "names": list(self.names),
            "events": [_told(self.first), _told(self.second)],
        }

    def _difference(self) -> str:
        one, other = self.names
        if not self.field or self.first is None:
            return f"{one} has {_title(self.first)}, {other} {_title(self.second)}"
        left, right = self.values
        where = f"{self.field} of {_title(self.first)}"
        if _are_names(left) and _are_names(right) and set(left) != set(right):
            only = [
                f"only {name} has {', '.join(map(repr, sorted(set(mine) - set(others))))}"
                for name, mine, others in ((one, left, right), (other, right, left))
                if set(mine) - set(others)
            ]
            return f"in {where}, {' and '.join(only)}"
        shown = _excerpts(left, right)
        return f"{where} is {shown[0]} in {one} and {shown[1]} in {other}"


def diff(
    a: Sequence[Event],
    b: Sequence[Event],
    *,
    times: bool = True,
    ids: bool = True,
    names: tuple[str, str] = ("the first", "the second"),
) -> Divergence | None:
    """The first divergence of two histories; None when they tell the same.

    Args:
        a: one.
        b: the other.
        times: whether events have to be of the same time.
        ids: whether sessions, runs, calls and questions have to be of the same id. If not, it is enough
            that whatever is one in the first is one in the second: two runs of one agent can be compared.
        names: what they are called in words.

    In which version an event was written, and when it was forgotten, is no difference of its own.
    """
    twins = None if ids else _Twins()
    for seq, (one, other) in enumerate(zip_longest(a, b), start=1):
        if one is None or other is None or one.kind != other.kind:
            return Divergence(seq, "", one, other, names=names)
        found = next(_differences(one, other, times=times, twins=twins), None)
        if found is not None:
            return Divergence(seq, found.path, one, other, (found.left, found.right), names)
    return None


class _Difference(NamedTuple):
    path: str
    left: Any
    right: Any


@dataclass(slots=True)
class _Twins:
    """Which id of one history stands for which of the other."""

    left: dict[str, str] = field(default_factory=dict)
    right: dict[str, str] = field(default_factory=dict)

    def match(self, one: str, other: str) -> bool:
        return self.left.setdefault(one, other) == other and self.right.setdefault(other, one) == one


def _differences(a: Event, b: Event, *, times: bool, twins: _Twins | None) -> Iterator[_Difference]:
    """What differs in two events of one kind, what they say before where and when it was said."""
    yield from _unequal("actor", a.actor, b.actor)
    yield from _models("", a.data, b.data, twins)
    yield from _named("run", a.run, b.run, twins)
    yield from _named("session", a.session, b.session, twins)
    if (a.parent is None) != (b.parent is None) or (twins is None and a.parent != b.parent):
        yield _Difference("parent", a.parent, b.parent)
    if times:
        yield from _unequal("at", a.at, b.at)


def _models(path: str, a: Frozen, b: Frozen, twins: _Twins | None) -> Iterator[_Difference]:
    for name in type(a).model_fields:
        left, right, inner = getattr(a, name), getattr(b, name), f"{path}.{name}" if path else name
        if name in _IDS or (name == "id" and isinstance(a, ToolCall)):
            yield from _named(inner, left, right, twins)
        elif name != "key" or twins is None:  # a key is made of the ids of its session and its call
            yield from _values(inner, left, right, twins)


def _values(path: str, a: Any, b: Any, twins: _Twins | None) -> Iterator[_Difference]:
    if isinstance(a, Frozen) and type(a) is type(b):
        yield from _models(path, a, b, twins)
    elif isinstance(a, dict) and isinstance(b, dict) and set(a) == set(b):
        for key in a:
            yield from _values(f"{path}.{key}", a[key], b[key], twins)
    elif _are_alike(a, b):
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _values(f"{path}[{index}]", one, other, twins)
    else:
        yield from _unequal(path, a, b)


def _named(path: str, a: Any, b: Any, twins: _Twins | None) -> Iterator[_Difference]:
    """Ids, alone or several, or None."""
    if twins is None or a is None or b is None:
        yield from _unequal(path, a, b)
    elif isinstance(a, str):
        if not twins.match(a, b):
            yield _Difference(path, a, b)
    elif len(a) != len(b) or not all(map(twins.match, a, b)):
        yield _Difference(path, a, b)


def _unequal(path: str, a: Any, b: Any) -> Iterator[_Difference]:
    # As JSON 1, 1.0 and true are three things, though equal in Python.
    if a != b or (type(a) is not type(b) and not (_is_list(a) and _is_list(b))):
        yield _Difference(path, a, b)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _are_alike(a: Any, b: Any) -> bool:
    """Whether two lists are of one length, and more than names, which are told as a whole."""
    return _is_list(a) and _is_list(b) and len(a) == len(b) and not (_are_names(a) and _are_names(b))


def _are_names(value: Any) -> bool:
    return _is_list(value) and all(isinstance(item, str) for item in value)


def _title(event: Event | None) -> str:
    """An event in a few words: its kind, by whom, and of what."""
    if event is None:
        return "nothing more"
    data: Any = event.data
    of = getattr(data, "step", None) or getattr(data, "call_id", None) or getattr(data, "question_id", None)
    if of is None and hasattr(data, "result"):
        of = getattr(data.result, "call_id", None)
    if of is None and isinstance(getattr(data, "call", None), ToolCall):
        of = data.call.id
    code = getattr(data, "code", None)
    said = " ".join(filter(None, [f"({of})" if of else "", f"[{code}]" if code else ""]))
    return f"{event.kind} by {event.actor}{' ' + said if said else ''}"


def _excerpts(left: Any, right: Any) -> tuple[str, str]:
    """Both values, of long ones the part from where they differ."""
    one, other = _text(left), _text(right)
    same = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), 0)
    start = max(0, same - 12) if max(len(one), len(other)) > _SHOWN else 0
    return _cut(one, start), _cut(other, start)


def _text(value: Any) -> str:
    if isinstance(value, Frozen):
        value = value.model_dump(mode="json")
    return json.dumps(value, ensure_ascii=False, default=repr)


def _cut(text: str, start: int) -> str:
    end = start + _SHOWN
    return ("…" if start else "") + text[start:end] + ("…" if len(text) > end else "")


def _told(event: Event | None) -> dict[str, Any] | None:
    if event is None:
        return None
    return {
        "seq": event.seq,
        "session": event.session,
        "run": event.run,
        "at": event.at,
        "actor": event.actor,
        "data": event.data.model_dump(mode="json"),
    }
