"""Writes the histories that every later release must be able to read: ``tests/corpus/<release>/*.jsonl``.

::

    python tests/corpus/make.py

Real runs with scripted models, as an application makes them; one exported session a file, and beside it
the messages a model is sent of it. What a release has written is committed with it and never written
again: :mod:`tests.kernel.journal.test_corpus` reads all of it with the code of today. Only the folder of
the release under way may be made anew, when an event is added to it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

from kernloom.kernel.agents.assistant import AssistantAgent
from kernloom.kernel.config import Config
from kernloom.kernel.discovery.installed import own_version
from kernloom.kernel.errors import ApprovalRequired, KernloomError, ProviderError
from kernloom.kernel.functions import function
from kernloom.kernel.journal import InMemoryJournalStore, Journal
from kernloom.kernel.journal.edits import edit_message
from kernloom.kernel.journal.exchange import export_session
from kernloom.kernel.journal.forgetting import forget
from kernloom.kernel.kernel import Kernel
from kernloom.kernel.messages import assistant
from kernloom.kernel.models.scripted import ScriptedModel, call
from kernloom.kernel.policy import Approval, ApprovalRequest, Policy
from kernloom.memory.memory import Memory
from kernloom.planners.plan import Plan

HERE = Path(__file__).resolve().parent
PAGES = HERE.parent.parent / "examples" / "handbook" / "pages" / "travel"
#: 2026-01-01, and a hundredth of a second for each look at the clock.
BEGIN, TICK = 1_767_225_600.0, 0.01


class Bank:
    """Functions of every temper."""

    @function(effects=("read",))
    def balance(self, account: str) -> dict[str, object]:
        """What is on an account."""
        return {"account": account, "euros": 1200.5, "since": [2024, 3], "ünïcode": "塔 🗼"}

    @function(effects=("read",))
    def rate(self, currency: str) -> float:
        """What a euro is worth."""
        raise ValueError(f"no rate for {currency}")

    @function(effects=("write", "network"), timeout=0.05)
    async def pay(self, to: str, euros: int) -> str:
        """Pay somebody, unless it is nobody: then the bank does not answer."""
        if to == "nobody":
            await asyncio.sleep(60)
        return f"paid {euros} to {to}"

    @function
    def add(self, numbers: list[int]) -> int:
        """The sum."""
        return sum(numbers)


PLAN = Plan.from_dict(
    {
        "goal": "What the accounts hold",
        "inputs": {"accounts": {"type": "array"}, "deep": {"type": "boolean", "default": False}},
        "steps": [
            {
                "id": "each",
                "call": "bank.balance",
                "foreach": "inputs.accounts",
                "args": {"account": "{{ item }}"},
            },
            {"id": "sum", "call": "bank.add", "args": {"numbers": [1, 2]}},
            {"id": "deeper", "call": "bank.add", "args": {"numbers": []}, "when": "inputs.deep"},
            {"id": "rate", "call": "bank.rate", "args": {"currency": "NOK"}, "on_error": "skip"},
            {"id": "total", "call": "bank.add", "args": {"numbers": ["{{ steps.sum.result }}", 4]}},
        ],
        "output": {"total": "{{ steps.total.result }}"},
    }
)
FAILING = Plan.from_dict(
    {"goal": "Rates", "steps": [{"id": "rate", "call": "bank.rate", "args": {"currency": "NOK"}}]}
)


async def small(request: ApprovalRequest) -> bool:
    """Says yes to small sums."""
    return int(str(request.arguments["euros"])) < 100


async def less(request: ApprovalRequest) -> Approval:
    """Says yes to half of it."""
    return Approval(allow=True, arguments={**request.arguments, "euros": 0}, by="Ann")


async def agent(journal: Journal) -> str:
    """An answer that took functions: one that worked, one that failed, one in doubt, one that is a plan."""
    model = ScriptedModel(
        [
            assistant(
                "Let me see.", call("bank.balance", account="A-1"), call("bank.rate", currency="NOK")
            ),
            call("bank.pay", to="nobody", euros=5),
            call("accounts", accounts=["A-1", "A-2"]),
            call("bank.nothing"),
            "There are 1200.50 euros; the payment is in doubt.",
            "You are welcome. 塔",
        ]
    )
    async with kernel(journal) as bank:
        bank.add_function(PLAN.as_function("accounts"))
        clerk = AssistantAgent("clerk", kernel=bank, model=model, functions=["bank", "accounts"])
        reply = await clerk.run("What is on A-1, and pay nobody 5 euros.")
        await clerk.run("Thank you 🗼", session=reply.session)
    model.assert_complete()
    return reply.session


async def cancelled(journal: Journal) -> str:
    """A stream that was closed after three words, and the conversation going on."""
    model = ScriptedModel(["One two three four five six seven.", "Eight."])
    async with kernel(journal) as bank:
        clerk = AssistantAgent("clerk", kernel=bank, model=model, functions=[])
        stream = clerk.stream("Count")
        heard = 0
        async for item in stream:
            heard += type(item).__name__ == "TextDelta"
            if heard == 3:
                break
        await stream.aclose()
        [head] = await journal.store.sessions()
        await clerk.run("Go on", session=head.id)
    return head.id


async def failed(journal: Journal) -> str:
    """A provider that gave no answer, a limit that was met, and an answer in the end."""
    model = ScriptedModel([ProviderError("It is down.", status=503), "Here I am."])
    async with kernel(journal) as bank:
        clerk = AssistantAgent("clerk", kernel=bank, model=model, functions=[])
        with suppress(ProviderError):
            await clerk.run("Hello?")
        [head] = await journal.store.sessions()
        await clerk.run("Hello again", session=head.id)
    return head.id


async def plan(journal: Journal) -> str:
    """Steps side by side, one for each item, one skipped, one whose failure is made up for."""
    async with kernel(journal) as bank:
        log = await journal.create()
        await PLAN.run(bank, {"accounts": ["A-1", "A-2", "A-3"]}, bank.context(log=log, actor="accounts"))
    return log.id


async def plan_failed(journal: Journal) -> str:
    """A plan whose step failed."""
    async with kernel(journal) as bank:
        log = await journal.create()
        with suppress(KernloomError):
            await FAILING.run(bank, {}, bank.context(log=log, actor="rates"))
    return log.id


async def approvals(journal: Journal) -> str:
    """Allowed, refused, and waited for: asked when there was nobody, answered when it was resumed."""
    model = ScriptedModel(
        [
            assistant("", call("bank.pay", to="Ann", euros=7), call("bank.pay", to="Bob", euros=900)),
            "Ann is paid, Bob is not.",
            call("bank.pay", to="Eve", euros=1),
            "Eve is paid.",
        ]
    )

    async with kernel(journal, policy=Policy()) as bank:
        clerk = AssistantAgent("clerk", kernel=bank, model=model, functions=["bank.pay"])
        bank.approve = small
        reply = await clerk.run("Pay Ann 7 and Bob 900.")
        bank.approve = None
        with suppress(ApprovalRequired):
            await clerk.run("Pay Eve.", session=reply.session)
        bank.approve = less
        await clerk.resume(reply.session)
    return reply.session


async def waiting(journal: Journal) -> str:
    """A run that waits for a person."""
    model = ScriptedModel([call("bank.pay", to="Eve", euros=1)])
    async with kernel(journal, policy=Policy()) as bank:
        clerk = AssistantAgent("clerk", kernel=bank, model=model, functions=["bank.pay"])
        with suppress(ApprovalRequired):
            await clerk.run("Pay Eve.")
    [head] = await journal.store.sessions()
    return head.id


async def retrieval(journal: Journal) -> str:
    """An answer with citations out of memory."""
    model = ScriptedModel(["A hotel may cost what the band says [1]."])
    memory = Memory(embedder=None)
    for page in sorted(PAGES.glob("*.md")):
        name = f"travel/{page.name}"
        await memory.add_text(page.read_text(encoding="utf-8"), id=name, source=name)
    async with kernel(journal) as bank:
        librarian = AssistantAgent("librarian", kernel=bank, model=model, memory=memory, functions=[])
        reply = await librarian.run("What may a hotel cost per night?")
    memory.close()
    return reply.session


async def fork(journal: Journal) -> str:
    """A conversation that took another turn."""
    session = await cancelled(journal)
    forked = await journal.fork(session, at=2, edit=edit_message("Count backwards"))
    async with kernel(journal) as bank:
        clerk = AssistantAgent("clerk", kernel=bank, model=ScriptedModel(["Backwards then."]), functions=[])
        await clerk.resume(forked.id)
    return forked.id


async def forgotten(journal: Journal) -> str:
    """An agent's run of which something was forgotten."""
    session = await agent(journal)
    await forget(journal, text="nobody")
    return session


MADE = (agent, cancelled, failed, plan, plan_failed, approvals, waiting, retrieval, fork, forgotten)


@asynccontextmanager
async def kernel(journal: Journal, *, policy: Policy | None = None) -> AsyncIterator[Kernel]:
    """A kernel with the bank, in which anything may be done unless ``policy`` says otherwise."""
    free = Policy(functions={"*": "allow"})
    async with Kernel(
        allow=[], config=Config.load(HERE, env={}), policy=policy or free, journal=journal
    ) as made:
        made.add_plugin(Bank(), name="bank")
        yield made


def new_journal() -> Journal:
    """A journal whose clock and ids are the same each time."""
    looks, names = count(), count(1)
    return Journal(
        InMemoryJournalStore(),
        clock=lambda: round(BEGIN + next(looks) * TICK, 2),
        new_id=lambda: f"{next(names):016d}",
    )


async def write(folder: Path) -> None:
    """Every history, and for the agent's also the session it opened."""
    for make in MADE:
        journal = new_journal()
        session = await make(journal)
        children = [head.id for head in await journal.store.sessions(parent=session)]
        for number, name in enumerate([session, *children]):
            title = make.__name__ + (f"_child_{number}" if number else "")
            lines = [line async for line in export_session(journal, name)]
            (folder / f"{title}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
            sent = [message.model_dump(mode="json") for message in (await journal.open(name)).messages()]
            text = json.dumps(sent, ensure_ascii=False, indent=1) + "\n"
            (folder / f"{title}.transcript.json").write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Write the folder of this release anew."""
    folder = HERE / own_version()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    asyncio.run(write(folder))
    print(f"{folder.name}: {len(list(folder.glob('*.jsonl')))} histories")


if __name__ == "__main__":
    main()
