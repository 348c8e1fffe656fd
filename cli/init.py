"""``kernloom init``: a project begins with one file, and nothing that was there is touched."""

from __future__ import annotations

from pathlib import Path

import click

from ..kernel.config.config import FILE
from ..kernel.config.settings import ANY, SETTINGS, Key, Spec
from ..kernel.errors import UsageError
from .commands import Command
from .screen import Screen

_HEAD = """\
# kernloom's settings for this project. Every line shows its default or an example.
# Flags and environment variables win over this file: KERNLOOM_MODEL__DEFAULT sets model.default.
# Keys never live here: kernloom keys set openai
"""

#: What a reader might write where the table has no default to show.
_EXAMPLES: dict[Key, str] = {
    ("model", "default"): '"openai:gpt-4.1-mini"',
    ("models", ANY, "base_url"): '"http://localhost:11434/v1"',
    ("models", ANY, "timeout"): "60",
    ("models", ANY, "max_retries"): "2",
    ("memory", "path"): '"handbook.db"',
    ("plugins", "disable"): '["weather"]',
    ("policy", "functions", ANY): '"ask"',
    ("limits", "rounds"): "20",
    ("limits", "calls"): "60",
    ("limits", "result_chars"): "40000",
    ("limits", "output_tokens"): "2000",
}
_NAMES: dict[Key, str] = {
    ("models", ANY): "models.openai",
    ("plugins", ANY): "plugins.weather",
    ("policy", "functions"): "policy.functions",
}


@click.command(cls=Command)
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.pass_obj
def init(screen: Screen, folder: Path) -> None:
    """Start a project here: a commented kernloom.toml.

    Writes kernloom.toml and adds .kernloom/ to .gitignore. Never overwrites.
    """
    path = folder / FILE
    if path.exists():
        raise UsageError(
            f"{path} is there already; nothing was changed.",
            code="init.exists",
            hint="Edit it, or see what holds: kernloom config show --origin.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(template())
    made = [str(path)]
    if _ignore(folder / ".gitignore"):
        made.append(str(folder / ".gitignore"))
    screen.result({"created": made}, f"Wrote {' and '.join(made)}.")
    screen.note(
        "\nNext:\n"
        "  kernloom memory add docs/            your documents; they stay on this machine\n"
        '  kernloom ask "your question"         quotes them, with file and line\n'
        "  kernloom keys set openai             when a model shall write the answers"
    )


def template() -> str:
    """The commented ``kernloom.toml``: every setting there is, made from the table of settings."""
    lines = [_HEAD]
    above: Key | None = None
    for spec in SETTINGS:
        if spec.key[:-1] != above:
            above = spec.key[:-1]
            lines.append(f"\n{_header(above)}")
        lines.append(_line(spec))
    return "\n".join(lines) + "\n"


def _header(table: Key) -> str:
    """Tables with a name of the reader's choice are commented out: an empty one means nothing."""
    name = _NAMES.get(table)
    return f"# [{name}]" if name else f"[{table[0]}]"


def _line(spec: Spec) -> str:
    name = spec.key[-1]
    if name == ANY:
        name = '"files.*"' if spec.key[0] == "policy" else "units"
    example = _EXAMPLES.get(spec.key) or _shown(spec.default)
    return f"# {name} = {example}".ljust(44) + f"# {spec.about}"


def _shown(default: object) -> str:
    if isinstance(default, str):
        return f'"{default}"'
    if isinstance(default, bool):
        return str(default).lower()
    return '"metric"' if default is None else str(default)


def _ignore(path: Path) -> bool:
    """Add our line to ``.gitignore`` unless it is there; True when something was written."""
    # Whatever its encoding: only our own line is looked for, and it is ASCII.
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    if any(line.strip().strip("/") == ".kernloom" for line in text.splitlines()):
        return False
    gap = "" if not text or text.endswith("\n") else "\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{gap}.kernloom/\n")
    return True
