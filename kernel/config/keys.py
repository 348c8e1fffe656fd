"""API keys: from the environment, or from a file only its owner can read. Never from a configuration.

The environment wins: ``OPENAI_API_KEY`` for ``openai``, in general ``<PROVIDER>_API_KEY``. The file is
``keys.json`` in the user's configuration folder, written whole or not at all, with mode 0600.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..whole_file import replace_file

FILE = "keys.json"


class KeyEntry(NamedTuple):
    """That there is a key, and where; never the key."""

    provider: str
    #: ``env NAME`` or the file's path.
    where: str


def variable(provider: str) -> str:
    """The environment variable that holds a provider's key: ``OPENAI_API_KEY``."""
    return re.sub(r"[^A-Z0-9]+", "_", provider.upper()).strip("_") + "_API_KEY"


def get(provider: str, folder: Path, *, env: Mapping[str, str] = os.environ) -> str | None:
    """The key for a provider, or None.

    Args:
        provider: ``openai``, as in ``openai:gpt-4.1-mini``; ``openai@host`` for one server's own key.
        folder: the user's configuration folder (``config.folders.config``).
        env: looked at first.

    Raises:
        ConfigError: ``keys.mode`` when others can read the file, ``keys.corrupt`` when it is no JSON.
    """
    found = env.get(variable(provider), "").strip()
    return found or _read(folder / FILE).get(provider)


def set(provider: str, key: str, folder: Path) -> Path:
    """Keep a key in the file; returns the file.

    Raises:
        ConfigError: ``keys.empty`` or ``keys.malformed`` for what cannot be a key; see also :func:`get`.
    """
    key = key.strip()
    if not key:
        raise ConfigError("The key is empty; nothing was changed.", code="keys.empty")
    if any(character.isspace() or not character.isprintable() for character in key):
        raise ConfigError(
            "A key has no spaces or line breaks in it; nothing was changed.",
            code="keys.malformed",
            hint="Paste the key alone.",
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9.:\[\]-]+)?", provider):
        raise ConfigError(
            f"{provider!r} cannot be a provider's name.",
            code="keys.provider",
            hint="Use the part before the colon of provider:model.",
        )
    path = folder / FILE
    _write(path, {**_read(path), provider: key})
    return path


def remove(provider: str, folder: Path) -> bool:
    """Forget a key in the file; False when there was none. The environment is not touched."""
    path = folder / FILE
    kept = _read(path)
    if provider not in kept:
        return False
    del kept[provider]
    _write(path, kept)
    return True


def list(folder: Path, *, env: Mapping[str, str] = os.environ) -> tuple[KeyEntry, ...]:
    """Which keys there are and where; the environment's shadow the file's."""
    path = folder / FILE
    found = {provider: KeyEntry(provider, str(path)) for provider in _read(path)}
    for name, value in env.items():
        if name.endswith("_API_KEY") and value.strip():
            provider = name.removesuffix("_API_KEY").lower()
            shadowed = [kept for kept in found if variable(kept) == name]
            for kept in shadowed or [provider]:
                found[kept] = KeyEntry(kept, f"env {name}")
    return tuple(found[provider] for provider in sorted(found))


def repair(folder: Path) -> bool:
    """Take the file away from everybody but its owner; True when that was needed."""
    path = folder / FILE
    if not _is_wide(path):
        return False
    path.chmod(0o600)
    return True


def _is_wide(path: Path) -> bool:
    """Whether others may read or write it. Windows keeps a user's folder to the user by its own rules."""
    if os.name != "posix":
        return False
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except FileNotFoundError:
        return False


def _read(path: Path) -> dict[str, str]:
    if _is_wide(path):
        mode = stat.S_IMODE(path.stat().st_mode)
        raise ConfigError(
            f"{path} can be read by others (mode {mode:04o}), so its keys are not used.",
            code="keys.mode",
            hint=f"Run: chmod 600 {path} - and think of replacing keys that others may have seen.",
            path=str(path),
        )
    try:
        kept: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"{path} cannot be read: {type(exc).__name__}.",  # no detail: it might quote a key
            code="keys.corrupt",
            hint="Move it away and set the keys again: kernloom keys set <provider>.",
            path=str(path),
        ) from None
    if not isinstance(kept, dict) or not all(isinstance(value, str) for value in kept.values()):
        raise ConfigError(
            f"{path} is not an object of provider: key.",
            code="keys.corrupt",
            hint="Move it away and set the keys again: kernloom keys set <provider>.",
            path=str(path),
        )
    return kept


def _write(path: Path, kept: Mapping[str, str]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, json.dumps(dict(sorted(kept.items())), indent=1).encode())
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be written: {exc.strerror or exc}.", code="keys.unwritable", path=str(path)
        ) from exc
