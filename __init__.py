"""kernloom: a plugin-based semantic kernel with grounded memory.

Every public name can be imported from here; nothing loads until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .kernel.agents.assistant import AssistantAgent
    from .kernel.agents.limits import Limits
    from .kernel.agents.reply import Reply
    from .kernel.config.config import Config
    from .kernel.conversations.conversation import Conversation
    from .kernel.errors import (
        ApprovalRequired,
        ConfigError,
        FunctionDenied,
        FunctionError,
        FunctionFailed,
        FunctionInDoubt,
        FunctionTimeout,
        JournalError,
        KernloomError,
        LimitReached,
        MemoryStoreError,
        MissingExtraError,
        ModelRetry,
        NotFoundError,
        PlanError,
        PluginError,
        ProviderError,
        StoreError,
        UsageError,
    )
    from .kernel.functions import Context, Function, function
    from .kernel.journal import InMemoryJournalStore, Journal, SqliteJournalStore
    from .kernel.kernel import Kernel
    from .kernel.messages import (
        Citation,
        Grounding,
        Message,
        Passage,
        ToolCall,
        ToolResult,
        Usage,
    )
    from .kernel.models.base import ChatModel
    from .kernel.models.scripted import ScriptedModel
    from .kernel.policy import ApprovalRequest, Policy
    from .kernel.prompts.prompts import prompt
    from .kernel.protocols import Grounder, Planner
    from .memory.memory import Memory
    from .memory.records import Document, Embedder, Hit
    from .planners.plan import Plan
    from .planners.stepwise import StepwisePlanner

    __version__: str

#: Where each public name lives.
_ROOMS = {
    "kernel.agents.assistant": ("AssistantAgent",),
    "kernel.agents.limits": ("Limits",),
    "kernel.agents.reply": ("Reply",),
    "kernel.config": ("Config",),
    "kernel.conversations.conversation": ("Conversation",),
    "kernel.errors": (
        "ApprovalRequired", "ConfigError", "FunctionDenied", "FunctionError", "FunctionFailed",
        "FunctionInDoubt", "FunctionTimeout", "JournalError", "KernloomError", "LimitReached",
        "MemoryStoreError", "MissingExtraError", "ModelRetry", "NotFoundError", "PlanError", "PluginError",
        "ProviderError", "StoreError", "UsageError",
    ),
    "kernel.functions": ("Context", "Function", "function"),
    "kernel.journal": ("InMemoryJournalStore", "Journal", "SqliteJournalStore"),
    "kernel.kernel": ("Kernel",),
    "kernel.messages": ("Citation", "Grounding", "Message", "Passage", "ToolCall", "ToolResult", "Usage"),
    "kernel.models.base": ("ChatModel",),
    "kernel.models.scripted": ("ScriptedModel",),
    "kernel.policy": ("ApprovalRequest", "Policy"),
    "kernel.prompts": ("prompt",),
    "kernel.protocols": ("Grounder", "Planner"),
    "memory.memory": ("Memory",),
    "memory.records": ("Document", "Embedder", "Hit"),
    "planners.plan": ("Plan",),
    "planners.stepwise": ("StepwisePlanner",),
}  # fmt: skip
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
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


def __getattr__(name: str) -> Any:
    """Load a public name on first use, and keep it."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("kernloom")
    elif name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    else:
        raise AttributeError(f"module 'kernloom' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
