"""Replay: a session's runs again, from the journal alone.

``replay`` plays and reports, ``stages`` finds what is to be played, ``tape`` takes only what comes next on
record, ``stand_ins`` answer in the place of everything alive.
"""

from .replay import Player, replay
from .report import ReplayReport
from .stages import Stage
from .stand_ins import ReplayKernel
from .tape import ReplayLog, Tape

__all__ = ["Player", "ReplayKernel", "ReplayLog", "ReplayReport", "Stage", "Tape", "replay"]
