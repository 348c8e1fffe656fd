"""``kernloom memory``: documents in, passages out."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..kernel.errors import UsageError, not_found
from ..memory.ingest import AddReport
from ..memory.memory import MemoryInfo
from ..memory.records import Hit
from .commands import Group, text_or_stdin
from .screen import Screen, table
from .workspace import memory_path, open_memory

_where = click.option("--memory", metavar="PATH", help="Another memory than the project's.")


@click.group(cls=Group)
def memory() -> None:
    """Add, search and list your documents."""


@memory.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--id", "name", metavar="ID", help="The id of text read from stdin (PATH is -).")
@_where
@click.pass_obj
def add(screen: Screen, paths: tuple[str, ...], name: str | None, memory: str | None) -> None:
    """Add files and folders, or bring them up to date.

    Adding a folder again changes only what changed in it, and removes what is gone from it.
    """
    if "-" in paths and (len(paths) > 1 or not name):
        raise UsageError(
            "Text from stdin needs an id.",
            code="memory.id",
            hint="Write: kernloom memory add - --id notes.",
        )
    done = asyncio.run(_add(screen, paths, name, memory))
    screen.result({**asdict(done), "memory": str(memory_path(screen, memory))}, report(done))
    for skipped in done.skipped:
        screen.note(f"  skipped {skipped.path}: {skipped.reason}")


async def _add(screen: Screen, paths: tuple[str, ...], name: str | None, chosen: str | None) -> AddReport:
    done = AddReport()
    async with open_memory(screen, chosen) as store:
        screen.progress("loading the embedder …")
        for path in paths:
            if path == "-":
                done += await store.add_text(text_or_stdin("-"), id=str(name))
            else:
                done += await store.add(Path(path), progress=_progress(screen))
    return done


def _progress(screen: Screen) -> Any:
    return lambda done, total, path: screen.progress(f"{done}/{total}  {path}")


def report(done: AddReport) -> str:
    """What an add did, in a line or two."""
    counts = {
        "added": done.added,
        "updated": done.updated,
        "unchanged": done.unchanged,
        "removed": done.removed,
        "skipped": len(done.skipped),
    }
    words = [f"{count} {word}" for word, count in counts.items() if count] or ["nothing to do"]
    if done.chunks:
        words.append(f"{done.chunks} chunks")
    return f"{', '.join(words)}  {done.seconds:.1f} s\n{embedder_words(done.embedder)}"


def embedder_words(name: str | None) -> str:
    """Which embedder is at work, and that it is a local one."""
    if name is None:
        return (
            "embedder: none, so words are searched and meaning is not (pip install 'kernloom[rag,minilm]')"
        )
    return f"embedder: {name}, on this machine; nothing left it"


@memory.command()
@click.argument("query")
@click.option("-k", "--k", "k", type=click.IntRange(min=1), help="How many passages.")
@_where
@click.pass_obj
def search(screen: Screen, query: str, k: int | None, memory: str | None) -> None:
    """The passages that fit QUERY best, and why."""
    hits = asyncio.run(_search(screen, text_or_stdin(query), k or screen.config.get("memory.k"), memory))
    screen.result([_hit_data(hit) for hit in hits], "\n".join(_hit(screen, hit) for hit in hits) or None)
    if not hits:
        screen.note("Nothing in memory fits.")


async def _search(screen: Screen, query: str, k: int, chosen: str | None) -> list[Hit]:
    async with open_memory(screen, chosen, existing=True) as store:
        screen.progress("searching …")
        return list(await store.search(query, k))


def _hit(screen: Screen, hit: Hit) -> str:
    chunk = hit.chunk
    keyword = f"keyword #{hit.keyword_rank}" if hit.keyword_rank else "keyword -"
    vector = f"vector #{hit.vector_rank}" if hit.vector_rank else "vector -"
    head = f"{screen.paint(chunk.place, 'strong')}  {keyword}  {vector}  {hit.score:.3f}"
    text = " ".join(chunk.text.split())
    return f"{head}\n    {text[:160]}{'…' if len(text) > 160 else ''}"


def _hit_data(hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    return {
        "document": chunk.document,
        "source": chunk.source,
        "lines": [chunk.line_start, chunk.line_end],
        "span": [chunk.start, chunk.end],
        "title": chunk.title,
        "text": chunk.text,
        "score": hit.score,
        "keyword": {"rank": hit.keyword_rank, "score": hit.keyword_score},
        "vector": {"rank": hit.vector_rank, "score": hit.vector_score},
    }


@memory.command("list")
@_where
@click.pass_obj
def list_documents(screen: Screen, memory: str | None) -> None:
    """What is in memory."""
    asyncio.run(_list(screen, memory))


async def _list(screen: Screen, chosen: str | None) -> None:
    path = memory_path(screen, chosen)
    if not path.exists():
        screen.result({"documents": [], "memory": str(path)})
        screen.note(f"Memory is empty ({path}). To fill it: kernloom memory add docs/")
        return
    async with open_memory(screen, chosen) as store:
        documents, info = await store.list(), store.info()
    rows = [[d.id, f"{d.chunks} chunks", f"{d.characters} characters", d.title] for d in documents]
    data = {
        "documents": [asdict(d) for d in documents],
        "chunks": info.chunks,
        "embedded": info.embedded,
        "embedder": info.embedder,
        "memory": str(path),
    }
    screen.result(data, table(rows) or None)
    screen.note(f"\n{info.documents} documents, {info.chunks} chunks in {path}\n{_embedded(info)}")


def _embedded(info: MemoryInfo) -> str:
    if info.embedder is None or info.embedded == info.chunks:
        return embedder_words(info.embedder)
    return f"embedder: {info.embedder}; {info.embedded} of {info.chunks} chunks embedded so far"


@memory.command()
@click.argument("documents", nargs=-1, required=True, metavar="ID...")
@_where
@click.pass_obj
def rm(screen: Screen, documents: tuple[str, ...], memory: str | None) -> None:
    """Forget documents by id or path, or all of a folder. The files themselves stay."""
    asyncio.run(_rm(screen, documents, memory))


async def _rm(screen: Screen, names: tuple[str, ...], chosen: str | None) -> None:
    removed = 0
    async with open_memory(screen, chosen, existing=True) as store:
        for name in names:
            count = await store.remove(name)
            if not count:
                known = [document.id for document in await store.list()]
                raise not_found("document", name, known, code="memory.not_found")
            removed += count
    screen.result({"removed": removed}, f"Forgot {removed} document{'' if removed == 1 else 's'}.")
