"""Brings a memory in line with a folder, a file or a list of documents.

What is unchanged is not touched, by the hash of its content; what is new or changed is cut, embedded in
batches and committed document by document, so that a killed run leaves whole documents and the next one
goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from ..kernel.errors import MissingExtraError, UsageError
from .chunking import chunk_document
from .embedding import embedding_text
from .loaders import Found, Skipped, UnreadableFileError, parse, read_bytes, walk
from .places import Shelf
from .records import Document, Embedder
from .store import Entry, MemoryStore, Stored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Called as ``progress(done, total, path)`` after each document, in the thread that does the work.
Progress = Callable[[int, int, str], None]

#: Part of every fingerprint; grows when the same file would give other text or other chunks than before.
_RECIPE = b"1"
#: Chunks embedded together: enough to sort by length, few enough to commit every few seconds.
_BATCH = 128
#: The most that is embedded without looking whether to stop, and without holding more in memory.
_SLICE = 512


@dataclass(frozen=True, slots=True)
class AddReport:
    """What an add did. Numbers are documents, except ``chunks``: those that were written."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: tuple[Skipped, ...] = ()
    chunks: int = 0
    seconds: float = 0.0
    #: The embedder's name; None when only words can be searched.
    embedder: str | None = None
    #: The work was cancelled; what is counted here is stored.
    stopped: bool = False

    def __add__(self, other: AddReport) -> AddReport:
        return AddReport(
            added=self.added + other.added,
            updated=self.updated + other.updated,
            unchanged=self.unchanged + other.unchanged,
            removed=self.removed + other.removed,
            skipped=self.skipped + other.skipped,
            chunks=self.chunks + other.chunks,
            seconds=self.seconds + other.seconds,
            embedder=other.embedder or self.embedder,
            stopped=self.stopped or other.stopped,
        )


class Ingest:
    """One add. Synchronous; runs in a thread and stops between batches when ``stop`` is set."""

    def __init__(
        self,
        store: MemoryStore,
        embedder: Embedder | None,
        *,
        namespace: str = "",
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._namespace = namespace
        self._progress = progress or (lambda done, total, path: None)
        self._stop = stop or threading.Event()
        self._clock = clock
        self._pending: list[tuple[Entry, bool]] = []
        self._pending_chunks = 0
        self._added = self._updated = self._unchanged = self._removed = self._chunks = 0
        self._skipped: list[Skipped] = []
        self._done = self._total = 0

    def path(self, given: Path) -> AddReport:
        """Sync the file or folder ``given``: write what is new or changed, remove what is gone from it."""
        started = self._clock()
        with self._store.writing(), suppress(_StoppedError):
            if given.is_dir():
                self._folder(given)
            else:
                self._single(given)
            self._flush()
            self.embed_missing()
        return self._report(started)

    def documents(self, documents: Sequence[Document]) -> AddReport:
        """Write those of ``documents`` that are new or changed; nothing is removed.

        Raises:
            UsageError: ``memory.id_taken`` when one has the id of a stored file; nothing is written.
        """
        started = self._clock()
        self._total = len(documents)
        with self._store.writing(), suppress(_StoppedError):
            known = {
                (namespace, row.id): row
                for namespace in {document.namespace for document in documents}
                for row in self._store.stored(namespace)
            }
            _refuse_ids_of_files(documents, known)
            for document in documents:
                if self._stop.is_set():
                    break
                self._document(document, known.get((document.namespace, document.id)))
            self._flush()
            if self._unchanged:
                self.embed_missing()
        return self._report(started)

    def embed_missing(self) -> int:
        """Embed every chunk the embedder has not seen, as after a keyword-only start. Returns how many."""
        embedder, done = self._embedder, 0
        if embedder is None:
            return 0
        with self._store.writing():
            while not self._stop.is_set():
                rows = self._store.unembedded(embedder.name, limit=_SLICE)
                if not rows:
                    break
                texts = {digest: embedding_text(title, text) for digest, title, text in rows}
                self._store.put_vectors(self._embed(embedder, texts), embedder.name)
                done += len(texts)
        return done

    # -- files -------------------------------------------------------------------------------------

    def _folder(self, folder: Path) -> None:
        found = walk(folder)
        self._total = len(found)
        known = _Known(self._store, self._namespace)
        root = folder.resolve()
        present: set[Path] = set()
        for file in found:
            if self._stop.is_set():
                return
            if self._file(file, folder / file.relative, root, known):
                present.add(file.path.resolve())
        self._flush()
        self._removed += self._store.remove(known.gone(root, present))

    def _single(self, path: Path) -> None:
        self._total = 1
        known = _Known(self._store, self._namespace)
        real = path.resolve()
        kept = self._file(Found(path, path.name), path, real, known, strict=True)
        if not kept and real in known.by_path:
            self._removed += self._store.remove([known.by_path[real].key])

    def _file(self, file: Found, shown: Path, root: Path, known: _Known, *, strict: bool = False) -> bool:
        """Write one file if it has changed. False when it holds nothing that may stay in memory."""
        source = shown.as_posix()
        if file.reason:
            self._skip(source, file.reason)
            return file.unlisted
        real = file.path.resolve()
        row = known.by_path.get(real)
        try:
            raw = read_bytes(file.path)
            fingerprint = _fingerprint(file.path.suffix.lower().encode(), raw)
            if row is not None and row.fingerprint == fingerprint:
                self._same(row, source, known.wider(root, row))
                return True
            loaded = parse(raw, file.path)
        except UnreadableFileError as exc:
            self._skip(source, exc.message)
            return not exc.gone
        except MissingExtraError as exc:
            if strict:
                raise
            self._skip(source, str(exc))
            return True
        document = Document(
            id=row.id if row is not None else known.free_id(file.relative, source, real),
            source=source,
            text=loaded.text,
            title=loaded.title,
            namespace=self._namespace,
        )
        place = known.shelf.place(real)
        self._take(document, fingerprint, new=row is None, origin=place, root=known.wider(root, row))
        return True

    def _same(self, row: Stored, source: str, root: str) -> None:
        if (row.source, row.root) != (source, root):
            self._store.relocate(row.key, source=source, root=root)
        self._keep(source)

    # -- documents ---------------------------------------------------------------------------------

    def _document(self, document: Document, row: Stored | None) -> None:
        fingerprint = _fingerprint(
            *(document.title.encode(), document.source.encode(), document.text.encode()),
            json.dumps(dict(document.metadata), sort_keys=True).encode(),
        )
        if not document.text.strip():
            self._skip(document.source or document.id, "holds no text")
        elif row is not None and row.fingerprint == fingerprint:
            self._keep(document.source)
        else:
            self._take(document, fingerprint, new=row is None)

    def _take(
        self,
        document: Document,
        fingerprint: bytes,
        *,
        new: bool,
        origin: str | None = None,
        root: str | None = None,
    ) -> None:
        chunks = chunk_document(document)
        hashes = [_fingerprint(embedding_text(c.title, c.text).encode()) for c in chunks]
        self._pending.append((Entry(document, chunks, hashes, fingerprint, origin, root), new))
        self._pending_chunks += len(chunks)
        if self._pending_chunks >= _BATCH or self._embedder is None:
            self._flush()

    def _flush(self) -> None:
        """Embed what is pending, then commit it document by document."""
        vectors: Mapping[bytes, NDArray[np.float32]] = {}
        name = self._embedder.name if self._embedder is not None else None
        if self._embedder is not None and self._pending:
            texts = {
                digest: embedding_text(chunk.title, chunk.text)
                for entry, _ in self._pending
                for chunk, digest in zip(entry.chunks, entry.hashes, strict=True)
            }
            for digest in self._store.embedded(texts, self._embedder.name):
                del texts[digest]
            vectors = self._embed(self._embedder, texts)
        for entry, new in self._pending:
            self._store.put(entry, {h: vectors[h] for h in entry.hashes if h in vectors}, name)
            self._added += new
            self._updated += not new
            self._chunks += len(entry.chunks)
            self._step(entry.document.source or entry.document.id)
        self._pending.clear()
        self._pending_chunks = 0

    def _embed(self, embedder: Embedder, texts: Mapping[bytes, str]) -> dict[bytes, NDArray[np.float32]]:
        vectors: dict[bytes, NDArray[np.float32]] = {}
        for group in _slices(list(texts), _SLICE):
            if self._stop.is_set():
                raise _StoppedError
            vectors.update(zip(group, embedder.embed([texts[digest] for digest in group]), strict=True))
        return vectors

    def _skip(self, path: str, reason: str) -> None:
        self._skipped.append(Skipped(path, reason))
        self._step(path)

    def _keep(self, path: str) -> None:
        self._unchanged += 1
        self._step(path)

    def _step(self, path: str) -> None:
        self._done += 1
        self._progress(self._done, self._total, path)

    def _report(self, started: float) -> AddReport:
        return AddReport(
            added=self._added,
            updated=self._updated,
            unchanged=self._unchanged,
            removed=self._removed,
            skipped=tuple(self._skipped),
            chunks=self._chunks,
            seconds=self._clock() - started,
            embedder=self._embedder.name if self._embedder is not None else None,
            stopped=self._stop.is_set(),
        )


class _StoppedError(Exception):
    """Cancelled between two batches; what is committed stays."""


class _Known:
    """What one namespace holds, by file and by id. Paths are real and absolute here; see `Shelf`."""

    def __init__(self, store: MemoryStore, namespace: str) -> None:
        self.shelf = Shelf(store.path)
        rows = store.stored(namespace)
        self.by_path = {self.shelf.path(row.origin): row for row in rows if row.origin is not None}
        self._ids = {row.id for row in rows}

    def free_id(self, relative: str, source: str, path: Path) -> str:
        """The relative path, or the longer one that no other document has."""
        named = (name for name in (relative, source, path.as_posix()))
        numbered = (f"{path.as_posix()} ({n})" for n in count(2))
        chosen = next(name for name in chain(named, numbered) if name not in self._ids)
        self._ids.add(chosen)
        return chosen

    def gone(self, folder: Path, present: set[Path]) -> list[int]:
        """Keys of the documents below ``folder`` whose files are no longer there.

        ``present`` are the files, and folders that could not be listed, of which that cannot be said.
        """
        keys = []
        for path, row in self.by_path.items():
            if not path.is_relative_to(folder) or path in present or not present.isdisjoint(path.parents):
                continue
            # What was added by itself or through another folder goes only when its file does.
            if self.shelf.path(row.root or "") == folder or not path.exists():
                keys.append(row.key)
        return keys

    def wider(self, root: Path, row: Stored | None) -> str:
        """The outer of ``root`` and the folder the document was added through before."""
        before = self.shelf.path(row.root) if row is not None and row.root is not None else root
        return self.shelf.place(before if root.is_relative_to(before) else root)


def _refuse_ids_of_files(documents: Sequence[Document], known: Mapping[tuple[str, str], Stored]) -> None:
    for document in documents:
        row = known.get((document.namespace, document.id))
        if row is not None and row.origin is not None:
            raise UsageError(
                f"The id {document.id!r} belongs to the file {row.source!r}.",
                code="memory.id_taken",
                hint="Give the text another id, or remove the file from memory first.",
            )


def _slices(items: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _fingerprint(*parts: bytes) -> bytes:
    digest = hashlib.sha256(_RECIPE)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
