"""What templates may use: filters, tests, global functions, and methods of plain values.

Everything that can make much out of little states its size to the render's meter
before it starts. Filters for HTML are left out: nothing here is HTML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from functools import wraps
from typing import Any, cast

from jinja2 import filters as jinja_filters
from jinja2 import tests as jinja_tests
from jinja2.exceptions import FilterArgumentError, SecurityError
from jinja2.utils import Namespace, _PassArg, pass_context
from pydantic_core import to_json

from .metering import Meter, TooCostlyError, count

#: Looks at a call's size before it is made: ``(meter, value, *arguments)``.
Check = Callable[..., None]


def _plain(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    """One pass over the items."""
    meter.spend(1 + count(value) // 8)


def _per_item(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    """Looks something up in, or asks something of, every item."""
    meter.spend(1 + count(value))


def _deep(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    """Reads or compares all that is in the value."""
    meter.scan(value)


def _join(meter: Meter, value: Any, d: Any = "", attribute: Any = None) -> None:
    glue = meter.measure(d)[0]
    meter.build(meter.measure(value)[0] + glue * count(value))


def _replace(meter: Meter, value: Any, old: Any, new: Any, count: Any = None) -> None:
    text = value if isinstance(value, str) else ""
    meter.build(meter.measure(value)[0] + text.count(str(old)) * len(str(new)))


def _width(meter: Meter, value: Any, width: Any = 80, *args: Any, **kwargs: Any) -> None:
    meter.build(meter.measure(value)[0] + (width if isinstance(width, int) else 0))


def _indent(meter: Meter, value: Any, width: Any = 4, *args: Any, **kwargs: Any) -> None:
    lines = value.count("\n") + 1 if isinstance(value, str) else 1
    meter.build(meter.measure(value)[0] + lines * (len(width) if isinstance(width, str) else int(width)))


def _wrap(
    meter: Meter,
    value: Any,
    width: Any = 79,
    break_long_words: Any = True,
    wrapstring: Any = None,
    *rest: Any,
) -> None:
    meter.build(meter.measure(value)[0] * (2 + len(wrapstring or "")))


def _parts(meter: Meter, value: Any, parts: Any, fill_with: Any = None) -> None:
    """``batch`` and ``slice``: a fill may repeat ``parts`` times."""
    meter.build(count(value) + int(parts))


def _sum(meter: Meter, value: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, (int, float)):
        raise FilterArgumentError("sum adds numbers; start is not one")
    _per_item(meter, value)


def _round(meter: Meter, value: Any, precision: Any = 0, method: Any = "common") -> None:
    if abs(precision) > 100:
        raise TooCostlyError("round to more than 100 digits")
    meter.spend(1)


_WIDE = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(?:\*|\d{4,}|\d*\.(?:\*|\d{4,}))")


def _format(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    text = str(value)
    if _WIDE.search(text):
        raise TooCostlyError("a format with a width or precision of '*' or over 999")
    largest = max((meter.measure(item)[0] for item in (*args, *kwargs.values())), default=0)
    meter.build(len(text) + text.count("%") * (1_000 + largest))


def _metered(inner: Callable[..., Any], check: Check) -> Callable[..., Any]:
    """A filter that pays first, and whose result is a list where Jinja2's is a generator."""
    wanted = _PassArg.from_obj(inner)

    @pass_context
    @wraps(inner, assigned=("__name__", "__doc__"), updated=())
    def metered(meter: Any, value: Any = None, *args: Any, **kwargs: Any) -> Any:
        check(meter, value, *args, **kwargs)
        if wanted is None:
            result = inner(value, *args, **kwargs)
        elif wanted is _PassArg.context:
            result = inner(meter, value, *args, **kwargs)
        else:
            owner = meter.environment if wanted is _PassArg.environment else meter.eval_ctx
            result = inner(owner, value, *args, **kwargs)
        if isinstance(result, Iterator):
            result = list(result)
        if isinstance(result, (str, list)):
            meter.build(len(result))
        return result

    return metered


def _tojson(meter: Any, value: Any, indent: int | None = None) -> str:
    """The value as JSON text, not escaped for HTML."""
    size, depth = meter.measure(value)
    meter.build(2 * size * (1 + min(indent or 0, 64) * depth // 4))
    return to_json(value, indent=min(indent, 64) if indent else None, inf_nan_mode="constants").decode()


def _string(value: Any) -> str:
    return str(value)


_OWN: dict[str, tuple[Callable[..., Any], Check]] = {
    "batch": (jinja_filters.do_batch, _parts),
    "center": (jinja_filters.do_center, _width),
    "format": (jinja_filters.do_format, _format),
    "indent": (jinja_filters.do_indent, _indent),
    "join": (jinja_filters.do_join, _join),
    "replace": (jinja_filters.do_replace, _replace),
    "round": (jinja_filters.do_round, _round),
    "slice": (jinja_filters.do_slice, _parts),
    "string": (_string, _deep),
    "sum": (jinja_filters.do_sum, _sum),
    "tojson": (pass_context(_tojson), _plain),
    "wordwrap": (jinja_filters.do_wordwrap, _wrap),
}
_SHALLOW = (
    "abs", "capitalize", "count", "d", "default", "filesizeformat", "first", "float", "int", "items",
    "last", "length", "list", "lower", "reverse", "title", "trim", "truncate", "upper", "urlencode",
    "wordcount",
)  # fmt: skip
_PER_ITEM = (
    "map", "reject", "rejectattr", "select", "selectattr",
)  # fmt: skip
_DEEP = (
    "dictsort", "groupby", "max", "min", "sort", "unique",
)  # fmt: skip

FILTERS: dict[str, Callable[..., Any]] = {
    **{name: _metered(jinja_filters.FILTERS[name], _plain) for name in _SHALLOW},
    **{name: _metered(jinja_filters.FILTERS[name], _per_item) for name in _PER_ITEM},
    **{name: _metered(jinja_filters.FILTERS[name], _deep) for name in _DEEP},
    **{name: _metered(inner, check) for name, (inner, check) in _OWN.items()},
}


def _comparing(inner: Callable[..., bool]) -> Callable[..., bool]:
    @pass_context
    def compare(meter: Any, value: Any, other: Any) -> bool:
        meter.scan(value)
        meter.scan(other)
        return inner(value, other)

    return compare


_COMPARING = (
    "==", "!=", ">", ">=", "<", "<=", "eq", "ne", "gt", "ge", "lt", "le", "equalto", "greaterthan",
    "lessthan", "in",
)  # fmt: skip
TESTS: dict[str, Any] = {
    name: _comparing(cast(Callable[..., bool], test)) if name in _COMPARING else test
    for name, test in jinja_tests.TESTS.items()
    if name not in ("callable", "escaped", "filter", "test")
}


class _Namespace(Namespace):
    """Jinja2's namespace, without a way to print itself and with it everything it holds."""

    def __repr__(self) -> str:
        return "<namespace>"


def _range(meter: Meter, *args: int) -> range:
    numbers = range(*args)
    if max(abs(numbers.start), abs(numbers.stop)) > 1 << 62:
        raise TooCostlyError("a range beyond 64-bit numbers")
    meter.spend(1)
    if len(numbers) > meter.left:
        raise TooCostlyError(f"a range of {len(numbers):,} numbers")
    return numbers


def _dict(meter: Meter, *args: Any, **kwargs: Any) -> dict[str, Any]:
    meter.spend(1 + sum(map(count, args)))
    return dict(*args, **kwargs)


def _namespace(meter: Meter, *args: Any, **kwargs: Any) -> Namespace:
    meter.spend(1 + sum(map(count, args)))
    return _Namespace(*args, **kwargs)


#: Called with the meter before their own arguments, by the sandbox's ``call`` alone.
GLOBALS: dict[str, Callable[..., Any]] = {"range": _range, "dict": _dict, "namespace": _namespace}


def _pad(meter: Meter, text: str, width: Any = 0, *args: Any) -> None:
    meter.build(max(len(text), int(width)))


def _glue(meter: Meter, text: str, items: Any = ()) -> None:
    _join(meter, items, text)


def _swap(meter: Meter, text: str, old: str, new: str, *args: Any, **kwargs: Any) -> None:
    meter.build(len(text) + text.count(old) * len(new))


def _text(meter: Meter, text: str, *args: Any, **kwargs: Any) -> None:
    meter.build(len(text))


def _strftime(meter: Meter, moment: Any, form: str = "") -> None:
    if not isinstance(form, str) or len(form) > 200 or re.search(r"%[^a-zA-Z%]", form):
        raise SecurityError(f"strftime({str(form)[:40]!r}): only plain codes such as %Y are offered")
    meter.spend(1)


_TEXT_METHODS = (
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle",
    "isupper", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rfind", "rindex",
    "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title",
    "upper",
)  # fmt: skip
_MOMENT: dict[str, Check] = {
    **dict.fromkeys(("date", "time", "isoformat", "isoweekday", "weekday", "timestamp"), _plain),
    "strftime": _strftime,
}

#: By the type of the value: its methods that may be called, each with what looks at the call first.
METHODS: dict[type, dict[str, Check]] = {
    str: {
        **dict.fromkeys(_TEXT_METHODS, _text),
        **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _pad),
        "join": _glue,
        "replace": _swap,
    },
    dict: dict.fromkeys(("get", "items", "keys", "values"), _plain),
    list: dict.fromkeys(("count", "index"), _deep),
    tuple: dict.fromkeys(("count", "index"), _deep),
    datetime: _MOMENT,
    date: _MOMENT,
    time: _MOMENT,
}
