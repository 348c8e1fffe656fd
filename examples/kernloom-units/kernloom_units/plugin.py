"""What kernloom is given: a class whose marked methods are functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from kernloom import ModelRetry, function

from .tables import UNITS, Unit, find, near

if TYPE_CHECKING:
    from .planner import ConversionPlanner

Quantity = Literal[
    "any", "length", "mass", "temperature", "volume", "area", "time", "speed", "data", "energy", "pressure"
]


class Units:
    """Converts between units of measurement."""

    #: The planners it offers, by name; ``planner`` makes them.
    planners = ("conversion",)

    def planner(self, name: str, settings: Mapping[str, Any]) -> ConversionPlanner:
        """Plans goals like "convert 5 km to miles" without a model."""
        from .planner import ConversionPlanner

        return ConversionPlanner()

    @function(inline=True)
    def convert(self, value: float, from_unit: str, to_unit: str) -> float:
        """Convert a value from one unit to another of the same quantity.

        Args:
            value: The number to convert.
            from_unit: The unit it is in: a symbol or a name, e.g. "km", "miles", "°F", "cups".
            to_unit: The unit wanted.
        """
        source, target = _known(from_unit), _known(to_unit)
        if source.quantity != target.quantity:
            raise ModelRetry(
                f"{from_unit!r} is a {source.quantity}, {to_unit!r} is a {target.quantity}.",
                hint="Convert between units of one quantity; see units.list_units.",
            )
        # Twelve digits: beyond them there is only the noise of binary fractions.
        return float(f"{target.from_base(source.to_base(value)):.12g}")

    @function(inline=True)
    def list_units(self, quantity: Quantity = "any") -> dict[str, list[str]]:
        """The units that can be converted, by quantity.

        Args:
            quantity: Which quantity, e.g. "length"; all of them by default.
        """
        listed: dict[str, list[str]] = {}
        for unit in UNITS:
            if quantity in ("any", unit.quantity):
                listed.setdefault(unit.quantity, []).append(f"{unit.symbol} ({unit.names[0]})")
        return listed


def _known(name: str) -> Unit:
    unit = find(name)
    if unit is None:
        alike = near(name)
        raise ModelRetry(
            f"There is no unit {name!r}.",
            hint=f"Did you mean {' or '.join(alike)}?" if alike else "See units.list_units.",
        )
    return unit
