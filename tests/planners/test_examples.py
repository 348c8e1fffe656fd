"""The saved plans that come with kernloom run, and say what they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernloom import Kernel
from kernloom.planners.plan import Plan

PLANS = Path(__file__).resolve().parents[2] / "examples" / "plans"


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.yaml")), ids=lambda path: path.stem)
async def test_every_saved_plan_is_sound(path: Path) -> None:
    async with Kernel() as kernel:
        assert Plan.load(path).check(kernel) == []


async def test_the_office_report_chains_calls_and_runs_some_side_by_side() -> None:
    plan = Plan.load(PLANS / "office-report.yaml")
    assert len({step.call for step in plan.steps}) >= 4
    assert sum(not step.dependencies() for step in plan.steps) >= 2
    async with Kernel() as kernel:
        assert await kernel.invoke(plan) == (
            "TEAM NORTH\n3 expenses, 1759.25 in all, 586.42 on average\nshares: 23 %, 5 %, 71 %\n"
            "left in the budget: 240.75\nbooks close on 2031-12-31, a Wednesday"
        )
        over = await kernel.invoke(plan, team="Nordic", expenses=[800, 1300.5])
    assert "OVER BUDGET BY 100.5" in over
