"""Memory as functions: a model that is not given passages can look for them, and keep what it is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from ..kernel.errors import ModelRetry
from ..kernel.functions import Context, function

if TYPE_CHECKING:
    from ..kernel.config.config import Config
    from ..memory import Memory

#: Most passages one search gives back.
MAX_PASSAGES = 50


class MemorySettings(BaseModel):
    """``[plugins.memory]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: The database; ``[memory] path`` by default. A relative path is the project's.
    path: Path | None = None


class FoundPassage(TypedDict):
    """One passage, as a model or a plan reads it."""

    text: str
    #: ``travel.md:41-47``.
    place: str
    #: The headings above it.
    title: str
    score: float


class MemoryPlugin:
    """Search what is remembered, and remember more.

    Args:
        memory: use this one, and leave closing it to its owner; by default the project's is opened.
        settings: see :class:`MemorySettings`.
    """

    name = "memory"
    Settings = MemorySettings

    def __init__(self, memory: Memory | None = None, *, settings: MemorySettings | None = None) -> None:
        self._given = memory
        self._settings = settings or MemorySettings()
        self._opened: Memory | None = None

    @function(effects={"read"})
    async def search(self, query: str, context: Context, k: int = 8) -> list[FoundPassage]:
        """Find passages in the documents that were added to memory; the best first.

        Args:
            query: What to look for, in plain words.
            k: How many passages at most.
        """
        if not query.strip():
            raise ModelRetry("query is empty.", hint="Say what to look for.")
        if not 1 <= k <= MAX_PASSAGES:
            raise ModelRetry(f"k is {k}; 1 to {MAX_PASSAGES} are possible.")
        if self._given is None and not self._path(context.kernel.config).exists():
            return []  # nothing was ever added, and reading makes no files
        hits = await self._memory(context.kernel.config).search(query, k)
        return [
            {
                "text": hit.chunk.text,
                "place": hit.chunk.place,
                "title": hit.chunk.title,
                "score": round(hit.score, 4),
            }
            for hit in hits
        ]

    @function(effects={"write"})
    async def remember(self, text: str, context: Context, title: str = "") -> str:
        """Keep a text, so that later searches find it. The same text is kept once.

        Args:
            text: What to remember, in sentences that make sense on their own.
            title: What it is about, in a few words.
        """
        if not text.strip():
            raise ModelRetry("text is empty.", hint="Say what to remember.")
        report = await self._memory(context.kernel.config).add_text(text, title=title)
        return "Remembered." if report.added or report.updated else "That was remembered already."

    async def aclose(self) -> None:
        """Close the memory that was opened here."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()

    def _path(self, config: Config) -> Path:
        chosen = self._settings.path
        if chosen is None:
            return config.memory_path
        return (config.project or Path.cwd()) / chosen.expanduser()

    def _memory(self, config: Config) -> Memory:
        if self._given is not None:
            return self._given
        if self._opened is None:
            from ..memory import Memory  # the database and its searchers load when somebody asks

            path = self._path(config)
            if path.parent == config.state_dir:
                config.make_state_dir()
            self._opened = Memory(path, embedder=config.get("memory.embedder"))
        return self._opened
