"""What a replay came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..journal.diff import Divergence


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay came to."""

    session: str
    #: The runs that were run again, in their order.
    runs: tuple[str, ...]
    #: How many events the runs yielded again, up to the divergence if there is one.
    replayed: int
    #: How many were taken as they are, because no run of these yields them: what people said between the
    #: runs, what other agents did, a fork's edit.
    given: int
    #: The first event that is not the same.
    divergence: Divergence | None = None

    @property
    def equal(self) -> bool:
        """Whether every event came out as it is on record."""
        return self.divergence is None

    @property
    def events(self) -> int:
        """How many events came out as they are on record."""
        return self.replayed + self.given

    def render(self) -> str:
        """The report for a person at a terminal."""
        runs = f"{len(self.runs)} run{'' if len(self.runs) == 1 else 's'} of session {self.session}"
        counts = f"{self.replayed} events replayed, {self.given} taken as they are"
        if self.divergence is None:
            return f"Equal: {runs}, {counts}."
        return f"Not equal: {runs}, {counts}.\n{self.divergence.render()}"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        return {
            "session": self.session,
            "equal": self.equal,
            "runs": list(self.runs),
            "replayed": self.replayed,
            "given": self.given,
            "divergence": self.divergence.to_dict() if self.divergence is not None else None,
        }
