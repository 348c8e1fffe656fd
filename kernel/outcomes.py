"""Errors of calls, on record and back: what was told is told again in the same words."""

from __future__ import annotations

from .errors import (
    FunctionDenied,
    FunctionFailed,
    FunctionInDoubt,
    FunctionTimeout,
    KernloomError,
    LimitReached,
    ModelRetry,
)
from .journal.events import Branch, FunctionFailedEvent, FunctionInDoubtEvent

_BRANCHES: dict[Branch, type[KernloomError]] = {
    "FunctionFailed": FunctionFailed,
    "FunctionTimeout": FunctionTimeout,
    "FunctionDenied": FunctionDenied,
    "ModelRetry": ModelRetry,
    "LimitReached": LimitReached,
    "KernloomError": KernloomError,
}


def branch_of(error: KernloomError | None) -> Branch:
    """The branch of the error tree as a record keeps it; what was stopped has failed."""
    if error is None:
        return "FunctionFailed"
    return next(branch for branch, kind in _BRANCHES.items() if isinstance(error, kind))


def remembered(outcome: FunctionFailedEvent | FunctionInDoubtEvent) -> KernloomError:
    """The error of a recorded failure."""
    words, name = outcome.result.content, outcome.result.name
    if isinstance(outcome, FunctionInDoubtEvent):
        return FunctionInDoubt(words, function=name)
    return _BRANCHES[outcome.branch](words, code=outcome.code, function=name)
