"""The sandbox that templates run in: what a template may do, and how much of it.

Jinja2's own sandbox keeps a template away from Python's internals, but not from the processor and the
memory. Here every render has an account of work. Loops, calls, filters and whatever builds text draw on
it *before* they do anything, so that ``range(10**9)`` or a list that contains itself forty times over
costs nothing; a template that stays within its means hardly pays for being counted.

Values are data: of objects only plain attributes are read, and of methods only those listed in
:mod:`kernloom.kernel.prompts.filters` are called.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sized
from functools import partial
from typing import Any

from jinja2 import StrictUndefined, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import Namespace, missing, pass_context

from . import filters as offered
from .metering import CHARACTERS_PER_UNIT, CONTAINERS, Meter, TooCostlyError

#: Bits of the largest integer a template may compute: about 3,000 digits.
_INTEGER_BITS = 10_000


class MissingValueError(UndefinedError):
    """A name that has no value; knows what it was looked up in."""

    def __init__(self, owner: Any, name: Any, message: str | None = None) -> None:
        super().__init__(message)
        #: The object it was looked up in, or None for a variable.
        self.owner = None if owner is missing else owner
        self.name = str(name)


class _Missing(StrictUndefined):
    """Jinja2's strict undefined, raising an error that still knows the name."""

    __slots__ = ()

    def __init__(
        self, hint: str | None = None, obj: Any = missing, name: Any = None, exc: Any = UndefinedError
    ) -> None:
        if exc is UndefinedError:
            exc = partial(MissingValueError, obj, name)
        super().__init__(hint, obj, name, exc)


class Sandbox(SandboxedEnvironment):
    """The one environment: no loader, no extensions, every way of growing a value watched."""

    context_class = Meter
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=_Missing,
            autoescape=False,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_written,
            cache_size=0,
        )
        self.filters = {
            **offered.FILTERS,
            "<each>": _each,
            "<join>": _concat,
            "<scan>": _scan,
            "<text>": _text,
        }
        self.tests = dict(offered.TESTS)
        self.globals = dict(offered.GLOBALS)
        self._callables = frozenset(map(id, offered.GLOBALS.values()))
        self._methods = offered.METHODS

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``obj.attribute``: a dict's own keys come first, so that ``order.items`` is the order's items."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        try:
            value = getattr(obj, attribute)
        except AttributeError:
            return (
                self.getitem(obj, attribute)
                if hasattr(obj, "__getitem__")
                else _Missing(None, obj, attribute)
            )
        return (
            value
            if self.is_safe_attribute(obj, attribute, value)
            else self.unsafe_undefined(obj, attribute)
        )

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Nothing private, and nothing at all of types, modules, functions and frames."""
        return not attr.startswith("_") and not isinstance(obj, _OPAQUE)

    def wrap_str_format(self, value: Any) -> None:
        """``str.format`` is not offered (see :meth:`call`), so there is nothing to wrap."""
        return

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call what the sandbox offers: its own functions, macros, and listed methods of plain values."""
        if isinstance(__obj, Macro):
            __context.spend(1)
            return __context.call(__obj, *args, **kwargs)
        kwargs.pop("_loop_vars", None)  # Jinja2 hands these along for functions that ask for a context
        kwargs.pop("_block_vars", None)
        if id(__obj) in __self._callables:
            return __obj(__context, *args, **kwargs)
        owner = getattr(__obj, "__self__", None)
        name = getattr(__obj, "__name__", "")
        if isinstance(__obj, types.BuiltinMethodType):
            for kind, methods in __self._methods.items():
                if isinstance(owner, kind) and name in methods:
                    methods[name](__context, owner, *args, **kwargs)
                    return __obj(*args, **kwargs)
        elif isinstance(owner, LoopContext) and name in ("cycle", "changed"):
            __context.scan(list(args))
            return __obj(*args, **kwargs)
        elif isinstance(__obj, _Missing):
            return __obj()  # raises, naming what is missing
        what = f"{type(owner).__name__}.{name}" if owner is not None else repr(__obj)[:80]
        raise SecurityError(f"{what} cannot be called from a template")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """``+ * ** %``, once it is clear that the result is no larger than allowed."""
        _ARITHMETIC[operator](context, left, right)
        return self.binop_table[operator](left, right)


_OPAQUE = (
    type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType,
    types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.CodeType, types.FrameType,
    types.TracebackType,
)  # fmt: skip


def _check_add(meter: Meter, left: Any, right: Any) -> None:
    if isinstance(left, Sized) and isinstance(right, Sized):
        meter.build(len(left) + len(right))


def _check_multiply(meter: Meter, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _integer(left.bit_length() + right.bit_length())
    for many, times in ((left, right), (right, left)):
        if isinstance(many, Sized) and isinstance(times, int):
            meter.build(len(many) * max(times, 0))


def _check_power(meter: Meter, base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int):
        _integer(base.bit_length() * max(exponent, 0))


def _check_modulo(meter: Meter, left: Any, right: Any) -> None:
    if isinstance(left, (str, bytes)):
        raise SecurityError("text % values is not offered, use the filter 'format' or '~'")


def _integer(bits: int) -> None:
    if bits > _INTEGER_BITS:
        raise TooCostlyError(f"an integer of {bits:,} bits; the limit is {_INTEGER_BITS:,}")


_ARITHMETIC = {"+": _check_add, "*": _check_multiply, "**": _check_power, "%": _check_modulo}


@pass_context
def _written(meter: Meter, value: Any) -> str:
    """What ``{{ value }}`` writes. Everything that is written passes here, except plain text at the top."""
    if type(value) is not str:
        if isinstance(value, (int, *CONTAINERS)):
            meter.build(meter.measure(value)[0])
        value = _as_text(value)
    meter.left -= 1 + len(value) // CHARACTERS_PER_UNIT
    if meter.left < 0:
        meter.spend(0)
    return value  # type: ignore[no-any-return]  # narrowed by type(), which mypy does not follow


def _as_text(value: Any) -> str:
    if isinstance(value, (Macro, Namespace, *_OPAQUE)):
        raise SecurityError(f"{type(value).__name__} is no text")
    return str(value)


@pass_context
def _each(meter: Meter, items: Any, weight: int) -> Any:
    """A loop's items, paid for in advance where they can be counted."""
    if isinstance(items, Sized):
        meter.spend(len(items) * weight)
        return items
    return _one_by_one(meter, items, weight)


def _one_by_one(meter: Meter, items: Iterable[Any], weight: int) -> Iterator[Any]:
    for item in items:
        meter.spend(weight)
        yield item


@pass_context
def _concat(meter: Meter, parts: list[Any]) -> str:
    """``a ~ b``."""
    meter.build(sum(meter.measure(part)[0] for part in parts))
    return "".join([part if type(part) is str else _as_text(part) for part in parts])


@pass_context
def _scan(meter: Meter, value: Any) -> Any:
    """An operand that is about to be compared, searched or copied."""
    if isinstance(value, (str, *CONTAINERS)):
        meter.scan(value)
    return value


@pass_context
def _text(meter: Meter, value: str) -> str:
    """Plain text inside a macro or block, where it is collected rather than streamed out."""
    return value


def lasting(value: Any) -> bool:
    """Whether an expression's value is data, and not a piece of the sandbox's machinery."""
    return not isinstance(value, (Macro, Namespace, LoopContext, *_OPAQUE))
