"""Everything that can be called is a :class:`Function`: one type, one schema, one way to invoke.

::

    @function(effects={"network"})
    async def forecast(city: str, days: int = 1) -> Forecast:
        \"\"\"Forecast for a city.

        Args:
            city: The city's English name.
            days: How many days ahead.
        \"\"\"
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from .errors import (
    FunctionError,
    FunctionFailed,
    FunctionInDoubt,
    FunctionTimeout,
    JournalError,
    LimitReached,
    PersonRequired,
    UsageError,
)
from .models.base import FunctionSpec
from .schema import Signature, summary

if TYPE_CHECKING:
    from .journal.journal import SessionLog
    from .kernel import Kernel

Effect = Literal["read", "write", "network", "exec", "spend"]
Verdict = Literal["allow", "ask", "deny"]
#: Who made a call: a line of code, a person at a terminal, a model, a plan's step.
Origin = Literal["code", "person", "model", "plan"]

EFFECTS: frozenset[Effect] = frozenset({"read", "write", "network", "exec", "spend"})
#: Effects that change something outside the function; ``read`` does not.
CHANGING: frozenset[Effect] = EFFECTS - {"read"}

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Context:
    """What a function may know of the call it serves. Annotate a parameter ``Context`` to get it."""

    kernel: Kernel
    #: Where the call is recorded; None outside a conversation.
    log: SessionLog | None = None
    run: str | None = None
    #: Who is calling: an agent's or plan's name.
    actor: str = "code"
    origin: Origin = "code"
    call_id: str | None = None
    #: The same for every attempt at this call, and for no other: pass it on to whatever has the effect.
    idempotency_key: str | None = None
    #: How many agents and plans stand above this call.
    depth: int = 0
    #: The application's own object, as given to ``Kernel`` or to ``run``.
    deps: Any = None
    #: Set when the call is cancelled or out of time; a function that runs in a thread should look at it.
    stop: threading.Event | None = None

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this call any more."""
        return self.stop is not None and self.stop.is_set()

    @property
    def session(self) -> str | None:
        """The session's id."""
        return self.log.id if self.log is not None else None

    def with_(self, **changes: Any) -> Context:
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Done:
    """What ``reconcile(key)`` returns for a call that was done; None says that it was not."""

    #: What the call returned, or would have.
    result: Any = None


@dataclass(frozen=True, slots=True)
class FunctionOptions:
    """What ``@function`` was told."""

    name: str | None = None
    description: str | None = None
    effects: frozenset[Effect] = frozenset()
    idempotent: bool = False
    reconcile: Callable[..., Any] | str | None = None
    approval: Verdict | None = None
    timeout: float | None = None
    inline: bool = False
    #: It keeps a session of its own, as agents and plans do: if the journal fails it, its caller stops too.
    recorded: bool = False


_MARK = "__kernloom_function__"


@overload
def function(call: _F, /) -> _F: ...
@overload
def function(
    *,
    name: str | None = None,
    description: str | None = None,
    effects: Iterable[Effect] = (),
    idempotent: bool = False,
    reconcile: Callable[..., Any] | str | None = None,
    approval: Verdict | None = None,
    timeout: float | None = None,
    inline: bool = False,
) -> Callable[[_F], _F]: ...
def function(call: Any = None, /, **options: Any) -> Any:
    """Mark a function or method as one that a kernel may offer. It stays callable as it was.

    Args:
        call: the function, when used without parentheses.
        name: its name within the plugin; the Python name by default.
        description: what a model is told; the docstring by default.
        effects: what it does to the world, a subset of ``read write network exec spend``.
        idempotent: calling it again with the same idempotency key changes nothing more.
        reconcile: ``reconcile(key)`` says of a call that a crash left in doubt whether it was done: it
            returns :class:`Done` with the result, or None. A callable (a method's takes ``self``), or the
            name of a method beside this one.
        approval: ``allow | ask | deny``, over what the effects ask for.
        timeout: seconds; a changing function that exceeds it is in doubt, not failed.
        inline: it is pure and quick: run it on the event loop without a thread hop.

    Raises:
        UsageError: an effect that does not exist, or ``inline`` on a coroutine function.
    """
    effects = frozenset(options.pop("effects", ()))
    if unknown := effects - EFFECTS:
        raise UsageError(
            f"Unknown effects {sorted(unknown)}.",
            code="function.effects",
            hint=f"Use a subset of {' '.join(sorted(EFFECTS))}.",
        )
    chosen = FunctionOptions(effects=effects, **options)

    def mark(target: _F) -> _F:
        if chosen.inline and inspect.iscoroutinefunction(target):
            raise UsageError(
                f"{target.__qualname__} is a coroutine function, so inline means nothing.",
                code="function.inline",
                hint="Drop inline=True.",
            )
        setattr(target, _MARK, chosen)
        return target

    return mark if call is None else mark(call)


def options_of(call: object) -> FunctionOptions | None:
    """What ``@function`` said of this callable, or None when it is not marked."""
    return getattr(call, _MARK, None)


class Function:
    """One thing a kernel can call.

    Python callables become one by :meth:`of`; a prompt, a plan or an agent passes its own ``call``
    taking keyword arguments.

    Args:
        call: takes the validated arguments by keyword; may be a coroutine function.
        name: ``plugin.function``, or a bare name until it is added to a kernel.
        signature: what it accepts, when that is not to be read off ``call``.
        options: see :func:`function`.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        *,
        name: str,
        signature: Signature | None = None,
        options: FunctionOptions | None = None,
    ) -> None:
        options = options or FunctionOptions()
        self.name = name
        self.options = options
        self.effects = options.effects
        self.timeout = options.timeout
        self.signature = signature or Signature(call, hidden=Context)
        self._call = call
        self._is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
            getattr(call, "__call__", None)  # noqa: B004 - asks for the attribute, not for callability
        )

    @classmethod
    def of(cls, call: Callable[..., Any] | Function, *, plugin: str = "") -> Function:
        """The function a callable is, named ``plugin.name`` when a plugin is given."""
        if isinstance(call, Function):
            return call.renamed(f"{plugin}.{call.name}") if plugin else call
        options = options_of(call) or FunctionOptions()
        name = str(options.name or getattr(call, "__name__", ""))
        if not name.isidentifier():
            raise UsageError(
                f"{call!r} has no usable name.",
                code="function.name",
                hint="Use a def with a name, or @function(name='…').",
            )
        return cls(call, name=f"{plugin}.{name}" if plugin else name, options=options)

    def renamed(self, name: str) -> Function:
        """The same function under another name."""
        return Function(self._call, name=name, signature=self.signature, options=self.options)

    @cached_property
    def description(self) -> str:
        """What it is for, as a model is told."""
        return self.options.description or summary(inspect.getdoc(self._call) or "")

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of its arguments."""
        return self.signature.schema

    @property
    def returns(self) -> dict[str, Any]:
        """JSON Schema of its result; may be empty."""
        return self.signature.returns

    @property
    def changes(self) -> bool:
        """Whether it does something that cannot be taken back by not looking."""
        return not self.effects.isdisjoint(CHANGING)

    @cached_property
    def spec(self) -> FunctionSpec:
        """What a model is sent."""
        return FunctionSpec(name=self.name, description=self.description, parameters=self.parameters)

    async def invoke(self, arguments: Mapping[str, Any], context: Context) -> Any:
        """Validate, call, and give back what it returned.

        Raises:
            ModelRetry: the arguments do not fit, or the function asked for a better call.
            FunctionFailed: it raised something else; that is the cause.
            FunctionTimeout, FunctionInDoubt: it exceeded its timeout.
        """
        return await self.run(self.signature.validate(arguments), context)

    async def run(self, validated: dict[str, Any], context: Context) -> Any:
        """:meth:`invoke` for arguments that :attr:`signature` has validated already."""
        if self.signature.hidden_name is not None:
            validated[self.signature.hidden_name] = context
        try:
            if self.timeout is None:
                return await self._run(validated)
            return await self._run_in_time(validated, self.timeout)
        except (FunctionError, PersonRequired, LimitReached):
            raise
        except (Exception, SystemExit) as exc:
            # The boundary to other people's code: whatever it raises is its outcome. Cancellation and
            # Ctrl-C are not its own.
            if self.options.recorded and isinstance(exc, JournalError):
                raise
            raise FunctionFailed(
                f"{self.name} failed: {type(exc).__name__}: {exc}.", function=self.name
            ) from exc

    async def _run(self, kwargs: dict[str, Any]) -> Any:
        if self._is_async:
            return await self._call(**kwargs)
        if self.options.inline:
            return self._call(**kwargs)
        value = await self._run_in_thread(kwargs)
        return await value if isinstance(value, Awaitable) else value

    async def _run_in_thread(self, kwargs: dict[str, Any]) -> Any:
        name = self.signature.hidden_name
        if name is None:
            return await asyncio.to_thread(_in_thread, self._call, **kwargs)
        stop = threading.Event()
        kwargs[name] = kwargs[name].with_(stop=stop)
        try:
            return await asyncio.to_thread(_in_thread, self._call, **kwargs)
        except asyncio.CancelledError:
            stop.set()  # a thread cannot be stopped from outside; it can be told
            raise

    async def reconcile(self, key: str) -> Done | None:
        """Ask the function whether the call with this idempotency key was done, and with what result.

        Raises:
            FunctionFailed: it could not say.
        """
        ask = self._reconciler
        try:
            if inspect.iscoroutinefunction(ask):
                said = await ask(key)
            else:
                said = await asyncio.to_thread(_in_thread, ask, key)
        except FunctionError:
            raise
        except Exception as exc:  # the boundary to other people's code
            raise FunctionFailed(
                f"{self.name} could not say whether {key!r} was done: {type(exc).__name__}: {exc}.",
                function=self.name,
            ) from exc
        if said is not None and not isinstance(said, Done):
            raise FunctionFailed(
                f"The reconcile of {self.name} returned {said!r}.",
                hint="Return Done(result), or None when the call was not done.",
                function=self.name,
            )
        return said

    @property
    def _reconciler(self) -> Callable[[str], Any]:
        declared = self.options.reconcile
        owner = getattr(self._call, "__self__", None)
        if isinstance(declared, str):
            found: Callable[[str], Any] = getattr(owner, declared)
            return found
        assert declared is not None  # noqa: S101 - asked only of functions that declare it
        takes = len(inspect.signature(declared).parameters)
        return functools.partial(declared, owner) if owner is not None and takes > 1 else declared

    async def _run_in_time(self, kwargs: dict[str, Any], seconds: float) -> Any:
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                return await self._run(kwargs)
        except TimeoutError as exc:
            if not scope.expired():
                raise
            said = f"{self.name} did not finish within {seconds:g} s"
            if self.changes:
                raise FunctionInDoubt(
                    f"{said}; its effect may or may not have happened.",
                    hint="Check before doing it again.",
                    function=self.name,
                ) from exc
            raise FunctionTimeout(f"{said}.", function=self.name) from exc

    def __repr__(self) -> str:
        return f"<Function {self.name}({', '.join(self.parameters.get('properties', ()))})>"


def _in_thread(call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call it. A ``StopIteration``, a bare ``next()`` of nothing, becomes a ``RuntimeError``, as it does in
    generators: no future can carry it, and whoever awaited the thread would wait for ever."""
    try:
        return call(*args, **kwargs)
    except StopIteration as exc:
        raise RuntimeError(f"it raised {exc!r}") from exc


def as_text(value: object) -> str:
    """A result as a model reads it: text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    try:
        return to_json(value, bytes_mode="base64", inf_nan_mode="constants").decode()
    except (PydanticSerializationError, ValueError):
        return repr(value)


def as_json(value: object) -> Any:
    """A result as plain JSON data; what JSON cannot carry becomes its ``repr``."""
    try:
        return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="strings", fallback=repr)
    except ValueError:  # it contains itself
        return repr(value)
