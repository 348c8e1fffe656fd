"""Approximate nearest neighbours for large stores: Chroma's HNSW, as a projection of the store.

Chroma is neither process-safe nor crash-safe: two writers lose rows without an error, and a kill while it
saves can leave files that crash the next process that opens them. So nothing lives only here:

* one process holds the folder at a time, by a lock the operating system drops with the process;
* a watermark beside the index names the content it holds, and says *dirty* from before the first write
  until a query has gone through after the last. A dirty, missing, unreadable or miscounted index is built
  anew from the store in a fresh folder; the old one is never opened again;
* changed rows are deleted and added, never upserted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..kernel.errors import MemoryStoreError, MissingExtraError
from ..kernel.whole_file import replace_file
from .locks import writer_lock
from .records import Chunk
from .vector import spread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COLLECTION = "chunks"
#: Cosine space; search lists of twice the usual hundred candidates.
_CONFIGURATION = {
    "hnsw": {"space": "cosine", "ef_construction": 200, "ef_search": 200, "max_neighbors": 16}
}


class ChromaIndex:
    """A persistent HNSW index under ``path``, one folder per embedder.

    Args:
        path: a folder of this index's own; made when missing.
        embedder: the name of the embedder whose vectors these are.

    Raises:
        MissingExtraError: chromadb is not installed.
        MemoryStoreError: ``memory.locked`` when another process (or index) holds the folder.
    """

    def __init__(self, path: Path, embedder: str) -> None:
        try:
            import chromadb
        except ImportError as error:
            raise MissingExtraError("rag", "An index over this many chunks") from error
        self._chromadb: Any = chromadb
        self._embedder = embedder
        self._path = path / hashlib.blake2b(embedder.encode(), digest_size=6).hexdigest()
        self._path.mkdir(parents=True, exist_ok=True)
        self._held = contextlib.ExitStack()
        self._held.enter_context(writer_lock(self._path / "index.lock", wait=0))
        self._client: Any = None
        self._collection: Any = None
        self._keys: list[int] = []
        self._of_namespace: dict[str, list[int]] = {}
        self._samples: dict[tuple[int, str | None], NDArray[np.float32]] = {}

    def refresh(
        self, chunks: Sequence[Chunk], keys: Sequence[int], vectors: NDArray[np.float32], revision: int
    ) -> None:
        """Make the index hold exactly these vectors, by the smallest change or, in doubt, from nothing."""
        namespaces = {chunk.key: chunk.namespace for chunk in chunks}
        self._keys = list(keys)
        self._samples = {}
        self._of_namespace = {}
        for key in keys:
            self._of_namespace.setdefault(namespaces[key], []).append(key)
        digests = {
            str(key): _digest(namespaces[key], vector) for key, vector in zip(keys, vectors, strict=True)
        }
        wanted = _Content(
            digests, {str(k): namespaces[k] for k in keys}, dict(zip(map(str, keys), vectors, strict=True))
        )
        try:
            self._follow(wanted, revision)
        except Exception:  # whatever a broken index raises, the remedy is the same
            self._rebuild(wanted, revision)

    def nearest(self, query: NDArray[np.float32], n: int, namespace: str | None) -> list[int]:
        within = len(self._keys) if namespace is None else len(self._of_namespace.get(namespace, ()))
        n = min(n, within)
        if n < 1:
            return []
        where = None if namespace is None else {"namespace": namespace}
        found = self._collection.query(
            query_embeddings=[query.tolist()], n_results=n, where=where, include=[]
        )
        return [int(id) for id in found["ids"][0]]

    def fetch(self, keys: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        import numpy as np

        if not keys or self._collection is None:
            return {}
        found = self._collection.get(ids=[str(key) for key in keys], include=["embeddings"])
        vectors = np.asarray(found["embeddings"], dtype=np.float32)
        return {int(id): vector for id, vector in zip(found["ids"], vectors, strict=True)}

    def sample(self, n: int, namespace: str | None) -> NDArray[np.float32]:
        import numpy as np

        if (n, namespace) not in self._samples:
            keys = self._keys if namespace is None else self._of_namespace.get(namespace, [])
            found = self.fetch([keys[i] for i in spread(len(keys), n).tolist()])
            rows = [found[key] for key in sorted(found)]
            self._samples[n, namespace] = np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)
        return self._samples[n, namespace]

    def close(self) -> None:
        """Close the files and let the next process have the folder. Closing twice is allowed."""
        self._shut()
        self._held.close()

    # -- following the store -------------------------------------------------------------------------

    def _follow(self, wanted: _Content, revision: int) -> None:
        mark = self._read_mark()
        folder = self._path / str(mark.get("folder", ""))
        if mark.get("dirty", True) or not (folder / "chroma.sqlite3").is_file():
            return self._rebuild(wanted, revision)
        collection = self._collection or self._open(folder)
        if collection.count() != mark["count"]:
            return self._rebuild(wanted, revision)
        if mark["content"] == wanted.fingerprint:
            return self._probe(wanted)
        held = self._digests()
        stale = [id for id, digest in held.items() if wanted.digests.get(id) != digest]
        fresh = [id for id, digest in wanted.digests.items() if held.get(id) != digest]
        removed = mark["removed"] + len(stale)
        if removed > len(wanted.digests):
            # HNSW only marks what is deleted: past this, the graph is mostly graves.
            return self._rebuild(wanted, revision)
        self._write_mark({**mark, "dirty": True})
        for batch in self._batches(stale):
            collection.delete(ids=batch)
        self._add(wanted, fresh)
        self._probe(wanted)
        self._write_mark(self._mark(folder, wanted, revision, removed))

    def _rebuild(self, wanted: _Content, revision: int) -> None:
        self._shut()
        self._write_mark({"dirty": True})
        for old in self._path.glob("index-*"):
            shutil.rmtree(old, ignore_errors=True)
        folder = self._path / f"index-{uuid.uuid4().hex[:8]}"
        self._open(folder)
        self._add(wanted, list(wanted.digests))
        self._probe(wanted)
        self._write_mark(self._mark(folder, wanted, revision, 0))

    def _open(self, folder: Path) -> Any:
        settings = self._chromadb.Settings(anonymized_telemetry=False)
        self._client = self._chromadb.PersistentClient(path=str(folder), settings=settings)
        self._collection = self._client.get_or_create_collection(
            _COLLECTION, configuration=_CONFIGURATION, embedding_function=None
        )
        return self._collection

    def _shut(self) -> None:
        if self._client is not None:
            with contextlib.suppress(Exception):  # a client over broken files may not even close
                self._client.close()
        self._client = self._collection = None

    def _digests(self) -> dict[str, str]:
        held = self._collection.get(include=["metadatas"])
        return {id: str(meta["digest"]) for id, meta in zip(held["ids"], held["metadatas"], strict=True)}

    def _add(self, wanted: _Content, ids: list[str]) -> None:
        for batch in self._batches(ids):
            self._collection.add(
                ids=batch,
                embeddings=[wanted.vectors[id] for id in batch],
                metadatas=[
                    {"namespace": wanted.namespaces[id], "digest": wanted.digests[id]} for id in batch
                ],
            )

    def _batches(self, ids: list[str]) -> Iterator[list[str]]:
        size = min(2000, int(self._client.get_max_batch_size()))
        return (ids[i : i + size] for i in range(0, len(ids), size))

    def _probe(self, wanted: _Content) -> None:
        """One query goes through: the files can be read, and what Chroma puts off until then is done."""
        if wanted.digests:
            vector = next(iter(wanted.vectors.values()))
            if not self._collection.query(query_embeddings=[vector.tolist()], n_results=1, include=[])[
                "ids"
            ][0]:
                raise MemoryStoreError("The vector index answers nothing.", code="memory.index_broken")

    # -- the watermark -------------------------------------------------------------------------------

    def _mark(self, folder: Path, wanted: _Content, revision: int, removed: int) -> dict[str, Any]:
        return {
            "folder": folder.name,
            "embedder": self._embedder,
            "revision": revision,
            "content": wanted.fingerprint,
            "count": len(wanted.digests),
            "removed": removed,
            "dirty": False,
        }

    def _read_mark(self) -> dict[str, Any]:
        try:
            mark = json.loads((self._path / "watermark.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return mark if isinstance(mark, dict) else {}

    def _write_mark(self, mark: dict[str, Any]) -> None:
        replace_file(self._path / "watermark.json", json.dumps(mark).encode())


class _Content:
    """What the index should hold, by id."""

    def __init__(
        self, digests: dict[str, str], namespaces: dict[str, str], vectors: dict[str, NDArray[np.float32]]
    ) -> None:
        self.digests = digests
        self.namespaces = namespaces
        self.vectors = vectors
        lines = "\n".join(f"{id} {digest}" for id, digest in sorted(digests.items()))
        self.fingerprint = hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def _digest(namespace: str, vector: NDArray[np.float32]) -> str:
    return hashlib.blake2b(vector.tobytes() + namespace.encode(), digest_size=12).hexdigest()
