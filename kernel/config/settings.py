"""Every setting there is: its name, its type, its default, and what it is for.

The table is what ``kernloom.toml`` and the environment are checked against, what
``kernloom config show`` prints, and what ``kernloom init`` writes as comments. It is plain data on
the standard library, so that reading the configuration costs the command line nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigError, did_you_mean, nearest

Kind = Literal["text", "path", "url", "integer", "number", "names", "verdict", "switch", "anything"]
#: A setting's place: ``("models", "openai", "timeout")``.
Key = tuple[str, ...]

VERDICTS = ("allow", "ask", "deny")
#: Stands in a key for a name the reader chooses.
ANY = "*"


@dataclass(frozen=True, slots=True)
class Spec:
    """One setting. ``ANY`` in its key stands for a name of the reader's choice."""

    key: Key
    kind: Kind
    default: Any
    #: One line, as the commented ``kernloom.toml`` has it.
    about: str


class Setting(NamedTuple):
    """A setting's value, and who said so: a file, ``env NAME``, ``flag`` or ``default``."""

    value: Any
    where: str


SETTINGS: tuple[Spec, ...] = (
    Spec(
        ("model", "default"), "text", "extractive", "provider:model; extractive quotes and needs no model"
    ),
    Spec(("models", ANY, "base_url"), "url", None, "where the provider listens: Ollama, vLLM, a gateway"),
    Spec(("models", ANY, "timeout"), "number", None, "seconds to wait for an answer to begin"),
    Spec(("models", ANY, "max_retries"), "integer", None, "how often a failed request is sent again"),
    Spec(("memory", "path"), "path", None, "where documents are kept; .kernloom/memory.db by default"),
    Spec(("memory", "embedder"), "text", "auto", "auto, none, or a sentence-transformers folder or name"),
    Spec(("memory", "tokens"), "integer", 1200, "how many tokens of passages a question is given"),
    Spec(("memory", "k"), "integer", 8, "how many passages a search returns"),
    Spec(("journal", "encrypt"), "switch", False, "keep what was said unreadable without a key"),
    Spec(("plugins", "disable"), "names", (), "installed plugins that are never loaded"),
    Spec(("plugins", "timeout"), "number", 10, "seconds an installed plugin may take to load"),
    Spec(("plugins", ANY, ANY), "anything", None, "a plugin's own settings"),
    Spec(("policy", "read"), "verdict", "allow", "what reading does: allow, ask or deny"),
    Spec(("policy", "write"), "verdict", "ask", "what writing does"),
    Spec(("policy", "network"), "verdict", "ask", "what using the network does"),
    Spec(("policy", "exec"), "verdict", "ask", "what running programs does"),
    Spec(("policy", "spend"), "verdict", "ask", "what spending money does"),
    Spec(
        ("policy", "functions", ANY),
        "verdict",
        None,
        "one function or a pattern: files.* ; the longest wins",
    ),
    Spec(("limits", "rounds"), "integer", None, "how often a model may be asked in one turn"),
    Spec(("limits", "calls"), "integer", None, "how many functions one turn may call"),
    Spec(("limits", "result_chars"), "integer", None, "how much of a function's result a model reads"),
    Spec(("limits", "output_tokens"), "integer", None, "the most a model may write in one answer"),
)

_SECRET_NAME = re.compile(
    r"(^|[_-])(api[_-]?key|(access|auth|bearer|refresh)?[_-]?token|secret([_-]?key)?|private[_-]?key|password|passwd)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"^(sk|rk|pk|ghp|gho|github_pat|xox[abprs]|glpat|AKIA|AIza)[-_A-Za-z0-9]{16,}$")


def dotted(key: Key) -> str:
    """The key as TOML writes it: parts that are no bare keys are quoted."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in key)


def defaults() -> dict[Key, Setting]:
    """Every setting with a fixed name, at its default."""
    return {spec.key: Setting(spec.default, "default") for spec in SETTINGS if ANY not in spec.key}


def checked(table: Mapping[str, Any], where: str) -> Iterator[tuple[Key, Any]]:
    """The settings in a parsed file, each checked.

    Raises:
        ConfigError: ``config.unknown_key``, ``config.type``, ``config.secret``; it names file and key.
    """
    yield from _walk(table, (), where)


def spec_of(key: Key) -> Spec | None:
    """The setting a key names, or None."""
    for spec in SETTINGS:
        if _fits(spec.key, key):
            return spec
    return None


def check(key: Key, value: Any, where: str) -> Any:
    """One setting's value, in its own type.

    Raises:
        ConfigError: see :func:`checked`.
    """
    refuse_secret(key, value, where)
    spec = spec_of(key)
    if spec is None:
        raise _unknown(key, where)
    return _typed(spec.kind, value, key, where)


def from_text(key: Key, text: str, where: str) -> Any:
    """A setting given as text (an environment variable, a flag), in its own type."""
    spec = spec_of(key)
    value: Any = text
    if spec is not None and spec.kind == "names":
        value = [name.strip() for name in text.split(",") if name.strip()]
    elif spec is None or spec.kind in ("integer", "number", "switch", "anything"):
        try:
            value = json.loads(text)
        except ValueError:
            value = text
    return check(key, value, where)


def refuse_secret(key: Key, value: Any, where: str) -> None:
    """Keys have a file of their own; in a configuration they end up in a repository.

    Raises:
        ConfigError: ``config.secret``; the value is not repeated.
    """
    named = bool(_SECRET_NAME.search(key[-1])) or (key[0] == "models" and key[-1].lower() == "key")
    if named or _has_secret(value):
        owner = key[1] if len(key) > 2 else "<provider>"
        raise ConfigError(
            f"{dotted(key)} in {where} looks like a key. Keys never live in a configuration.",
            code="config.secret",
            hint=f"Take it out and run: kernloom keys set {owner}.",
            where=where,
            key=dotted(key),
        )


def _has_secret(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_SECRET_VALUE.match(value)) or bool("@" in value and _password_in(value))
    if isinstance(value, Mapping):
        return any(_SECRET_NAME.search(str(name)) or _has_secret(item) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return any(map(_has_secret, value))
    return False


def _password_in(value: str) -> bool:
    try:
        return urlsplit(value).password is not None
    except ValueError:
        return False


def _walk(table: Mapping[str, Any], above: Key, where: str) -> Iterator[tuple[Key, Any]]:
    for name, value in table.items():
        key = (*above, name)
        if spec_of(key) is None and _has_settings_below(key):
            if not isinstance(value, Mapping):
                refuse_secret(key, value, where)
                raise ConfigError(
                    f"{dotted(key)} in {where} is {value!r}, but it is a table.",
                    code="config.type",
                    hint=f"Write [{dotted(key)}] and its settings below.",
                    where=where,
                    key=dotted(key),
                )
            yield from _walk(value, key, where)
        else:
            yield key, check(key, value, where)


def _fits(pattern: Key, key: Key) -> bool:
    return len(pattern) == len(key) and all(p in (ANY, k) for p, k in zip(pattern, key, strict=True))


def _has_settings_below(key: Key) -> bool:
    return any(len(spec.key) > len(key) and _fits(spec.key[: len(key)], key) for spec in SETTINGS)


def _unknown(key: Key, where: str) -> ConfigError:
    """Says where the name goes wrong, and what is near it at that place."""
    depth = next((i for i in range(len(key)) if not _is_known(key[: i + 1])), len(key) - 1)
    here = {
        spec.key[depth]
        for spec in SETTINGS
        if len(spec.key) > depth and _fits(spec.key[:depth], key[:depth])
    }
    names = sorted(here - {ANY})
    near = [dotted((*key[:depth], name)) for name in nearest(key[depth], names)]
    if near:
        hint = did_you_mean(near)
    elif depth:
        hint = f"[{dotted(key[:depth])}] knows {', '.join(names)}."
    else:
        hint = f"There is: {', '.join(f'[{name}]' for name in names)}."
    return ConfigError(
        f"There is no setting {dotted(key)!r} ({where}).",
        code="config.unknown_key",
        hint=hint,
        where=where,
        key=dotted(key),
        near=near,
    )


def _is_known(key: Key) -> bool:
    return spec_of(key) is not None or _has_settings_below(key)


_WORDS: dict[Kind, str] = {
    "text": "text in quotes",
    "path": "a path in quotes",
    "url": "a URL in quotes that begins with http:// or https://",
    "integer": "a whole number above 0",
    "number": "a number above 0",
    "names": "a list of names",
    "verdict": "one of allow, ask, deny",
    "switch": "true or false",
    "anything": "",
}


def _typed(kind: Kind, value: Any, key: Key, where: str) -> Any:
    number: bool = isinstance(value, (int, float)) and not isinstance(value, bool)
    zero_is_fine = key[-1] == "max_retries"
    good: dict[Kind, bool] = {
        "text": isinstance(value, str) and bool(value.strip()),
        "path": isinstance(value, str) and bool(value.strip()),
        "url": isinstance(value, str) and value.startswith(("http://", "https://")),
        "integer": number and isinstance(value, int) and (value > 0 or (zero_is_fine and value == 0)),
        "number": isinstance(value, (int, float)) and number and value > 0,
        "names": isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value),
        "verdict": value in VERDICTS if isinstance(value, str) else False,
        "switch": isinstance(value, bool),
        "anything": True,
    }
    if not good[kind]:
        near = nearest(value, VERDICTS, n=1) if kind == "verdict" and isinstance(value, str) else []
        raise ConfigError(
            f"{dotted(key)} is {value!r} ({where}), but it takes {_WORDS[kind]}.",
            code="config.type",
            hint=did_you_mean(near),
            where=where,
            key=dotted(key),
        )
    return tuple(value) if isinstance(value, (list, tuple)) and kind == "names" else value
