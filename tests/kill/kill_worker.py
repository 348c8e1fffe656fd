"""The processes that are killed. Run as a script it imports kernloom once, and forks for every job.

It reads a line of JSON from stdin and answers with one: ``{"start": job}`` with the new process's id,
``{"wait": pid}`` with how it ended (negative: the signal that killed it). What a job found out it writes
to the file ``job["result"]``. A job's ``alarm`` is a number of seconds after which the kernel ends the
process, wherever it is: nothing in it hears of that.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from kill_scenarios import SCENARIOS, Scenario
from kill_store import DyingStore

from kernloom import Conversation, Journal
from kernloom.kernel.errors import KernloomError, PersonRequired
from kernloom.kernel.journal.events import (
    Event,
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    FunctionStarted,
    RunCancelled,
    RunFailed,
    RunFinished,
    StepFailed,
    StepFinished,
    StepSkipped,
)


async def go(job: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """Begin, or go on with what was begun; say what came of it."""
    scenario = SCENARIOS[job["scenario"]](journal, job["url"])
    try:
        told = await _one_run(scenario, journal)
        if told["status"] == "failed" and job.get("again"):  # the same process, when the fault is over
            told = {**await _one_run(scenario, journal), "first": told}
    finally:
        await scenario.kernel.aclose()
    return told


async def _one_run(scenario: Scenario, journal: Journal) -> dict[str, Any]:
    sessions = await journal.sessions()
    assert len(sessions) <= 1, sessions
    try:
        output = await (scenario.resume(sessions[0].id) if sessions else scenario.begin())
    except PersonRequired as exc:
        return {"status": "waiting", "question": exc.details["question"], "code": exc.code}
    except KernloomError as exc:
        return {"status": "failed", "code": exc.code, "error": str(exc), "events": journal.store.written}  # type: ignore[attr-defined]
    return {"status": "finished", "output": output}


async def answer(job: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """What a person does: look at what is asked, look at the payment server, and say."""
    shop = SCENARIOS[job["scenario"]](journal, job["url"]).shop
    said = []
    for info in await journal.sessions(children=True):
        conversation = await Conversation.open(_JournalOnly(journal), info.id)  # type: ignore[arg-type]
        for question in conversation.questions:
            assert question.call is not None
            if question.about == "approval":
                allow = question.call.parsed() == {"what": "draft 5"}
                words: dict[str, Any] = {"answer": "allow" if allow else "deny"}
                if allow:
                    words["arguments"] = {"what": "the final text"}
            else:
                intent = conversation.log.history.intent(question.call.id)
                assert intent is not None
                found = await asyncio.to_thread(shop.done, intent.key)
                words = {"answer": "done", "result": found.result} if found else {"answer": "not_done"}
            await conversation.answer(question.question_id, **words, by="ann")
            said.append({"question": question.question_id, "about": question.about, **words})
    return {"status": "answered", "said": said}


class _JournalOnly:
    """As much of a kernel as opening a conversation takes."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal


async def tell(job: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """Everything that must be the same however often the run was killed, and the keys of its effects."""
    told: list[Any] = []
    keys: dict[str, Any] = {}
    endings: list[Any] = []
    left = 0
    for info in await journal.sessions(limit=None, children=True):
        log = await journal.open(info.id)
        runs = {event.run: f"RUN{n}" for n, event in enumerate(log.events) if event.kind == "run.started"}
        transcript = [message.model_dump(mode="json") for message in log.messages()]
        text = json.dumps([transcript, _outcomes(log.events)])
        for name in runs:
            text = text.replace(str(name), "RUN")
        told.append(text)
        ends = [e.kind for e in log.events if isinstance(e.data, RunFinished | RunFailed | RunCancelled)]
        assert len(ends) == 1, (info.id, ends)
        assert isinstance(log.events[-1].data, RunFinished | RunFailed), log.events[-1].kind
        endings += ends
        left += len(log.history.open_calls()) + len(log.history.questions())
        for event in log.events:
            if isinstance(event.data, FunctionStarted):
                same = keys.setdefault(f"{log.id}/{event.data.call_id}", event.data.key)
                assert same == event.data.key, "a call was made again with another key"
    return {"status": "told", "sessions": sorted(told), "endings": sorted(endings), "left": left}


def _outcomes(events: list[Event]) -> dict[str, Any]:
    """What became of every call, step and run, without how often it took."""
    found: dict[str, Any] = {}
    for event in events:
        data = event.data
        if isinstance(data, FunctionFinished | FunctionFailedEvent | FunctionInDoubtEvent):
            found[f"call {data.result.call_id}"] = [data.kind, data.result.content]
        elif isinstance(data, StepFinished | StepFailed | StepSkipped):
            found[f"step {data.step}"] = data.model_dump(mode="json")
        elif isinstance(data, RunFinished | RunFailed):
            found["run"] = data.model_dump(mode="json")
    return dict(sorted(found.items()))


async def hold(job: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """Take a session's lease, say so, and keep it until killed."""
    [info] = await journal.sessions()
    log = await journal.open(info.id)
    async with log.claim("holding"):
        _report(job, {"status": "holding"})
        await asyncio.sleep(600)
    return {"status": "released"}


async def read(job: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """How much of the journal can be read: all of it, or this raises."""
    infos = await journal.sessions(limit=None, children=True)
    return {"status": "read", "events": sum([(await journal.open(info.id)).seq for info in infos])}


async def wipe(job: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """Make room for the next world."""
    shutil.rmtree(Path(job["db"]).parent)
    return {"status": "wiped"}


async def fill(job: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """Leave ``job["leave"]`` bytes on the disk; None: make room again."""
    ballast = Path(job["db"]).with_name("ballast")
    ballast.parent.mkdir(parents=True, exist_ok=True)
    ballast.unlink(missing_ok=True)
    if job["leave"] is not None:
        free = os.statvfs(ballast.parent)
        size = free.f_bavail * free.f_frsize - job["leave"]
        ballast.write_bytes(b"\0" * max(0, size))
    return {"status": "filled"}


ACTS = {"go": go, "answer": answer, "tell": tell, "hold": hold, "read": read, "fill": fill, "wipe": wipe}


async def work(job: dict[str, Any]) -> dict[str, Any]:
    """One job."""
    begun = time.perf_counter()
    # Beyond this no file may grow: the disk's own error (EFBIG, since SIGXFSZ is ignored).
    if "fsize" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["fsize"], resource.RLIM_INFINITY))
    chosen = {name: job[name] for name in ("die_at", "fail_at", "fails") if name in job}
    store = DyingStore(Path(job["db"]), **chosen)
    async with Journal(store) as journal:
        try:
            told = await ACTS[job["act"]](job, journal)
        except KernloomError as exc:
            told = {"status": "failed", "code": exc.code, "error": str(exc), "events": store.written}
    return {**told, "points": store.points, "seconds": time.perf_counter() - begun}


def run(job: dict[str, Any]) -> None:
    """One job in this process, which has just been forked, to its end."""
    if job.get("alarm"):
        signal.setitimer(signal.ITIMER_REAL, job["alarm"])
    told = asyncio.run(work(job))
    signal.setitimer(signal.ITIMER_REAL, 0)
    if "fsize" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    _report(job, told)


def _report(job: dict[str, Any], told: dict[str, Any]) -> None:
    """Whole, or not there at all."""
    part = Path(f"{job['result']}.part")
    part.write_text(json.dumps(told), encoding="utf-8")
    os.replace(part, job["result"])


def main() -> None:
    """Fork for every job that stdin asks for."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            said: Any = os.waitstatus_to_exitcode(status)
        else:
            said = _forked(request["start"])
        print(json.dumps(said), flush=True)


def _forked(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        run(job)
        status = 0
    except BaseException:
        with suppress(OSError):
            traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)  # what the parent had open is not this process's to flush


if __name__ == "__main__":
    main()
