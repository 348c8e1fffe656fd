"""The public door: which names stand in it, and that opening it loads nothing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kernloom

HEAVY = (
    "openai",
    "numpy",
    "chromadb",
    "torch",
    "sentence_transformers",
    "rank_bm25",
    "trafilatura",
    "pypdf",
)

#: The public names. A change here is a change of the API: say it in the changelog.
NAMES = [
    "ApprovalRequest",
    "ApprovalRequired",
    "AssistantAgent",
    "ChatModel",
    "Citation",
    "Config",
    "ConfigError",
    "Context",
    "Conversation",
    "Document",
    "Embedder",
    "Function",
    "FunctionDenied",
    "FunctionError",
    "FunctionFailed",
    "FunctionInDoubt",
    "FunctionTimeout",
    "Grounder",
    "Grounding",
    "Hit",
    "InMemoryJournalStore",
    "Journal",
    "JournalError",
    "Kernel",
    "KernloomError",
    "LimitReached",
    "Limits",
    "Memory",
    "MemoryStoreError",
    "Message",
    "MissingExtraError",
    "ModelRetry",
    "NotFoundError",
    "Passage",
    "Plan",
    "PlanError",
    "Planner",
    "PluginError",
    "Policy",
    "ProviderError",
    "Reply",
    "ScriptedModel",
    "SqliteJournalStore",
    "StepwisePlanner",
    "StoreError",
    "ToolCall",
    "ToolResult",
    "Usage",
    "UsageError",
    "__version__",
    "function",
    "prompt",
]


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh Python has loaded after running ``code``."""
    script = (
        f"import sys, json\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    return set(json.loads(found.stdout.splitlines()[-1]))


def test_the_exported_names_are_frozen() -> None:
    assert kernloom.__all__ == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_in_the_door_is_there(name: str) -> None:
    assert getattr(kernloom, name) is not None


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse(Path(kernloom.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {"__version__"}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            seen |= {alias.name for alias in node.names}
    assert seen == set(kernloom.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Kernal'"):
        _ = kernloom.Kernal  # codespell:ignore


def test_dir_shows_the_door() -> None:
    assert set(NAMES) <= set(dir(kernloom))


def test_importing_kernloom_loads_nothing_heavy() -> None:
    assert loaded_after("import kernloom").isdisjoint({*HEAVY, "pydantic", "click", "jinja2", "asyncio"})


def test_the_help_loads_nothing_heavy_and_no_pydantic() -> None:
    code = "from kernloom.cli import main\nmain(['--help'])"
    assert loaded_after(code).isdisjoint({*HEAVY, "pydantic", "jinja2"})


def test_a_kernel_and_an_agent_load_nothing_heavy() -> None:
    assert loaded_after("from kernloom import AssistantAgent, Kernel").isdisjoint({*HEAVY, "jinja2"})


def test_memory_loads_nothing_heavy_before_it_is_used() -> None:
    assert loaded_after("from kernloom import Memory").isdisjoint(HEAVY)
