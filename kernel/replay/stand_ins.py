"""What answers in a replay in the place of everything alive: models, functions, memory, people.

Each says what is on record. What came at that time to no end (the process died, the run was stopped) comes
to none here, until the stage ends or the run is stopped again.

A function's clock, random numbers and ids need no stand-in: its body is not run, and its result holds what
came of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, cast

from ..errors import ApprovalRequired, KernloomError, PersonRequired
from ..functions import Context, Done, Function
from ..journal.events import (
    Event,
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    FunctionStarted,
    ModelAnswered,
    ModelFailed,
    QuestionAnswered,
    Retrieval,
    RunFailed,
)
from ..journal.journal import Journal
from ..journal.store_memory import InMemoryJournalStore
from ..kernel import Kernel
from ..messages import Citation, Grounding
from ..models.base import ChatRequest, ChatResponse, Delta, Finished, FinishReason, ModelInfo, TextDelta
from ..outcomes import remembered
from ..policy import Approval, ApprovalRequest
from .stages import HOUSE, is_cancelled
from .tape import Tape

if TYPE_CHECKING:
    from ..config.config import Config
    from ..discovery.registry import PluginRegistry
    from ..models.base import ChatModel
    from ..policy import Policy


class ReplayKernel(Kernel):
    """A kernel whose functions, models and people answer from a tape; names and policy are the real."""

    def __init__(self, kernel: Kernel, tape: Tape) -> None:
        self.real = kernel
        self.tape = tape
        ids = Journal(InMemoryJournalStore(), new_id=lambda: tape.stage.run)
        super().__init__(approve=self._approve, journal=ids, deps=kernel.deps)
        self._stand_ins: dict[str, Function] = {}

    @property
    def config(self) -> Config:
        """The real kernel's."""
        return self.real.config

    @property
    def policy(self) -> Policy:
        """The real kernel's."""
        return self.real.policy

    @property
    def plugins(self) -> PluginRegistry:
        """The real kernel's."""
        return self.real.plugins

    def function(self, name: str) -> Function:
        """The stand-in of the function of that name."""
        if name not in self._stand_ins:
            self._stand_ins[name] = RecordedFunction(self.real.function(name), self.tape)
        return self._stand_ins[name]

    def functions(self, *names: str) -> list[Function]:
        """The stand-ins of the functions of these names."""
        return self.stand_ins(self.real.functions(*names))

    def stand_ins(self, functions: Iterable[Function]) -> list[Function]:
        """What answers in the place of these functions."""
        return [RecordedFunction(function, self.tape) for function in functions]

    def model(self, name: str) -> ChatModel:
        """The stand-in of the model of that name."""
        return RecordedModel(self.info(name), self.tape)

    def info(self, name: str | None) -> ModelInfo:
        """What the model of that name can do; what the record shows, where it cannot be made here."""
        name = name or self.config.default_model
        try:
            return self.real.model(name).info
        except KernloomError:  # no key, no plugin: it is not going to be asked
            asked = (e.data for e in self.tape.record if e.kind == "model.requested")
            return ModelInfo(name=name, functions=any(getattr(data, "functions", ()) for data in asked))

    async def sleep(self, seconds: float) -> None:
        """Do not wait."""
        await asyncio.sleep(0)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """A limit that is met where it was met."""
        return asyncio.timeout(None) if seconds is None else self.tape.timeout()

    async def _approve(self, request: ApprovalRequest) -> Approval:
        """What the person said, if it was in this stage."""
        stage = self.tape.stage
        said = stage.answers.get(request.question)
        if isinstance(said, QuestionAnswered):
            return Approval(allow=said.answer == "allow", arguments=said.arguments, by=said.by)
        outcome = stage.outcomes.get(request.question)
        if outcome is not None and is_cancelled(outcome):
            await self.tape.hold()
        if outcome is not None and isinstance(outcome.data, FunctionFailedEvent) and outcome.actor != HOUSE:
            raise remembered(outcome.data)
        if isinstance(stage.ending, RunFailed) and stage.ending.code == "run.failed":
            _raise_foreign(self.tape)
        raise ApprovalRequired(f"Nobody had answered whether {request.function} may be called.")


class RecordedFunction(Function):
    """A function whose calls have the outcome on record; its body is never run."""

    def __init__(self, function: Function, tape: Tape) -> None:
        super().__init__(_never, name=function.name, signature=function.signature, options=function.options)
        self._tape = tape
        self.__dict__["description"] = function.description

    def renamed(self, name: str) -> Function:
        """The same under another name."""
        plain = Function(_never, name=name, signature=self.signature, options=self.options)
        return RecordedFunction(plain, self._tape)

    async def run(self, validated: dict[str, Any], context: Context) -> Any:
        """What the call returned, or raised."""
        stage, call = self._tape.stage, context.call_id or ""
        outcome = stage.outcomes.get(call)
        if outcome is None or stage.given_up(call):
            if not stage.stopped:
                raise PersonRequired(f"{self.name} had waited for a person.")
            await self._tape.hold()
        elif is_cancelled(outcome):
            await self._tape.hold()
        elif isinstance(outcome.data, FunctionFinished):
            return outcome.data.returned
        elif isinstance(outcome.data, FunctionFailedEvent | FunctionInDoubtEvent):
            raise remembered(outcome.data)
        raise AssertionError("unreachable: nobody goes on after hold()")

    async def reconcile(self, key: str) -> Done | None:
        """What it had said of a call that was in doubt, seen by what followed."""
        outcome = self._tape.coming(where=lambda event: _is_for(event, key))
        if outcome is not None and isinstance(outcome.data, FunctionStarted):
            return None
        if outcome is None or outcome.actor == HOUSE or is_cancelled(outcome):
            await self._tape.hold()
        elif isinstance(outcome.data, FunctionFinished):
            return Done(outcome.data.returned)
        elif isinstance(outcome.data, FunctionFailedEvent | FunctionInDoubtEvent):
            raise remembered(outcome.data)
        raise AssertionError("unreachable: nobody goes on after hold()")


class RecordedModel:
    """A model that gives the answers on record, in their order."""

    def __init__(self, info: ModelInfo, tape: Tape) -> None:
        self._info = info
        self._tape = tape

    @property
    def info(self) -> ModelInfo:
        """What the model of that time can do."""
        return self._info

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The next answer, or the error in its place."""
        event = self._tape.coming("model.answered", "model.failed")
        data = event.data if event is not None else None
        if isinstance(data, ModelAnswered) and not data.partial:
            return ChatResponse(
                message=data.message,
                usage=data.usage,
                finish_reason=cast("FinishReason", data.finish_reason),
                model=data.model,
            )
        if isinstance(data, ModelFailed) and event is not None and event.actor != HOUSE:
            if data.code != "run.cancelled":
                raise KernloomError(data.error, code=data.code)
        elif data is None or isinstance(data, ModelFailed):
            _raise_foreign(self._tape)
        await self._tape.hold()
        raise AssertionError("unreachable: nobody goes on after hold()")

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """The next answer in one piece; one that was cut short as far as it came."""
        event = self._tape.coming("model.answered", "model.failed")
        if event is not None and isinstance(event.data, ModelAnswered) and event.data.partial:
            yield TextDelta(text=event.data.message.text)
            if not self._tape.stage.stopped:
                _raise_as(self._tape.coming("run.failed"))  # it broke off
            await self._tape.hold()
        yield Finished(response=await self.complete(request))

    async def aclose(self) -> None:
        """Nothing to give back."""


class RecordedMemory:
    """A memory that finds what was found."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    async def ground(self, query: str, *, tokens: int = 1200) -> Grounding:
        """What was found for the run's question."""
        due = self._tape.next
        if due is None or due.kind == "run.cancelled":
            await self._tape.hold()
        elif isinstance(due.data, Retrieval):
            return due.data.grounding
        _raise_as(due)
        return Grounding(query=query)  # on record nobody looked: the replay is about to say so

    async def cite(self, answer: str, grounding: Grounding) -> tuple[Citation, ...]:
        """None: citations are checked for the reply, and are no events."""
        _raise_as(self._tape.next)
        return ()


def _is_for(event: Event, key: str) -> bool:
    """Whether an event is of a call for the effect of that key, or of another attempt at it."""
    data = event.data
    if isinstance(data, FunctionStarted):
        return data.key == key
    if not isinstance(data, FunctionFinished | FunctionFailedEvent | FunctionInDoubtEvent):
        return False
    return data.result.call_id.partition("#")[0] == key.partition("/")[2]


def _raise_foreign(tape: Tape) -> None:
    """Raise what ended the run, if it was no error of ours."""
    _raise_as(tape.coming("run.failed"))


def _raise_as(event: Event | None) -> None:
    if event is None or not isinstance(event.data, RunFailed):
        return
    data = event.data
    if data.code != "run.failed":
        raise KernloomError(data.error, code=data.code)
    name, _, words = data.error.partition(": ")
    raise type(name, (Exception,), {})(words)


def _never(**_: Any) -> None:
    raise AssertionError("a replay runs no function")
