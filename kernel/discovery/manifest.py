"""``kernloom-plugin.toml``: what a plugin provides and touches, said before any of its code runs.

It lies in the plugin's package folder::

    api = 1

    [plugins.weather]
    description = "Weather forecasts."
    models = []                       # prefixes of provider:model
    planners = []                     # names
    functions.forecast.effects = ["network"]
    touches.hosts = ["api.weather.example"]

When the plugin is loaded its code and this file must agree (:func:`compare`), so that what a person
allowed is what runs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictInt, ValidationError

from ..collecting import functions_of
from ..errors import PluginError, nearest
from ..functions import Effect
from ..messages import Frozen

#: The version of this format, and of what a plugin may expect of the kernel.
API = 1
FILE_NAME = "kernloom-plugin.toml"
#: A manifest is read before anything is trusted, so its size is bounded, in bytes.
MAX_BYTES = 256 * 1024
#: What a plugin can provide by name, besides functions.
KINDS = ("models", "planners")


def printable(text: str) -> str:
    """The text, if a terminal shows it as it is written.

    Raises:
        ValueError: it holds control or direction-changing characters.
    """
    if not text.isprintable():
        raise ValueError("holds a character that cannot be printed")
    return text


Line = Annotated[str, Field(max_length=300), AfterValidator(printable)]


def _identifier(text: str) -> str:
    if not (text.isidentifier() and text.isascii()):
        raise ValueError("is not a name of ASCII letters, digits and underscores")
    return text


Identifier = Annotated[str, Field(max_length=80), AfterValidator(_identifier)]


class FunctionManifest(Frozen):
    """One function."""

    effects: frozenset[Effect] = frozenset()


class Touches(Frozen):
    """What the plugin says it reaches for. A statement to decide on, not a fence around it."""

    hosts: tuple[Line, ...] = ()
    paths: tuple[Line, ...] = ()
    #: Names of environment variables.
    env: tuple[Line, ...] = ()


class PluginManifest(Frozen):
    """One plugin of a distribution."""

    description: Line = ""
    #: ``module:Class``. Says for kernloom's own plugins what the entry point says for others.
    entry: Line = ""
    functions: dict[Identifier, FunctionManifest] = Field(default_factory=dict)
    models: tuple[Line, ...] = ()
    planners: tuple[Line, ...] = ()
    touches: Touches = Touches()

    def provided(self, kind: str) -> tuple[str, ...]:
        """The names of one of :data:`KINDS`."""
        names: tuple[str, ...] = getattr(self, kind)
        return names


class Manifest(Frozen):
    """The whole file."""

    api: StrictInt
    plugins: dict[Identifier, PluginManifest] = Field(default_factory=dict)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; nothing is imported.

    Raises:
        PluginError: ``plugin.manifest`` when it cannot be read or says something unknown;
            ``plugin.incompatible`` when it is written for another version of kernloom.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise _unusable(path, f"cannot be read: {exc.strerror or exc}") from exc
    if len(content) > MAX_BYTES:
        raise _unusable(path, f"is larger than {MAX_BYTES // 1024} KiB")
    try:
        data = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as exc:
        raise _unusable(path, f"is not TOML: {exc}") from exc
    api = data.get("api")
    if isinstance(api, int) and api != API:
        raise PluginError(
            f"It is written for plugin api {api}; this kernloom speaks {API}.",
            code="plugin.incompatible",
            hint="Upgrade kernloom." if api > API else "Upgrade the plugin.",
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as exc:
        raise _unusable(path, f"is wrong: {_in_words(exc)}") from exc


def describe(plugin: object, *, name: str, description: str = "") -> PluginManifest:
    """The manifest of a plugin object, read off its code. ``touches`` is for its author to add."""
    documented = (getattr(plugin, "__doc__", None) or "").strip().partition("\n")[0]
    return _read_code(plugin, name).model_copy(update={"description": description or documented[:300]})


def compare(manifest: PluginManifest, plugin: object, *, name: str) -> list[str]:
    """In what the code of ``plugin`` and its manifest disagree, in words; empty when they agree.

    Declaring more than the code has is a disagreement too: the person who allows a plugin reads the
    manifest, while the policy asks by what the code says.
    """
    code = _read_code(plugin, name)
    said, real = manifest.functions, code.functions
    problems = [f"function {n} is not in the manifest" for n in real if n not in said]
    problems += [f"function {n} is in the manifest but not in the code" for n in said if n not in real]
    for function in sorted(said.keys() & real.keys()):
        declared, has = said[function].effects, real[function].effects
        if declared != has:
            problems.append(
                f"{function} has the effects {_names(has)}, the manifest says {_names(declared)}"
            )
    for kind in KINDS:
        declared_names, real_names = set(manifest.provided(kind)), set(code.provided(kind))
        if declared_names != real_names:
            problems.append(
                f"{kind}: {_names(real_names)} in code, {_names(declared_names)} in the manifest"
            )
    return problems


def _read_code(plugin: object, name: str) -> PluginManifest:
    functions = {
        function.name.removeprefix(f"{name}."): FunctionManifest(effects=function.effects)
        for function in functions_of(plugin, name=name)
    }
    provided = {kind: tuple(sorted(getattr(plugin, kind, ()))) for kind in KINDS}
    return PluginManifest.model_validate({"functions": functions, **provided})


def manifest_text(plugins: Mapping[str, object], *, known: Manifest | None = None) -> str:
    """The TOML of a manifest for these plugin objects.

    Args:
        plugins: plugin objects by their entry point's name.
        known: the manifest so far; its descriptions, entries and ``touches`` are kept.
    """
    import tomlkit  # only who writes a manifest needs it

    document = tomlkit.document()
    document["api"] = API
    document["plugins"] = sections = tomlkit.table(is_super_table=True)
    for name in sorted(plugins):
        before = known.plugins.get(name) if known else None
        said = describe(plugins[name], name=name, description=before.description if before else "")
        if before is not None:
            said = said.model_copy(update={"entry": before.entry, "touches": before.touches})
        sections[name] = _table(said)
    return tomlkit.dumps(document)


def _table(manifest: PluginManifest) -> Any:
    import tomlkit

    table = tomlkit.table()
    for key in ("description", "entry"):
        if value := getattr(manifest, key):
            table[key] = value
    for kind in KINDS:
        if names := manifest.provided(kind):
            table[kind] = sorted(names)
    for key, values in manifest.touches.model_dump(mode="json").items():
        if values:
            table.append(tomlkit.key(["touches", key]), sorted(values))
    for function, declared in sorted(manifest.functions.items()):
        table.append(tomlkit.key(["functions", function, "effects"]), sorted(declared.effects))
    return table


def _names(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


def _unusable(path: Path, what: str) -> PluginError:
    return PluginError(
        f"Its {path.name} {what}.",
        code="plugin.manifest",
        hint="Report it to the plugin's author.",
        path=str(path),
    )


def _in_words(error: ValidationError) -> str:
    known = {
        *Manifest.model_fields,
        *PluginManifest.model_fields,
        *FunctionManifest.model_fields,
        *Touches.model_fields,
    }
    said = []
    for problem in error.errors(include_url=False)[:5]:
        *_, last = problem["loc"] or ("",)
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = nearest(str(last), known, n=1)
            said.append(f"{place!r} is unknown" + (f", did you mean {near[0]!r}?" if near else ""))
        else:
            said.append(f"{place!r}: {problem['msg']}, got {str(problem['input'])[:60]!r}")
    return "; ".join(said)
