"""``kernloom plugins``: what is installed, what it may do, and whether it is trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import click

from ..kernel.discovery.registry import PluginRecord, PluginRegistry
from ..kernel.errors import PluginError
from .commands import Group
from .screen import Screen, table
from .workspace import interruptible

_STYLES = {"ok": "good", "failed": "bad", "incompatible": "bad", "blocked": "warn", "disabled": "dim"}


@click.group(cls=Group)
def plugins() -> None:
    """List, inspect, allow and disable installed plugins."""


@plugins.command("list")
@click.pass_obj
def list_plugins(screen: Screen) -> None:
    """Every installed plugin; none of their code runs."""
    data, text = listing(screen)
    screen.result(data, text)


def listing(screen: Screen) -> tuple[list[dict[str, object]], str]:
    """The list of plugins, as JSON and as a table."""
    records = PluginRegistry(config=screen.config).records()
    rows = [[r.name, r.version, screen.paint(r.status, _STYLES[r.status]), _offers(r)] for r in records]
    return [_data(record) for record in records], table(rows)


@plugins.command()
@click.argument("name")
@click.option("--load", is_flag=True, help="Also load its code, if it is allowed.")
@click.pass_obj
def show(screen: Screen, name: str, load: bool) -> None:
    """What a plugin says it does and touches, and why it may or may not load."""
    registry = PluginRegistry(config=screen.config)
    record = registry.record(name)
    if load and record.status == "ok":
        registry.load(name)
    screen.result(_data(record), _page(screen, record))


@plugins.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def allow(screen: Screen, name: str, yes: bool) -> None:
    """Trust a plugin as it is now; a change to it asks again.

    Pins its version and a hash of its files in kernloom.lock. None of its code runs.
    """
    registry = PluginRegistry(config=screen.config)
    record = registry.record(name)
    if record.own:
        screen.result(_data(record), f"{name} comes with kernloom and needs no permission.")
        return
    screen.note(_page(screen, record))
    for change in registry.altered(name):
        screen.note(screen.paint(f"not as installed: {change}", "warn", err=True))
    if screen.talks and not yes:
        with interruptible():
            click.confirm(f"\nLet {record.owner} run in your processes?", abort=True, err=True)
    pin = registry.allow(name)
    lock = screen.config.lock_path
    data = {"name": name, "version": pin.version, "digest": pin.digest, "lock": str(lock)}
    screen.result(data, f"Allowed {name} {pin.version}, pinned in {lock}.")


@plugins.command()
@click.argument("name")
@click.pass_obj
def disallow(screen: Screen, name: str) -> None:
    """Take back the trust in a plugin."""
    changed = PluginRegistry(config=screen.config).disallow(name)
    if not changed:
        raise PluginError(f"Plugin {name!r} was not allowed.", code="plugin.blocked")
    screen.result({"name": name, "allowed": False}, f"{name} may no longer load.")


@plugins.command()
@click.argument("name")
@click.pass_obj
def disable(screen: Screen, name: str) -> None:
    """Switch a plugin off."""
    PluginRegistry(config=screen.config).disable(name)
    screen.result({"name": name, "disabled": True}, f"{name} is off.")


@plugins.command()
@click.argument("name")
@click.pass_obj
def enable(screen: Screen, name: str) -> None:
    """Switch a plugin on again."""
    registry = PluginRegistry(config=screen.config)
    registry.record(name)
    changed = registry.enable(name)
    record = registry.record(name)
    said = f"{name} is {record.status}" + (f": {record.why}. {record.hint}" if record.why else ".")
    screen.result({"name": name, "changed": changed, "status": record.status}, said)


def _offers(record: PluginRecord) -> str:
    if record.status in ("failed", "incompatible", "blocked"):
        return f"{record.why} -> kernloom plugins show {record.name}"
    words = [", ".join(record.functions)] if record.functions else []
    words += [f"{kind}: {', '.join(names)}" for kind, names in record.provides.items()]
    return "; ".join(words) or "-"


def _page(screen: Screen, record: PluginRecord) -> str:
    rows = [["from", record.owner + (" (kernloom's own)" if record.own else "")]]
    rows.append(["status", screen.paint(record.status, _STYLES[record.status])])
    if record.why:
        rows += [["why", f"{record.why} ({record.where})"], ["what to do", record.hint or "-"]]
    rows += [[f"{record.name}.{name}", _words(effects)] for name, effects in record.functions.items()]
    rows += [[kind, _words(names)] for kind, names in record.provides.items()]
    rows += [[f"touches {kind}", _words(names)] for kind, names in record.touches.items()]
    head = screen.paint(record.name, "strong") + (f"  {record.description}" if record.description else "")
    return f"{head}\n\n{table(rows, indent='  ')}"


def _words(names: Iterable[str]) -> str:
    return ", ".join(names) or "-"


def _data(record: PluginRecord) -> dict[str, object]:
    return asdict(record)
