"""AssistantAgent: asks a model, serves the functions it calls, and checks what its answer cites."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from .. import invocation
from ..conversations.context import TurnContext
from ..conversations.conversation import Conversation
from ..conversations.runs import RunView, last_run
from ..errors import (
    FunctionFailed,
    JournalError,
    KernloomError,
    LimitReached,
    PersonRequired,
    UsageError,
    not_found,
)
from ..functions import Context, Function, FunctionOptions
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
    RunPaused,
    RunResumed,
    RunStarted,
)
from ..messages import Citation, Message, ToolCall, assistant, system, user
from ..models.base import (
    ChatModel,
    ChatRequest,
    ChatResponse,
    Delta,
    Finished,
    FinishReason,
    TextDelta,
    ToolCallDelta,
)
from ..protocols import Grounder
from ..replay import ReplayKernel, ReplayLog, ReplayReport, Stage, replay
from ..replay.stand_ins import RecordedMemory, RecordedModel
from ..sync import run_sync
from .limits import Limits
from .reply import Reply, StreamItem

if TYPE_CHECKING:
    from ..journal.journal import SessionLog
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
        limits: how far one run may go; the configured ``[limits]`` by default.
        spec: kept with every run beside the names of its model and functions, for whoever has to make
            this agent again in another process; JSON, and never a secret.

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
        spec: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.kernel = kernel
        self.memory = memory
        self.limits = limits or Limits.model_validate(kernel.config.limits)
        self._model = model
        self._instructions = system(instructions) if instructions else None
        self._chosen = functions
        self._spec = dict(spec or {})

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
            session: an earlier reply's ``session`` to go on with it; a new session by default. A run that
                was left unfinished there is given up; to go on with it, use :meth:`resume`.
            deps: handed to functions in their ``Context``; the kernel's own by default.

        Raises:
            ProviderError: the model gave no answer.
            LimitReached: a limit was met; what was said until then is kept.
            PersonRequired: somebody must approve a call, or say what became of one; then resume.
            JournalError: the journal failed (``journal.full``, ``journal.io`` …); resume when it is sound.
        """
        return await _last(self._work(text, session=session, deps=deps, stream=False))

    async def resume(self, session: str | Conversation, *, deps: Any = None) -> Reply:
        """Go on with the session's unfinished run: after a crash, or when a person has answered.

        What is on record is not done again: answers of the model are taken from the journal, a finished
        call is not made again, and one in doubt is settled by what its function declares. A run that had
        finished gives its reply once more.

        Raises:
            UsageError: ``run.nothing_to_resume``, no run in that session was started.
            JournalError: ``journal.leased``, another process is resuming it.
            PersonRequired: a question waits for its answer.
        """
        return await _last(self._work(None, session=session, deps=deps, stream=False))

    def run_sync(self, text: str, *, session: str | Conversation | None = None, deps: Any = None) -> Reply:
        """:meth:`run` from code that is not async, a notebook included."""
        return run_sync(self.run(text, session=session, deps=deps))

    def resume_sync(self, session: str | Conversation, *, deps: Any = None) -> Reply:
        """:meth:`resume` from code that is not async."""
        return run_sync(self.resume(session, deps=deps))

    def stream(
        self, text: str | None, *, session: str | Conversation | None = None, deps: Any = None
    ) -> AsyncGenerator[StreamItem]:
        """Answer one message piece by piece, or with None resume; the last item is the :class:`Reply`.

        Closing the iterator early, or cancelling, keeps what was said until then.
        """
        return self._work(text, session=session, deps=deps, stream=True)

    async def replay(self, session: str | Conversation) -> ReplayReport:
        """Run this agent's runs in a session again, from the journal alone: nothing alive is called.

        An agent that was not changed yields the same events; of one that was, the report says where it
        takes another way, and in what. Runs of others in the session are taken as they are, and the work
        of sub-agents as the outcome of their call (replay their sessions by themselves).

        Raises:
            UsageError: ``replay.nothing``, no run of this agent is there; ``replay.forgotten``, something
                of it was forgotten.
        """
        conversation = await Conversation.open(self.kernel, session)
        return await replay(
            conversation.log,
            kernel=self.kernel,
            owns=lambda started: started.what == "agent" and started.name == self.name,
            play=self._play,
        )

    async def _play(self, stage: Stage, kernel: ReplayKernel, log: ReplayLog) -> None:
        """One stage of a replay: this agent, with stand-ins for all that is alive."""
        twin = copy.copy(self)
        twin.kernel, twin.memory = kernel, self.memory and RecordedMemory(kernel.tape)
        told = self._model
        info = kernel.info(told) if told is None or isinstance(told, str) else told.info
        twin.__dict__["model"] = RecordedModel(info, kernel.tape)
        own = kernel.stand_ins(self.functions.values())
        twin.__dict__["_own_functions"] = {function.name: function for function in own}
        text = None if stage.resumed else str(stage.started.input)
        async for _ in twin._work(text, session=Conversation(log), deps=None, stream=True):
            pass

    def as_function(self, name: str | None = None, *, description: str | None = None) -> Function:
        """This agent as a function of one argument, ``task``, that another agent or a plan may call.

        It works in a child session of the caller's, named after the call: a caller that is resumed
        resumes it, so nothing in it is done twice.
        """

        async def ask(task: str, context: Context) -> str:
            child = await self.kernel.journal.child(context.log, context.call_id)
            depth = context.depth + 1
            if depth > self.limits.depth:
                raise LimitReached(
                    f"{context.depth} agents and plans stand above {self.name}.",
                    code="limit.depth",
                    hint="Look for an agent that calls itself, or raise Limits(depth=…).",
                )
            if ended := _ended(child):
                raise ended
            work = self._work(
                None if child.seq else task,
                session=Conversation(child),
                deps=context.deps,
                stream=False,
                depth=depth,
            )
            try:
                return (await _last(work)).text
            except Exception as exc:  # told as it will be read from the record after a crash
                if ended := _ended(child):
                    raise ended from exc
                raise

        about = description or f"Ask {self.name}, an assistant, to do a task; it answers in words."
        options = FunctionOptions(description=about, idempotent=True, recorded=True)
        return Function(ask, name=name or self.name, options=options)

    async def _work(
        self,
        text: str | None,
        *,
        session: str | Conversation | None,
        deps: Any,
        stream: bool,
        depth: int = 0,
    ) -> AsyncGenerator[StreamItem]:
        """One run, and its ending on record however it ends."""
        conversation = await Conversation.open(self.kernel, session)
        run_id = self.kernel.journal.new_id()
        async with conversation.log.claim(run_id):
            run = self._open(conversation, text, run_id, deps=deps, stream=stream, depth=depth)
            try:
                await run.begin(text, self.spec())
                async with aclosing(self._loop(run)) as items:
                    async for item in items:
                        yield item
            except (asyncio.CancelledError, GeneratorExit):
                await run.close(RunCancelled())
                raise
            except PersonRequired:
                waiting = tuple(question.question_id for question in conversation.questions)
                await run.add(RunPaused(questions=waiting))
                raise
            except JournalError:
                raise  # the run has not ended: it is resumed when the journal is sound again
            except KernloomError as exc:
                await run.close(RunFailed(code=exc.code, error=str(exc)))
                raise
            except Exception as exc:  # recorded, so that no session is left half open, and raised on
                await run.close(RunFailed(code="run.failed", error=f"{type(exc).__name__}: {exc}"))
                raise

    async def _loop(self, run: _Run) -> AsyncGenerator[StreamItem]:
        """Prepare; then ask, act and observe until the model has no more calls; then conclude.

        Each turn looks at the journal for what comes next, so a resumed run starts in the middle.
        """
        await self._prepare(run)
        while not run.answered:
            for event in run.news():
                yield event
            if run.open_calls:
                await self._act(run)
                continue
            if run.view.limit is not None:  # the process stopped before the run did
                raise LimitReached(run.view.limit.result.content, code=run.view.limit.code)
            async with aclosing(self._ask(run)) as deltas:
                async for delta in deltas:
                    yield delta
        reply = await self._conclude(run)
        for event in run.news():
            yield event
        yield reply

    def _open(
        self,
        conversation: Conversation,
        text: str | None,
        run_id: str,
        *,
        deps: Any,
        stream: bool,
        depth: int,
    ) -> _Run:
        """A new run for ``text``; without it, the session's last one, to be gone on with."""
        seen = len(conversation.events)
        if text is not None:
            view = RunView(run_id)
        else:
            last = last_run(conversation.events)
            if last is None:
                raise UsageError(
                    f"No run was started in session {conversation.id!r}.",
                    code="run.nothing_to_resume",
                    hint="Start one with run().",
                )
            view = RunView.of(last, conversation.events)
        given = {} if deps is None else {"deps": deps}
        context = self.kernel.context(
            log=conversation.log, run=view.id, actor=self.name, origin="model", depth=depth, **given
        )
        return _Run(
            conversation=conversation,
            context=context,
            view=view,
            functions=self.functions if self.model.info.functions else {},
            stream=stream and self.model.info.streaming,
            seen=seen,
        )

    def spec(self) -> dict[str, Any] | None:
        """What the record keeps of how this agent was made; names only, never a secret."""
        model = self._model if isinstance(self._model, str) else None
        chosen = [name for name in self._chosen or () if isinstance(name, str)]
        return {"model": model or self.model.info.name, "functions": chosen, **self._spec}

    async def _prepare(self, run: _Run) -> None:
        """Ask memory what is known about the question."""
        if self.memory is not None and run.view.retrieval is None and run.view.ending is None:
            question = run.text
            grounding = await self.memory.ground(question, tokens=self.limits.passage_tokens)
            await run.add(Retrieval(grounding=grounding), actor="memory")
        run.turn = TurnContext(
            instructions=self._instructions,
            grounding=run.view.retrieval,
            result_chars=self.limits.result_chars,
        )

    async def _ask(self, run: _Run) -> AsyncGenerator[TextDelta | ToolCallDelta]:
        """One question to the model, and its answer on record."""
        if run.view.rounds >= self.limits.rounds:
            raise LimitReached(
                f"{self.name} asked for functions in each of {self.limits.rounds} rounds.",
                code="limit.rounds",
                hint="Raise Limits(rounds=…), or give it a smaller task.",
            )
        request = run.request(self.limits)
        names = tuple(run.functions)
        model = self.model.info.name
        await run.add(ModelRequested(model=model, messages=len(request.messages), functions=names))
        heard: list[str] = []
        try:
            if run.stream:
                response = None
                async with _closing(self.model.stream(request)) as deltas:
                    async for delta in deltas:
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
            await self._give_up(run, model, "".join(heard), exc.code, str(exc))
            raise
        except (asyncio.CancelledError, GeneratorExit):
            await self._give_up(run, model, "".join(heard), "run.cancelled", "The run was cancelled.")
            raise
        await run.observe(response, model)

    async def _give_up(self, run: _Run, model: str, heard: str, code: str, error: str) -> None:
        """An answer that was stopped, or broke off: keep the words that had arrived."""
        if heard:
            said = assistant(heard, name=self.name)
            await run.add(ModelAnswered(model=model, message=said, partial=True))
        else:
            await run.add(ModelFailed(model=model, code=code, error=error))

    async def _act(self, run: _Run) -> None:
        """Serve every open call, side by side; each gets exactly one outcome."""
        if run.view.calls > self.limits.calls:
            raise LimitReached(
                f"{self.name} asked for {run.view.calls} function calls; the limit is {self.limits.calls}.",
                code="limit.calls",
                hint="Raise Limits(calls=…), or give it a smaller task.",
            )
        calls = run.open_calls
        if len(calls) == 1:
            await invocation.serve(calls[0], run.context, resolve=run.resolve)
            return
        # A call that must stop the run (nobody to approve it) lets its siblings finish first.
        stopping: list[Exception] = []

        async def serve(call: ToolCall) -> None:
            try:
                await invocation.serve(call, run.context, resolve=run.resolve)
            except Exception as exc:  # raised below, as that of a single call is
                stopping.append(exc)

        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(serve(call))
        if stopping:
            raise next((exc for exc in stopping if isinstance(exc, JournalError)), stopping[0])

    async def _conclude(self, run: _Run) -> Reply:
        """Check the answer's citations and end the run."""
        ending, answer = run.view.ending, run.view.answer
        if ending is not None and not isinstance(ending, RunFinished):
            raise UsageError(
                f"The last run of session {run.conversation.id!r} has ended ({ending.kind}).",
                code="run.nothing_to_resume",
                hint="Say something new with run(…, session=…).",
            )
        assert answer is not None  # noqa: S101 - the loop ends only after an answer
        text, grounding = answer.message.text, run.view.retrieval
        citations: tuple[Citation, ...] = ()
        if self.memory is not None and grounding is not None:
            citations = await self.memory.cite(text, grounding)
        if ending is None:
            await run.add(RunFinished(output=text, usage=run.view.usage))
        return Reply(
            text=text,
            citations=citations,
            usage=run.view.usage,
            session=run.conversation.id,
            run=run.view.id,
            message=answer.message,
            grounding=grounding,
            finish_reason=cast(FinishReason, answer.finish_reason),
        )


def _ended(log: SessionLog) -> KernloomError | None:
    """Why the last run in a session ended without an answer, if it did."""
    last = last_run(log.events)
    view = RunView.of(last, log.events) if last is not None else None
    if view is None or view.started is None:
        return None
    name, ending = view.started.name, view.ending
    if isinstance(ending, RunCancelled):
        return FunctionFailed(f"{name} was cancelled.", function=name)
    if not isinstance(ending, RunFailed):
        return None
    if ending.code.startswith("limit."):
        return LimitReached(ending.error, code=ending.code)
    return FunctionFailed(f"{name} failed: {ending.error}", function=name, cause=ending.code)


@asynccontextmanager
async def _closing(deltas: AsyncIterator[Delta]) -> AsyncIterator[AsyncIterator[Delta]]:
    """Close a stream that is left early, with its connection; a model may return any iterator."""
    try:
        yield deltas
    finally:
        close = getattr(deltas, "aclose", None)
        if close is not None:
            await close()


async def _last(items: AsyncGenerator[StreamItem]) -> Reply:
    reply: Reply | None = None
    async for item in items:
        if isinstance(item, Reply):
            reply = item
    assert reply is not None  # noqa: S101 - a run that does not raise ends with its reply
    return reply


@dataclass(slots=True)
class _Run:
    """A run at work: its view of the journal, and what is needed to go on."""

    conversation: Conversation
    context: Context
    view: RunView
    functions: dict[str, Function]
    stream: bool
    #: How many of the session's events were yielded.
    seen: int
    turn: TurnContext | None = None

    @property
    def text(self) -> str:
        """What the run was asked."""
        return self.view.question.message.text if self.view.question is not None else ""

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls of the last answer that have no outcome yet."""
        return self.conversation.log.history.open_calls()

    @property
    def answered(self) -> bool:
        """Whether the model has said its last word."""
        answer = self.view.answer
        over = self.view.ending is not None or (answer is not None and not answer.message.tool_calls)
        return over and not self.open_calls

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
            grounding=self.view.retrieval,
        )

    async def observe(self, response: ChatResponse, model: str) -> None:
        """Record an answer; its calls get ids that are unique in this session."""
        await self.add(
            ModelAnswered(
                model=response.model or model,
                message=self._with_unique_calls(response.message),
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
        await self.conversation.add(*data, actor=actor or self.context.actor, run=self.view.id)
        for item in data:
            self.view.apply(item)

    async def begin(self, text: str | None, spec: dict[str, Any] | None) -> None:
        """Record that it begins, or goes on."""
        conversation, view = self.conversation, self.view
        if text is not None:
            await conversation.mend()
            started = RunStarted(name=self.context.actor, input=text, spec=spec)
            await self.add(started, MessageAdded(message=user(text)))
        elif view.ending is None:
            await self.add(RunResumed(), *conversation.log.history.interrupted())
            if view.question is None and view.started is not None:  # a fork between the two
                await self.add(MessageAdded(message=user(str(view.started.input))))

    async def close(self, ending: RunFailed | RunCancelled) -> None:
        """End the run early: every call still open gets its outcome, then the ending is recorded."""
        log = self.conversation.log
        await log.be_sure()
        recorded = RunView.of(self.view.id, log.events)
        if recorded.started is not None and recorded.ending is None:
            await self.conversation.mend(run=self.view.id)
            await self.add(ending)
