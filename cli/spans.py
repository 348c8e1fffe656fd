"""Spans of time as one types them: ``30d``, ``12h``, ``90m``."""

from __future__ import annotations

import re

import click

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Span(click.ParamType[float]):
    """A number and a unit, as seconds: s, m, h, d or w."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The span in seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r} is no span of time; write 30d, 12h or 90m (s, m, h, d, w).", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]
