"""Nearest neighbours by cosine, exactly: one matrix in memory.

Up to some ten thousand chunks this is faster than an approximate index and needs none on disk; beyond it
:mod:`.chroma` takes over behind the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .fusion import top
from .records import Chunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class VectorIndex(Protocol):
    """Vectors by chunk key. Both implementations answer the same to within the approximation of theirs."""

    def refresh(
        self, chunks: Sequence[Chunk], keys: Sequence[int], vectors: NDArray[np.float32], revision: int
    ) -> None:
        """Hold exactly these vectors; ``keys`` belong to ``chunks`` and may be fewer."""
        ...

    def nearest(self, query: NDArray[np.float32], n: int, namespace: str | None) -> list[int]:
        """Keys of the ``n`` chunks nearest to the unit vector ``query``, best first."""
        ...

    def fetch(self, keys: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """The vectors of those of ``keys`` that have one."""
        ...

    def sample(self, n: int, namespace: str | None) -> NDArray[np.float32]:
        """A fixed sample of at most ``n`` vectors, the same one until the next refresh."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class ExactIndex:
    """All vectors in one matrix. A query over 10,000 of 384 dimensions costs about a millisecond."""

    def __init__(self) -> None:
        self._keys: list[int] = []
        self._rows: dict[int, int] = {}
        self._of_namespace: dict[str, list[int]] = {}
        self._matrix: NDArray[np.float32] | None = None

    def refresh(
        self, chunks: Sequence[Chunk], keys: Sequence[int], vectors: NDArray[np.float32], revision: int
    ) -> None:
        namespaces = {chunk.key: chunk.namespace for chunk in chunks}
        self._keys = list(keys)
        self._rows = {key: row for row, key in enumerate(keys)}
        self._matrix = vectors
        self._of_namespace = {}
        for row, key in enumerate(keys):
            self._of_namespace.setdefault(namespaces[key], []).append(row)

    def nearest(self, query: NDArray[np.float32], n: int, namespace: str | None) -> list[int]:
        rows, vectors = self._within(namespace)
        if vectors is None or not len(vectors):
            return []
        best = top((vectors @ query).astype(float), n)
        return [self._keys[position if rows is None else rows[position]] for position in best.tolist()]

    def fetch(self, keys: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        if self._matrix is None:
            return {}
        return {key: self._matrix[self._rows[key]] for key in keys if key in self._rows}

    def sample(self, n: int, namespace: str | None) -> NDArray[np.float32]:
        import numpy as np

        _, vectors = self._within(namespace)
        if vectors is None:
            return np.zeros((0, 0), dtype=np.float32)
        return vectors[spread(len(vectors), n)]

    def close(self) -> None:
        """Nothing to let go of."""

    def _within(self, namespace: str | None) -> tuple[list[int] | None, NDArray[np.float32] | None]:
        """The rows of a namespace and their vectors; ``None`` for all rows."""
        if namespace is None or self._matrix is None:
            return None, self._matrix
        rows = self._of_namespace.get(namespace, [])
        if len(rows) == len(self._keys):
            return None, self._matrix
        return rows, self._matrix[rows]


def spread(size: int, n: int) -> NDArray[np.int64]:
    """At most ``n`` positions spread evenly over ``size``."""
    import numpy as np

    if size <= n:
        return np.arange(size)
    return (np.arange(n) * size) // n
