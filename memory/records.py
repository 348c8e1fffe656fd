"""What memory keeps and what a search returns.

A *document* is cut into *chunks*; a chunk has a *vector* when there is an embedder; a search returns
*hits*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..kernel.messages import line_range

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Document:
    """One source as text, before it is cut."""

    #: The caller's own id, or the path relative to the folder that was added.
    id: str
    #: Where a person finds it: a path or a URL.
    source: str
    #: The whole text; every span in memory counts its characters.
    text: str
    title: str = ""
    namespace: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document, small enough for the embedder."""

    #: The store's row id, stable while the chunk lives; 0 before it is stored.
    key: int
    document: str
    #: Where a person finds the document.
    source: str
    #: Position among the document's chunks, from 0.
    ordinal: int
    #: Character offsets into the document's text, end exclusive.
    start: int
    end: int
    #: 1-based lines, both inclusive.
    line_start: int
    line_end: int
    #: Headings above it, outermost first, joined with `` > ``.
    title: str
    #: Exactly ``document.text[start:end]``.
    text: str
    namespace: str = ""

    @property
    def place(self) -> str:
        """``travel.md:41-47``, as an editor or a person reads it."""
        return f"{self.source}:{line_range(self.line_start, self.line_end)}"


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a search found, and why."""

    chunk: Chunk
    #: Fused score; comparable within one search.
    score: float
    #: BM25 score, and its rank from 1 (None when no query term matches).
    keyword_score: float
    keyword_rank: int | None
    #: Cosine to the query, and its rank from 1 (None without an embedder).
    vector_score: float | None
    vector_rank: int | None


@runtime_checkable
class Embedder(Protocol):
    """Turns text into unit vectors. Synchronous and CPU-bound: memory calls it off the event loop."""

    @property
    def name(self) -> str:
        """Identifies model and version; vectors of different names never mix."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """An array of shape ``(len(texts), dimensions)``, every row of length 1."""
        ...


class ChunkSource(Protocol):
    """What an index is a projection of: the store, as far as search needs to know."""

    @property
    def revision(self) -> int:
        """Grows with every committed change; an index that has seen it is up to date."""
        ...

    def chunks(self) -> list[Chunk]:
        """Every live chunk in order of key."""
        ...

    def vectors(self, embedder: str) -> tuple[list[int], NDArray[np.float32]]:
        """Keys and their vectors, ``(n, dimensions)``, in order of key."""
        ...
