"""The plugins that are installed, each as a record; their code is loaded on first use, if it is trusted.

Listing reads metadata, manifests and the lock file. It imports nothing, and whatever is wrong with one
plugin ends in that plugin's record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..collecting import functions_of
from ..errors import KernloomError, PluginError, not_found
from .admission import Admission, PluginRecord, refused, sentence
from .installed import Installed, installed
from .loading import LoadFailed, load
from .manifest import compare
from .trust import Lock, Pin, altered, pin

if TYPE_CHECKING:
    from ..config.config import Config


class PluginRegistry:
    """The installed plugins of this environment, under one configuration.

    Args:
        config: which are disabled or alone wanted, their settings, where the lock file is.
        allow: names trusted by this program, in place of the lock file; None reads the lock.
        seconds: how long a plugin's import and constructor may take; ``[plugins] timeout`` by default.
    """

    def __init__(
        self, *, config: Config, allow: Iterable[str] | None = None, seconds: float | None = None
    ) -> None:
        self._config = config
        self._allow = None if allow is None else frozenset(allow)
        self._seconds = float(config.get("plugins.timeout")) if seconds is None else seconds
        self._loaded: dict[str, object] = {}
        self._broken: dict[str, tuple[str, BaseException]] = {}
        self._records: list[PluginRecord] | None = None
        self.lock = Lock(config.lock_path)

    @property
    def loaded(self) -> Mapping[str, object]:
        """The plugins whose code has run, by name."""
        return MappingProxyType(self._loaded)

    def records(self) -> list[PluginRecord]:
        """One record for each installed plugin, by name. Nothing is imported.

        Of several plugins with one name each has its record; none of those is ok, except our own.
        """
        if self._records is None:
            admission = self._admission()
            self._records = sorted(
                (self._decided(plugin, admission) for plugin in self._installed),
                key=lambda record: (record.name, not record.own, record.distribution),
            )
        return list(self._records)

    def record(self, name: str) -> PluginRecord:
        """The record of the plugin that ``load(name)`` is about.

        Raises:
            NotFoundError: ``plugin.not_found``, with the names near it.
        """
        for record in self.records():
            if record.name == name:
                return record
        raise not_found("plugin", name, {p.name for p in self._installed}, code="plugin.not_found")

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def load(self, name: str) -> object:
        """The plugin's instance; its code runs on the first call.

        Raises:
            NotFoundError: ``plugin.not_found``.
            PluginError: ``plugin.blocked``, ``plugin.drift``, ``plugin.disabled``, ``plugin.incompatible``,
                ``plugin.collision``, ``plugin.failed`` or, for its files, ``plugin.manifest`` and
                ``plugin.entry_point``; each says what to do.
        """
        if name in self._loaded:
            return self._loaded[name]
        self.record(name)
        plugin = self._by_name[name][0]
        # Afresh, because its files may have changed since they were listed.
        record = self._decided(plugin, self._admission())
        if record.status != "ok":
            self._records = None
            raise self._refusal(record) from self._broken.get(name, ("", None))[1]
        settings = self._config.plugin_settings(name)
        try:
            instance = load(plugin, settings, seconds=None if plugin.own else self._seconds)
            self._check_promise(plugin, instance)
        except LoadFailed as exc:
            raise self.fail(name, where=exc.where, error=exc.error) from exc.error
        self._loaded[name] = instance
        return instance

    def fail(self, name: str, *, where: str, error: BaseException) -> PluginError:
        """Record that a plugin cannot be used; gives back the error that says so."""
        self._broken[name] = (where, error)
        self._loaded.pop(name, None)
        self._records = None
        return self._refusal(self.record(name))

    def function_names(self) -> set[str]:
        """``plugin.function`` of every plugin that may be loaded."""
        return {
            f"{r.name}.{function}" for r in self.records() if r.status == "ok" for function in r.functions
        }

    def provider(self, kind: str, name: str) -> str | None:
        """The plugin that provides ``name``, e.g. ``provider("models", "openai")``; None if there is none.

        When only a plugin that may not be loaded provides it, that one is named: loading it says why not.

        Raises:
            PluginError: ``plugin.collision`` when two plugins that may be loaded provide it.
        """
        providers = [r for r in self.records() if name in r.provides.get(kind, ())]
        able = sorted((r for r in providers if r.status == "ok"), key=lambda record: not record.own)
        if len(able) > 1 and not able[0].own:
            raise PluginError(
                f"{kind.removesuffix('s').capitalize()} {name!r} is provided by {_both(able)}.",
                code="plugin.collision",
                hint=f"Disable one of them: kernloom plugins disable {able[-1].name}.",
            )
        chosen = able or providers
        return chosen[0].name if chosen else None

    def provided(self, kind: str) -> dict[str, str]:
        """``{name: plugin}`` of everything of a kind (``models``, ``planners``) that may be loaded."""
        found: dict[str, str] = {}
        for record in sorted(self.records(), key=lambda record: not record.own):
            if record.status == "ok":
                for name in record.provides.get(kind, ()):
                    found.setdefault(name, record.name)
        return found

    def owner(self, name: str) -> str:
        """``kernloom-units 0.1.0``."""
        return self.record(name).owner

    def allow(self, name: str) -> Pin:
        """Trust an installed plugin as it is now, in the lock file; none of its code runs.

        Raises:
            NotFoundError: ``plugin.not_found``.
            PluginError: it cannot be trusted: it collides, has no manifest, or is not where it claims;
                ``plugin.own`` when it comes with kernloom and needs no permission.
            ConfigError: the lock file cannot be read.
        """
        plugin, record = self._sole(name), self.record(name)
        if record.status in ("failed", "incompatible") and name not in self._broken:
            raise self._refusal(record)
        pinned = pin(plugin)
        self.lock.allow(name, pinned)
        self.refresh()
        return pinned

    def disallow(self, name: str) -> bool:
        """Take the trust back; False when there was none."""
        changed = self.lock.disallow(name)
        self.refresh()
        return changed

    def disable(self, name: str) -> None:
        """Switch a plugin off, in the lock file.

        Raises:
            NotFoundError: ``plugin.not_found``.
        """
        self.record(name)
        self.lock.disable(name)
        self.refresh()

    def enable(self, name: str) -> bool:
        """Undo :meth:`disable`; False when it was not disabled by it."""
        changed = self.lock.enable(name)
        self.refresh()
        return changed

    def altered(self, name: str) -> list[str]:
        """Files of a plugin that are not what its installer recorded; to be shown before allowing it."""
        plugin = self._sole(name)
        return [] if plugin.own else altered(plugin.place)

    def refresh(self) -> None:
        """Look again: after something was installed, allowed or mended. What was loaded stays."""
        for cached in ("_installed", "_by_name"):
            self.__dict__.pop(cached, None)
        self._broken.clear()
        self._records = None

    async def aclose(self) -> None:
        """Give back what loaded plugins hold: each one's ``aclose``, if it has one. They stay loaded."""
        for name, plugin in list(self._loaded.items()):
            close = getattr(plugin, "aclose", None)
            if close is None:
                continue
            try:
                await close()
            except Exception as exc:  # the boundary to other people's code; the others close too
                self.fail(name, where="aclose", error=exc)

    @cached_property
    def _installed(self) -> list[Installed]:
        return installed()

    @cached_property
    def _by_name(self) -> dict[str, list[Installed]]:
        """Our own first: a stranger cannot take the name of one of ours away."""
        found: dict[str, list[Installed]] = {}
        for plugin in self._installed:
            found.setdefault(plugin.name, []).append(plugin)
        return found

    def _sole(self, name: str) -> Installed:
        record = self.record(name)
        if len(self._by_name[name]) > 1 and not record.own:
            raise self._refusal(record)
        return self._by_name[name][0]

    def _admission(self) -> Admission:
        return Admission(self._config, self._allow, self.lock)

    def _decided(self, plugin: Installed, admission: Admission) -> PluginRecord:
        rivals = [p for p in self._by_name[plugin.name] if p is not plugin]
        record = admission.record(plugin, rivals)
        broken = self._broken.get(plugin.name)
        if broken is None or record.status != "ok":
            return record
        where, error = broken
        return refused(
            record, "failed", code="plugin.failed", where=where, why=_in_words(error), hint=_hint(error)
        )

    def _check_promise(self, plugin: Installed, instance: object) -> None:
        """Raises LoadFailed when the code is not what the manifest says."""
        try:
            problems = compare(plugin.manifest, instance, name=plugin.name)
            if not plugin.own:  # one type that has no schema would end every run it is offered to
                for function in functions_of(instance, name=plugin.name):
                    _ = function.spec
        except BaseException as exc:  # reading a plugin's functions runs its code
            raise LoadFailed("functions", exc) from exc
        if problems:
            lie = PluginError(
                f"its code and its manifest disagree: {'; '.join(problems)}",
                hint="Report it to the plugin's author; do not use it until they agree.",
            )
            raise LoadFailed("manifest", lie)

    def _refusal(self, record: PluginRecord) -> PluginError:
        state = record.status if record.status == "failed" else f"is {record.status}"
        return PluginError(
            f"Plugin {record.name!r} ({record.owner}) {state}: {record.why}.",
            code=record.code,
            hint=record.hint or None,
            plugin=record.name,
            distribution=record.distribution,
            version=record.version,
            where=record.where,
        )


def _both(records: list[PluginRecord]) -> str:
    return " and by ".join(f"{record.name} ({record.owner})" for record in records)


def _in_words(error: BaseException) -> str:
    if isinstance(error, (KernloomError, TimeoutError)):
        return sentence(getattr(error, "message", str(error)))
    return sentence(f"{type(error).__name__}: {error}")


def _hint(error: BaseException) -> str:
    if isinstance(error, KernloomError):
        return error.hint or ""
    if isinstance(error, TimeoutError):
        return "If it only needs longer, say so: [plugins] timeout = 60 in kernloom.toml."
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"It needs the module {error.name!r}: install what provides it."
    return "Report it to the plugin's author, or switch it off: kernloom plugins disable."


__all__ = ["PluginRecord", "PluginRegistry"]
