"""The truth of a memory: documents, their chunks and vectors in one SQLite file.

A document is committed whole or not at all. Keyword and vector indexes are projections: they follow
:attr:`MemoryStore.revision` and can be rebuilt from here at any time.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..kernel.errors import MemoryStoreError
from .locks import writer_lock
from .places import Shelf
from .records import Chunk, Document
from .schema import database_errors, file_errors, open_database

if TYPE_CHECKING:
    import sqlite3

    import numpy as np
    from numpy.typing import NDArray


class _Run(Protocol):
    def __call__(self, sql: str, parameters: Sequence[object] = ..., /) -> sqlite3.Cursor: ...


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A stored document, without its text."""

    id: str
    source: str
    title: str
    namespace: str
    characters: int
    chunks: int
    #: Of the stored text, as UTF-8.
    sha256: str
    added_at: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written for one document."""

    document: Document
    chunks: Sequence[Chunk]
    #: One for each chunk: the hash of what is embedded for it.
    hashes: Sequence[bytes]
    #: Tells whether the document must be written again.
    fingerprint: bytes
    #: The file it came from, and the folder or file that was added; None for text and records.
    origin: str | None = None
    root: str | None = None


class Stored(NamedTuple):
    """What a sync compares with."""

    key: int
    id: str
    source: str
    fingerprint: bytes
    origin: str | None
    root: str | None


class Counts(NamedTuple):
    """How much there is."""

    documents: int
    chunks: int
    characters: int


class MemoryStore:
    """Opens the memory at ``path`` (None: kept in this process only). Thread-safe; implements ChunkSource.

    Many processes may read one file; one writes at a time, see :meth:`writing`.
    """

    def __init__(
        self, path: Path | None = None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ):
        self.path = path
        self._now = now
        self._connection, self.writable = open_database(path)
        self._access = threading.RLock()
        self._writers = threading.RLock()
        self._writing = 0

    # -- reading -----------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Grows with every committed change, also when another process made it."""
        with self._reading() as run:
            return int(run("SELECT value FROM meta WHERE key = 'revision'").fetchone()[0])

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within the block, this thread reads one revision, whatever others commit meanwhile."""
        with self._reading():
            yield

    def chunks(self) -> list[Chunk]:
        """Every live chunk, in order of key."""
        with self._reading() as run:
            documents = {
                key: rest for key, *rest in run("SELECT key, id, source, namespace, text FROM documents")
            }
            rows = run(
                'SELECT key, document, ordinal, start, "end", line_start, line_end, title'
                " FROM chunks ORDER BY key"
            ).fetchall()
        chunks = []
        for key, owner, ordinal, start, end, line_start, line_end, title in rows:
            document, source, namespace, text = documents[owner]
            span = text[start:end]
            chunks.append(
                Chunk(
                    key, document, source, ordinal, start, end, line_start, line_end, title, span, namespace
                )
            )
        return chunks

    def vectors(self, embedder: str) -> tuple[list[int], NDArray[np.float32]]:
        """Keys and vectors of the chunks that ``embedder`` has seen, in order of key."""
        import numpy as np

        with self._reading() as run:
            found = run("SELECT dimensions FROM embedders WHERE name = ?", (embedder,)).fetchone()
            rows = run(
                "SELECT c.key, v.vector FROM chunks c JOIN vectors v ON v.hash = c.hash"
                " JOIN embedders e ON e.key = v.embedder WHERE e.name = ? ORDER BY c.key",
                (embedder,),
            ).fetchall()
        blob = b"".join(vector for _, vector in rows)
        array = np.frombuffer(blob, dtype="<f4").astype(np.float32)
        return [key for key, _ in rows], array.reshape(len(rows), found[0] if found else 0)

    def documents(self, namespace: str | None = None) -> list[DocumentInfo]:
        """Everything stored, by namespace and id."""
        with self._reading() as run:
            rows = run(
                "SELECT d.id, d.source, d.title, d.namespace, d.characters, count(c.key), d.sha256,"
                " d.added_at, d.metadata FROM documents d LEFT JOIN chunks c ON c.document = d.key"
                " WHERE ?1 IS NULL OR d.namespace = ?1 GROUP BY d.key ORDER BY d.namespace, d.id",
                (namespace,),
            ).fetchall()
        return [
            DocumentInfo(
                *(identity, source, title, owner, characters, chunks, sha256),
                added_at=datetime.fromisoformat(at),
                metadata=json.loads(metadata),
            )
            for identity, source, title, owner, characters, chunks, sha256, at, metadata in rows
        ]

    def text(self, document: str, namespace: str | None = None) -> str | None:
        """The stored text of a document; None when there is none, or when its hash does not fit."""
        with self._reading() as run:
            row = run(
                "SELECT text, sha256 FROM documents WHERE id = ?1 AND (?2 IS NULL OR namespace = ?2)"
                " ORDER BY namespace LIMIT 1",
                (document, namespace),
            ).fetchone()
        return row[0] if row and row[1] == text_hash(row[0]) else None

    def text_of_chunk(self, key: int, namespace: str | None = None) -> tuple[str, str] | None:
        """Id and text of the document a chunk belongs to; None as for :meth:`text`."""
        with self._reading() as run:
            row = run(
                "SELECT d.id, d.text, d.sha256 FROM documents d JOIN chunks c ON c.document = d.key"
                " WHERE c.key = ?1 AND (?2 IS NULL OR d.namespace = ?2)",
                (key, namespace),
            ).fetchone()
        return (row[0], row[1]) if row and row[2] == text_hash(row[1]) else None

    def stored(self, namespace: str) -> list[Stored]:
        """What a sync of ``namespace`` compares with."""
        with self._reading() as run:
            rows = run(
                "SELECT key, id, source, fingerprint, origin, root FROM documents WHERE namespace = ?",
                (namespace,),
            ).fetchall()
        return [Stored(*row) for row in rows]

    def matching(self, what: str, namespace: str | None = None) -> list[int]:
        """Keys of the documents with this id or source, or in this folder, as it was given or as it is."""
        shelf = Shelf(self.path)
        folder = Path(what).expanduser().resolve()
        inside = what.replace("\\", "/").rstrip("/") + "/"
        with self._reading() as run:
            rows = run(
                "SELECT key, id, source, origin FROM documents WHERE ?1 IS NULL OR namespace = ?1",
                (namespace,),
            ).fetchall()
        return [
            key
            for key, identity, source, origin in rows
            if what in (identity, source)
            or source.startswith(inside)
            or (origin is not None and shelf.path(origin).is_relative_to(folder))
        ]

    def counts(self, namespace: str | None = None) -> Counts:
        """Documents, chunks and characters."""
        with self._reading() as run:
            where = "WHERE ?1 IS NULL OR d.namespace = ?1"
            documents, characters = run(
                f"SELECT count(*), coalesce(sum(characters), 0) FROM documents d {where}",  # noqa: S608
                (namespace,),
            ).fetchone()
            (chunks,) = run(
                f"SELECT count(*) FROM chunks c JOIN documents d ON d.key = c.document {where}",  # noqa: S608
                (namespace,),
            ).fetchone()
        return Counts(documents, chunks, characters)

    def has_vectors(self, embedder: str) -> bool:
        """Whether ``embedder`` has seen anything that is stored."""
        sql = "SELECT 1 FROM vectors v JOIN embedders e ON e.key = v.embedder WHERE e.name = ? LIMIT 1"
        with self._reading() as run:
            return run(sql, (embedder,)).fetchone() is not None

    def count_embedded(self, embedder: str, namespace: str | None = None) -> int:
        """Chunks that have a vector of ``embedder``."""
        with self._reading() as run:
            row = run(
                "SELECT count(*) FROM chunks c JOIN documents d ON d.key = c.document JOIN vectors v"
                " ON v.hash = c.hash JOIN embedders e ON e.key = v.embedder"
                " WHERE e.name = ?1 AND (?2 IS NULL OR d.namespace = ?2)",
                (embedder, namespace),
            ).fetchone()
        return int(row[0])

    def embedded(self, hashes: Iterable[bytes], embedder: str) -> set[bytes]:
        """Those of ``hashes`` that have a vector of ``embedder``."""
        sql = (
            "SELECT 1 FROM vectors v JOIN embedders e ON e.key = v.embedder WHERE v.hash = ? AND e.name = ?"
        )
        with self._reading() as run:
            return {h for h in set(hashes) if run(sql, (h, embedder)).fetchone()}

    def unembedded(self, embedder: str, *, limit: int) -> list[tuple[bytes, str, str]]:
        """Up to ``limit`` of (hash, title, text) of chunks that ``embedder`` has not seen."""
        with self._reading() as run:
            rows = run(
                'SELECT c.hash, c.title, c.start, c."end", c.document FROM chunks c WHERE NOT EXISTS ('
                "SELECT 1 FROM vectors v JOIN embedders e ON e.key = v.embedder"
                " WHERE v.hash = c.hash AND e.name = ?) GROUP BY c.hash ORDER BY c.key LIMIT ?",
                (embedder, limit),
            ).fetchall()
            owners = {row[4] for row in rows}
            texts = {k: run("SELECT text FROM documents WHERE key = ?", (k,)).fetchone()[0] for k in owners}
        return [(digest, title, texts[owner][start:end]) for digest, title, start, end, owner in rows]

    # -- writing -----------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one writer while the block runs. Threads wait for each other, processes do not.

        Raises:
            MemoryStoreError: ``memory.locked`` when another process writes; ``memory.readonly``.
        """
        if not self.writable:
            raise MemoryStoreError(
                f"The memory {str(self.path)!r} cannot be written.",
                code="memory.readonly",
                hint="Check the permissions of the file and of its folder.",
                path=str(self.path),
            )
        with self._writers, ExitStack() as stack:
            if self.path is not None and not self._writing:
                with file_errors(self.path):
                    stack.enter_context(writer_lock(self.path.with_name(self.path.name + ".lock")))
            self._writing += 1
            try:
                yield
            finally:
                self._writing -= 1

    def put(self, entry: Entry, vectors: Mapping[bytes, NDArray[np.float32]], embedder: str | None) -> None:
        """Write a document, its chunks and their new vectors, in place of what had its id or origin."""
        document = entry.document
        with self._transaction() as run:
            old = run(
                "SELECT key FROM documents WHERE namespace = ?1 AND (id = ?2 OR origin = ?3)",
                (document.namespace, document.id, entry.origin),
            ).fetchall()
            dropped = self._drop(run, [key for (key,) in old])
            key = run(
                "INSERT INTO documents (namespace, id, source, title, text, characters, sha256,"
                " fingerprint, root, origin, metadata, added_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    *(document.namespace, document.id, document.source, document.title, document.text),
                    *(
                        len(document.text),
                        text_hash(document.text),
                        entry.fingerprint,
                        entry.root,
                        entry.origin,
                    ),
                    *(json.dumps(dict(document.metadata), ensure_ascii=False), self._now().isoformat()),
                ),
            ).lastrowid
            for chunk, digest in zip(entry.chunks, entry.hashes, strict=True):
                span = (
                    chunk.ordinal,
                    chunk.start,
                    chunk.end,
                    chunk.line_start,
                    chunk.line_end,
                    chunk.title,
                )
                run(
                    'INSERT INTO chunks (document, ordinal, start, "end", line_start, line_end, title,'
                    " hash) VALUES (?,?,?,?,?,?,?,?)",
                    (key, *span, digest),
                )
            if embedder is not None:
                self._add_vectors(run, vectors, embedder)
            self._drop_orphans(run, dropped)

    def put_vectors(self, vectors: Mapping[bytes, NDArray[np.float32]], embedder: str) -> None:
        """Add vectors for chunks that are already there."""
        with self._transaction() as run:
            self._add_vectors(run, vectors, embedder)

    def relocate(self, key: int, *, source: str, root: str) -> None:
        """The same file, now shown by another path or added through another folder."""
        with self._transaction() as run:
            run("UPDATE documents SET source = ?, root = ? WHERE key = ?", (source, root, key))

    def remove(self, keys: Sequence[int]) -> int:
        """Remove documents by key, with their chunks and the vectors nobody else needs."""
        if not keys:
            return 0
        with self._transaction() as run:
            self._drop_orphans(run, self._drop(run, keys))
        if self.path is not None:
            with self._access, database_errors(self.path):
                # The log still holds the pages as they were; a reader in the way only delays this.
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return len(keys)

    def close(self) -> None:
        """Close the file; a closed store cannot be used again."""
        with self._writers, self._access:
            self._connection.close()

    # -- machinery ---------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[_Run]:
        with self._access, database_errors(self.path):
            if self._connection.in_transaction:
                yield self._connection.execute
                return
            self._connection.execute("BEGIN")
            try:
                yield self._connection.execute
            finally:
                self._connection.execute("COMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[_Run]:
        with self.writing(), self._access, database_errors(self.path):
            run = self._connection.execute
            run("BEGIN IMMEDIATE")
            try:
                yield run
                run("UPDATE meta SET value = value + 1 WHERE key = 'revision'")
                run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    run("ROLLBACK")
                raise

    def _drop(self, run: _Run, keys: Sequence[int]) -> set[bytes]:
        hashes: set[bytes] = set()
        for key in keys:
            hashes.update(h for (h,) in run("SELECT hash FROM chunks WHERE document = ?", (key,)))
            run("DELETE FROM documents WHERE key = ?", (key,))
        return hashes

    def _drop_orphans(self, run: _Run, hashes: Iterable[bytes]) -> None:
        for digest in hashes:
            run(
                "DELETE FROM vectors WHERE hash = ?1 AND NOT EXISTS (SELECT 1 FROM chunks WHERE hash = ?1)",
                (digest,),
            )

    def _add_vectors(self, run: _Run, vectors: Mapping[bytes, NDArray[np.float32]], embedder: str) -> None:
        if not vectors:
            return
        dimensions = len(next(iter(vectors.values())))
        run("INSERT OR IGNORE INTO embedders (name, dimensions) VALUES (?, ?)", (embedder, dimensions))
        (key,) = run("SELECT key FROM embedders WHERE name = ?", (embedder,)).fetchone()
        for digest, vector in vectors.items():
            blob = vector.astype("<f4", copy=False).tobytes()
            run(
                "INSERT OR REPLACE INTO vectors (hash, embedder, vector) VALUES (?, ?, ?)",
                (digest, key, blob),
            )


def text_hash(text: str) -> str:
    """SHA-256 of a document's text as UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
