"""Memory: documents in, grounded passages and checked citations out.

::

    async with Memory("handbook.db") as memory:
        await memory.add("docs/")
        grounding = await memory.ground("Who approves travel over 2000?")
        citations = await memory.cite("The managing director [1].", grounding)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from ..kernel.errors import MissingExtraError, NotFoundError, UsageError, did_you_mean, nearest
from ..kernel.messages import Citation, Grounding
from ..kernel.sync import run_sync
from .citations import verify
from .embedding import find_embedder
from .grounding import pack
from .ingest import AddReport, Ingest, Progress
from .loaders import well_formed
from .records import Document, Embedder, Hit
from .search import Searcher, SearchOptions
from .store import DocumentInfo, MemoryStore

_T = TypeVar("_T")
#: Hits considered for a grounding; more than fit into any usual budget.
_GROUND = 24
_DEFAULTS = SearchOptions()
_FIELDS = frozenset({"id", "text", "title", "source", "namespace", "metadata"})


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """What a memory is and how much it holds."""

    #: The file; None for a memory kept in this process only.
    path: Path | None
    documents: int
    chunks: int
    characters: int
    #: The embedder's name; None when only words can be searched.
    embedder: str | None
    #: Chunks that can be found by meaning: less than ``chunks`` after a keyword-only start.
    embedded: int
    #: Grows with every committed change.
    revision: int


class Memory:
    """Keeps documents and finds passages in them. Opening is cheap; models load when first used.

    Args:
        path: the database file, made when missing with access for its owner only; ``":memory:"`` keeps
            everything in this process.
        embedder: ``"auto"`` looks for one (:func:`~kernloom.memory.embedding.find_embedder`) and does
            without when there is none; None or ``"none"`` searches by words only; else a folder, a model's
            name, or an :class:`Embedder`.
        namespace: what this object adds to. When it is not empty, it also sees nothing else.
        options: the knobs of search.

    Raises:
        MemoryStoreError: the file is damaged, from a newer version, or not a memory.
        ConfigError: the embedder named is not there.
        MissingExtraError: the extra ``memory`` is not installed.
    """

    def __init__(
        self,
        path: str | Path = ":memory:",
        *,
        embedder: Embedder | str | None = "auto",
        namespace: str = "",
        options: SearchOptions = _DEFAULTS,
    ) -> None:
        # Said before anything is added rather than at the first question.
        if not all(find_spec(library) for library in ("rank_bm25", "snowballstemmer")):
            raise MissingExtraError("memory", "Memory")
        self.namespace = namespace
        self.embedder = find_embedder(embedder or "none") if isinstance(embedder, str | None) else embedder
        self._options = options
        self._store = MemoryStore(None if str(path) == ":memory:" else Path(path).expanduser())
        self._searchers: dict[bool, Searcher] = {}
        self._opening = threading.Lock()
        # One thread writes, so that waiting writers never take the threads that searches need.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="kernloom-memory")

    # -- adding ------------------------------------------------------------------------------------

    async def add(self, path: str | Path, *, progress: Progress | None = None) -> AddReport:
        """Bring memory in line with a file or folder (txt, md, html, pdf).

        What has not changed is not touched; documents whose files are gone from that folder are removed;
        everything else stays. Files that give no text are skipped and reported. Cancelling stops after the
        batch in hand; what was committed stays, and the next add goes on from there.

        Args:
            path: relative paths are shown as given.
            progress: called as ``progress(done, total, path)`` in the working thread.

        Raises:
            NotFoundError: ``memory.no_such_path``.
            MemoryStoreError: ``memory.locked`` while another process writes.
            MissingExtraError: the one file given needs the extra ``loaders``.
        """
        given = _existing(path)
        return await self._write(lambda stop: self._ingest(progress, stop).path(given))

    async def add_text(
        self, text: str, *, id: str | None = None, source: str = "", title: str = ""
    ) -> AddReport:
        """Keep one text. Adding the same ``id`` again replaces it; without one, equal texts are one.

        Raises:
            UsageError: ``memory.id_taken`` when the id belongs to a file.
        """
        known_as = id or source or f"text-{sha256(well_formed(text).encode()).hexdigest()[:12]}"
        return await self.add_records([{"id": known_as, "text": text, "source": source, "title": title}])

    async def add_records(
        self, records: Iterable[Mapping[str, object] | Document], *, progress: Progress | None = None
    ) -> AddReport:
        """Keep records under the caller's ids; one with a known id replaces it when it has changed.

        A record is a :class:`Document`, or a mapping with ``id`` and ``text`` and, if it has them,
        ``title``, ``source``, ``namespace`` and ``metadata`` (text to text).

        Raises:
            UsageError: ``memory.record_invalid`` or ``memory.id_taken``; nothing was written.
        """
        documents = self._checked(records)
        return await self._write(lambda stop: self._ingest(progress, stop).documents(documents))

    async def embed(self) -> int:
        """Embed every chunk the embedder has not seen, and say how many. :meth:`add` does so by itself."""
        return await self._write(lambda stop: self._ingest(None, stop).embed_missing())

    async def remove(self, what: str | Path) -> int:
        """Forget a document by id or source, or all documents of a folder; how many there were.

        Raises:
            UsageError: ``what`` is empty.
        """
        if not str(what):
            raise UsageError("Nothing was named to remove.", hint="Give an id, a source or a folder.")
        return await self._write(lambda stop: self._remove(str(what)))

    # -- finding -----------------------------------------------------------------------------------

    async def search(self, query: str, k: int = 10, *, namespace: str | None = None) -> Hits:
        """The ``k`` best chunks for ``query``, best first, with both scores and ranks.

        Raises:
            UsageError: ``namespace`` is not the one this memory is bound to.
            MissingExtraError: the extra ``memory`` is not installed.
        """
        within = self._within(namespace)
        return await asyncio.to_thread(lambda: self._searcher().search(query, k, namespace=within))

    async def ground(self, query: str, *, tokens: int = 1200) -> Grounding:
        """Passages that may hold the answer, within ``tokens``; ``found`` says whether they seem to."""
        return await asyncio.to_thread(self._ground, query, tokens)

    async def cite(self, answer: str, grounding: Grounding) -> tuple[Citation, ...]:
        """The citations of ``answer``, each checked against the text as it is stored now."""
        return await asyncio.to_thread(verify, answer, grounding, self._reader(grounding))

    async def list(self) -> tuple[DocumentInfo, ...]:
        """Every document, by namespace and id."""
        return await asyncio.to_thread(lambda: tuple(self._store.documents(self.namespace or None)))

    async def read(self, document: str) -> str | None:
        """The stored text of a document by id; None when there is none."""
        return await asyncio.to_thread(self._store.text, document, self.namespace or None)

    def info(self) -> MemoryInfo:
        """What this memory is and how much it holds."""
        name = self.embedder.name if self.embedder is not None else None
        with self._store.snapshot():
            counts = self._store.counts(self.namespace or None)
            embedded = self._store.count_embedded(name, self.namespace or None) if name else 0
            revision = self._store.revision
        return MemoryInfo(self._store.path, *counts, name, embedded, revision)

    # -- without a loop of one's own ---------------------------------------------------------------

    def add_sync(self, path: str | Path, *, progress: Progress | None = None) -> AddReport:
        """:meth:`add` for code that is not async; works in a notebook too."""
        return run_sync(self.add(path, progress=progress))

    def search_sync(self, query: str, k: int = 10, *, namespace: str | None = None) -> Hits:
        """:meth:`search` for code that is not async."""
        return run_sync(self.search(query, k, namespace=namespace))

    def ground_sync(self, query: str, *, tokens: int = 1200) -> Grounding:
        """:meth:`ground` for code that is not async."""
        return run_sync(self.ground(query, tokens=tokens))

    # -- closing -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for the write in hand and close the file. Closing twice is fine."""
        self._writer.shutdown(wait=True)
        with self._opening:
            for searcher in self._searchers.values():
                searcher.close()
            self._searchers.clear()
        self._store.close()

    async def aclose(self) -> None:
        """:meth:`close`, without holding up the loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Memory:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- machinery ---------------------------------------------------------------------------------

    def _ingest(self, progress: Progress | None, stop: threading.Event) -> Ingest:
        return Ingest(self._store, self.embedder, namespace=self.namespace, progress=progress, stop=stop)

    async def _write(self, work: Callable[[threading.Event], _T]) -> _T:
        """Run ``work`` in the writing thread; when cancelled, have it stop and wait until it has."""
        stop = threading.Event()
        submitted = self._writer.submit(copy_context().run, partial(work, stop))
        job = asyncio.wrap_future(submitted)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            stop.set()
            if not submitted.cancel():  # its turn has come
                await asyncio.wait([job])
                job.exception()  # looked at, so that nobody is told of it when it is thrown away
            raise

    def _searcher(self) -> Searcher:
        """Hybrid once something is embedded; until then by keyword, without loading a model."""
        by_meaning = self.embedder is not None and self._store.has_vectors(self.embedder.name)
        with self._opening:
            if by_meaning not in self._searchers:
                path = self._store.path
                self._searchers[by_meaning] = Searcher(
                    self._store,
                    self.embedder if by_meaning else None,
                    options=self._options,
                    index_path=path.with_name(path.name + ".index") if path is not None else None,
                )
            return self._searchers[by_meaning]

    def _ground(self, query: str, tokens: int) -> Grounding:
        searcher = self._searcher()
        hits = searcher.search(query, _GROUND, namespace=self.namespace or None)
        found, reason = searcher.judge(query, hits)
        return Grounding(query=query, passages=pack(hits, tokens=tokens), found=found, reason=reason)

    def _reader(self, grounding: Grounding) -> Callable[[str], str | None]:
        """Reads a document of the grounding; by its chunk first, since two namespaces may share an id."""
        keys = {p.document: int(p.id) for p in reversed(grounding.passages) if p.id.isdecimal()}

        def read(document: str) -> str | None:
            if document in keys:
                found = self._store.text_of_chunk(keys[document], self.namespace or None)
                if found is not None and found[0] == document:
                    return found[1]
            return self._store.text(document, self.namespace or None)

        return read

    def _remove(self, what: str) -> int:
        with self._store.writing():
            return self._store.remove(self._store.matching(what, self.namespace or None))

    def _within(self, namespace: str | None) -> str | None:
        if self.namespace and namespace not in (None, self.namespace):
            raise UsageError(
                f"This memory is bound to the namespace {self.namespace!r}; it has no {namespace!r}.",
                code="memory.namespace",
                hint="Open another Memory for that namespace.",
            )
        return self.namespace or namespace

    def _checked(self, records: Iterable[Mapping[str, object] | Document]) -> tuple[Document, ...]:
        documents = tuple(_document(record, self.namespace, at) for at, record in enumerate(records))
        seen: set[tuple[str, str]] = set()
        for at, document in enumerate(documents):
            self._within(document.namespace)
            if (document.namespace, document.id) in seen:
                raise _invalid(at, f"has the id {document.id!r}, as a record before it")
            seen.add((document.namespace, document.id))
        return documents


#: ``list`` is a method of Memory, so its annotations cannot say ``list[Hit]``.
Hits = list[Hit]


def _existing(path: str | Path) -> Path:
    given = Path(path).expanduser()
    if given.exists():
        return given
    if "://" in str(path):
        hint = "Memory does not download: save the page, then add the file."
    else:
        try:
            siblings = [entry.name for entry in given.parent.iterdir()]
        except OSError:
            siblings = []
        near = [(given.parent / name).as_posix() for name in nearest(given.name, siblings)]
        hint = did_you_mean(near) or "Check the path and the folder you are in."
    raise NotFoundError(
        f"There is no file or folder {str(path)!r}.", code="memory.no_such_path", hint=hint, path=str(path)
    )


def _document(record: Mapping[str, object] | Document, namespace: str, at: int) -> Document:
    if isinstance(record, Document):
        fields: Mapping[str, object] = {name: getattr(record, name) for name in _FIELDS}
    else:
        fields = record
    identity, text = fields.get("id"), fields.get("text")
    if isinstance(identity, int):
        identity = str(identity)
    if not isinstance(identity, str) or not identity:
        raise _invalid(at, f"has no id (got {identity!r})")
    if not isinstance(text, str):
        raise _invalid(at, f"({identity!r}) has no text (got {text!r})")
    if unknown := sorted(set(fields) - _FIELDS):
        raise _invalid(
            at, f"({identity!r}) has fields that memory does not know: {', '.join(map(repr, unknown))}"
        )
    metadata = fields.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise _invalid(at, f"({identity!r}) has metadata that is not a mapping (got {metadata!r})")
    words = {name: well_formed(str(fields.get(name) or "")) for name in ("title", "source", "namespace")}
    return Document(
        id=well_formed(identity),
        source=words["source"] or well_formed(identity),
        text=well_formed(text),
        title=words["title"],
        namespace=words["namespace"] or namespace,
        metadata={well_formed(str(key)): well_formed(str(value)) for key, value in metadata.items()},
    )


def _invalid(at: int, what: str) -> UsageError:
    return UsageError(
        f"Record {at + 1} {what}.",
        code="memory.record_invalid",
        hint="A record has an id of its own and a text; further title, source, namespace and metadata.",
        record=at,
    )
