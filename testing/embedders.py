"""An embedder for tests: real vectors, no model, the same on every machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


class HashEmbedder:
    """Feature hashing: every word adds ±1 to one of ``dimensions`` places, by its hash.

    Texts that share words are near each other, as with a real embedder; synonyms are not. ``calls`` keeps
    every batch that was asked for, so a test can claim that nothing was embedded twice.

    Source: Weinberger et al., Feature Hashing for Large Scale Multitask Learning, 2009.
    """

    def __init__(self, dimensions: int = 256, *, name: str | None = None) -> None:
        self._dimensions = dimensions
        self._name = name or f"hash-{dimensions}"
        self.calls: list[list[str]] = []

    @property
    def name(self) -> str:
        """``hash-256`` unless given."""
        return self._name

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors; a text without words is the first axis."""
        import numpy as np

        self.calls.append(list(texts))
        vectors = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for at, text in enumerate(texts):
            for word in _WORD.findall(text.lower()):
                digest = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
                vectors[at, (digest >> 1) % self._dimensions] += 1.0 if digest & 1 else -1.0
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[lengths[:, 0] == 0, 0] = 1.0
        vectors /= np.where(lengths == 0, np.float32(1), lengths)
        return vectors
