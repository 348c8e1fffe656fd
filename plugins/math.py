"""Arithmetic that is computed, not guessed: an expression evaluator with limits, and statistics."""

from __future__ import annotations

import ast
import math
import operator
import statistics
from collections.abc import Callable
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from ..kernel.errors import ModelRetry, did_you_mean, nearest
from ..kernel.functions import function

Number = int | float

#: Longest expression, in characters.
MAX_LENGTH = 1000
#: Largest whole number, in bits: about 3,900 digits, which JSON and ``str`` still write.
MAX_BITS = 13_000
#: Largest argument of ``factorial``, ``comb`` and ``perm``.
MAX_COUNT = 2000
#: Most numbers in one list.
MAX_NUMBERS = 100_000


class Math:
    """Evaluate expressions; sums, means and rounding."""

    name = "math"

    @function(inline=True)
    def evaluate(self, expression: str) -> Number:
        """Compute an arithmetic expression. Fractions are exact to 15 digits.

        Knows + - * / // % ** and parentheses; pi, e, tau; sqrt, exp, log, log2, log10, sin, cos, tan, asin,
        acos, atan, atan2, degrees, radians, hypot, abs, round, floor, ceil, min, max, gcd, lcm, factorial,
        comb, perm.

        Args:
            expression: For example "(1250 - 80) * 1.25" or "sqrt(2) * 10**3".
        """
        if len(expression) > MAX_LENGTH:
            raise ModelRetry(f"The expression has {len(expression)} characters; {MAX_LENGTH} are allowed.")
        try:
            return _tidy(_Arithmetic().eval(expression))
        except (InvalidExpression, SyntaxError, ArithmeticError, ValueError, TypeError) as exc:
            raise ModelRetry(
                f"{expression[:120]!r} cannot be computed: {_reason(exc)}.", hint=_advice(expression, exc)
            ) from exc
        except (RecursionError, MemoryError) as exc:  # how Python's parser says "nested too deeply"
            raise ModelRetry(f"{expression[:60]!r}… is nested too deeply.") from exc

    @function(inline=True)
    def sum(self, numbers: list[Number]) -> Number:
        """Add numbers up.

        Args:
            numbers: The numbers; none give 0.
        """
        return _tidy(_total(_checked(numbers, at_least=0)))

    @function(inline=True)
    def mean(self, numbers: list[Number]) -> Number:
        """The arithmetic mean.

        Args:
            numbers: At least one number.
        """
        values = _checked(numbers)
        return _tidy(_total(values) / len(values))

    @function(inline=True)
    def median(self, numbers: list[Number]) -> Number:
        """The middle value; of an even count the mean of the two in the middle.

        Args:
            numbers: At least one number.
        """
        return _tidy(statistics.median(_checked(numbers)))

    @function(inline=True)
    def stdev(self, numbers: list[Number]) -> Number:
        """The standard deviation of a sample (dividing by n - 1).

        Args:
            numbers: At least two numbers.
        """
        return _tidy(statistics.stdev(_checked(numbers, at_least=2)))

    @function(inline=True)
    def round(self, number: Number, digits: int = 0) -> Number:
        """Round half to even, as Python does.

        Args:
            number: What to round.
            digits: Digits after the point; negative rounds to tens, hundreds and so on.
        """
        if abs(digits) > 300:
            raise ModelRetry(f"digits is {digits}; -300 to 300 are possible.")
        (value,) = _checked([number])
        rounded = round(value, digits)
        return int(rounded) if digits <= 0 else _tidy(rounded)


class _Arithmetic(SimpleEval):  # type: ignore[misc]  # simpleeval has no types
    """Numbers, names, operators and calls; no attributes, no text, no containers, no comprehensions."""

    def __init__(self) -> None:
        super().__init__(operators=_OPERATORS, functions=_FUNCTIONS, names=_NAMES)
        kept = (ast.Expr, ast.Name, ast.UnaryOp, ast.BinOp, ast.Call, ast.Constant)
        self.nodes: dict[type[ast.AST], Any] = {kind: self.nodes[kind] for kind in kept}
        self.nodes[ast.Constant] = _number

    @staticmethod
    def parse(expr: str) -> ast.Expr:
        return ast.Expr(ast.parse(expr.strip(), mode="eval").body)


def _number(node: ast.Constant) -> Number:
    if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
        raise ValueError(f"{node.value!r} is not a number")
    number: Number = _bounded(node.value)
    return number


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise OverflowError("a number becomes too large")
    return value


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_BITS:
        if abs(base) > 1:
            raise OverflowError("a number becomes too large")
        exponent %= 2  # 0, 1 and -1 repeat themselves
        return base**exponent if base else 0
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError(f"{base} to the power of {exponent} is not a real number")
    return _bounded(result)  # type: ignore[no-any-return]


def _limited(call: Callable[..., int]) -> Callable[..., int]:
    def limited(*arguments: int) -> int:
        if any(abs(argument) > MAX_COUNT for argument in arguments):
            raise OverflowError(f"{call.__name__} takes numbers up to {MAX_COUNT}")
        return _bounded(call(*arguments))  # type: ignore[no-any-return]

    return limited


def _sized(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: _bounded(call(*arguments))


def _refuse_caret(left: Number, right: Number) -> Number:
    raise ValueError("^ is not an operator here")


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _sized(operator.add),
    ast.Sub: _sized(operator.sub),
    ast.Mult: _sized(operator.mul),
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.BitXor: _refuse_caret,
}
_NAMES = {"pi": math.pi, "e": math.e, "tau": math.tau}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(math, name)
        for name in (
            "sqrt", "exp", "log", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "atan2",
            "degrees", "radians", "hypot", "floor", "ceil",
        )
    },
    **{name: _limited(getattr(math, name)) for name in ("factorial", "comb", "perm")},
    **{name: _sized(getattr(math, name)) for name in ("gcd", "lcm")},
    "abs": abs,
    "round": round,
    "min": min,
    "max": max,
}  # fmt: skip


def _tidy(value: Any) -> Number:
    """A result that is a finite number; 0.1 + 0.2 is 0.3."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("the result is not a number")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise OverflowError("the result is too large")
        return float(f"{value:.15g}")
    return value


def _checked(numbers: list[Number], *, at_least: int = 1) -> list[Number]:
    if len(numbers) < at_least:
        raise ModelRetry(f"{len(numbers)} numbers were given; it takes at least {at_least}.")
    if len(numbers) > MAX_NUMBERS:
        raise ModelRetry(f"{len(numbers)} numbers were given; {MAX_NUMBERS} are allowed.")
    for number in numbers:
        if not -1e300 < number < 1e300:  # also false for what is not a number
            raise ModelRetry(f"{number} is not a number to compute with.")
    return numbers


def _total(numbers: list[Number]) -> Number:
    return sum(numbers) if all(isinstance(number, int) for number in numbers) else math.fsum(numbers)


def _reason(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"it is no expression ({error.msg})"
    return str(error).rstrip(".") or type(error).__name__


def _advice(expression: str, error: Exception) -> str | None:
    if "^" in expression:
        return "Write powers with **."
    missing: object = getattr(error, "func_name", None) or getattr(error, "name", None)
    if isinstance(error, InvalidExpression) and isinstance(missing, str):
        near = nearest(missing.casefold(), (*_FUNCTIONS, *_NAMES))
        return did_you_mean(near) or "Put the numbers in place of names."
    return None
