"""The stepwise planner, offered under its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..kernel.agents.limits import Limits
from ..kernel.errors import ConfigError, not_found

if TYPE_CHECKING:
    from ..kernel.protocols import Planner


class StepwiseSettings(BaseModel):
    """``[plugins.stepwise]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: ``provider:model``; the configured default if None.
    model: str | None = None
    #: Functions it may use, by plugin or by name; every function there is if None.
    functions: tuple[str, ...] | None = None
    #: How far it may go.
    limits: Limits = Limits()


class Stepwise:
    """Finds a way to a goal call by call, with a model, and leaves the plan of it."""

    name = "stepwise"
    planners = ("stepwise",)
    Settings = StepwiseSettings

    def __init__(self, *, settings: StepwiseSettings | None = None) -> None:
        self._settings = settings or StepwiseSettings()

    def planner(self, name: str, settings: Mapping[str, Any]) -> Planner:
        """A planner; ``settings`` go before those of the configuration.

        Raises:
            NotFoundError: ``planner.not_found``.
            ConfigError: a setting that is not known, or does not fit.
        """
        if name not in self.planners:
            raise not_found("planner", name, self.planners, code="planner.not_found")
        from ..planners.stepwise import StepwisePlanner  # agents load only where somebody plans

        try:
            chosen = StepwiseSettings.model_validate({**self._settings.model_dump(), **settings})
        except ValidationError as exc:
            wrong = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in exc.errors())
            raise ConfigError(f"The planner 'stepwise' cannot be set up so: {wrong}.") from exc
        return StepwisePlanner(chosen.model, functions=chosen.functions, limits=chosen.limits)
