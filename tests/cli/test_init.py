"""``init`` writes a file that says everything and changes nothing."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from kernloom.cli.init import template
from kernloom.kernel.config.config import Config
from kernloom.kernel.config.settings import ANY, SETTINGS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


def uncommented(text: str) -> str:
    """The file with its settings (not its prose) switched on."""
    lines = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        is_setting = line.startswith("# ") and (" = " in bare or bare.startswith("["))
        lines.append(bare if is_setting else line)
    return "\n".join(lines)


def test_the_file_as_written_changes_nothing(tmp_path: Path) -> None:
    home = {"KERNLOOM_HOME": str(tmp_path / "home")}
    before = Config.load(tmp_path, env=home)
    (tmp_path / "kernloom.toml").write_text(template())
    after = Config.load(tmp_path, env=home)
    assert after.settings == before.settings
    assert after.project == tmp_path


def test_every_setting_stands_in_the_file_and_is_valid_when_switched_on(tmp_path: Path) -> None:
    text = uncommented(template())
    table = tomllib.loads(text)
    for spec in SETTINGS:
        assert spec.key[0] in table
        if spec.key[-1] != ANY:
            assert f"{spec.key[-1]} = " in text
    (tmp_path / "kernloom.toml").write_text(text)
    Config.load(tmp_path, env={"KERNLOOM_HOME": str(tmp_path / "home")})


def test_init_never_overwrites(run: Run, project: Path) -> None:
    before = (project / "kernloom.toml").read_text()
    done = run("init")
    assert done.code == 2
    assert "init.exists" in done.err
    assert (project / "kernloom.toml").read_text() == before


def test_init_adds_its_line_to_gitignore_once_and_keeps_the_rest(run: Run, project: Path) -> None:
    (project / "kernloom.toml").unlink()
    (project / ".gitignore").write_text("build/")
    assert run("init").code == 0
    assert (project / ".gitignore").read_text() == "build/\n.kernloom/\n"
    (project / "kernloom.toml").unlink()
    assert run("init").code == 0
    assert (project / ".gitignore").read_text() == "build/\n.kernloom/\n"


def test_init_can_make_the_folder(run: Run, project: Path) -> None:
    done = run("init", "new/assistant", "--json")
    assert done.code == 0
    assert (project / "new" / "assistant" / "kernloom.toml").is_file()
    assert len(done.json["created"]) == 2


def test_a_gitignore_in_another_encoding_is_no_hindrance(run: Run, project: Path) -> None:
    (project / "new").mkdir()
    (project / "new" / ".gitignore").write_bytes(b"caf\xe9/\n")
    assert run("init", "new").code == 0
    assert (project / "new" / ".gitignore").read_bytes() == b"caf\xe9/\n.kernloom/\n"
