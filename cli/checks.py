"""What the doctor tries, one function for each part."""

from __future__ import annotations

import os
import platform
import sqlite3
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from .. import __version__
from ..kernel.agents.assistant import AssistantAgent
from ..kernel.config import keys
from ..kernel.discovery.registry import PluginRegistry
from ..kernel.errors import PluginError
from ..kernel.journal import Journal
from ..kernel.journal.events import MessageAdded
from ..kernel.kernel import Kernel
from ..kernel.messages import user
from ..kernel.models.base import ChatRequest
from ..memory.embedding import look_for_embedder
from ..memory.memory import Memory
from .screen import Screen
from .workspace import EXTRACTIVE, journal_store

Status = Literal["ok", "note", "warn", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. ``note`` is no trouble, ``warn`` limits you, ``broken`` does not work."""

    part: str
    status: Status
    said: str
    fix: str = ""


Check = Callable[[Screen, bool], AsyncIterator[Finding]]


async def _python(_: Screen, __: bool) -> AsyncIterator[Finding]:
    said = f"{platform.python_version()} on {platform.system()}"
    yield Finding("python", "ok", f"{said}; kernloom {__version__} in {Path(__file__).parent.parent}")


async def _requirements(_: Screen, __: bool) -> AsyncIterator[Finding]:
    """What the core needs, in the versions it needs."""
    wanted = [Requirement(text) for text in metadata.requires("kernloom") or ()]
    wanted = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    unmet = []
    for requirement in wanted:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            unmet.append(f"{requirement} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{requirement} is wanted, {version} is installed")
    if unmet:
        yield Finding("requirements", "broken", "; ".join(unmet), "pip install --upgrade kernloom")
    else:
        yield Finding("requirements", "ok", f"{len(wanted)} packages in the versions that are needed")


async def _config(screen: Screen, _: bool) -> AsyncIterator[Finding]:
    config = screen.config
    said = str(config.file) if config.file else "no kernloom.toml here; the defaults hold"
    yield Finding("config", "ok" if config.file else "note", said, "" if config.file else "kernloom init")


async def _kernel(screen: Screen, _: bool) -> AsyncIterator[Finding]:
    async with Kernel(config=screen.config) as kernel:
        found = await kernel.invoke("math.evaluate", expression="6*7")
    if found == 42:
        yield Finding("kernel", "ok", "math.evaluate 6*7 = 42")
    else:
        yield Finding("kernel", "broken", f"math.evaluate 6*7 = {found!r}")


async def _plugins(screen: Screen, _: bool) -> AsyncIterator[Finding]:
    registry = PluginRegistry(config=screen.config)
    good: list[str] = []
    for record in registry.records():
        part = f"plugin {record.name}"
        if record.status == "disabled":
            yield Finding(part, "note", record.why)
        elif record.status == "blocked":
            yield Finding(part, "warn", record.why, record.hint)
        elif record.status != "ok":
            yield Finding(part, "broken", record.why, record.hint)
        else:
            try:
                registry.load(record.name)
                good.append(record.name)
            except PluginError as exc:
                yield Finding(part, "broken", exc.message, exc.hint or "")
    await registry.aclose()
    yield Finding("plugins", "ok", f"{len(good)} load: {', '.join(good)}")


async def _model(screen: Screen, online: bool) -> AsyncIterator[Finding]:
    name = screen.config.default_model
    provider = name.partition(":")[0]
    async with Kernel(config=screen.config) as kernel:
        model = kernel.model(name)
        if name == EXTRACTIVE:
            yield Finding("model", "ok", f"{name}: quotes your documents, asks nobody")
            return
        if not model.info.local:
            yield _key(screen, provider)
        if online or model.info.local:
            answer = await model.complete(ChatRequest(messages=(user("Answer with the word yes."),)))
            yield Finding("model", "ok", f"{name} answered {answer.message.text[:60]!r}")
        else:
            yield Finding("model", "note", f"{name} was not asked", "kernloom doctor --online asks it")


def _key(screen: Screen, provider: str) -> Finding:
    settings = screen.config.model_settings(provider)
    url = settings.get("base_url")
    at = f" for {urlsplit(url).netloc}" if url else ""
    if settings["api_key"]:
        return Finding("key", "ok", f"there is a key of {provider}{at}")
    fix = f"kernloom keys set {provider}, or {keys.variable(provider)}; without one: -m extractive"
    return Finding("key", "warn", f"no key of {provider}{at}", fix)


_FACT = "The spare key of the boat house hangs behind the second clock."


async def _memory(screen: Screen, _: bool) -> AsyncIterator[Finding]:
    """The whole walk in a memory of its own: add, search, ask by quoting, check the citation."""
    choice = screen.config.get("memory.embedder")
    with tempfile.TemporaryDirectory(prefix="kernloom-doctor-") as folder:
        async with (
            Kernel(config=screen.config) as kernel,
            Memory(Path(folder) / "m.db", embedder=choice) as memory,
        ):
            await memory.add_text(_FACT, id="boats.md")
            await memory.add_text("Bread is baked on Fridays, in the oven by the mill.", id="bread.md")
            hits = await memory.search("Where does the key of the boat house hang?", 2)
            agent = AssistantAgent("doctor", kernel=kernel, memory=memory, model="extractive", functions=[])
            reply = await agent.run("Where does the spare key of the boat house hang?")
            name = memory.info().embedder
    if not hits or hits[0].chunk.document != "boats.md":
        yield Finding("memory", "broken", f"a search found {[hit.chunk.document for hit in hits]}")
    elif not reply.citations or not all(citation.verified for citation in reply.citations):
        yield Finding("memory", "broken", f"the answer {reply.text!r} has no verified citation")
    elif name is None:
        looked = "; ".join(look_for_embedder(choice).looked)
        fix = "pip install 'kernloom[rag,minilm]' to search by meaning"
        yield Finding("memory", "warn", f"works by words only, no embedder ({looked})", fix)
    else:
        yield Finding("memory", "ok", f"wrote, searched, quoted and verified; embedder {name}")


async def _documents(screen: Screen, _: bool) -> AsyncIterator[Finding]:
    path = screen.config.memory_path
    if not path.exists():
        yield Finding("documents", "note", f"none yet ({path})", "kernloom memory add docs/")
        return
    async with Memory(path, embedder=screen.config.get("memory.embedder")) as memory:
        info = memory.info()
    said = f"{info.documents} documents, {info.chunks} chunks in {path}"
    if info.embedder and info.embedded < info.chunks:
        said += f"; {info.embedded} of them embedded with {info.embedder}"
        yield Finding("documents", "warn", said, "add them again: kernloom memory add …")
    else:
        yield Finding("documents", "ok", said)


async def _journal(screen: Screen, _: bool) -> AsyncIterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="kernloom-doctor-") as folder:
        path = Path(folder) / "journal.db"
        async with Journal(journal_store(screen, path)) as journal:
            log = await journal.create()
            await log.append(MessageAdded(message=user("still there?")), actor="doctor", durable=True)
        async with Journal(journal_store(screen, path)) as journal:
            again = await journal.open(log.id)
    if [event.data for event in again.events] != [event.data for event in log.events]:
        yield Finding("journal", "broken", "what was written did not come back")
        return
    kept = screen.config.journal_path
    if not kept.exists():
        yield Finding("journal", "ok", "wrote and read back; yours begins with the first question")
        return
    async with Journal(journal_store(screen, kept)) as journal:
        sessions = await journal.sessions(limit=None)
    yield Finding("journal", "ok", f"wrote and read back; {len(sessions)} sessions in {kept}")


async def _sqlite(screen: Screen, _: bool) -> AsyncIterator[Finding]:
    """WAL needs shared memory, which some network file systems lack: try it where the state is."""
    state = screen.config.state_dir
    place = next(folder for folder in (state, *state.parents) if folder.exists())
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as folder,
            closing(sqlite3.connect(Path(folder) / "wal.db")) as connection,
        ):
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            connection.execute("CREATE TABLE t (x)")
    except OSError as exc:
        said = f"nothing can be kept in {state}: {place}: {exc.strerror}"
        yield Finding("sqlite", "broken", said, "make it writable, or set KERNLOOM_HOME")
        return
    said = f"{sqlite3.sqlite_version}, journal mode {mode} in {place}"
    if mode == "wal":
        yield Finding("sqlite", "ok", said)
    else:
        yield Finding("sqlite", "broken", said, "put the project on a local disk, or set KERNLOOM_HOME")


async def _modes(screen: Screen, _: bool) -> AsyncIterator[Finding]:
    if os.name != "posix":
        yield Finding("files", "note", "this system keeps your folders to you by its own rules")
        return
    wide = [f"{path} ({mode:04o})" for path, mode in _open_to_others(screen)]
    if wide:
        yield Finding("files", "broken", f"others can read {', '.join(wide)}", "chmod go= them")
    else:
        yield Finding("files", "ok", "keys, journal and memory are yours alone")


def _open_to_others(screen: Screen) -> Iterator[tuple[Path, int]]:
    config = screen.config
    mine = [config.folders.config / keys.FILE, config.journal_path, config.memory_path]
    if config.project is not None:
        mine.append(config.state_dir)
    for path in mine:
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            yield path, mode


CHECKS: dict[str, Check] = {
    "python": _python,
    "requirements": _requirements,
    "config": _config,
    "kernel": _kernel,
    "plugins": _plugins,
    "model": _model,
    "memory": _memory,
    "documents": _documents,
    "journal": _journal,
    "sqlite": _sqlite,
    "files": _modes,
}
