"""What the workers do: an agent with functions and agents among them, a plan, a loop that a person reviews.

The models answer by what they are sent, never by counting their own answers: after a crash one is asked
again what it had answered before.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from kernloom import AssistantAgent, Context, Journal, Kernel, ScriptedModel, function
from kernloom.kernel.agents.limits import Limits
from kernloom.kernel.errors import ProviderError
from kernloom.kernel.functions import Done
from kernloom.kernel.messages import Message, ToolCall, ToolResult, assistant
from kernloom.kernel.models.base import ChatRequest
from kernloom.kernel.policy import Policy
from kernloom.planners.plan import Plan

POLICY = Policy(effects={"network": "allow", "write": "allow"})
#: Answers one model may be asked for; more than any run needs.
_PLENTY = 5_000
#: Rounds of the long session, three payments each.
LONG = 120


class Shop:
    """Functions of every declaration, all of whose effects are the payment server's."""

    name = "shop"

    def __init__(self, url: str) -> None:
        self._url = url

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(self._url, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            assert answer.status == 200, answer.status
            return json.loads(answer.read())
        finally:
            connection.close()

    def _pay(self, what: str, context: Context, *, once: bool = False) -> str:
        body = {"key": context.idempotency_key, "what": what, "pid": os.getpid(), "once": once}
        return str(self._ask("POST", "/pay", body))

    def done(self, key: str) -> Done | None:
        """What a payment gave, if it was made."""
        given = self._ask("GET", f"/done?key={quote(key)}")
        return None if given is None else Done(given)

    @function(effects={"network"}, idempotent=True)
    async def pay(self, what: str, context: Context) -> str:
        """Pay; the server knows a key it has seen."""
        return await asyncio.to_thread(self._pay, what, context, once=True)

    def was_booked(self, key: str) -> Done | None:
        """What a booking gave, if it was made."""
        given = self.done(key)
        return given and Done({"booked": given.result})

    @function(effects={"network"}, reconcile="was_booked")
    async def book(self, what: str, context: Context) -> dict[str, str]:
        """Pay; the server pays as often as it is asked, but can be asked what it did."""
        return {"booked": await asyncio.to_thread(self._pay, what, context)}

    @function(effects={"network"})
    def ship(self, what: str, context: Context) -> str:
        """Pay; only a person can find out whether it was done."""
        return self._pay(what, context)

    @function(effects={"network"}, approval="ask")
    def submit(self, what: str, context: Context) -> str:
        """Pay, when a person allows it."""
        return self._pay(what, context)

    @function(effects={"read"})
    def look(self, what: str) -> int:
        """A price."""
        return int(self._ask("GET", f"/price?what={quote(what)}"))

    @function(effects={"network"}, reconcile="done")
    def flaky(self, what: str, context: Context) -> str:
        """Pay; the first call always fails, before it does anything."""
        if "#" not in str(context.call_id):
            raise ConnectionError("the till is closed")
        return self._pay(what, context)

    @function
    async def broken(self) -> str:
        """Never works."""
        await asyncio.sleep(0.01)  # what stands beside it in a plan has begun by then
        raise ConnectionError("out of order")

    @function
    async def wait(self) -> str:
        """Is still at work when what began beside it has failed."""
        await asyncio.sleep(0.15)
        return "waited"


class Scenario:
    """What to begin with, and how to go on."""

    #: What an unkilled run pays for.
    pays: frozenset[str] = frozenset()
    text = "See to it."

    def __init__(self, journal: Journal, url: str) -> None:
        self.shop = Shop(url)
        self.kernel = Kernel(journal=journal, policy=POLICY)
        self.kernel.add_plugin(self.shop)

    async def begin(self) -> Any:
        """Start it."""
        return (await self.agent().run(self.text)).text

    async def resume(self, session: str) -> Any:
        """Go on with it in another process."""
        return (await self.agent().resume(session)).text

    def agent(self) -> AssistantAgent:
        """Who does it."""
        raise NotImplementedError

    def assistant(
        self, name: str, answer: Callable[[ChatRequest], Any], functions: list[Any]
    ) -> AssistantAgent:
        """An agent whose model is ``answer``."""
        return AssistantAgent(
            name,
            kernel=self.kernel,
            model=ScriptedModel([answer] * _PLENTY, name=name),
            functions=functions,
            limits=Limits(rounds=1_000, calls=5_000),
        )

    def clerk(self) -> AssistantAgent:
        """An agent to be called as a function; pays and ships."""
        return self.assistant("clerk", _clerk, ["shop.pay", "shop.ship"])


class BuyerScenario(Scenario):
    """An agent with functions of each declaration, and agents among them."""

    pays = frozenset({"deposit", "table", "band", "drums", "cake", "flowers", "hall"})

    def agent(self) -> AssistantAgent:
        functions: list[Any] = ["shop.look", "shop.pay", "shop.book", "shop.ship"]
        auditor = self.assistant("auditor", _no_answer, [])
        return self.assistant(
            "buyer", _buyer, [*functions, self.clerk().as_function(), auditor.as_function()]
        )


class PlanScenario(Scenario):
    """A plan of ten steps, side by side where they can be."""

    pays = frozenset({"hall", "ann", "bo", "cy", "sign", "truck", "ben-gift", "band", "drums", "sum"})

    def plan(self) -> Plan:
        """The plan."""
        steps: list[dict[str, Any]] = [
            {"id": "price", "call": "shop.look", "args": {"what": "{{ inputs.what }}"}},
            {"id": "reserve", "call": "shop.book", "args": {"what": "{{ inputs.what }}"}},
            {
                "id": "wages",
                "call": "shop.pay",
                "foreach": "inputs.team",
                "args": {"what": "{{ item }}"},
                "needs": ["price"],
            },
            {
                "id": "sign",
                "call": "shop.flaky",
                "args": {"what": "sign"},
                "retry": {"attempts": 3, "wait": 0},
            },
            {"id": "truck", "call": "shop.ship", "args": {"what": "truck"}, "needs": ["wages"]},
            {"id": "gift", "call": "shop.ship", "args": {"what": "ben-gift"}, "needs": ["price"]},
            {"id": "music", "call": "clerk", "args": {"task": "Book {{ steps.price.result }}"}},
            {"id": "bad", "call": "shop.broken", "on_error": {"default": "nothing"}},
            {
                "id": "none",
                "call": "shop.pay",
                "args": {"what": "never"},
                "when": "not steps.bad.error",
            },
            {
                "id": "total",
                "call": "shop.book",
                "args": {"what": "sum"},
                "when": "steps.bad.error",
                "needs": ["truck", "gift", "music", "sign", "reserve", "none"],
            },
        ]
        output = {
            "all": "{{ steps.wages.result }} {{ steps.bad.error }}",
            "total": "{{ steps.total.result }}",
            "music": "{{ steps.music.result }}",
            "none": "{{ steps.none.status }}",
        }
        inputs = {"what": {"type": "string"}, "team": {"type": "array"}}
        return Plan.from_dict({"goal": "A party", "inputs": inputs, "steps": steps, "output": output})

    async def begin(self) -> Any:
        self.kernel.add_function(self.clerk().as_function())
        log = await self.kernel.journal.create()
        context = self.kernel.context(log=log, actor="party")
        return await self.plan().run(self.kernel, {"what": "hall", "team": ["ann", "bo", "cy"]}, context)

    async def resume(self, session: str) -> Any:
        self.kernel.add_function(self.clerk().as_function())
        return (await Plan.resume(self.kernel, session)).output


class FailingPlanScenario(PlanScenario):
    """A plan that fails while a call is under way; what had not begun by then is never done."""

    pays = frozenset({"deposit"})

    def plan(self) -> Plan:
        steps = [
            {"id": "rest", "call": "shop.wait", "needs": ["first"]},
            {"id": "late", "call": "shop.pay", "args": {"what": "never"}, "needs": ["rest"]},
            {"id": "first", "call": "shop.book", "args": {"what": "deposit"}},
            {"id": "bad", "call": "shop.broken", "needs": ["first"]},
        ]
        inputs = {"what": {"type": "string"}, "team": {"type": "array"}}
        return Plan.from_dict({"goal": "A failure", "inputs": inputs, "steps": steps})


class ReviewScenario(Scenario):
    """A loop: pay for a draft, submit it to a person, five times until they allow it, with changes."""

    pays = frozenset({*(f"draft {n}" for n in range(1, 6)), "the final text"})

    def agent(self) -> AssistantAgent:
        return self.assistant("writer", _writer, ["shop.pay", "shop.submit"])


class LongScenario(Scenario):
    """One session of hundreds of payments."""

    pays = frozenset(f"{what} {n}" for n in range(LONG) for what in ("pay", "book", "ship"))

    def agent(self) -> AssistantAgent:
        return self.assistant("payer", _payer, ["shop.pay", "shop.book", "shop.ship"])


SCENARIOS: dict[str, type[Scenario]] = {
    "agent": BuyerScenario,
    "plan": PlanScenario,
    "failing": FailingPlanScenario,
    "review": ReviewScenario,
    "long": LongScenario,
}


def calls(turn: int, *wanted: tuple[str, dict[str, Any]]) -> Message:
    """An answer that calls functions; the ids are the same whenever it is given."""
    made = [
        ToolCall(id=f"{name}-{turn}-{index}", name=name, arguments=json.dumps(arguments))
        for index, (name, arguments) in enumerate(wanted)
    ]
    return assistant("", *made)


def turns(request: ChatRequest) -> tuple[int, list[ToolResult]]:
    """How many answers with calls there were, and all their results."""
    asked = sum(1 for message in request.messages if message.tool_calls)
    return asked, [part for m in request.messages for part in m.parts if isinstance(part, ToolResult)]


def _summary(results: list[ToolResult]) -> str:
    return "; ".join(f"{r.name}: {r.content}{' (error)' if r.error else ''}" for r in results)


def _buyer(request: ChatRequest) -> Any:
    turn, results = turns(request)
    script = [
        [("shop.look", {"what": "table"}), ("shop.pay", {"what": "deposit"})],
        [("shop.book", {"what": "table"})],
        [("clerk", {"task": "Music"}), ("auditor", {"task": "Look"}), ("shop.nothing", {})],
        [("shop.ship", {"what": "cake"}), ("shop.pay", {"what": "flowers"})],
        [("shop.book", {"what": "hall"}), ("shop.look", {"whom": "wrong"})],
    ]
    return calls(turn, *script[turn]) if turn < len(script) else _summary(results)


def _clerk(request: ChatRequest) -> Any:
    turn, results = turns(request)
    script = [[("shop.pay", {"what": "band"})], [("shop.ship", {"what": "drums"})]]
    return calls(turn, *script[turn]) if turn < len(script) else _summary(results)


def _no_answer(request: ChatRequest) -> Any:
    return ProviderError("The auditor is on holiday.", hint="Wait.", status=503)


def _writer(request: ChatRequest) -> Any:
    turn, results = turns(request)
    if results and results[-1].name == "shop.submit" and not results[-1].error:
        return _summary(results)
    draft = f"draft {turn // 2 + 1}"
    return calls(turn, ("shop.submit" if turn % 2 else "shop.pay", {"what": draft}))


def _payer(request: ChatRequest) -> Any:
    turn, results = turns(request)
    if turn == LONG:
        return f"{len(results)} results, {sum(r.error for r in results)} errors"
    return calls(turn, *((f"shop.{what}", {"what": f"{what} {turn}"}) for what in ("pay", "book", "ship")))
