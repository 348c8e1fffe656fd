"""Running a plugin's code for the first time, so that nothing it does there stops the rest.

Its import, its settings and its constructor run in a thread of their own with a time limit. Whatever is
raised there, ``SystemExit`` included, is an outcome. A plugin runs in this process with all its rights:
this guards against broken code, not against malicious code; that is what allowing is for.
"""

from __future__ import annotations

import importlib
import inspect
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from .installed import Installed


class LoadFailed(Exception):  # noqa: N818 - an outcome, as FunctionFailed is
    """What a plugin's code raised, and during which step; the cause is its own exception."""

    def __init__(self, where: str, error: BaseException) -> None:
        super().__init__(where)
        self.where = where
        self.error = error


@dataclass(slots=True)
class _Progress:
    step: str = "import"


def load(plugin: Installed, settings: Mapping[str, Any], *, seconds: float | None) -> object:
    """Import and construct.

    Args:
        plugin: whose code to run.
        settings: its section of the configuration.
        seconds: how long it may take; None runs it right here, without a limit.

    Raises:
        LoadFailed: it raised, or took too long.
    """
    progress = _Progress()
    if seconds is None:
        return _guarded(plugin, settings, progress)
    outcome: queue.SimpleQueue[object | LoadFailed] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(_guarded(plugin, settings, progress))
        except LoadFailed as exc:
            outcome.put(exc)

    threading.Thread(target=work, name=f"kernloom-load-{plugin.name}", daemon=True).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        late = TimeoutError(f"it did not finish within {seconds:g} s")
        raise LoadFailed(progress.step, late) from late
    if isinstance(result, LoadFailed):
        raise result
    return result


def _guarded(plugin: Installed, settings: Mapping[str, Any], progress: _Progress) -> object:
    try:
        return _construct(plugin, settings, progress)
    except KeyboardInterrupt as exc:
        if threading.current_thread() is threading.main_thread():
            raise  # the person's, not the plugin's
        raise LoadFailed(progress.step, exc) from exc
    except BaseException as exc:  # the boundary to other people's code: SystemExit is an outcome too
        raise LoadFailed(progress.step, exc) from exc


def _construct(plugin: Installed, settings: Mapping[str, Any], progress: _Progress) -> object:
    target: Any = importlib.import_module(plugin.module)
    for name in filter(None, plugin.attribute.split(".")):
        target = getattr(target, name)
    if isinstance(target, ModuleType) or not callable(target):
        _refuse_settings(plugin, settings)
        return target
    progress.step = "settings"
    arguments = _settings(plugin, target, settings)
    progress.step = "constructor"
    return target(**arguments)


def _settings(plugin: Installed, target: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``{"settings": …}`` for a class that takes them, validated by its own ``Settings`` model."""
    if "settings" not in inspect.signature(target).parameters:
        _refuse_settings(plugin, settings)
        return {}
    model = getattr(target, "Settings", None)
    if not (inspect.isclass(model) and issubclass(model, BaseModel)):
        return {"settings": dict(settings)}
    try:
        return {"settings": model.model_validate(dict(settings))}
    except ValidationError as exc:
        problems = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in exc.errors(include_url=False)]
        raise ConfigError(
            f"[plugins.{plugin.name}] is wrong: {'; '.join(problems)}.",
            hint=f"It knows: {', '.join(model.model_fields) or 'nothing'}.",
        ) from exc


def _refuse_settings(plugin: Installed, settings: Mapping[str, Any]) -> None:
    if settings:
        raise ConfigError(
            f"[plugins.{plugin.name}] sets {', '.join(settings)}, but the plugin has no settings.",
            hint="Take them out of kernloom.toml.",
        )
