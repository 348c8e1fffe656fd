"""The kernel: holds plugins, models, policy and journal, and is the one way to call a function."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import invocation
from .collecting import functions_of, plugin_name
from .errors import PluginError, UsageError, not_found
from .functions import Context, Function
from .policy import Approver, Policy
from .protocols import Planner, RunnablePlan
from .sync import run_sync

if TYPE_CHECKING:
    from types import TracebackType

    from .config.config import Config
    from .discovery.registry import PluginRegistry
    from .journal.journal import Journal
    from .models.base import ChatModel

_T = TypeVar("_T")


class Kernel:
    """What an assistant can do, and under which rules.

    Args:
        allow: names of installed plugins this program trusts, in place of the project's lock file.
        config: settings; the project's ``kernloom.toml``, the user's, and the environment by default.
        policy: what may happen without asking; the configured one by default: reading may, the rest asks.
        approve: asked when the policy says *ask*; without it such a call raises ``ApprovalRequired``.
        journal: where conversations are kept; in memory by default.
        deps: your application's own object, handed to functions in their ``Context``.

    ::

        async with Kernel() as kernel:
            kernel.add_plugin(Weather())
            print(await kernel.invoke("weather.forecast", city="Oslo"))
    """

    def __init__(
        self,
        *,
        allow: Iterable[str] | None = None,
        config: Config | None = None,
        policy: Policy | None = None,
        approve: Approver | None = None,
        journal: Journal | None = None,
        deps: Any = None,
    ) -> None:
        if isinstance(allow, str):
            raise UsageError(
                f"allow={allow!r} is a text, and its letters are no plugins.",
                hint=f"Write allow=[{allow!r}].",
            )
        self._policy = policy
        self.approve = approve
        self.deps = deps
        self._allow = None if allow is None else frozenset(allow)
        self._config = config
        self._journal = journal
        self._registry: PluginRegistry | None = None
        self._functions: dict[str, Function] = {}
        self._owners: dict[str, str] = {}
        self._installed: set[str] = set()
        self._models: dict[str, ChatModel] = {}

    @property
    def config(self) -> Config:
        """The settings this kernel works with."""
        if self._config is None:
            from .config.config import Config  # read only when somebody asks

            self._config = Config.load()
        return self._config

    @property
    def policy(self) -> Policy:
        """What may happen without asking."""
        if self._policy is None:
            self._policy = self.config.policy()
        return self._policy

    @property
    def journal(self) -> Journal:
        """Where conversations are kept."""
        if self._journal is None:
            from .journal import InMemoryJournalStore, Journal

            self._journal = Journal(InMemoryJournalStore())
        return self._journal

    @property
    def plugins(self) -> PluginRegistry:
        """The installed plugins, found by their metadata; none of their code has run."""
        if self._registry is None:
            from .discovery.registry import PluginRegistry

            self._registry = PluginRegistry(config=self.config, allow=self._allow)
        return self._registry

    def add_plugin(self, plugin: object, *, name: str | None = None) -> list[Function]:
        """Offer the functions of your own object: you wrote the line, so it needs no permission.

        Args:
            plugin: an instance, a class, a module, or the path of a folder of prompt templates.
            name: the prefix of its functions; ``plugin.name`` or its type's name by default.

        Raises:
            PluginError: ``plugin.collision`` when a function of that name is there already.
            UsageError: the object offers nothing.
        """
        chosen = name or plugin_name(Path(plugin) if isinstance(plugin, str) else plugin)
        found = functions_of(plugin, name=chosen)
        if not found:
            raise UsageError(
                f"Plugin {chosen!r} ({plugin!r}) offers no functions.",
                code="plugin.empty",
                hint="Mark its functions with @function.",
            )
        return self._add(found, owner=f"{type(plugin).__name__} added in code")

    def add_function(self, call: Any, *, plugin: str = "") -> Function:
        """Offer one function: a callable, marked or not, or a :class:`Function`.

        Raises:
            PluginError: ``plugin.collision`` when a function of that name is there already.
        """
        (added,) = self._add([Function.of(call, plugin=plugin)], owner="code")
        return added

    def _add(self, functions: list[Function], *, owner: str) -> list[Function]:
        for function in functions:
            if function.name in self._functions:
                raise PluginError(
                    f"{function.name!r} of {owner} is already provided by {self._owners[function.name]}.",
                    code="plugin.collision",
                    hint="Give one of them another name.",
                    function=function.name,
                    owners=[self._owners[function.name], owner],
                )
        for function in functions:
            self._functions[function.name] = function
            self._owners[function.name] = owner
        return functions

    def function(self, name: str) -> Function:
        """The function of that name; its plugin is loaded if this is its first use.

        Raises:
            NotFoundError: ``function.not_found``, with the names near it.
            PluginError: its plugin is blocked, disabled or broken.
        """
        found = self._functions.get(name)
        if found is not None:
            return found
        plugin = name.partition(".")[0]
        if plugin in self.plugins and plugin not in self.plugins.loaded:
            self._load(plugin)
        if name not in self._functions:
            known = {*self._functions, *self.plugins.function_names()}
            raise not_found("function", name, known, code="function.not_found")
        return self._functions[name]

    def functions(self, *names: str) -> list[Function]:
        """Functions by plugin or by name: ``"math"``, ``"math.*"``, ``"units.convert"``.

        Without names: what was added in code, and what allowed third-party plugins offer; ``"*"`` adds
        kernloom's own plugins. A plugin that nobody named and that cannot be loaded is left out; its
        record says why.

        Raises:
            NotFoundError: ``function.not_found`` for a name nobody offers.
            PluginError: a plugin that was named cannot be loaded.
        """
        chosen: dict[str, Function] = {}
        for name in names or ("",):
            for function in self._named(name) if name.strip("*") else self._offered(own=name == "*"):
                chosen[function.name] = function
        return list(chosen.values())

    def _offered(self, *, own: bool) -> list[Function]:
        able = [r for r in self.plugins.records() if r.status == "ok" and (own or not r.own)]
        for record in able:
            if record.provides_functions:
                try:
                    self._load(record.name)
                except PluginError:
                    continue  # recorded against the plugin; the others go on
        wanted = {record.name for record in able}
        return [
            function
            for name, function in sorted(self._functions.items())
            if name not in self._installed or name.partition(".")[0] in wanted
        ]

    def _named(self, name: str) -> list[Function]:
        plugin = name.removesuffix(".*")
        if name in self._functions or "." in plugin:
            return [self.function(name)]
        if plugin in self.plugins:
            self._load(plugin)
        members = [f for key, f in sorted(self._functions.items()) if key.startswith(f"{plugin}.")]
        if not members:
            raise not_found(
                "function or plugin",
                name,
                {*self._functions, *(record.name for record in self.plugins.records())},
                code="function.not_found",
            )
        return members

    def _load(self, plugin: str) -> object:
        """The installed plugin's instance, its functions added."""
        known = plugin in self.plugins.loaded
        instance = self.plugins.load(plugin)
        if not known:
            try:
                added = self._add(functions_of(instance, name=plugin), owner=self.plugins.owner(plugin))
                self._installed.update(function.name for function in added)
            except PluginError as exc:
                self.plugins.fail(plugin, where="functions", error=exc)
                raise
        return instance

    async def invoke(
        self, function: str | Function | RunnablePlan, context: Context | None = None, /, **arguments: Any
    ) -> Any:
        """Call a function by name, or a plan, and give back what it returns.

        Arguments are validated and coerced. A line of code needs no approval; see :class:`Policy`.

        Raises:
            NotFoundError: no such function.
            FunctionError: the arguments do not fit, it failed, was denied, or is in doubt.
            ApprovalRequired: the policy asks and there is nobody to ask.
        """
        context = context or self.context()
        if isinstance(function, str):
            function = self.function(function)
        if isinstance(function, Function):  # first, because asking for a protocol costs as much as the call
            return await invocation.invoke(function, arguments, context)
        if not isinstance(function, RunnablePlan):
            raise UsageError(
                f"{function!r} cannot be invoked.",
                hint="Pass a function's name, a Function or a plan; add_function makes one of a callable.",
            )
        return await function.run(self, arguments, context)

    def context(self, **fields: Any) -> Context:
        """A context for calls made by this program."""
        return Context(kernel=self, **{"deps": self.deps, **fields})

    def add_model(self, model: ChatModel, *, name: str | None = None) -> ChatModel:
        """Offer a model under a name of your own."""
        self._models[name or model.info.name] = model
        return model

    def model(self, name: str) -> ChatModel:
        """The model called ``provider:model``; its provider's plugin is loaded if this is its first use.

        Raises:
            NotFoundError: ``model.not_found`` when no plugin provides it.
        """
        if name not in self._models:
            provider = name.partition(":")[0]
            plugin = self.plugins.provider("models", provider)
            if plugin is None:
                known = {*self._models, *(f"{p}:…" for p in self.plugins.provided("models"))}
                raise not_found("model", name, known, code="model.not_found")
            instance: Any = self._load(plugin)
            self._models[name] = instance.chat_model(name, self.config.model_settings(provider))
        return self._models[name]

    def planner(self, name: str, **settings: Any) -> Planner:
        """A planner by the name its plugin offers it under, e.g. ``"stepwise"``.

        Raises:
            NotFoundError: ``planner.not_found`` when no plugin provides it.
        """
        plugin = self.plugins.provider("planners", name)
        if plugin is None:
            raise not_found("planner", name, self.plugins.provided("planners"), code="planner.not_found")
        instance: Any = self._load(plugin)
        made: Planner = instance.planner(name, {**self.config.plugin_settings(plugin), **settings})
        return made

    async def sleep(self, seconds: float) -> None:
        """Wait, as a plan does between two attempts. A replay does not wait."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """A limit on a block of work. In a replay it is met where it was met."""
        return asyncio.timeout(seconds)

    def run_sync(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine to its end from code that is not async; works in a notebook too."""
        return run_sync(work)

    def invoke_sync(self, function: str | Function | RunnablePlan, /, **arguments: Any) -> Any:
        """:meth:`invoke` from code that is not async."""
        return run_sync(self.invoke(function, **arguments))

    async def aclose(self) -> None:
        """Close the models' connections, the plugins and the journal, whatever becomes of one of them."""
        models, self._models = list(self._models.values()), {}
        async with AsyncExitStack() as closing:  # the last that is pushed is closed first
            if self._journal is not None:
                closing.push_async_callback(self._journal.close)
            if self._registry is not None:
                closing.push_async_callback(self._registry.aclose)
            for model in models:
                closing.push_async_callback(model.aclose)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
