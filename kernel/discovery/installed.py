"""What is installed: entry points, who owns them, and where their files are. Nothing is imported.

An entry point is somebody's claim. It counts when the module Python would import for it is one of the
distribution's own files: listed in its ``RECORD``, or, for an editable install, inside the folder that
``direct_url.json`` names. kernloom's own plugins are known by lying beside this code; a distribution
that merely calls itself kernloom is a stranger like any other.
"""

from __future__ import annotations

import importlib.machinery
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from ..errors import PluginError
from .manifest import FILE_NAME, PluginManifest, read_manifest

GROUP = "kernloom.plugins"
UNKNOWN = "unknown"
#: The folder of the package ``kernloom`` itself.
HOME = Path(__file__).resolve().parents[2]
OWN_MANIFEST = HOME / "plugins" / FILE_NAME


@dataclass(frozen=True)
class Installed:
    """One entry point, as its distribution's metadata tell it."""

    name: str
    #: ``module:attribute``.
    entry: str
    distribution: str
    version: str
    #: Where its metadata are from; None for our own.
    dist: Distribution | None = field(default=None, repr=False, compare=False)
    #: What the manifest beside our code says; None for a stranger's plugin, whose manifest is to be found.
    ours: PluginManifest | None = field(default=None, repr=False, compare=False)

    @property
    def own(self) -> bool:
        """Whether it is one of kernloom's own, by the place it lies in."""
        return self.ours is not None

    @property
    def owner(self) -> str:
        """``kernloom-units 0.1.0``."""
        return f"{self.distribution} {self.version}"

    @property
    def module(self) -> str:
        """The dotted module of :attr:`entry`."""
        return self.entry.partition(":")[0].strip()

    @property
    def attribute(self) -> str:
        """What to take from the module; empty for the module itself."""
        return self.entry.partition(":")[2].partition("[")[0].strip()

    @cached_property
    def place(self) -> Place:
        """Where its code is.

        Raises:
            PluginError: ``plugin.entry_point``: nowhere, or not among the distribution's own files.
        """
        if not (self.name.isidentifier() and self.name.isascii()):
            raise PluginError(
                f"{self.name!r} cannot be a plugin's name.",
                code="plugin.entry_point",
                hint="Its author can use ASCII letters, digits and underscores.",
            )
        if self.dist is None:
            raise PluginError(f"{self.name!r} comes with kernloom itself.", code="plugin.own")
        try:
            return _place(self, self.dist)
        except PluginError:
            raise
        except Exception as exc:  # the boundary to other people's metadata and import hooks
            raise PluginError(
                f"Its metadata cannot be used: {type(exc).__name__}: {exc}.",
                code="plugin.entry_point",
                hint=f"Install it again: pip install --force-reinstall {self.distribution}.",
            ) from exc

    @cached_property
    def manifest(self) -> PluginManifest:
        """What its manifest says.

        Raises:
            PluginError: there is none, it is unusable, or it does not know this plugin.
        """
        if self.ours is not None:
            return self.ours
        path = self.place.manifest
        if path is None:
            raise PluginError(
                f"{self.owner} ships no {FILE_NAME}, so nobody can know what it does before its code runs.",
                code="plugin.manifest",
                hint="Ask its author for one.",
            )
        manifest = read_manifest(path)
        if self.name not in manifest.plugins:
            raise PluginError(
                f"Its {FILE_NAME} says nothing of a plugin {self.name!r}.",
                code="plugin.manifest",
                hint=f"It knows: {', '.join(manifest.plugins) or 'none'}.",
            )
        return manifest.plugins[self.name]


@dataclass(frozen=True, slots=True)
class Place:
    """The files of a plugin."""

    #: The folder that holds them: ``site-packages``, or the source folder of an editable install.
    root: Path
    #: Its package folder, or its one module's file.
    code: Path
    manifest: Path | None
    #: Files that its distribution lists, relative to ``root``, with the hash it recorded for each
    #: (``sha256=…``, or empty); nothing for an editable install.
    listed: Mapping[str, str] = field(default_factory=dict)


def installed() -> list[Installed]:
    """All plugins that metadata know, our own first. Broken metadata are passed over, never raised."""
    return [*own_plugins(), *(plugin for plugin in _strangers() if not _repeats_us(plugin))]


def own_plugins() -> list[Installed]:
    """Those that come with kernloom, read from the manifest that lies beside their code."""
    version = own_version()
    return [
        Installed(name=name, entry=said.entry, distribution="kernloom", version=version, ours=said)
        for name, said in sorted(read_manifest(OWN_MANIFEST).plugins.items())
    ]


def own_version() -> str:
    """The version of the kernloom that is running: of this code, not of a namesake elsewhere."""
    for dist in distributions(name="kernloom"):
        if _owns(dist, HOME / "__init__.py"):
            return _headers(dist).get("version", UNKNOWN)
    project = HOME / "pyproject.toml"  # a checkout that was never installed
    if project.is_file():
        found = re.search(r'^version = "([^"]+)"', project.read_text(encoding="utf-8"), re.MULTILINE)
        return found[1] if found else UNKNOWN
    return UNKNOWN


def _repeats_us(plugin: Installed) -> bool:
    """An entry point of ours, as some installed kernloom's metadata have it; the manifest here decides."""
    return normalized(plugin.distribution) == "kernloom" and plugin.module.partition(".")[0] == "kernloom"


def _strangers() -> Iterator[Installed]:
    seen: set[str] = set()
    for dist in distributions():
        try:
            entry_points = list(_entry_points(dist))
        except Exception:  # noqa: S112 - other people's metadata, in any state; the others must be listed
            continue
        if not entry_points:
            continue
        headers = _headers(dist)
        name = headers.get("name", UNKNOWN)
        if normalized(name) in seen:
            continue  # shadowed: the first on the path is what is imported
        if name != UNKNOWN:
            seen.add(normalized(name))
        for point in entry_points:
            yield Installed(
                name=shown(point.name),
                entry=shown(point.value),
                distribution=shown(name),
                version=shown(headers.get("version", UNKNOWN)),
                dist=dist,
            )


def _entry_points(dist: Distribution) -> Iterator[EntryPoint]:
    """Those of our group; one that is malformed does not hide its neighbours."""
    text = dist.read_text("entry_points.txt") or ""
    if GROUP not in text:
        return
    group = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif group == GROUP and line and line[0] not in "#;":
            name, _, value = line.partition("=")
            yield EntryPoint(name=name.strip(), value=value.strip(), group=group)


def _headers(dist: Distribution) -> dict[str, str]:
    """Name and version; the description, however long, is not parsed."""
    try:
        text = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
    except (OSError, UnicodeDecodeError):
        return {}
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and key.lower() in ("name", "version"):
            found.setdefault(key.lower(), value.strip())
    return found


def normalized(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def shown(text: str) -> str:
    """Text from a stranger's metadata, safe to print on a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)[:200]


def _place(plugin: Installed, dist: Distribution) -> Place:
    spec = _package_spec(plugin.module)
    if spec is None or spec.origin is None:
        raise PluginError(
            f"Its entry point {plugin.entry!r} names a module that is not there.",
            code="plugin.entry_point",
            hint=f"Install it again: pip install --force-reinstall {plugin.distribution}.",
        )
    origin = Path(spec.origin)
    code = origin.parent if spec.submodule_search_locations else origin
    listed = _listed(dist)
    root = Path(str(dist.locate_file("")))
    if _relative(origin, root) not in listed:
        if not _within_editable(dist, origin):
            raise PluginError(
                f"Its entry point {plugin.entry!r} leads to {origin}, no file of {plugin.owner}.",
                code="plugin.entry_point",
                hint="Do not allow it; ask its author what this is for.",
            )
        root, listed = code.parent, {}
    return Place(root=root, code=code, manifest=_manifest_of(code, root, listed), listed=listed)


def _package_spec(module: str) -> importlib.machinery.ModuleSpec | None:
    """The first real package (or module) on the way to ``module``, found as ``import`` would."""
    path = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _find_spec(".".join(parts[:depth]), path)
        if spec is None or spec.origin is not None:
            return spec
        path = list(spec.submodule_search_locations or ())  # a namespace, which has no code of its own
    return None


def _find_spec(name: str, path: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        ask = getattr(finder, "find_spec", None)  # other people's finders need not have it
        spec: importlib.machinery.ModuleSpec | None = ask(name, path) if ask else None
        if spec is not None:
            return spec
    return None


def _listed(dist: Distribution) -> dict[str, str]:
    return {
        path.as_posix(): f"{path.hash.mode}={path.hash.value}" if path.hash else ""
        for path in dist.files or ()
    }


def _owns(dist: Distribution, file: Path) -> bool:
    try:
        listed = _relative(file, Path(str(dist.locate_file("")))) in _listed(dist)
        return listed or _within_editable(dist, file)
    except Exception:  # unreadable metadata own nothing
        return False


def _relative(file: Path, root: Path) -> str:
    """``file`` relative to ``root``, neither resolved: an installer may link files into place."""
    try:
        return file.relative_to(root).as_posix()
    except ValueError:
        pass
    try:
        return file.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return ""


def _within_editable(dist: Distribution, file: Path) -> bool:
    """Whether ``file`` lies in the folder this distribution was installed from, editable."""
    said = json.loads(dist.read_text("direct_url.json") or "{}")
    if not said.get("dir_info", {}).get("editable"):
        return False
    url = urlsplit(said.get("url", ""))
    if url.scheme != "file":
        return False
    folder = Path(url2pathname(unquote(url.path))).resolve()
    return file.resolve().is_relative_to(folder)


def _manifest_of(code: Path, root: Path, listed: Mapping[str, str]) -> Path | None:
    """Inside the package; for a distribution of one module, wherever the distribution put it."""
    if code.is_dir():
        inside = code / FILE_NAME
        return inside if inside.is_file() else None
    for path in listed:
        if PurePosixPath(path).name == FILE_NAME and (root / path).is_file():
            return root / path
    beside = code.parent / FILE_NAME
    return beside if not listed and beside.is_file() else None
