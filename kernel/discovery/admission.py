"""Which installed plugins may run, and why the others may not. Decided without running any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ..errors import ConfigError, PluginError
from ..functions import Effect
from .installed import Installed
from .manifest import KINDS, PluginManifest
from .trust import Lock, Pin, drift, pin

if TYPE_CHECKING:
    from ..config.config import Config

Status = Literal["ok", "failed", "blocked", "disabled", "incompatible"]


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """What is known of a plugin without running it, and whether it may run."""

    name: str
    distribution: str
    version: str
    #: Its entry point, ``module:attribute``.
    entry: str
    status: Status
    #: The step that decided: ``entry point``, ``manifest``, ``lock``, ``import``, ``constructor`` …
    where: str = ""
    #: What is wrong, in a sentence; empty when it is ok.
    why: str = ""
    #: What to do about it.
    hint: str = ""
    #: The code of the error that loading it raises, e.g. ``plugin.drift``; empty when it is ok.
    code: str = ""
    description: str = ""
    #: Its functions (without the plugin's name) and their effects, as the manifest says.
    functions: Mapping[str, tuple[Effect, ...]] = field(default_factory=dict)
    #: What else it provides, by kind: ``{"models": ("openai",)}``.
    provides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: What it says it reaches for: ``{"hosts": …, "paths": …, "env": …}``.
    touches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: It comes with kernloom itself.
    own: bool = False

    @property
    def owner(self) -> str:
        """``kernloom-units 0.1.0``."""
        return f"{self.distribution} {self.version}"

    @property
    def provides_functions(self) -> bool:
        """Whether there is anything to call in it."""
        return bool(self.functions)


class Admission:
    """Decides what each plugin may do, from configuration and lock as they are now."""

    def __init__(self, config: Config, allow: frozenset[str] | None, lock: Lock) -> None:
        self._config = config
        self._allow = allow
        self._pins: Mapping[str, Pin] = {}
        self._disabled = config.disabled
        self._lock_error: ConfigError | None = None
        if allow is not None:
            return
        try:
            self._pins = lock.pins
            self._disabled = self._disabled | lock.disabled
        except ConfigError as exc:
            self._lock_error = exc

    def record(self, plugin: Installed, rivals: list[Installed]) -> PluginRecord:
        """The plugin's record, judged by the first thing that stands against it."""
        error: PluginError | None = None
        try:
            record = _described(plugin, plugin.manifest)
        except PluginError as exc:
            record, error = _described(plugin, PluginManifest()), exc
        off = self._switched_off(record)
        if off is not None:
            return off
        if error is not None:
            return _unusable(record, error)
        if record.own:
            return record
        if rivals:
            owners = ", ".join(sorted({plugin.owner, *(rival.owner for rival in rivals)}))
            return refused(
                record,
                "failed",
                code="plugin.collision",
                where="name",
                why=f"its name is claimed by {owners}",
                hint="Uninstall one of them.",
            )
        return self._trusted(plugin, record)

    def _switched_off(self, record: PluginRecord) -> PluginRecord | None:
        """Narrowing is for what was installed; our own are switched off by name only."""
        if record.name in self._disabled:
            why, hint = "it was switched off", f"Run: kernloom plugins enable {record.name}."
            if record.name in self._config.disabled:
                hint = "Take it out of [plugins] disable in kernloom.toml."
        elif record.own:
            return None
        elif self._config.no_plugins:
            why, hint = "no installed plugin may load", "Leave out --no-plugins and KERNLOOM_NO_PLUGINS."
        elif self._config.only is not None and record.name not in self._config.only:
            why, hint = "KERNLOOM_PLUGINS does not name it", "Add it to KERNLOOM_PLUGINS."
        else:
            return None
        return refused(
            record, "disabled", code="plugin.disabled", where="configuration", why=why, hint=hint
        )

    def _trusted(self, plugin: Installed, record: PluginRecord) -> PluginRecord:
        if self._allow is not None:
            if plugin.name in self._allow:
                return record
            hint = f"Name it in Kernel(allow=[{plugin.name!r}])."
            return _blocked(record, where="allow", why="this program does not allow it", hint=hint)
        if self._lock_error is not None:
            why, hint = sentence(self._lock_error.message), self._lock_error.hint or ""
            return _blocked(record, where="lock", why=why, hint=hint)
        command = f"kernloom plugins allow {plugin.name}"
        pinned = self._pins.get(plugin.name)
        if pinned is None:
            hint = f"Look at it, then run: {command}."
            return _blocked(record, where="lock", why="nobody has allowed it yet", hint=hint)
        try:
            changes = drift(pinned, pin(plugin))
        except PluginError as exc:
            changes = [sentence(exc.message)]
        if not changes:
            return record
        return refused(
            record,
            "blocked",
            code="plugin.drift",
            where="lock",
            why=f"it changed since it was allowed: {'; '.join(changes)}",
            hint=f"Look at what changed, then run: {command}.",
        )


def refused(
    record: PluginRecord, status: Status, *, code: str, where: str, why: str, hint: str
) -> PluginRecord:
    """The record with what stands against the plugin."""
    return replace(record, status=status, where=where, why=why, hint=hint, code=code)


def _blocked(record: PluginRecord, *, where: str, why: str, hint: str) -> PluginRecord:
    return refused(record, "blocked", code="plugin.blocked", where=where, why=why, hint=hint)


def _unusable(record: PluginRecord, error: PluginError) -> PluginRecord:
    where = error.code.removeprefix("plugin.").replace("_", " ")
    why, hint = sentence(error.message), error.hint or ""
    if error.code == "plugin.incompatible":
        return refused(record, "incompatible", code=error.code, where="manifest", why=why, hint=hint)
    return refused(record, "failed", code=error.code, where=where, why=why, hint=hint)


def _described(plugin: Installed, said: PluginManifest) -> PluginRecord:
    return PluginRecord(
        name=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        entry=plugin.entry,
        status="ok",
        description=said.description,
        functions={name: tuple(sorted(f.effects)) for name, f in sorted(said.functions.items())},
        provides={kind: said.provided(kind) for kind in KINDS if said.provided(kind)},
        touches={key: values for key, values in said.touches.model_dump().items() if values},
        own=plugin.own,
    )


def sentence(text: str) -> str:
    """As part of a sentence of ours: no full stop, no line break."""
    return " ".join(text.split()).rstrip(".")
