"""From what a developer hands over to the functions in it: an instance, a class, a module, a folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UsageError
from .functions import Function, options_of


def plugin_name(plugin: object) -> str:
    """The name its functions are prefixed with: its ``name`` attribute, else one made from its type."""
    named = getattr(plugin, "name", None)
    if isinstance(named, str) and named:
        return named
    if isinstance(plugin, Path):
        return plugin.name
    if isinstance(plugin, ModuleType):
        return plugin.__name__.rpartition(".")[2]
    kind = plugin if inspect.isclass(plugin) else type(plugin)
    return kind.__name__.lower()


def functions_of(plugin: object, *, name: str) -> list[Function]:
    """The functions a plugin offers, each named ``name.function``.

    Only what is marked with ``@function`` is offered (a folder: every template in it), so that a helper
    method is never exposed by accident.

    Raises:
        UsageError: ``plugin.name``, the name is no identifier; a template that is none.
    """
    if not name.isidentifier():
        raise UsageError(
            f"{name!r} cannot be a plugin's name.",
            code="plugin.name",
            hint="Use letters, digits and underscores; pass add_plugin(…, name='…').",
        )
    if isinstance(plugin, (str, Path)):
        from .prompts.prompts import prompts_in  # jinja2 loads only where there are templates

        return [function.renamed(f"{name}.{function.name}") for function in prompts_in(Path(plugin))]
    if inspect.isclass(plugin):
        plugin = plugin()
    found = [Function.of(call, plugin=name) for call in _marked(plugin)]
    extra: Any = getattr(plugin, "functions", None)
    if inspect.ismethod(extra) and options_of(extra) is None:
        more: list[Callable[..., Any] | Function] = extra()
        found += [Function.of(call, plugin=name) for call in more]
    return found


def _marked(plugin: object) -> list[Callable[..., Any]]:
    """Marked members in the order they were written; properties are not evaluated."""
    owner = plugin if isinstance(plugin, ModuleType) else type(plugin)
    names: dict[str, None] = {}
    for kind in reversed(getattr(owner, "__mro__", (owner,))):
        names.update(dict.fromkeys(vars(kind)))
    marked: list[Callable[..., Any]] = []
    for name in names:
        member = inspect.getattr_static(owner, name)
        member = getattr(
            member, "__func__", member
        )  # staticmethod and classmethod carry the function inside
        if isinstance(plugin, ModuleType) and getattr(member, "__module__", None) != plugin.__name__:
            continue  # imported into the module, offered by whoever wrote it
        if options_of(member) is not None and not name.startswith("__"):
            marked.append(getattr(plugin, name))
    return marked
