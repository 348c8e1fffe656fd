"""A payment that is never made twice: ``python examples/payment/pay.py``.

An agent is told to pay. Its process is killed right after the money was sent, before it could write that
down. Another process resumes the run. How often was paid?
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from payments import Payments
from server import Bank

from kernloom import AssistantAgent, Conversation, Journal, Kernel, ScriptedModel, SqliteJournalStore
from kernloom.kernel.errors import ResolutionRequired
from kernloom.kernel.messages import ToolResult
from kernloom.kernel.models.base import ChatRequest
from kernloom.kernel.models.scripted import Answer, call
from kernloom.kernel.policy import Policy

#: What a function declares, and so who settles a call that is in doubt.
WAYS = {"pay": "idempotent", "transfer": "reconcile", "wire": "a person"}


def agent(kernel: Kernel, way: str) -> AssistantAgent:
    """An agent that pays, then says so; it stands for one with a model of a provider."""

    def answer(request: ChatRequest) -> Answer:
        last = request.messages[-1].parts[-1]
        if isinstance(last, ToolResult):
            return f"Paid, receipt {last.content}."
        return call(f"payments.{way}", to="ann", amount=100)

    model = ScriptedModel([answer, answer])
    return AssistantAgent("payer", kernel=kernel, model=model, functions=[f"payments.{way}"])


def open_kernel(journal: Path, payments: Payments) -> Kernel:
    """A kernel that keeps its journal in a file. Paying needs no approval here."""
    store = SqliteJournalStore(journal)
    kernel = Kernel(journal=Journal(store), policy=Policy(effects={"spend": "allow"}))
    kernel.add_plugin(payments)
    return kernel


async def first(journal: Path, url: str, way: str) -> None:
    """What the first process does; it does not live to see the end."""
    async with open_kernel(journal, Payments(url, dies=True)) as kernel:
        await agent(kernel, way).run("Pay Ann 100.")


async def resumed(journal: Path, bank: Bank, way: str) -> str:
    """What another process does, later."""
    async with open_kernel(journal, Payments(bank.url)) as kernel:
        (session,) = await kernel.journal.sessions()
        try:
            reply = await agent(kernel, way).resume(session.id)
        except ResolutionRequired as exc:
            # A person looks at the bank's book and answers. On the command line:
            # kernloom runs resolve SESSION done --result R-1
            conversation = await Conversation.open(kernel, session.id)
            (paid,) = bank.payments
            await conversation.answer(
                str(exc.details["question"]), "done", result=paid["receipt"], by="ann"
            )
            reply = await agent(kernel, way).resume(session.id)
        return reply.text


def killed_and_resumed(way: str, folder: Path) -> str:
    """One run, killed and resumed; a line of what came of it."""
    journal = folder / f"{way}.db"
    with Bank() as bank:
        words = [sys.executable, __file__, "first", str(journal), bank.url, way]
        ended = subprocess.run(words, check=False)
        assert ended.returncode != 0, "it was to be killed"
        text = asyncio.run(resumed(journal, bank, way))
        return f"{way:<9} {WAYS[way]:<11} {bank.requests:>8} {len(bank.payments):>14}  {text}"


def main() -> None:
    """Every way, each killed right after the effect."""
    print("function  settled by  requests  payments made  the agent's answer")
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            print(killed_and_resumed(way, Path(folder)), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["first"]:
        asyncio.run(first(Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
    else:
        main()
