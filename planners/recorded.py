"""From what was done to a plan that does it again: a view of a session's events.

Where an argument of a later call is an earlier result, or holds one in its text, the plan refers to that
result; what was given as an input, it refers to as an input. Calls of one round stay side by side. Calls
that failed are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ..kernel.errors import KernloomError
from ..kernel.functions import Function
from ..kernel.journal.events import Event, FunctionFinished, ModelAnswered
from ..kernel.messages import ToolCall
from ..kernel.schema import InputSpec, InputType
from .expressions import literal, quoted
from .plan import Plan, Step

#: A text shorter than this is not looked for inside other texts: it would be found by chance.
_SHORTEST = 3
#: The same for a part of a result, of which there may be many.
_SHORTEST_PART = 8
#: Levels of a result that are searched for a value, and how many values at most.
_DEPTH = 4
_PARTS = 1_000


@dataclass(slots=True)
class _Call:
    """A call that worked."""

    id: str
    round: int
    call: ToolCall
    value: Any


@dataclass(frozen=True, slots=True)
class _Source:
    """A value that is known from somewhere, and the expression for it."""

    value: Any
    expression: str
    #: It is something within a result.
    part: bool = False


def plan_of(
    events: Iterable[Event],
    *,
    goal: str,
    inputs: Mapping[str, Any] | None = None,
    output: str | None = None,
    resolve: Callable[[str], Function] | None = None,
) -> Plan:
    """The plan of what the calls in ``events`` did.

    Args:
        events: of one run.
        goal: what it was for.
        inputs: values that the plan should take as inputs; these become their defaults.
        output: what was answered in the end; results that it mentions are filled in anew.
        resolve: the function of a name, to keep calls that touch the world in their order.
    """
    calls = list(_calls(events))
    given = [_Source(value, f"inputs.{name}") for name, value in (inputs or {}).items()]
    order = _Order(resolve)
    steps = []
    for call in calls:
        known = given + _results(calls, before=call.round)
        writer = _Writer(known, goal)
        step = Step(id=call.id, call=call.call.name, args=writer.write(call.call.parsed()))
        needs = order.before(call.call.name, call.id, call.round) - step.dependencies()
        steps.append(step.model_copy(update={"needs": tuple(sorted(needs))}) if needs else step)
    last = _Writer(given + _results(calls, before=len(calls) + 1), goal)
    return Plan(
        goal=goal,
        inputs={
            name: InputSpec(type=_type(value), default=value) for name, value in (inputs or {}).items()
        },
        steps=tuple(steps),
        output=None if output is None else last.write(output),
    )


def _calls(events: Iterable[Event]) -> Iterator[_Call]:
    """The calls that worked, in the order they were asked for."""
    events = list(events)
    done = {e.data.result.call_id: e.data for e in events if isinstance(e.data, FunctionFinished)}
    taken: set[str] = set()
    number = 0
    for event in events:
        if not isinstance(event.data, ModelAnswered) or event.data.partial:
            continue
        number += 1
        for call in event.data.message.tool_calls:
            if call.id in done:
                name = _step_id(call.name, taken)
                taken.add(name)
                yield _Call(name, number, call, done[call.id].returned)


def _step_id(function: str, taken: set[str]) -> str:
    base = re.sub(r"\W", "_", function.rpartition(".")[2], flags=re.ASCII) or "step"
    base = base if base[0].isalpha() else f"step_{base}"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name


def _results(calls: Iterable[_Call], *, before: int) -> list[_Source]:
    """What earlier rounds found, the latest first, wholes before their parts."""
    found = [c for c in calls if c.round < before]
    wholes = [_Source(c.value, f"steps.{c.id}.result") for c in reversed(found)]
    sources = wholes + [part for whole in wholes for part in islice(_parts(whole, _DEPTH), _PARTS)]
    return sources + [
        _Source(int(known.value), f"{known.expression}|int", known.part)  # a model writes 12.0 as 12
        for known in sources
        if isinstance(known.value, float) and known.value.is_integer()
    ]


def _parts(source: _Source, depth: int) -> Iterator[_Source]:
    if depth == 0 or not isinstance(source.value, (dict, list)):
        return
    items = source.value.items() if isinstance(source.value, dict) else enumerate(source.value)
    for key, value in items:
        index = (
            f".{key}"
            if isinstance(key, str) and key.isidentifier() and key.isascii()
            else f"[{_index(key)}]"
        )
        part = _Source(value, source.expression + index, part=True)
        yield part
        yield from _parts(part, depth - 1)


def _index(key: str | int) -> str:
    return quoted(key) if isinstance(key, str) else str(key)


class _Writer:
    """Writes a value down with references for what is known."""

    def __init__(self, known: Iterable[_Source], goal: str) -> None:
        self._goal = goal
        self._wholes: dict[str, str] = {}
        self._texts: list[tuple[re.Pattern[str], str]] = []
        for source in known:
            if source.expression.startswith("inputs.") or self._telling(source.value):
                self._wholes.setdefault(_key(source.value), source.expression)
            self._texts += _sought(source)

    def write(self, value: Any) -> Any:
        """``value``, or what evaluates to it."""
        expression = self._wholes.get(_key(value))
        if expression is not None:
            return f"{{{{ {expression} }}}}"
        if isinstance(value, dict):
            return {key: self.write(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.write(item) for item in value]
        return self._filled(value) if isinstance(value, str) else value

    def _telling(self, value: Any) -> bool:
        """Whether equal values are hardly so by chance: not true or false, not a 2 the goal names."""
        if value is None or isinstance(value, bool) or value in ("", [], {}):
            return False
        if isinstance(value, (int, float)) and abs(value) < 10 and value == int(value):
            return not re.search(rf"(?<![\w.]){re.escape(str(value))}(?![\w.])", self._goal)
        return True

    def _filled(self, text: str) -> str:
        """Text with what is known in it made references, the longest match first."""
        pieces: list[tuple[str, bool]] = [(text, False)]
        for pattern, expression in self._texts:
            pieces = [new for piece in pieces for new in _split(piece, pattern, expression)]
        if all(not found for _, found in pieces):
            return str(literal(text))
        plain = {char for piece, found in pieces if not found for char in piece}
        if not plain.isdisjoint("{}\r"):  # braces of its own: an expression keeps them apart from ours
            return f"{{{{ {' ~ '.join(p if found else quoted(p) for p, found in pieces if p)} }}}}"
        return "".join(f"{{{{ {piece} }}}}" if found else piece for piece, found in pieces)


def _key(value: Any) -> str:
    """Equal for values that are the same in JSON; 1, 1.0 and true are not."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)


def _sought(source: _Source) -> list[tuple[re.Pattern[str], str]]:
    """How to find a value inside a text: not within a longer word or number."""
    value = source.value
    if (
        isinstance(value, (str, int, float))
        and not isinstance(value, bool)
        and len(str(value)) >= _SHORTEST
    ):
        return [
            (re.compile(rf"(?<!\w)(?<!\d[.,]){re.escape(str(value))}(?!\w)(?![.,]\d)"), source.expression)
        ]
    return []


def _split(piece: tuple[str, bool], pattern: re.Pattern[str], expression: str) -> list[tuple[str, bool]]:
    text, found = piece
    if found:
        return [piece]
    pieces: list[tuple[str, bool]] = []
    at = 0
    for match in pattern.finditer(text):
        pieces += [(text[at : match.start()], False), (expression, True)]
        at = match.end()
    return [*pieces, (text[at:], False)]


@dataclass(slots=True)
class _Order:
    """Which calls must not change places, though no value passes between them.

    What changes the world waits for every call of earlier rounds that looked at it or changed it; what
    looks at it waits for the last changes. Pure functions wait for nothing.
    """

    resolve: Callable[[str], Function] | None
    #: ``(round, step, whether it changes something)`` of what touched the world so far.
    touched: list[tuple[int, str, bool]] = field(default_factory=list)

    def before(self, name: str, step: str, number: int) -> set[str]:
        """The steps that ``step``, a call of ``name`` in round ``number``, has to wait for."""
        touches, changes = self._effects(name)
        if not touches:
            return set()
        earlier = [entry for entry in self.touched if entry[0] < number]
        last = max((at for at, _, changed in earlier if changed), default=0)
        self.touched.append((number, step, changes))
        return {
            other
            for at, other, changed in earlier
            if (changed and at == last) or (changes and not changed and at >= last)
        }

    def _effects(self, name: str) -> tuple[bool, bool]:
        """Whether a function touches the world, and whether it changes it; unknown ones might."""
        if self.resolve is None:
            return True, True
        try:
            function = self.resolve(name)
        except KernloomError:
            return True, True
        return bool(function.effects), function.changes


def _type(value: Any) -> InputType:
    kinds: tuple[tuple[type, InputType], ...] = (
        (bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"), (list, "array"),
        (dict, "object"),
    )  # fmt: skip
    for kind, name in kinds:
        if isinstance(value, kind):
            return name
    return "any"
