from __future__ import annotations

from pathlib import Path

import kernloom_units
import pytest
from kernloom_units import Units
from kernloom_units.planner import ConversionPlanner
from kernloom_units.tables import UNITS, Unit, find

from kernloom import Kernel, ModelRetry, PlanError
from kernloom.kernel.discovery.manifest import compare, read_manifest


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (26.2, "miles", "km", 42.1648128),
        (1, "in", "cm", 2.54),
        (100, "°C", "°F", 212),
        (-40, "F", "celsius", -40),
        (0, "K", "°C", -273.15),
        (2, "cups", "ml", 473.176473),
        (36, "km/h", "m/s", 10),
        (1, "GiB", "MB", 1073.741824),
        (1, "mb", "kB", 1000),
        (1.5, "Hours", "min", 90),
    ],
)
def test_conversions_known_by_definition(value: float, source: str, target: str, expected: float) -> None:
    assert Units().convert(value, source, target) == expected


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.symbol)
def test_every_unit_is_found_by_all_its_names_and_comes_back_to_itself(unit: Unit) -> None:
    assert {find(name) for name in (unit.symbol, *unit.names)} == {unit}
    base = next(other for other in UNITS if other.quantity == unit.quantity)
    there = Units().convert(12.5, unit.symbol, base.symbol)
    assert Units().convert(there, base.symbol, unit.symbol) == pytest.approx(12.5, rel=1e-9)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("furlong", "km", "no unit 'furlong'"),
        ("kilometer", "kg", "is a length"),
        ("metrs", "km", "Did you mean"),
    ],
)
def test_what_cannot_be_converted_is_said_in_words(source: str, target: str, words: str) -> None:
    with pytest.raises(ModelRetry, match=words):
        Units().convert(1, source, target)


async def test_a_kernel_offers_it() -> None:
    async with Kernel() as kernel:
        kernel.add_plugin(Units())
        assert (
            await kernel.invoke("units.convert", value="10", from_unit="km", to_unit="mi") == 6.21371192237
        )
        assert list(await kernel.invoke("units.list_units", quantity="time")) == ["time"]


def test_code_and_manifest_agree() -> None:
    manifest = read_manifest(Path(kernloom_units.__file__).with_name("kernloom-plugin.toml"))
    assert compare(manifest.plugins["units"], Units(), name="units") == []


@pytest.mark.parametrize(
    ("goal", "outcome"),
    [
        ("convert 5 km to miles", "5.0 km = 3.10685596119 miles"),
        ("What is 100 °C in °F?", "100.0 °C = 212.0 °F"),
        ("5 in to cm", "5.0 in = 12.7 cm"),
        (
            "Convert 2 km to m, then to cm and 1 kg to g.",
            "2.0 km = 2000.0 m = 200000.0 cm\n1.0 kg = 1000.0 g",
        ),
    ],
)
async def test_a_goal_becomes_a_plan_that_reaches_it(goal: str, outcome: str) -> None:
    async with Kernel() as kernel:
        kernel.add_plugin(Units())
        plan = await ConversionPlanner().plan(goal, kernel=kernel)
        assert await kernel.invoke(plan) == outcome
        assert "value_1" in plan.inputs


@pytest.mark.parametrize(
    ("goal", "words"), [("make tea", "no conversion"), ("5 metrs to km", "Did you mean")]
)
async def test_a_goal_it_cannot_plan_is_said_in_words(goal: str, words: str) -> None:
    kernel = Kernel()
    kernel.add_plugin(Units())
    with pytest.raises(PlanError, match=words):
        await ConversionPlanner().plan(goal, kernel=kernel)
