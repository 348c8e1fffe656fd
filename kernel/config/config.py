"""What was configured, by whom: flags, environment, ``kernloom.toml``, the user's own file, defaults.

The first that speaks wins. Every value knows where it came from, which is what
``kernloom config show --origin`` prints. Keys are no settings; see :mod:`kernloom.kernel.config.keys`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigError
from . import keys
from .settings import ANY, SETTINGS, Key, Setting, checked, defaults, dotted, from_text, spec_of

if TYPE_CHECKING:
    from ..policy import Policy

#: The project's file, looked for from the working directory upwards.
FILE = "kernloom.toml"
_PREFIX = "KERNLOOM_"


class UserFolders(NamedTuple):
    """Where a person's own settings and data are, outside any project."""

    config: Path
    data: Path


def user_folders(env: Mapping[str, str] = os.environ) -> UserFolders:
    """The platform's folders for kernloom; ``KERNLOOM_HOME`` puts both into one of your choice."""
    if home := env.get("KERNLOOM_HOME"):
        return UserFolders(Path(home).expanduser(), Path(home).expanduser())
    import platformdirs  # a few milliseconds that only a look at the disk should cost

    return UserFolders(
        Path(platformdirs.user_config_dir("kernloom", appauthor=False)),
        Path(platformdirs.user_data_dir("kernloom", appauthor=False)),
    )


@dataclass(frozen=True)
class Config:
    """The settings one program works with. Build it with :meth:`load`.

    ::

        config = Config.load()
        config.default_model              # "extractive" when nobody configured one
        config.origins()["model.default"] # Setting(value='extractive', where='default')
    """

    #: The folder ``kernloom.toml`` was found in, or None outside a project.
    project: Path | None
    #: The project's file itself: ``kernloom.toml``, or the ``pyproject.toml`` with ``[tool.kernloom]``.
    file: Path | None
    folders: UserFolders
    settings: Mapping[Key, Setting]
    #: Only these plugins may be loaded (``KERNLOOM_PLUGINS=a,b``); None means any.
    only: frozenset[str] | None = None
    #: No installed plugin may be loaded (``KERNLOOM_NO_PLUGINS=1``, ``--no-plugins``).
    no_plugins: bool = False
    #: The environment it was read from; keys are looked up there.
    env: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    @classmethod
    def load(
        cls,
        start: Path | None = None,
        *,
        env: Mapping[str, str] = os.environ,
        flags: Mapping[str, str] | None = None,
        no_plugins: bool = False,
    ) -> Config:
        """Read the configuration that holds in ``start`` (the working directory by default).

        Args:
            start: the folder to look for a project from, upwards.
            env: ``KERNLOOM_MODEL__DEFAULT`` sets ``model.default``: two underscores go one level down.
            flags: settings by dotted name, as text; they win over everything.
            no_plugins: load no installed plugin.

        Raises:
            ConfigError: an unknown setting, a wrong type, a key where none belongs, a file that is no TOML.
        """
        folders = user_folders(env)
        found = _find_project(Path(start or Path.cwd()).absolute())
        settings = defaults()
        if (user_file := folders.config / "config.toml").is_file():
            settings |= _from_file(user_file, _read(user_file))
        if found is not None:
            settings |= _from_file(found.path, found.table)
        settings |= _from_environment(env)
        for name, text in (flags or {}).items():
            key = tuple(name.split("."))
            settings[key] = Setting(_given(key, text, "flag"), "flag")
        names = [name.strip() for name in env.get("KERNLOOM_PLUGINS", "").split(",")]
        return cls(
            project=found.path.parent if found else None,
            file=found.path if found else None,
            folders=folders,
            settings=settings,
            only=frozenset(filter(None, names)) or None,
            no_plugins=no_plugins
            or env.get("KERNLOOM_NO_PLUGINS", "").lower() not in ("", "0", "false", "no"),
            env=env,
        )

    def get(self, name: str) -> Any:
        """A setting by its dotted name; None when nobody set it and it has no default."""
        setting = self.settings.get(tuple(name.split(".")))
        return setting.value if setting else None

    def origins(self) -> dict[str, Setting]:
        """Every setting by its dotted name, with its value and where that came from."""
        return {dotted(key): setting for key, setting in sorted(self.settings.items())}

    @property
    def default_model(self) -> str:
        """``provider:model``, or ``extractive``, which answers without any model."""
        return str(self.get("model.default"))

    def model_settings(self, provider: str) -> dict[str, Any]:
        """What was set of base_url, timeout and max_retries; and the provider's api_key, or None.

        A project's file may name a server, but must not send it your key: for a ``base_url`` from there
        only a key kept for that host counts (``kernloom keys set openai@gateway.example``).
        """
        settings = self._under("models", provider)
        names = [provider]
        if base_url := settings.get("base_url"):
            own = f"{provider}@{urlsplit(base_url).netloc}"
            by_project = self.settings["models", provider, "base_url"].where == str(self.file)
            names = [own] if by_project else [own, provider]
        found = (keys.get(name, self.folders.config, env=self.env) for name in names)
        return {**settings, "api_key": next(filter(None, found), None)}

    def plugin_settings(self, name: str) -> dict[str, Any]:
        """The table ``[plugins.<name>]``."""
        return self._under("plugins", name)

    @cached_property
    def disabled(self) -> frozenset[str]:
        """Plugins that are never loaded."""
        return frozenset(self.get("plugins.disable"))

    @property
    def limits(self) -> dict[str, int]:
        """The limits somebody set, by name."""
        return {name: value for name, value in self._under("limits").items() if value is not None}

    def policy(self) -> Policy:
        """The rules of ``[policy]``."""
        from ..policy import Policy  # pydantic loads only when rules are needed

        functions = self._under("policy", "functions")
        effects = {key[1]: setting.value for key, setting in self.settings.items() if _is_effect(key)}
        return Policy.model_validate({"effects": effects, "functions": functions})

    @property
    def state_dir(self) -> Path:
        """Where journal and memory live: ``.kernloom`` in the project, else the user's data folder."""
        return self.project / ".kernloom" if self.project else self.folders.data

    def make_state_dir(self) -> Path:
        """:attr:`state_dir`, created for its owner alone and kept out of version control.

        Raises:
            ConfigError: ``config.state_dir`` when it cannot be made.
        """
        folder = self.state_dir
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)  # mkdir's mode is cut by the umask, never widened; parents keep theirs
            ignore = folder / ".gitignore"
            if self.project is not None and not ignore.exists():
                ignore.write_text("# made by kernloom: state and what was said stay on this machine\n*\n")
        except OSError as exc:
            raise ConfigError(
                f"{folder} cannot be made: {exc.strerror or exc}.",
                code="config.state_dir",
                hint="Make the folder writable, or set KERNLOOM_HOME.",
                path=str(folder),
            ) from exc
        return folder

    @property
    def journal_path(self) -> Path:
        """The database of conversations."""
        return self.state_dir / "journal.db"

    @property
    def memory_path(self) -> Path:
        """The database of documents."""
        chosen = self.get("memory.path")
        return Path(chosen) if chosen else self.state_dir / "memory.db"

    @property
    def lock_path(self) -> Path:
        """The file that pins the plugins that were allowed; a project commits it."""
        return (self.project or self.folders.config) / "kernloom.lock"

    def _under(self, *above: str) -> dict[str, Any]:
        depth = len(above)
        return {
            key[depth]: setting.value
            for key, setting in self.settings.items()
            if len(key) == depth + 1 and key[:depth] == above
        }


class _Project(NamedTuple):
    path: Path
    table: dict[str, Any]


def _is_effect(key: Key) -> bool:
    return len(key) == 2 and key[0] == "policy"


def _find_project(start: Path) -> _Project | None:
    """The nearest ``kernloom.toml``, or ``pyproject.toml`` with ``[tool.kernloom]``, going upwards."""
    for folder in (start, *start.parents):
        own, shared = folder / FILE, folder / "pyproject.toml"
        table = _tool_table(shared) if shared.is_file() else None
        if own.is_file():
            if table is not None:
                raise ConfigError(
                    f"{own} and [tool.kernloom] in {shared} both configure this project.",
                    code="config.twice",
                    hint="Keep one of them.",
                )
            _refuse_strangers(own, start)
            return _Project(own, _read(own))
        if table is not None:
            _refuse_strangers(shared, start)
            return _Project(shared, table)
    return None


def _tool_table(path: Path) -> dict[str, Any] | None:
    """``[tool.kernloom]``; a broken pyproject that does not mention us is somebody else's trouble."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if "kernloom" not in text:
        return None
    table = _parse(text, path).get("tool", {}).get("kernloom")
    return table if isinstance(table, dict) else None


def _refuse_strangers(path: Path, start: Path) -> None:
    """A file in a folder above, written by another user (think of /tmp), must not set our rules."""
    if path.parent == start or not hasattr(os, "getuid"):
        return
    owner = path.stat().st_uid
    if owner not in (os.getuid(), 0):
        raise ConfigError(
            f"{path} belongs to another user (uid {owner}), so it does not configure {start}.",
            code="config.owner",
            hint=f"Make it yours, or start in {path.parent} if you trust it.",
            path=str(path),
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parse(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"{path} cannot be read: {exc}.", code="config.unreadable", path=str(path)
        ) from exc


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(
            f"{path} is no valid TOML: {exc}.",
            code="config.toml",
            hint="Text needs quotes; a table begins with [name].",
            path=str(path),
        ) from exc


def _from_file(path: Path, table: Mapping[str, Any]) -> dict[Key, Setting]:
    found: dict[Key, Setting] = {}
    for key, value in checked(table, str(path)):
        spec = spec_of(key)
        if spec is not None and spec.kind == "path":
            value = str(path.parent / Path(value).expanduser())  # noqa: PLW2901 - relative to the file that says it
        found[key] = Setting(value, str(path))
    return found


def _from_environment(env: Mapping[str, str]) -> dict[Key, Setting]:
    found: dict[Key, Setting] = {}
    for name in sorted(env):
        if not name.startswith(_PREFIX):
            continue
        rest = name.removeprefix(_PREFIX).lower()
        if "__" not in rest:
            _refuse_near_miss(name, rest)
            continue
        key = tuple(rest.split("__"))
        where = f"env {name}"
        found[key] = Setting(_given(key, env[name], where), where)
    return found


def _given(key: Key, text: str, where: str) -> Any:
    """A setting from outside any file: its path is relative to where we stand."""
    value = from_text(key, text, where)
    spec = spec_of(key)
    return str(Path(value).expanduser().absolute()) if spec and spec.kind == "path" else value


def _refuse_near_miss(name: str, rest: str) -> None:
    """``KERNLOOM_MODEL_DEFAULT`` with one underscore would be ignored without a word otherwise."""
    for spec in SETTINGS:
        if ANY not in spec.key and "_".join(spec.key) == rest:
            right = _PREFIX + "__".join(spec.key).upper()
            raise ConfigError(
                f"{name} is no setting.", code="config.unknown_key", hint=f"Did you mean {right}?", key=name
            )


__all__ = ["FILE", "Config", "Setting", "UserFolders", "user_folders"]
