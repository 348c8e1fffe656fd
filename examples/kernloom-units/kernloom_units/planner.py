"""A planner that needs no model: it reads conversions out of the goal and plans the calls for them."""

from __future__ import annotations

import re
from typing import Any

from kernloom import Context, Kernel, Plan, PlanError

from .tables import find, near

_CLAUSE = re.compile(r"(?P<value>-?\d+(?:\.\d+)?)\s*(?P<source>\S.*?)\s+(?:to|into|in)\s+(?P<targets>\S.*)")
_BETWEEN_CLAUSES = re.compile(r"\s*(?:;|,?\s+and\s+)\s*(?=-?\d)")
_THEN = re.compile(r",?\s+then\s+(?:(?:to|into|in)\s+)?")


class ConversionPlanner:
    """Plans goals like "convert 26.2 miles to km, then to feet and 70 kg to pounds".

    Each number becomes an input, so that the plan can be run again with another; conversions that do not
    follow from one another run side by side.
    """

    name = "conversion"

    async def plan(self, goal: str, *, kernel: Kernel, context: Context | None = None) -> Plan:
        """The plan for ``goal``; nothing is called.

        Raises:
            PlanError: ``units.goal``, there is no conversion in it, or a unit nobody knows.
        """
        steps: list[dict[str, Any]] = []
        inputs: dict[str, Any] = {}
        said = []
        for number, clause in enumerate(_BETWEEN_CLAUSES.split(goal.strip().rstrip("?.!")), 1):
            found = _CLAUSE.search(clause)
            if found is None:
                raise PlanError(
                    f"There is no conversion in {clause!r}.",
                    code="units.goal",
                    hint="Write it like '5 km to miles'.",
                )
            name = f"value_{number}"
            inputs[name] = {"type": "number", "default": float(found["value"])}
            source, value = _unit(found["source"]), f"{{{{ inputs.{name} }}}}"
            words = f"{value} {source}"
            for target in map(_unit, _THEN.split(found["targets"])):
                step = f"convert_{len(steps) + 1}"
                arguments = {"value": value, "from_unit": source, "to_unit": target}
                steps.append({"id": step, "call": "units.convert", "args": arguments})
                source, value = target, f"{{{{ steps.{step}.result }}}}"
                words += f" = {value} {target}"
            said.append(words)
        plan = Plan.from_dict({"goal": goal, "inputs": inputs, "steps": steps, "output": "\n".join(said)})
        plan.ensure(kernel)
        return plan


def _unit(name: str) -> str:
    name = name.strip()
    if find(name) is None:
        alike = near(name)
        raise PlanError(
            f"There is no unit {name!r}.",
            code="units.goal",
            hint=f"Did you mean {' or '.join(alike)}?" if alike else None,
        )
    return name
