"""Every error kernloom raises on purpose, branched by who acts next.

::

    KernloomError                 code, message, hint, details
    ├── UsageError                the developer: a wrong argument, an unknown name
    │   ├── ConfigError           the person who wrote kernloom.toml, the environment or a key
    │   ├── NotFoundError         a name that is not there; says what is near it
    │   └── MissingExtraError     an optional dependency; names its pip line
    ├── FunctionError             the model (or whoever called the function)
    │   ├── ModelRetry            the call can be corrected and made again
    │   ├── FunctionFailed        the function raised
    │   ├── FunctionTimeout       it took too long and had no effect that could be in doubt
    │   ├── FunctionInDoubt       nobody knows whether its effect happened
    │   └── FunctionDenied        the policy, or a person, said no
    ├── PersonRequired            a person: the run waits for an answer and can be resumed after it
    │   ├── ApprovalRequired      somebody must say yes first
    │   └── ResolutionRequired    somebody must say what became of a call
    ├── ProviderError             the network or the model's provider; may be retried
    ├── LimitReached              whoever set the limit
    ├── PluginError               the plugin's author; names plugin and distribution
    ├── PlanError                 whoever wrote the plan
    ├── StoreError                the database: locked, corrupt, from a newer version
    │   ├── JournalError
    │   └── MemoryStoreError
    └── InvariantError            ours: please report it

``code`` is a dotted slug (``plugin.blocked``), stable public API with a page in ``docs/errors.md``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class KernloomError(Exception):
    """The root. ``str(error)`` is what happened and what to do, in one or two sentences."""

    code = "kernloom.error"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, **details: object
    ) -> None:
        super().__init__(message)
        #: Dotted slug, e.g. ``"memory.locked"``.
        self.code = code or type(self).code
        #: What happened, with the offending value.
        self.message = message
        #: What to do about it, as an imperative sentence.
        self.hint = hint
        #: Machine-readable facts, JSON-able, printed by ``--json``.
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class UsageError(KernloomError):
    """The developer passed something kernloom cannot work with."""

    code = "usage.invalid"


class ConfigError(UsageError):
    """A setting or key is missing or wrong; ``details`` name the file or variable."""

    code = "config.invalid"


class NotFoundError(UsageError):
    """A name nobody registered. Build it with :func:`not_found` to get did-you-mean."""

    code = "usage.not_found"


class MissingExtraError(UsageError):
    """An optional dependency is not installed."""

    code = "extra.missing"

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(
            f"{what} needs the extra {extra!r}, which is not installed.",
            hint=f"Run: pip install 'kernloom[{extra}]'.",
            extra=extra,
        )


class FunctionError(KernloomError):
    """A function call went wrong in a way its caller is told about."""

    code = "function.failed"


class ModelRetry(FunctionError):
    """Raised by a function (or by validation) to send the call back to the model with a reason."""

    code = "function.retry"


class FunctionFailed(FunctionError):
    """The function raised; ``__cause__`` is its own exception."""

    code = "function.failed"


class FunctionTimeout(FunctionError):
    """The function did not answer within its ``timeout`` and has no effects."""

    code = "function.timeout"


class FunctionInDoubt(FunctionError):
    """The function was stopped or timed out while its effect may still be happening."""

    code = "function.in_doubt"


class FunctionDenied(FunctionError):
    """Policy or a person refused the call."""

    code = "function.denied"


class PersonRequired(KernloomError):
    """A person has to answer before this can go on. The command line exits with 3.

    ``details`` hold ``question`` (its id) and, inside a conversation, ``session``: answer it with
    ``Conversation.answer`` or ``kernloom runs resolve``, and resume the run.
    """

    code = "person.required"


class ApprovalRequired(PersonRequired):
    """The policy says *ask* and there is nobody to ask."""

    code = "approval.required"


class ResolutionRequired(PersonRequired):
    """The process stopped in the middle of a call, and nothing but a person can say whether it was done."""

    code = "call.in_doubt"


class ProviderError(KernloomError):
    """The model's provider failed.

    ``status`` is the HTTP status if there was one, ``retry_after`` seconds if the provider said so.
    """

    code = "provider.failed"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        **details: object,
    ) -> None:
        super().__init__(message, code=code, hint=hint, **details)
        self.status = status
        self.retry_after = retry_after


class LimitReached(KernloomError):
    """A limit on rounds, calls, size, time, tokens or money was met; nothing was exceeded."""

    code = "limit.reached"


class PluginError(KernloomError):
    """A plugin is broken, blocked or in conflict. ``details`` name plugin and distribution."""

    code = "plugin.failed"


class PlanError(KernloomError):
    """A plan cannot run: an unknown function, a cycle, an expression that does not compile."""

    code = "plan.invalid"


class StoreError(KernloomError):
    """A database cannot be used as it is; nothing in it was changed."""

    code = "store.failed"


class JournalError(StoreError):
    """The journal refused: a conflicting writer, a broken checksum, an unknown event version."""

    code = "journal.failed"


class MemoryStoreError(StoreError):
    """The memory's database refused: locked by another writer, corrupt, of another embedder."""

    code = "memory.failed"


class InvariantError(KernloomError):
    """kernloom was about to break its own promise and stopped instead."""

    code = "kernloom.invariant"


def nearest(name: str, known: Iterable[str], *, n: int = 3) -> list[str]:
    """The names in ``known`` that look most like ``name``, best first."""
    return difflib.get_close_matches(name, list(known), n=n, cutoff=0.6)


def did_you_mean(near: Sequence[str]) -> str | None:
    """The hint that names what is near; None when nothing is."""
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else None


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """What to write in place of ``name``: what is near it, else what there is; None if there is nothing."""
    known = sorted(known)
    listed = f"There is: {', '.join(known[:12])}{', …' if len(known) > 12 else ''}." if known else None
    return did_you_mean(nearest(name, known)) or listed


def not_found(kind: str, name: str, known: Iterable[str], *, code: str | None = None) -> NotFoundError:
    """A :class:`NotFoundError` that names what was looked for and what is near it."""
    known = sorted(known)
    near = nearest(name, known)
    return NotFoundError(
        f"There is no {kind} {name!r}.", code=code, hint=suggestion(name, known), name=name, near=near
    )
