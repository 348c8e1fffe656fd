"""Retrieval quality on judged collections, beside the usual baselines. See ``benchmarks/README.md``.

::

    python benchmarks/retrieval.py handbook
    KERNLOOM_DATA=/path/to/collections python benchmarks/retrieval.py scifact squad2 cranfield
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rank_bm25 import BM25Okapi

from kernloom.memory.embedding import find_embedder
from kernloom.memory.evaluation import Scores, by_document, evaluate
from kernloom.memory.memory import Memory
from kernloom.memory.records import Embedder, Hit
from kernloom.memory.text import terms

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".kernloom" / "bench"
#: nDCG@10 that the default search must reach; the exit code is 1 when it does not.
FLOORS = {"scifact": 0.72, "squad2": 0.90, "cranfield": 0.42}
#: Chunks asked for: enough for a hundred documents.
DEPTH = 300


@dataclass
class Collection:
    """Documents, questions and which documents answer them."""

    name: str
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    #: Records with ``id``, ``title`` and ``text``, or a folder of files.
    records: list[dict[str, str]] | Path
    #: Questions on which nothing is stored.
    absent: list[str] = field(default_factory=list)


Rankings = dict[str, list[str]]


def main(names: Sequence[str]) -> int:
    """Run the named collections (all that have a floor, by default) and the handbook."""
    wanted = list(names) or ["handbook", *FLOORS]
    collections = [handbook()] if "handbook" in wanted else []
    others = [name for name in wanted if name != "handbook"]
    data = os.environ.get("KERNLOOM_DATA")
    missing = others if data is None else []
    if data is not None:
        collections += [read_collection(Path(data), name) for name in others]
    embedder = cached(find_embedder())
    print(f"embedder: {embedder.name if embedder else 'none (keyword search only)'}")
    below = [line for collection in collections if (line := report(collection, embedder))]
    for line in below:
        print(line, file=sys.stderr)
    if missing:
        print(
            f"Not run: {', '.join(missing)}. Set KERNLOOM_DATA to the folder that holds these collections "
            "in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv).",
            file=sys.stderr,
        )
    return 1 if below else 2 if missing else 0


# -- one collection --------------------------------------------------------------------------------------


def report(collection: Collection, embedder: Embedder | None) -> str | None:
    """Print the table of one collection; a sentence when it is below its floor."""
    memory = Memory(embedder=embedder)
    asyncio.run(fill(memory, collection))
    info = memory.info()
    print(f"\n{collection.name}: {info.documents} documents, {info.chunks} chunks, ", end="")
    rows: dict[str, tuple[Rankings, float | None]] = dict(baselines(memory, collection))
    hits, cost = asyncio.run(search(memory, collection))
    if embedder is not None:
        rows["MiniLM alone, exact"] = (ranked(hits, by_vector), None)
        rows["reciprocal rank fusion, k=60"] = (ranked(hits, by_reciprocal_ranks), None)
    rows["kernloom"] = ({query: by_document(found) for query, found in hits.items()}, cost)
    scores = {name: (evaluate(rankings, collection.qrels), cost) for name, (rankings, cost) in rows.items()}
    print(f"{scores['kernloom'][0].queries} questions")
    print_table(scores)
    if collection.absent:
        print_found(asyncio.run(judged(memory, collection)))
    memory.close()
    floor, reached = FLOORS.get(collection.name, 0.0), scores["kernloom"][0].ndcg
    if reached < floor:
        return f"{collection.name}: nDCG@10 is {reached:.3f}, below the floor of {floor:.2f}."
    return None


async def fill(memory: Memory, collection: Collection) -> None:
    """Put the collection into memory, as a user would."""
    if isinstance(collection.records, Path):
        await memory.add(collection.records)
    else:
        await memory.add_records(collection.records)


async def search(memory: Memory, collection: Collection) -> tuple[dict[str, list[Hit]], float]:
    """All hits of all questions, and CPU ms for one of ten hits, its vector being at hand."""
    hits = {query: await memory.search(text, DEPTH) for query, text in collection.queries.items()}
    some = list(collection.queries.values())[:200]  # no more than the query vectors a memory keeps
    for text in some:
        await memory.search(text, 10)
    start = time.process_time()
    for text in some:
        await memory.search(text, 10)
    return hits, (time.process_time() - start) * 1000 / max(len(some), 1)


def baselines(
    memory: Memory, collection: Collection
) -> Iterator[tuple[str, tuple[Rankings, float | None]]]:
    """rank-bm25 over whole documents as its README shows it, and with our terms."""

    async def texts() -> dict[str, str]:
        return {d.id: f"{d.title}\n{await memory.read(d.id)}" for d in await memory.list()}

    documents = asyncio.run(texts())
    tokenisers: dict[str, Callable[[str], list[str]]] = {
        "rank-bm25, split()": str.split,
        "rank-bm25, stemmed, stop words": terms,
    }
    ids = list(documents)
    for name, tokenise in tokenisers.items():
        index = BM25Okapi([tokenise(text) for text in documents.values()])
        start = time.process_time()
        rankings = {}
        for query, text in collection.queries.items():
            best = np.argsort(-index.get_scores(tokenise(text)), kind="stable")[:100]
            rankings[query] = [ids[i] for i in best]
        yield name, (rankings, (time.process_time() - start) * 1000 / len(collection.queries))


def by_vector(hit: Hit) -> float:
    """Order by cosine alone."""
    return hit.vector_score if hit.vector_score is not None else -1.0


def by_reciprocal_ranks(hit: Hit) -> float:
    """Cormack, Clarke and Büttcher, SIGIR 2009."""
    return sum(1 / (60 + rank) for rank in (hit.keyword_rank, hit.vector_rank) if rank is not None)


def ranked(hits: Mapping[str, Sequence[Hit]], score: Callable[[Hit], float]) -> Rankings:
    """Documents by their best chunk under another score."""
    return {query: by_document(sorted(found, key=score, reverse=True)) for query, found in hits.items()}


async def judged(memory: Memory, collection: Collection) -> tuple[float, float]:
    """How often memory says that it holds what it holds, and what it does not."""

    async def said(questions: Iterable[str]) -> float:
        answers = [(await memory.ground(question)).found for question in questions]
        return sum(answers) / len(answers)

    return await said(collection.queries.values()), await said(collection.absent)


def print_table(scores: Mapping[str, tuple[Scores, float | None]]) -> None:
    print(f"  {'':32}{'nDCG@10':>9}{'Recall@100':>12}{'CPU ms/query':>14}")
    for name, (score, cost) in scores.items():
        spent = "" if cost is None else f"{cost:.2f}"
        print(f"  {name:32}{score.ndcg:>9.3f}{score.recall:>12.3f}{spent:>14}")


def print_found(rates: tuple[float, float]) -> None:
    print(f"  said to be in memory: {rates[0]:.0%} of what is, {rates[1]:.0%} of what is not")


# -- reading collections ---------------------------------------------------------------------------------


def handbook() -> Collection:
    """The committed handbook with its own judged questions."""
    folder = ROOT / "examples" / "handbook"
    made = read_judged(folder / "judged", "handbook")
    made.records = folder / "pages"
    return made


def read_collection(data: Path, name: str) -> Collection:
    """The collection ``name`` from wherever under ``data`` it lies.

    Raises:
        SystemExit: it is not there; says what is.
    """
    found = {corpus.parent.name: corpus for corpus in sorted(data.rglob("corpus.jsonl*"), reverse=True)}
    corpus = found.get(name)
    if corpus is None:
        raise SystemExit(
            f"No collection {name!r} under KERNLOOM_DATA ({data}). There is: {', '.join(found)}."
        )
    made = read_judged(corpus.parent, name)
    made.records = [
        {"id": identity(line), "title": str(line.get("title") or ""), "text": str(line["text"])}
        for line in json_lines(corpus)
        if str(line["text"]).strip() or str(line.get("title") or "").strip()
    ]
    return made


def read_judged(folder: Path, name: str) -> Collection:
    """Questions and judgements of a folder in BEIR's layout; those without a judgement are left out."""
    qrels_file = first_file(folder, "qrels/test.tsv", "qrels/dev.tsv", "qrels.tsv", "test.tsv")
    qrels: dict[str, dict[str, int]] = {}
    for row in qrels_file.read_text(encoding="utf-8").splitlines():
        columns = row.split()
        if len(columns) >= 3 and columns[-1].lstrip("-").isdigit():  # not the heading
            qrels.setdefault(columns[0], {})[columns[-2]] = int(columns[-1])
    asked = {identity(line): str(line["text"]) for line in json_lines(first_file(folder, "queries.jsonl"))}
    absent = folder / "absent.jsonl"
    return Collection(
        name=name,
        queries={
            query: text
            for query, text in asked.items()
            if max(qrels.get(query, {}).values(), default=0) > 0
        },
        qrels=qrels,
        records=[],
        absent=[str(line["text"]) for line in json_lines(absent)] if absent.exists() else [],
    )


def first_file(folder: Path, *names: str) -> Path:
    for name in names:
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    raise SystemExit(f"{folder} has none of: {', '.join(names)}.")


def json_lines(path: Path) -> Iterator[dict[str, object]]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for line in content.split(b"\n"):  # not splitlines(): texts hold other line ends, unescaped
        if line.strip():
            yield json.loads(line)


def identity(line: Mapping[str, object]) -> str:
    return str(line["_id"] if "_id" in line else line["id"])


# -- embeddings, kept between runs -----------------------------------------------------------------------


class CachedEmbedder:
    """An embedder whose vectors are kept on disk by the hash of the text."""

    def __init__(self, inner: Embedder, path: Path) -> None:
        self._inner = inner
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._db.execute("CREATE TABLE IF NOT EXISTS vectors (hash BLOB PRIMARY KEY, vector BLOB)")

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def dimensions(self) -> int:
        return self._inner.dimensions

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As the embedder behind it; only texts not seen before reach it."""
        hashes = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
        known = {key: vector for key in hashes if (vector := self._read(key)) is not None}
        unknown = {key: text for key, text in zip(hashes, texts, strict=True) if key not in known}
        for key, vector in zip(
            unknown, self._inner.embed(list(unknown.values())) if unknown else [], strict=True
        ):
            known[key] = np.asarray(vector, dtype=np.float32)
            self._db.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (key, known[key].tobytes()))
        self._db.commit()
        return (
            np.stack([known[key] for key in hashes])
            if hashes
            else np.zeros((0, self.dimensions), np.float32)
        )

    def _read(self, key: bytes) -> np.ndarray | None:
        row = self._db.execute("SELECT vector FROM vectors WHERE hash = ?", (key,)).fetchone()
        return None if row is None else np.frombuffer(row[0], dtype=np.float32)


def cached(embedder: Embedder | None) -> Embedder | None:
    """The embedder with a cache of its own."""
    if embedder is None:
        return None
    safe = hashlib.blake2b(embedder.name.encode(), digest_size=6).hexdigest()
    return CachedEmbedder(embedder, CACHE / f"vectors-{safe}.db")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
