"""Keys: from the environment or a file only its owner reads; never shown, never lost."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from kernloom.kernel.config import keys
from kernloom.kernel.errors import ConfigError

posix = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")


def test_a_key_that_was_set_is_found_again(tmp_path: Path) -> None:
    keys.set("openai", "sk-one\n", tmp_path)
    keys.set("gateway", "two", tmp_path)
    assert keys.get("openai", tmp_path, env={}) == "sk-one"
    assert keys.get("gateway", tmp_path, env={}) == "two"
    assert keys.get("other", tmp_path, env={}) is None


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    keys.set("openai", "from-file", tmp_path)
    assert keys.get("openai", tmp_path, env={"OPENAI_API_KEY": "from-env"}) == "from-env"
    assert keys.get("openai", tmp_path, env={"OPENAI_API_KEY": " "}) == "from-file"


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "OPENAI_API_KEY"),
        ("azure-openai", "AZURE_OPENAI_API_KEY"),
        ("openai@gateway.example:8443", "OPENAI_GATEWAY_EXAMPLE_8443_API_KEY"),
    ],
)
def test_a_providers_variable_is_its_name_in_capitals(provider: str, name: str) -> None:
    assert keys.variable(provider) == name


@posix
def test_the_file_is_for_its_owner_alone_from_its_first_byte(tmp_path: Path) -> None:
    path = keys.set("openai", "sk-one", tmp_path / "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


@posix
def test_a_file_that_others_can_read_is_refused_and_can_be_repaired(tmp_path: Path) -> None:
    path = keys.set("openai", "sk-one", tmp_path)
    path.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        keys.get("openai", tmp_path, env={})
    assert caught.value.code == "keys.mode"
    assert "0644" in caught.value.message
    assert keys.repair(tmp_path)
    assert not keys.repair(tmp_path)
    assert keys.get("openai", tmp_path, env={}) == "sk-one"


def test_a_list_says_where_and_never_what(tmp_path: Path) -> None:
    keys.set("openai", "sk-secret", tmp_path)
    keys.set("gateway", "also-secret", tmp_path)
    found = keys.list(tmp_path, env={"OPENAI_API_KEY": "env-secret", "HOME": "/"})
    assert {entry.provider: entry.where for entry in found} == {
        "gateway": str(tmp_path / "keys.json"),
        "openai": "env OPENAI_API_KEY",
    }
    assert "secret" not in repr(found)


@pytest.mark.parametrize("bad", ["{", "[]", '{"openai": 3}', "\udcff"])
def test_a_damaged_file_is_refused_without_quoting_it(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(bad.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        keys.set("openai", "sk-one", tmp_path)
    assert caught.value.code == "keys.corrupt"
    assert path.read_bytes() == bad.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("bad", ["", "  ", "two words", "line\nbreak", "bell\x07"])
def test_what_cannot_be_a_key_changes_nothing(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError):
        keys.set("openai", bad, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_key_can_be_forgotten(tmp_path: Path) -> None:
    keys.set("openai", "sk-one", tmp_path)
    assert keys.remove("openai", tmp_path)
    assert not keys.remove("openai", tmp_path)
    assert json.loads((tmp_path / "keys.json").read_text()) == {}
