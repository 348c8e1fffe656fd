"""AssistantAgent: asks a model, serves the functions it calls, and checks what its answer cites."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .. import invocation
from ..conversations.context import TurnContext
from ..conversations.conversation import Conversation
from ..errors import KernloomError, LimitReached, not_found
from ..functions import Context, Function
from ..journal.events import (
    Event,
    MessageAdded,
    ModelAnswered,
    ModelFailed,
    ModelRequested,
    Retrieval,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
)
from ..messages import Citation, Grounding, Message, ToolCall, Usage, assistant, system, user
from ..models.base import ChatModel, ChatRequest, ChatResponse, Finished, TextDelta, ToolCallDelta
from ..protocols import Grounder
from ..sync import run_sync
from .limits import Limits
from .reply import Reply, StreamItem

if TYPE_CHECKING:
    from ..kernel import Kernel


class AssistantAgent:
    """An assistant with instructions, a model, functions and grounded memory.

    Args:
        name: who it is, in the journal and to other agents.
        kernel: what it can reach and under which rules.
        model: ``provider:model`` or a model object; the configured default if None.
        instructions: its system message.
        memory: asked for passages before each answer; the answer's citations are checked against it.
        functions: names (``"math"``, ``"units.convert"``), callables or functions it may call. None:
            what was added to the kernel in code, and every third-party plugin that is allowed.
        limits: how far one run may go.

    ::

        agent = AssistantAgent("librarian", kernel=kernel, memory=memory, model="openai:gpt-4.1-mini")
        reply = await agent.run("Who approves travel over 2000?")
        print(reply.text, reply.citations[0].place)
    """

    def __init__(
        self,
        name: str,
        *,
        kernel: Kernel,
        model: str | ChatModel | None = None,
        instructions: str = "",
        memory: Grounder | None = None,
        functions: Sequence[str | Callable[..., Any] | Function] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self.kernel = kernel
        self.memory = memory
        self.limits = limits or Limits()
        self._model = model
        self._instructions = system(instructions) if instructions else None
        self._chosen = functions

    @cached_property
    def model(self) -> ChatModel:
        """The model it asks."""
        if self._model is None or isinstance(self._model, str):
            return self.kernel.model(self._model or self.kernel.config.default_model)
        return self._model

    @property
    def functions(self) -> dict[str, Function]:
        """The functions it may call, by name."""
        if self._chosen is None:
            return {function.name: function for function in self.kernel.functions()}
        return self._own_functions

    @cached_property
    def _own_functions(self) -> dict[str, Function]:
        found: list[Function] = []
        for chosen in self._chosen or ():
            found += self.kernel.functions(chosen) if isinstance(chosen, str) else [Function.of(chosen)]
        return {function.name: function for function in found}

    async def run(self, text: str, *, session: str | Conversation | None = None, deps: Any = None) -> Reply:
        """Answer one message.

        Args:
            text: what the person says.
            session: an earlier reply's ``session`` to go on with it; a new session by default.
            deps: handed to functions in their ``Context``; the kernel's own by default.

        Raises:
            ProviderError: the model gave no answer.
            LimitReached: a limit was met; what was said until then is kept.
            ApprovalRequired: a function needs a person's yes and there is nobody to ask.
        """
        reply: Reply | None = None
        async for item in self._work(text, session=session, deps=deps, stream=False):
            if isinstance(item, Reply):
                reply = item
        assert reply is not None  # noqa: S101 - a run that does not raise ends with its reply
        return reply

    def run_sync(self, text: str, *, session: str | Conversation | None = None, deps: Any = None) -> Reply:
        """:meth:`run` from code that is not async, a notebook included."""
        return run_sync(self.run(text, session=session, deps=deps))

    def stream(
        self, text: str, *, session: str | Conversation | None = None, deps: Any = None
    ) -> AsyncGenerator[StreamItem]:
        """Answer one message piece by piece; the last item is the :class:`Reply`.

        Closing the iterator early, or cancelling, keeps what was said until then.
        """
        return self._work(text, session=session, deps=deps, stream=True)

    async def _work(
        self, text: str, *, session: str | Conversation | None, deps: Any, stream: bool
    ) -> AsyncGenerator[StreamItem]:
        """One run, and its ending on record however it ends."""
        run = await self._open(session, deps, stream=stream)
        with run.conversation.log.claim(run.id):
            await run.conversation.mend()
            try:
                async with aclosing(self._loop(run, text)) as items:
                    async for item in items:
                        yield item
            except (asyncio.CancelledError, GeneratorExit):
                await run.close(RunCancelled())
                raise
            except KernloomError as exc:
                await run.close(RunFailed(code=exc.code, error=str(exc)))
                raise
            except Exception as exc:  # recorded, so that no session is left half open, and raised on
                await run.close(RunFailed(code="run.failed", error=f"{type(exc).__name__}: {exc}"))
                raise

    async def _loop(self, run: _Run, text: str) -> AsyncGenerator[StreamItem]:
        """Prepare; then ask, act and observe until the model has no more calls; then conclude."""
        await self._prepare(run, text)
        for _ in range(self.limits.rounds):
            for event in run.news():
                yield event
            async with aclosing(self._ask(run)) as deltas:
                async for delta in deltas:
                    yield delta
            if not run.calls:
                break
            await self._act(run)
        else:
            raise LimitReached(
                f"{self.name} asked for functions in each of {self.limits.rounds} rounds.",
                code="limit.rounds",
                hint="Raise Limits(rounds=…), or give it a smaller task.",
            )
        reply = await self._conclude(run)
        for event in run.news():
            yield event
        yield reply

    async def _open(self, session: str | Conversation | None, deps: Any, *, stream: bool) -> _Run:
        conversation = await Conversation.open(self.kernel, session)
        functions = self.functions if self.model.info.functions else {}
        context = self.kernel.context(
            log=conversation.log,
            run=self.kernel.journal.new_id(),
            actor=self.name,
            origin="model",
            **({} if deps is None else {"deps": deps}),
        )
        return _Run(
            conversation=conversation,
            context=context,
            functions=functions,
            stream=stream and self.model.info.streaming,
            seen=len(conversation.events),
        )

    async def _prepare(self, run: _Run, text: str) -> None:
        """Record the question, and ask memory what is known about it."""
        await run.add(RunStarted(name=self.name, input=text))
        await run.add(MessageAdded(message=user(text)), actor="user")
        if self.memory is not None:
            run.grounding = await self.memory.ground(text, tokens=self.limits.passage_tokens)
            await run.add(Retrieval(grounding=run.grounding), actor="memory")
        run.turn = TurnContext(
            instructions=self._instructions,
            grounding=run.grounding,
            result_chars=self.limits.result_chars,
        )

    async def _ask(self, run: _Run) -> AsyncGenerator[TextDelta | ToolCallDelta]:
        """One question to the model, and its answer on record."""
        request = run.request(self.limits)
        names = tuple(run.functions)
        model = self.model.info.name
        await run.add(ModelRequested(model=model, messages=len(request.messages), functions=names))
        heard: list[str] = []
        try:
            if run.stream:
                response = None
                async for delta in self.model.stream(request):
                    if isinstance(delta, Finished):
                        response = delta.response
                        continue
                    if isinstance(delta, TextDelta):
                        heard.append(delta.text)
                    yield delta
                assert response is not None, f"{model} ended its stream without Finished"  # noqa: S101
            else:
                response = await self.model.complete(request)
        except KernloomError as exc:
            await run.add(ModelFailed(model=model, code=exc.code, error=str(exc)))
            raise
        except (asyncio.CancelledError, GeneratorExit):
            await self._keep_partial(run, model, "".join(heard))
            raise
        await run.observe(response, model)

    async def _keep_partial(self, run: _Run, model: str, heard: str) -> None:
        """An answer that was stopped: keep the words that had arrived."""
        if heard:
            said = assistant(heard, name=self.name)
            await run.add(ModelAnswered(model=model, message=said, partial=True))
        else:
            await run.add(ModelFailed(model=model, code="run.cancelled", error="The run was cancelled."))

    async def _act(self, run: _Run) -> None:
        """Serve every call of the answer, side by side; each gets exactly one outcome."""
        run.made += len(run.calls)
        if run.made > self.limits.calls:
            raise LimitReached(
                f"{self.name} asked for {run.made} function calls; the limit is {self.limits.calls}.",
                code="limit.calls",
                hint="Raise Limits(calls=…), or give it a smaller task.",
            )
        if len(run.calls) == 1:
            await invocation.serve(run.calls[0], run.context, resolve=run.resolve)
            return
        # A call that must stop the run (nobody to approve it) lets its siblings finish first.
        stopping: list[KernloomError] = []

        async def serve(call: ToolCall) -> None:
            try:
                await invocation.serve(call, run.context, resolve=run.resolve)
            except KernloomError as exc:
                stopping.append(exc)

        async with asyncio.TaskGroup() as group:
            for call in run.calls:
                group.create_task(serve(call))
        if stopping:
            raise stopping[0]

    async def _conclude(self, run: _Run) -> Reply:
        """Check the answer's citations and end the run."""
        response = run.answer
        assert response is not None  # noqa: S101 - the loop ends only after an answer
        text = response.message.text
        citations: tuple[Citation, ...] = ()
        if self.memory is not None and run.grounding is not None:
            citations = await self.memory.cite(text, run.grounding)
        await run.add(RunFinished(output=text, usage=run.usage))
        run.ended = True
        return Reply(
            text=text,
            citations=citations,
            usage=run.usage,
            session=run.conversation.id,
            run=run.id,
            message=response.message,
            grounding=run.grounding,
            finish_reason=response.finish_reason,
        )


@dataclass(slots=True)
class _Run:
    """The state of one run, gone when it ends; what matters is in the journal."""

    conversation: Conversation
    context: Context
    functions: dict[str, Function]
    stream: bool
    seen: int
    grounding: Grounding | None = None
    turn: TurnContext | None = None
    answer: ChatResponse | None = None
    usage: Usage = field(default_factory=Usage)
    made: int = 0
    ended: bool = False

    @property
    def id(self) -> str:
        """The run's id."""
        return self.context.run or ""

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls the last answer asks for."""
        return self.answer.message.tool_calls if self.answer is not None else ()

    def resolve(self, name: str) -> Function:
        """A function this agent may call; the model hears of no others."""
        if name not in self.functions:
            raise not_found("function", name, self.functions, code="function.not_found")
        return self.functions[name]

    def request(self, limits: Limits) -> ChatRequest:
        """What the model is asked next."""
        assert self.turn is not None  # noqa: S101 - set by _prepare
        return ChatRequest(
            messages=self.turn.messages(self.conversation.messages),
            functions=tuple(function.spec for function in self.functions.values()),
            max_output_tokens=limits.output_tokens,
            grounding=self.grounding,
        )

    async def observe(self, response: ChatResponse, model: str) -> None:
        """Record an answer; its calls get ids that are unique in this session."""
        message = self._with_unique_calls(response.message)
        self.answer = response.model_copy(update={"message": message})
        self.usage += response.usage
        await self.add(
            ModelAnswered(
                model=response.model or model,
                message=message,
                usage=response.usage,
                finish_reason=response.finish_reason,
            )
        )

    def _with_unique_calls(self, message: Message) -> Message:
        """Some servers number calls from 0 in every answer."""
        known = self.conversation.log.history.has_seen
        taken: set[str] = set()
        parts: list[Any] = []
        for part in message.parts:
            if isinstance(part, ToolCall) and (not part.id or known(part.id) or part.id in taken):
                fresh = f"{part.id or 'call'}-{self.conversation.log.seq}-{len(parts)}"
                part = part.model_copy(update={"id": fresh})  # noqa: PLW2901
            if isinstance(part, ToolCall):
                taken.add(part.id)
            parts.append(part)
        if tuple(parts) == message.parts:
            return message
        return message.model_copy(update={"parts": tuple(parts)})

    def news(self) -> list[Event]:
        """The events recorded since the last look."""
        fresh = self.conversation.events[self.seen :]
        self.seen += len(fresh)
        return fresh

    async def add(self, *data: Any, actor: str | None = None) -> None:
        """Append to the session, in this run's name."""
        await self.conversation.add(*data, actor=actor or self.context.actor, run=self.context.run)

    async def close(self, ending: RunFailed | RunCancelled) -> None:
        """End the run early: every call still open gets its outcome, then the ending is recorded."""
        if self.ended:
            return
        await self.conversation.mend(run=self.id)
        await self.add(ending)
