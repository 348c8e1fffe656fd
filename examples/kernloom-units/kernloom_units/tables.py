"""The units and how many of their quantity's base unit each is.

Factors are exact by definition (SI Brochure, 9th edition; the international yard and pound of 1959; the US
gallon of 231 cubic inches) unless said otherwise.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit: ``base = value * factor + offset``."""

    quantity: str
    symbol: str
    #: Singular first.
    names: tuple[str, ...]
    factor: float
    offset: float = 0.0

    def to_base(self, value: float) -> float:
        """In the base unit of the quantity."""
        return value * self.factor + self.offset

    def from_base(self, value: float) -> float:
        """From the base unit of the quantity."""
        return (value - self.offset) / self.factor


def _units(quantity: str, *rows: tuple[str, str, float]) -> list[Unit]:
    return [Unit(quantity, symbol, tuple(names.split(", ")), factor) for symbol, names, factor in rows]


UNITS: tuple[Unit, ...] = (
    *_units(
        "length",
        ("m", "metre, metres, meter, meters", 1),
        ("km", "kilometre, kilometres, kilometer, kilometers", 1000),
        ("cm", "centimetre, centimetres, centimeter, centimeters", 0.01),
        ("mm", "millimetre, millimetres, millimeter, millimeters", 0.001),
        ("in", "inch, inches", 0.0254),
        ("ft", "foot, feet", 0.3048),
        ("yd", "yard, yards", 0.9144),
        ("mi", "mile, miles", 1609.344),
        ("nmi", "nautical mile, nautical miles", 1852),
    ),
    *_units(
        "mass",
        ("kg", "kilogram, kilograms, kilo, kilos", 1),
        ("g", "gram, grams", 0.001),
        ("mg", "milligram, milligrams", 1e-6),
        ("t", "tonne, tonnes, metric ton, metric tons", 1000),
        ("lb", "pound, pounds, lbs", 0.45359237),
        ("oz", "ounce, ounces", 0.028349523125),
        ("st", "stone, stones", 6.35029318),
    ),
    Unit("temperature", "K", ("kelvin", "kelvins"), 1),
    Unit("temperature", "°C", ("celsius", "degree celsius", "degrees celsius", "c"), 1, 273.15),
    Unit(
        "temperature",
        "°F",
        ("fahrenheit", "degree fahrenheit", "degrees fahrenheit", "f"),
        5 / 9,
        459.67 * 5 / 9,
    ),
    *_units(
        "volume",
        ("l", "litre, litres, liter, liters", 1),
        ("ml", "millilitre, millilitres, milliliter, milliliters", 0.001),
        ("m³", "cubic metre, cubic metres, cubic meter, cubic meters, m3", 1000),
        ("gal", "gallon, gallons, us gallon, us gallons", 3.785411784),
        ("pt", "pint, pints, us pint, us pints", 0.473176473),
        ("cup", "cup, cups, us cup, us cups", 0.2365882365),
        ("tbsp", "tablespoon, tablespoons", 0.01478676478125),
        ("tsp", "teaspoon, teaspoons", 0.00492892159375),
    ),
    *_units(
        "area",
        ("m²", "square metre, square metres, square meter, square meters, m2", 1),
        ("km²", "square kilometre, square kilometres, square kilometer, square kilometers, km2", 1e6),
        ("ha", "hectare, hectares", 10_000),
        ("ft²", "square foot, square feet, ft2, sq ft", 0.09290304),
        ("ac", "acre, acres", 4046.8564224),
    ),
    *_units(
        "time",
        ("s", "second, seconds, sec", 1),
        ("min", "minute, minutes", 60),
        ("h", "hour, hours, hr", 3600),
        ("d", "day, days", 86_400),
        ("wk", "week, weeks", 604_800),
    ),
    *_units(
        "speed",
        ("m/s", "metre per second, metres per second, meters per second", 1),
        ("km/h", "kilometre per hour, kilometres per hour, kilometers per hour, kph", 1 / 3.6),
        ("mph", "mile per hour, miles per hour", 0.44704),
        ("kn", "knot, knots", 1852 / 3600),
    ),
    *_units(
        "data",
        ("B", "byte, bytes", 1),
        ("kB", "kilobyte, kilobytes", 1e3),
        ("MB", "megabyte, megabytes", 1e6),
        ("GB", "gigabyte, gigabytes", 1e9),
        ("TB", "terabyte, terabytes", 1e12),
        ("KiB", "kibibyte, kibibytes", 2**10),
        ("MiB", "mebibyte, mebibytes", 2**20),
        ("GiB", "gibibyte, gibibytes", 2**30),
    ),
    *_units(
        "energy",
        ("J", "joule, joules", 1),
        ("kJ", "kilojoule, kilojoules", 1000),
        ("kWh", "kilowatt hour, kilowatt hours", 3.6e6),
        ("kcal", "kilocalorie, kilocalories", 4184),  # the thermochemical calorie
    ),
    *_units(
        "pressure",
        ("Pa", "pascal, pascals", 1),
        ("hPa", "hectopascal, hectopascals, mbar, millibar", 100),
        ("bar", "bar, bars", 100_000),
        ("atm", "atmosphere, atmospheres", 101_325),
        ("psi", "pound per square inch, pounds per square inch", 6894.757293168),  # rounded
    ),
)

_SYMBOLS = {unit.symbol: unit for unit in UNITS}
#: Names, and symbols that mean one thing however they are written.
_NAMES: dict[str, Unit] = {}
for _unit in UNITS:
    for _name in (*_unit.names, _unit.symbol, _unit.symbol.removeprefix("°")):
        _NAMES.setdefault(_name.casefold(), _unit)


def find(name: str) -> Unit | None:
    """The unit of that symbol (as written) or name (however written)."""
    name = " ".join(name.split())
    return _SYMBOLS.get(name) or _NAMES.get(name.casefold())


def near(name: str) -> list[str]:
    """Names that look like ``name``, best first."""
    return difflib.get_close_matches(name.casefold(), _NAMES, n=3, cutoff=0.6)
