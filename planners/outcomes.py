"""How far a plan's run may go, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from ..kernel.messages import Frozen

Status = Literal["finished", "failed", "skipped"]


class PlanLimits(Frozen):
    """How far one run of a plan may go; reaching a limit raises ``LimitReached``."""

    #: Calls under way at once.
    concurrency: int = Field(default=8, ge=1)
    #: Seconds for the whole run; None: as long as it takes.
    seconds: float | None = Field(default=None, gt=0)
    #: Items of one ``foreach``.
    items: int = Field(default=1_000, ge=0)
    #: Plans that call plans that call plans.
    depth: int = Field(default=8, ge=1)


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What became of a step."""

    status: Status
    result: Any = None
    #: What went wrong, also where ``on_error`` made up for it.
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """What became of a plan."""

    output: Any
    #: By id, in the order they were over.
    steps: dict[str, StepOutcome]
