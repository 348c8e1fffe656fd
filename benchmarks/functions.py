"""What a thousand functions cost: to register, to call, and to render a prompt.

Run: ``python benchmarks/functions.py [--check]``. CPU time of this process (``time.process_time``), the
median of several rounds after one that is not counted; no journal, no model, no network. ``--check`` exits
with 1 when a figure is over its target.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kernloom import Kernel, function
from kernloom.kernel.prompts.prompts import prompt

FUNCTIONS = 1_000
ROUNDS = 7

PROMPT = """\
You are {{ role }}. Answer {{ name }} from these lines alone.
{% for line in lines %}
- {{ line.title }}: {{ line.text }}
{% endfor %}
Question: {{ question }}
"""
LINES = [{"title": f"Page {i}", "text": f"Section {i} says what it says."} for i in range(10)]


@dataclass(frozen=True)
class Figure:
    """One thing measured."""

    name: str
    value: float
    unit: str
    #: At most this; None where there is no target.
    target: float | None = None

    @property
    def passed(self) -> bool:
        """Whether it is within its target."""
        return self.target is None or self.value <= self.target

    def __str__(self) -> str:
        verdict = "" if self.target is None else f"  ≤ {self.target:g}  {'pass' if self.passed else 'FAIL'}"
        return f"{self.name:<52}{self.value:>9.3f} {self.unit}{verdict}"


def make(number: int) -> Callable[..., Any]:
    """A function of its own, with a signature and a docstring like anybody's."""

    async def lookup(city: str, days: int = 1, units: str = "metric") -> str:
        """Look up the forecast of a city.

        Args:
            city: The city's English name.
            days: How many days ahead.
            units: ``metric`` or ``imperial``.
        """
        return city

    lookup.__name__ = f"lookup_{number}"
    return function(lookup)


def median(measure: Callable[[], float]) -> float:
    """The median of several rounds, in seconds of CPU; the first round warms up and is left out."""
    measure()
    found = []
    for _ in range(ROUNDS):
        gc.collect()
        found.append(measure())
    return statistics.median(found)


def registering() -> list[Figure]:
    """Registering, and the schema when it is first needed."""
    made = [make(number) for number in range(FUNCTIONS)]

    def register() -> float:
        kernel = Kernel()
        began = time.process_time()
        for each in made:
            kernel.add_function(each, plugin="weather")
        return time.process_time() - began

    def describe() -> float:
        kernel = Kernel()
        found = [kernel.add_function(each, plugin="weather") for each in made[:100]]
        began = time.process_time()
        for each in found:
            assert each.parameters["required"] == ["city"]
        return (time.process_time() - began) * FUNCTIONS / 100

    return [
        Figure("register a function", median(register) / FUNCTIONS * 1e3, "ms", 0.15),
        Figure("its schema, when first needed", median(describe) / FUNCTIONS * 1e3, "ms"),
    ]


async def calling() -> list[Figure]:
    """A validated call through ``kernel.invoke``."""
    kernel = Kernel()

    @function
    async def add(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    @function(inline=True)
    def add_inline(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    @function
    def add_threaded(a: int, b: int = 2) -> int:
        """Add, in a thread."""
        return a + b

    for each in (add, add_inline, add_threaded, *map(make, range(FUNCTIONS))):
        kernel.add_function(each)

    async def per_call(call: Callable[[], Awaitable[Any]], times: int) -> float:
        async def measure() -> float:
            began = time.process_time()
            for _ in range(times):
                await call()
            return (time.process_time() - began) / times

        await measure()
        return statistics.median([await measure() for _ in range(ROUNDS)]) * 1e6

    kernel.add_function(prompt(PROMPT, name="answer", inputs={name: {} for name in _values()}))
    template = kernel.function("answer")
    values = _values()
    return [
        Figure(
            "invoke an async function",
            await per_call(lambda: kernel.invoke("add", a=1, b=3), 5_000),
            "µs",
            15,
        ),
        Figure(
            "invoke an inline function",
            await per_call(lambda: kernel.invoke("add_inline", a=1, b=3), 5_000),
            "µs",
            15,
        ),
        Figure(
            "invoke a blocking function, by a thread hop",
            await per_call(lambda: kernel.invoke("add_threaded", a=1, b=3), 500),
            "µs",
        ),
        Figure(
            "invoke a prompt with a ten-item loop",
            await per_call(lambda: kernel.invoke(template, **values), 2_000),
            "µs",
            60,
        ),
    ]


def _values() -> dict[str, Any]:
    return {"role": "a librarian", "name": "Ann", "lines": LINES, "question": "Who approves travel?"}


def main() -> int:
    """Measure, print, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a figure is over its target")
    options = parser.parse_args()
    figures = [*registering(), *asyncio.run(calling())]
    print(f"{FUNCTIONS:,} functions, CPU time, medians of {ROUNDS} rounds")
    for figure in figures:
        print(figure)
    return 1 if options.check and not all(figure.passed for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
