"""Documents in, grounded passages and checked citations out.

SQLite holds the truth; keyword and vector indexes follow it. Nothing heavy loads until it is used.
"""

from __future__ import annotations

from .embedding import find_embedder
from .ingest import AddReport
from .loaders import Skipped
from .memory import Memory, MemoryInfo
from .records import Chunk, Document, Embedder, Hit
from .search import SearchOptions
from .store import DocumentInfo

__all__ = [
    "AddReport",
    "Chunk",
    "Document",
    "DocumentInfo",
    "Embedder",
    "Hit",
    "Memory",
    "MemoryInfo",
    "SearchOptions",
    "Skipped",
    "find_embedder",
]
