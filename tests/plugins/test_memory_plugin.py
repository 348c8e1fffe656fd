from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kernloom import Kernel, Memory, ModelRetry
from kernloom.kernel.config.config import Config
from kernloom.plugins.memory import MemoryPlugin

LIMITS = "Travel above 2000 euros is approved by the department head in writing."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "kernloom.toml").write_text("[memory]\nembedder = 'none'\n", encoding="utf-8")
    return tmp_path


async def test_what_is_remembered_is_found_with_its_place(project: Path) -> None:
    async with Kernel(config=Config.load(project, env={})) as kernel:
        assert await kernel.invoke("memory.search", query="travel") == []
        assert not (project / ".kernloom").exists()  # looking makes no files
        assert await kernel.invoke("memory.remember", text=LIMITS, title="Travel") == "Remembered."
        assert await kernel.invoke("memory.remember", text=LIMITS, title="Travel") == (
            "That was remembered already."
        )
        (found,) = await kernel.invoke("memory.search", query="who approves travel")
        assert found["text"] == LIMITS
        assert found["place"].endswith(":1")
    assert (project / ".kernloom" / "memory.db").exists()
    async with Kernel(config=Config.load(project, env={})) as again:
        assert len(await again.invoke("memory.search", query="travel")) == 1


async def test_a_memory_given_in_code_stays_its_owners() -> None:
    async with Memory(embedder=None) as memory:
        await memory.add_text(LIMITS, id="limits")
        async with Kernel() as kernel:
            kernel.add_plugin(MemoryPlugin(memory))
            assert len(await kernel.invoke("memory.search", query="department head", k=1)) == 1
        assert len(await memory.list()) == 1


async def test_settings_name_another_database(project: Path) -> None:
    with (project / "kernloom.toml").open("a") as file:
        file.write("[plugins.memory]\npath = 'notes.db'\n")
    async with Kernel(config=Config.load(project, env={})) as kernel:
        await kernel.invoke("memory.remember", text=LIMITS)
    assert (project / "notes.db").exists()
    assert not (project / ".kernloom").exists()


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("memory.search", {"query": " "}, "query is empty"),
        ("memory.search", {"query": "x", "k": 0}, "1 to 50"),
        ("memory.remember", {"text": ""}, "text is empty"),
    ],
)
async def test_slips_are_answered_in_words(
    project: Path, name: str, arguments: dict[str, Any], words: str
) -> None:
    async with Kernel(config=Config.load(project, env={})) as kernel:
        with pytest.raises(ModelRetry, match=words):
            await kernel.invoke(name, **arguments)


async def test_remembering_is_a_change_and_searching_is_not(project: Path) -> None:
    async with Kernel(config=Config.load(project, env={})) as kernel:
        assert kernel.function("memory.remember").changes
        assert not kernel.function("memory.search").changes
