"""``kernloom.lock``: which plugins were allowed, exactly as they were then.

Installing a plugin is not allowing it. Allowing pins what a person could see (distribution, version, entry
point, functions with effects, what it touches) and a digest of the files that run, also of an editable
install. Whatever differs later is *drift*: the plugin is refused until somebody has looked and allowed it
again. Commit the file, so that a team trusts the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.machinery
import os
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from pydantic import Field, ValidationError

from ..errors import ConfigError, PluginError
from ..functions import Effect
from ..messages import Frozen
from ..whole_file import replace_file
from .installed import Installed, Place
from .manifest import KINDS, Touches

_VERSION = 1
_HEADER = "Written by `kernloom plugins allow`; commit it. A plugin that differs from this is refused."
#: Hex digits kept for each file, enough to say which one changed; the digest over all is whole.
_SHORT = 16
_BLOCK = 1 << 20
_IMPORTABLE = tuple(importlib.machinery.all_suffixes())


class Pin(Frozen):
    """One plugin as it was when it was allowed."""

    distribution: str
    version: str
    entry: str
    #: ``sha256:…`` over the paths and bytes of all its files.
    digest: str
    functions: dict[str, frozenset[Effect]] = Field(default_factory=dict)
    models: tuple[str, ...] = ()
    planners: tuple[str, ...] = ()
    touches: Touches = Touches()
    #: The beginning of each file's own hash, to name the one that changed.
    files: dict[str, str] = Field(default_factory=dict)


class _Lock(Frozen):
    version: int = _VERSION
    disabled: tuple[str, ...] = ()
    plugins: dict[str, Pin] = Field(default_factory=dict)


class Lock:
    """The lock file. Each change reads it again and replaces it whole.

    Args:
        path: ``kernloom.lock``; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def pins(self) -> Mapping[str, Pin]:
        """The plugins that were allowed, by name."""
        return self._read().plugins

    @property
    def disabled(self) -> frozenset[str]:
        """The plugins somebody switched off here."""
        return frozenset(self._read().disabled)

    def allow(self, name: str, pin: Pin) -> None:
        """Trust a plugin as it is now."""
        now = self._read()
        self._write(now.model_copy(update={"plugins": {**now.plugins, name: pin}}))

    def disallow(self, name: str) -> bool:
        """Take the trust back; False when there was none."""
        now = self._read()
        if name not in now.plugins:
            return False
        self._write(now.model_copy(update={"plugins": {k: v for k, v in now.plugins.items() if k != name}}))
        return True

    def disable(self, name: str) -> None:
        """Switch a plugin off, whether or not it is trusted."""
        now = self._read()
        self._write(now.model_copy(update={"disabled": tuple(sorted({*now.disabled, name}))}))

    def enable(self, name: str) -> bool:
        """Undo :meth:`disable`; False when it was not disabled here."""
        now = self._read()
        if name not in now.disabled:
            return False
        self._write(now.model_copy(update={"disabled": tuple(n for n in now.disabled if n != name)}))
        return True

    def _read(self) -> _Lock:
        try:
            data = tomllib.loads(self.path.read_text(encoding="utf-8"))
            version = data.get("version", _VERSION)
            if version != _VERSION:  # asked first: a lock of another version has other entries too
                raise self._unusable(f"has version {version!r}, this kernloom reads {_VERSION}")
            return _Lock.model_validate(data)
        except FileNotFoundError:
            return _Lock()
        except (OSError, ValueError, RecursionError) as exc:
            what = f"{exc.error_count()} wrong entries" if isinstance(exc, ValidationError) else str(exc)
            raise self._unusable(f"cannot be read: {what}") from exc

    def _unusable(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self.path.name} {what}.",
            code="config.lock",
            hint="Restore it from version control, or delete it and allow your plugins again.",
            path=str(self.path),
        )

    def _write(self, lock: _Lock) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # It is committed and read by others; no secret is in it.
            replace_file(self.path, _text(lock).encode(), mode=0o644)
        except OSError as exc:
            raise ConfigError(
                f"{self.path} cannot be written: {exc.strerror or exc}.",
                code="config.lock",
                hint="Make its folder writable.",
                path=str(self.path),
            ) from exc


def _text(lock: _Lock) -> str:
    import tomlkit  # only who writes the file needs it

    document = tomlkit.document()
    document.add(tomlkit.comment(_HEADER))
    document["version"] = lock.version
    if lock.disabled:
        document["disabled"] = sorted(lock.disabled)
    plugins = document["plugins"] = tomlkit.table(is_super_table=True)
    for name, pin in sorted(lock.plugins.items()):
        plugins[name] = table = tomlkit.table()
        for key in ("distribution", "version", "entry", "digest"):
            table[key] = getattr(pin, key)
        for kind in KINDS:
            if names := getattr(pin, kind):
                table[kind] = sorted(names)
        for key, values in pin.touches.model_dump().items():
            if values:
                table.append(tomlkit.key(["touches", key]), sorted(values))
        if pin.functions:
            table["functions"] = {name: sorted(effects) for name, effects in sorted(pin.functions.items())}
        table["files"] = dict(sorted(pin.files.items()))
    return tomlkit.dumps(document)


def pin(plugin: Installed) -> Pin:
    """The plugin as it is now, its files hashed.

    Raises:
        PluginError: its files or its manifest cannot be read.
    """
    said, files = plugin.manifest, fingerprint(plugin.place)
    return Pin(
        distribution=plugin.distribution,
        version=plugin.version,
        entry=plugin.entry,
        digest=_digest(files),
        functions={name: function.effects for name, function in said.functions.items()},
        models=said.models,
        planners=said.planners,
        touches=said.touches,
        files={path: value[:_SHORT] for path, value in files.items()},
    )


def drift(before: Pin, now: Pin) -> list[str]:
    """What changed since a plugin was allowed, in words; empty when nothing did."""
    changes = [
        f"{key.replace('entry', 'entry point')} {old} → {new}"
        for key in ("distribution", "version", "entry")
        if (old := getattr(before, key)) != (new := getattr(now, key))
    ]
    changes += _effects_changed(before.functions, now.functions)
    for what, old, new in _lists(before, now):
        changes += [f"new {what} {name}" for name in sorted(set(new) - set(old))]
        changes += [f"{what} {name} is gone" for name in sorted(set(old) - set(new))]
    if before.digest != now.digest:
        changes += _files_changed(before.files, now.files)
    return changes


def _effects_changed(
    before: Mapping[str, frozenset[Effect]], now: Mapping[str, frozenset[Effect]]
) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old is None:
            yield f"new function {name} ({', '.join(sorted(new or ())) or 'no effects'})"
        elif new is None:
            yield f"function {name} is gone"
        elif old != new:
            more, less = ", ".join(sorted(new - old)), ", ".join(sorted(old - new))
            yield (
                f"function {name}"
                + (f" now also: {more}" if more else "")
                + (f" no longer: {less}" if less else "")
            )


def _lists(before: Pin, now: Pin) -> Iterator[tuple[str, Iterable[str], Iterable[str]]]:
    for kind in KINDS:
        yield kind.removesuffix("s"), getattr(before, kind), getattr(now, kind)
    for key, what in (("hosts", "host"), ("paths", "path"), ("env", "environment variable")):
        yield what, getattr(before.touches, key), getattr(now.touches, key)


def _files_changed(before: Mapping[str, str], now: Mapping[str, str], *, shown: int = 5) -> list[str]:
    words = []
    for path in sorted(before.keys() | now.keys()):
        if path not in before:
            words.append(f"new file {path}")
        elif path not in now:
            words.append(f"file {path} is gone")
        elif before[path] != now[path]:
            words.append(f"file {path} changed")
    more = len(words) - shown
    return [*words[:shown], f"{more} more files changed"] if more > 0 else words or ["its files changed"]


def altered(place: Place) -> list[str]:
    """Files that are not what the installer recorded: changed by hand, or a forged ``RECORD``."""
    found = []
    for path, recorded in place.listed.items():
        method, _, value = recorded.partition("=")
        file = place.root / path
        if method == "sha256" and file.is_file():
            real = base64.urlsafe_b64encode(bytes.fromhex(_hash(file))).decode().rstrip("=")
            if real != value:
                found.append(path)
    return sorted(found)


def fingerprint(place: Place) -> dict[str, str]:
    """``{path: sha256}`` of the files a plugin is made of.

    Those its distribution lists, and whatever else in its package Python could import; of an editable
    install everything in the package. Links are followed, since Python follows them. Byte code that only
    repeats a source is left out, as are files that an installed package wrote for itself, such as a cache.

    Raises:
        PluginError: ``plugin.files`` when something is no ordinary file, or cannot be read.
    """
    found: dict[str, Path] = {}
    base = place.root if place.code.is_relative_to(place.root) else place.code.parent
    files = _walk(place.code) if place.code.is_dir() else iter([place.code])
    for file in files:
        if not place.listed or file in (place.code, place.manifest) or file.name.endswith(_IMPORTABLE):
            found[file.relative_to(base).as_posix()] = file
    for path in place.listed:
        parts = PurePosixPath(path).parts
        if ".." in parts or parts[0].endswith((".dist-info", ".egg-info")) or path.startswith("/"):
            continue  # scripts and metadata, which importing the plugin does not run
        if (place.root / path).exists() and not _repeats_source(place.root / path):
            found[path] = place.root / path
    return {_readable(path): _hash(file) for path, file in sorted(found.items())}


def _readable(path: str) -> str:
    """A file's name that is no text at all (POSIX allows any bytes) in a form the lock can hold."""
    return path.encode("utf-8", "backslashreplace").decode()


def _walk(folder: Path) -> Iterator[Path]:
    """Every file beneath, each real folder once, however links lead to it."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            file = Path(parent, name)
            if not _repeats_source(file):
                yield file


def _repeats_source(file: Path) -> bool:
    """Byte code that Python checks against its source by time and size, as every import writes it.

    Byte code marked as valid by hash can be shipped in a wheel and is run whatever the source says
    (PEP 552), so that counts as code of its own.
    """
    if file.suffix != ".pyc" or file.parent.name != "__pycache__":
        return False
    try:
        if not file.is_file():
            return False
        with file.open("rb") as content:
            flags = content.read(8)[4:]
    except OSError:
        return False
    return not any(flags)


def _hash(file: Path) -> str:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # asked before opening: a pipe would wait for ever
            raise PluginError(
                f"{file} is no ordinary file.", code="plugin.files", hint="Install the plugin again."
            )
        digest = hashlib.sha256()
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
    except OSError as exc:
        raise PluginError(
            f"{file} cannot be read: {exc.strerror or exc}.",
            code="plugin.files",
            hint="Install the plugin again.",
        ) from exc
    return digest.hexdigest()


def _digest(files: Mapping[str, str]) -> str:
    whole = hashlib.sha256()
    for path, value in sorted(files.items()):
        whole.update(f"{path}\0{value}\n".encode())
    return f"sha256:{whole.hexdigest()}"
