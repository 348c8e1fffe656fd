"""A file is replaced whole or not at all."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from kernloom.kernel.whole_file import replace_file


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_it_is_for_its_owner_alone_unless_said_otherwise(tmp_path: Path) -> None:
    replace_file(tmp_path / "keys", b"")
    replace_file(tmp_path / "lock", b"", mode=0o644)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("keys", "lock")]
    assert modes == [0o600, 0o644]


def test_what_cannot_take_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "kept").touch()
    with pytest.raises(OSError):  # noqa: PT011 - each system has its own
        replace_file(folder, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a folder"]
    assert (folder / "kept").exists()
