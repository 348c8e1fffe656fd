"""Scripts of model replies as YAML files: a list of texts, of calls, or of errors.

::

    - Hello.
    - text: Let me look.
      calls:
        - name: time.now
          arguments: {timezone: Europe/Oslo}
    - text: Done.
      usage: {input: 120, output: 8}
    - error: Too many requests.
      code: provider.rate_limited
      retry_after: 2
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, KernloomError, ProviderError, UsageError
from ..messages import Message, ToolCall, Usage, assistant
from .base import ChatResponse

Entry = str | Message | ChatResponse | KernloomError


def read_script(path: str | Path) -> list[Entry]:
    """The replies in a YAML file.

    Raises:
        ConfigError: ``script.unreadable``, or ``script.invalid`` naming the entry that is wrong.
    """
    from ..safe_yaml import read_yaml  # yaml loads only where there is a script

    path = Path(path)
    try:
        entries = read_yaml(path.read_text(encoding="utf-8"), what=f"The script {str(path)!r}")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"The script {str(path)!r} cannot be read: {exc}.", code="script.unreadable"
        ) from exc
    except UsageError as exc:
        raise ConfigError(exc.message, code="script.unreadable", hint=exc.hint) from exc
    if not isinstance(entries, list):
        raise _bad_entry(path, 0, "a script is a list of replies")
    return [_read_entry(path, number, entry) for number, entry in enumerate(entries, 1)]


def _read_entry(path: Path, number: int, entry: object) -> Entry:
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, dict):
        raise _bad_entry(path, number, f"it is {entry!r}, neither text nor a mapping")
    if "error" in entry:
        return _read_error(path, number, entry)
    unknown = set(entry) - {"text", "calls", "usage"}
    if unknown or not entry:
        raise _bad_entry(
            path, number, f"unknown keys {sorted(map(str, unknown))}; it may have text, calls, usage"
        )
    calls = [_read_call(path, number, one) for one in entry.get("calls") or ()]
    message = assistant(str(entry.get("text") or ""), *calls)
    if "usage" not in entry:
        return message
    try:
        usage = Usage(requests=1, **entry["usage"])
    except (TypeError, ValueError) as exc:
        raise _bad_entry(path, number, f"its usage is wrong: {exc}") from exc
    return ChatResponse(message=message, usage=usage, finish_reason="tool_calls" if calls else "stop")


def _read_call(path: Path, number: int, entry: object) -> ToolCall:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise _bad_entry(path, number, f"a call needs a name: {entry!r}")
    arguments = entry.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)
    return ToolCall(
        id=str(entry.get("id") or f"call_{number}_{entry['name']}"), name=entry["name"], arguments=text
    )


def _read_error(path: Path, number: int, entry: Mapping[str, Any]) -> KernloomError:
    unknown = set(entry) - {"error", "code", "status", "retry_after"}
    if unknown:
        raise _bad_entry(path, number, f"unknown keys {sorted(map(str, unknown))}")
    return ProviderError(
        str(entry["error"]),
        code=entry.get("code"),
        status=entry.get("status"),
        retry_after=entry.get("retry_after"),
    )


def _bad_entry(path: Path, number: int, why: str) -> ConfigError:
    where = f"entry {number} of the script {str(path)!r}" if number else f"the script {str(path)!r}"
    return ConfigError(f"There is something wrong with {where}: {why}.", code="script.invalid")
