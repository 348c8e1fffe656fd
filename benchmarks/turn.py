"""What a turn, a round of functions and a stream cost the client's CPU, beside the bare ``openai`` client.

Run: ``python benchmarks/turn.py [--rounds N]``. The floor is ``AsyncOpenAI`` as its documentation shows it;
*model* is our ``OpenAIChatModel`` in the same hand-written loop; *agent* is ``AssistantAgent.run`` (or
``stream``) with everything it does: validation, policy, journal in memory. All talk to the same loopback
server in a process of its own. Within one run they take turns, floor, model, agent, floor, so that the
machine's load falls on all alike; a ratio is ours over the mean of the two floors around it, and medians
over the rounds are printed. CPU is user + system time of this process; the server's is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI

from kernloom import AssistantAgent, Kernel, function
from kernloom.kernel.functions import Function
from kernloom.kernel.messages import Message, ToolResult, system, tool, user
from kernloom.kernel.models import ChatRequest, TextDelta
from kernloom.plugins.models.openai import OpenAIChatModel
from kernloom.testing import Call, FakeOpenAI, Received, Reply

INSTRUCTIONS = "You are a helpful assistant. Answer briefly."
QUESTION = "What is the sum of all the numbers I have told you so far?"
ROUNDS = 10
PARALLEL = 8
CHUNKS = 1000
TURNS = 50


# -- the server ------------------------------------------------------------------------------------------


def decide(request: Received) -> Reply:
    """The answer the request's model name asks for."""
    body = request.json
    kind = body["model"]
    results = 0
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            break
        results += message["role"] == "tool"
    if kind == "rounds" and results < ROUNDS:
        return Reply(calls=(Call(_offered(body), {"a": results, "b": 2}),))
    if kind == "parallel" and not results:
        return Reply(calls=tuple(Call(_offered(body), {"a": number, "b": 2}) for number in range(PARALLEL)))
    if kind == "chunks":
        return Reply(pieces=["word "] * CHUNKS)
    return Reply("The sum is 42.")


def _offered(body: dict[str, Any]) -> str:
    name: str = body["tools"][0]["function"]["name"]
    return name


def serve() -> None:
    """Serve until standard input is closed."""
    with FakeOpenAI(decide) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()


# -- the floor: the openai client as documented ----------------------------------------------------------


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


async def floor_turn(client: AsyncOpenAI, kind: str) -> str:
    messages: list[Any] = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": QUESTION},
    ]
    completion = await client.chat.completions.create(model=kind, messages=messages)
    messages.append(completion.choices[0].message)
    return completion.choices[0].message.content or ""


async def floor_conversation(client: AsyncOpenAI, kind: str) -> str:
    messages: list[Any] = [{"role": "system", "content": INSTRUCTIONS}]
    text = ""
    for _ in range(TURNS):
        messages.append({"role": "user", "content": QUESTION})
        completion = await client.chat.completions.create(model=kind, messages=messages)
        messages.append(completion.choices[0].message)
        text = completion.choices[0].message.content or ""
    return text


async def floor_tools(client: AsyncOpenAI, kind: str) -> str:
    messages: list[Any] = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": QUESTION},
    ]
    tools: list[Any] = [TOOL]
    while True:
        completion = await client.chat.completions.create(model=kind, messages=messages, tools=tools)
        message = completion.choices[0].message
        messages.append(message)
        if not message.tool_calls:
            return message.content or ""
        for call in message.tool_calls:
            assert call.type == "function"
            result = add(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})


async def floor_chunks(client: AsyncOpenAI, kind: str) -> str:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    text = ""
    stream = await client.chat.completions.create(model=kind, messages=messages, stream=True)
    async for chunk in stream:
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
    return text


# -- our model in the same loops -------------------------------------------------------------------------


async def model_turn(model: OpenAIChatModel) -> str:
    response = await model.complete(ChatRequest(messages=(system(INSTRUCTIONS), user(QUESTION))))
    return response.message.text


async def model_conversation(model: OpenAIChatModel) -> str:
    messages: list[Message] = [system(INSTRUCTIONS)]
    for _ in range(TURNS):
        messages.append(user(QUESTION))
        response = await model.complete(ChatRequest(messages=tuple(messages)))
        messages.append(response.message)
    return messages[-1].text


ADD = Function.of(function(inline=True)(add))


async def model_tools(model: OpenAIChatModel) -> str:
    messages: list[Message] = [system(INSTRUCTIONS), user(QUESTION)]
    while True:
        response = await model.complete(ChatRequest(messages=tuple(messages), functions=(ADD.spec,)))
        messages.append(response.message)
        calls = response.message.tool_calls
        if not calls:
            return response.message.text
        results = []
        for call in calls:
            value = add(**call.parsed())  # type: ignore[arg-type]  # the model may send anything
            results.append(ToolResult(call_id=call.id, name=call.name, content=str(value)))
        messages.append(tool(*results))


async def model_chunks(model: OpenAIChatModel) -> str:
    request = ChatRequest(messages=(user(QUESTION),))
    pieces = [delta.text async for delta in model.stream(request) if isinstance(delta, TextDelta)]
    return "".join(pieces)


# -- the agent -------------------------------------------------------------------------------------------


async def agent_run(agent: AssistantAgent) -> str:
    return (await agent.run(QUESTION)).text


async def agent_conversation(agent: AssistantAgent) -> str:
    reply = await agent.run(QUESTION)
    for _ in range(TURNS - 1):
        reply = await agent.run(QUESTION, session=reply.session)
    return reply.text


async def agent_chunks(agent: AssistantAgent) -> str:
    pieces = [item.text async for item in agent.stream(QUESTION) if isinstance(item, TextDelta)]
    return "".join(pieces)


# -- the measurement -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """One kind of work, done in three ways."""

    title: str
    #: The server answers by this model name.
    kind: str
    floor: Callable[[AsyncOpenAI, str], Awaitable[str]]
    model: Callable[[OpenAIChatModel], Awaitable[str]]
    agent: Callable[[AssistantAgent], Awaitable[str]]
    #: Runs in one sample, and what a run's time is divided by.
    repeat: int
    parts: int = 1
    answer: str = "The sum is 42."


WORKS = [
    Work("one turn", "turn", floor_turn, model_turn, agent_run, repeat=40),
    Work("function round, of 10", "rounds", floor_tools, model_tools, agent_run, repeat=4, parts=ROUNDS),
    Work("8 parallel calls", "parallel", floor_tools, model_tools, agent_run, repeat=15),
    Work(
        "1,000 streamed chunks", "chunks", floor_chunks, model_chunks, agent_chunks,
        repeat=2, answer="word " * CHUNKS,
    ),
    Work(
        "turn, of a conversation of 50", "turn", floor_conversation, model_conversation, agent_conversation,
        repeat=1, parts=TURNS,
    ),
]  # fmt: skip


@dataclass
class Samples:
    """CPU milliseconds of one work, and ratios to the floors around it."""

    floor: list[float] = field(default_factory=list)
    model: list[float] = field(default_factory=list)
    agent: list[float] = field(default_factory=list)
    model_ratio: list[float] = field(default_factory=list)
    agent_ratio: list[float] = field(default_factory=list)
    drift: list[float] = field(default_factory=list)


async def cpu(work: Work, once: Callable[[], Awaitable[str]]) -> float:
    """CPU milliseconds of one part of ``work``."""
    gc.collect()
    answer = ""
    start = time.process_time()
    for _ in range(work.repeat):
        answer = await once()
    spent = time.process_time() - start
    assert answer == work.answer, answer
    return spent * 1000 / work.repeat / work.parts


async def measure(work: Work, base_url: str, rounds: int) -> Samples:
    """Floor, model, agent, floor; ``rounds`` times, after one to warm up."""
    client = AsyncOpenAI(base_url=base_url, api_key="any")
    model = OpenAIChatModel(work.kind, base_url=base_url, api_key="any")
    samples = Samples()
    uses_functions = work.kind in ("rounds", "parallel")
    async with Kernel(allow=()) as kernel:
        agent = AssistantAgent(
            "bench",
            kernel=kernel,
            model=model,
            instructions=INSTRUCTIONS,
            functions=[ADD] if uses_functions else [],
        )
        for number in range(rounds + 1):
            before = await cpu(work, lambda: work.floor(client, work.kind))
            ours = await cpu(work, lambda: work.model(model))
            agents = await cpu(work, lambda: work.agent(agent))
            after = await cpu(work, lambda: work.floor(client, work.kind))
            if number == 0:
                continue
            floor = (before + after) / 2
            samples.floor.append(floor)
            samples.model.append(ours)
            samples.agent.append(agents)
            samples.model_ratio.append(ours / floor)
            samples.agent_ratio.append(agents / floor)
            samples.drift.append(after / before)
    await model.aclose()
    await client.close()
    return samples


def report(work: Work, samples: Samples) -> str:
    """One line of the table."""
    middle = statistics.median
    return (
        f"{work.title:<31}{middle(samples.floor):>10.2f}{middle(samples.model):>10.2f}"
        f"{middle(samples.model_ratio):>8.2f}{middle(samples.agent):>10.2f}"
        f"{middle(samples.agent_ratio):>8.2f}   {min(samples.drift):.2f}-{max(samples.drift):.2f}"
    )


async def run(base_url: str, rounds: int, only: str) -> None:
    """Measure everything and print the table."""
    print(f"{'CPU ms':<31}{'floor':>10}{'model':>10}{'ratio':>8}{'agent':>10}{'ratio':>8}   floor moved")
    for work in WORKS:
        if only in work.title:
            print(report(work, await measure(work, base_url, rounds)), flush=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="samples of each (default: 7)")
    parser.add_argument("--only", default="", help="only works whose title holds this")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        asyncio.run(run(server.stdout.readline().strip(), arguments.rounds, arguments.only))
        server.communicate()  # closes its input, which ends it


if __name__ == "__main__":
    main()
