"""The account of one template's render: what it may still do, and how large its values are."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, cast

from jinja2.runtime import Context

#: One unit of work stands for one pass of a loop, one call, or this many characters or items handled in C.
CHARACTERS_PER_UNIT = 64
#: What a dict's ``keys``, ``values`` and ``items`` return.
VIEWS: tuple[type[Any], ...] = (type({}.keys()), type({}.values()), type({}.items()))
CONTAINERS: tuple[type[Any], ...] = (list, tuple, dict, set, frozenset, *VIEWS)


def count(value: Any) -> int:
    """Characters of a text, items of a container; 0 for what is neither."""
    return len(cast(Sized, value)) if isinstance(value, (str, range, *CONTAINERS)) else 0


class TooCostlyError(Exception):
    """The template wanted more than it was given."""


class Meter(Context):
    """The state of one render: Jinja2's context and the account of what is left."""

    #: Units of work left.
    left: int
    #: Characters, or items, that one value may have.
    size: int
    #: Containers measured in this render, kept alive so that their ids stay theirs.
    measured: dict[int, tuple[Any, int, int]]

    def spend(self, units: int) -> None:
        """Take work off the account.

        Raises:
            TooCostlyError: there is not enough left; the account is empty then.
        """
        self.left -= units
        if self.left < 0:
            raise TooCostlyError("more loop passes, calls or text than a template may have")

    def build(self, size: int) -> None:
        """Account for a text or a sequence of ``size`` about to be built.

        Raises:
            TooCostlyError: it is too large, or there is not enough work left.
        """
        if size > self.size:
            raise TooCostlyError(f"a value of {size:,} characters or items; the limit is {self.size:,}")
        self.spend(1 + size // CHARACTERS_PER_UNIT)

    def scan(self, value: Any) -> None:
        """Account for something that reads all of ``value`` (a comparison, a sort)."""
        self.spend(1 + self.measure(value)[0] // CHARACTERS_PER_UNIT)

    def measure(self, value: Any) -> tuple[int, int]:
        """Characters ``value`` has when written out, and how deep it is nested.

        A container is walked once, however often it occurs, so a structure that shares its parts is
        measured in the time of its parts while its size counts every occurrence.
        """
        if isinstance(value, str):
            return len(value), 0
        if isinstance(value, int):
            return 2 + value.bit_length() // 3, 0
        if isinstance(value, (bytes, bytearray)):
            return 4 * len(value), 0
        if not isinstance(value, CONTAINERS):
            return 32, 0
        known = self.measured.get(id(value))
        if known is None:
            self.spend(1 + len(value) // 8)
            size, depth = 2, 0
            for item in _contents(value):
                item_size, item_depth = self.measure(item)
                size += item_size + 4
                depth = max(depth, item_depth)
            known = self.measured[id(value)] = (value, size, depth + 1)
        return known[1], known[2]


def _contents(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield item
    else:
        yield from value
