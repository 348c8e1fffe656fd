"""Plans as data: a goal, inputs, steps that call functions, and an output.

A plan is written by a person or by a planner, kept as YAML or JSON, checked before it runs, and run
without a model::

    goal: Greet a team in capitals
    inputs:
      team: {type: string}
    steps:
    - id: loud
      call: text.upper
      args: {text: "hello {{ inputs.team }}"}
    output: "{{ steps.loud.result }}"

``plan.run``, or ``kernel.invoke(plan, team="north")``, returns the output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationError

from ..kernel.conversations.runs import last_run
from ..kernel.errors import PlanError, UsageError
from ..kernel.functions import Function, FunctionOptions
from ..kernel.journal.events import PlanMade
from ..kernel.messages import Frozen
from ..kernel.replay import ReplayKernel, ReplayLog, ReplayReport, Stage, replay
from ..kernel.safe_yaml import check_json, read_data, write_yaml
from ..kernel.schema import DeclaredSignature, InputSpec
from .check import Problem, check, ensure
from .engine import go_on, run_plan
from .expressions import condition, references, steps_in
from .outcomes import PlanLimits, PlanOutcome
from .progress import Progress

if TYPE_CHECKING:
    from ..kernel.functions import Context
    from ..kernel.kernel import Kernel


class Retry(Frozen):
    """How often a call that failed is made again. Calls in doubt and calls refused are not."""

    #: Calls in all, the first included.
    attempts: int = Field(default=3, ge=1, le=20)
    #: Seconds before the second call; each further wait is twice the one before, at most a minute.
    wait: float = Field(default=1.0, ge=0, le=60)


class Default(Frozen):
    """What takes the place of a failed step's result."""

    default: Any


class Step(Frozen):
    """One call, or one call for each item of a list.

    Its result is ``steps.<id>.result`` to the others. A step that was skipped has the result None and the
    status ``skipped``; steps that need it run nonetheless, and can ask ``steps.x.status == 'finished'``.
    """

    #: Unique in the plan; letters, digits and underscores.
    id: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=80)
    #: The function's name.
    call: str = Field(min_length=1, max_length=200)
    #: Its arguments; texts in them may be templates.
    args: dict[str, Any] = Field(default_factory=dict)
    #: Steps that have to be over first, besides those it refers to.
    needs: tuple[str, ...] = ()
    #: An expression over inputs and steps; the step is skipped when it is false.
    when: str | None = None
    #: A list, or an expression for one: the call is made for each, with ``item`` and ``index`` in its
    #: arguments. Calls run side by side; the result is the list of their results, in the items' order.
    foreach: str | list[Any] | None = None
    #: None: the call is made once.
    retry: Retry | None = None
    #: What a failure does: end the plan, or stand aside with None or a default. With ``foreach`` it is
    #: the item that stands aside.
    on_error: Literal["fail", "skip"] | Default = "fail"

    def to_dict(self) -> dict[str, Any]:
        """The step as data, without what was left at its default."""
        data = self.model_dump(exclude_defaults=True)
        return {**data, "needs": list(self.needs)} if self.needs else data

    def dependencies(self) -> set[str]:
        """The ids of the steps that have to be over before this one.

        Raises:
            UsageError: ``template.syntax``.
        """
        found = {*self.needs, *steps_in(references(self.args))}
        if self.when is not None:
            found |= steps_in(condition(self.when).references)
        if isinstance(self.foreach, str):
            found |= steps_in(condition(self.foreach).references)
        else:
            found |= steps_in(references(self.foreach))
        if isinstance(self.on_error, Default):
            found |= steps_in(references(self.on_error.default))
        return found


class Plan(Frozen):
    """Steps that reach a goal.

    Raises:
        ValidationError: made in code from what does not fit; :meth:`load` and :meth:`from_dict` raise
            ``PlanError`` instead.
    """

    #: What it is for, in a sentence; also what a model is told when the plan is offered as a function.
    goal: str
    #: What it is given.
    inputs: dict[str, InputSpec] = Field(default_factory=dict)
    #: In any order; what they refer to decides which waits for which.
    steps: tuple[Step, ...] = Field(default=(), max_length=500)
    #: What it returns; the last step's result if None.
    output: Any = None

    @property
    def description(self) -> str:
        """What it is for."""
        return self.goal

    @property
    def signature(self) -> DeclaredSignature:
        """Its inputs as the arguments of a function."""
        return DeclaredSignature(self.inputs, wants_context=True)

    @property
    def returned(self) -> Any:
        """The output as it is evaluated: what :attr:`output` says, or the last step's result."""
        if self.output is None and self.steps:
            return f"{{{{ steps.{self.steps[-1].id}.result }}}}"
        return self.output

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The plan in a YAML or JSON file, by its suffix.

        Raises:
            UsageError: the file cannot be read as data.
            PlanError: ``plan.malformed``, it is no plan; every field that does not fit is named.
        """
        return cls.from_dict(read_data(Path(path)), source=str(path))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "the plan") -> Self:
        """The plan that :meth:`to_dict` gave.

        Raises:
            PlanError: ``plan.malformed``, every field that does not fit is named.
        """
        try:
            check_json(data, what=source)
            return cls.model_validate(data)
        except ValidationError as exc:
            wrong = [f"{_place(p['loc'])}: {p['msg'][:1].lower()}{p['msg'][1:]}" for p in exc.errors()]
            raise PlanError(
                f"{source} is no plan: {'; '.join(wrong[:8])}.",
                code="plan.malformed",
                hint="A plan has goal, inputs, steps and output; a step has id, call and args.",
                problems=wrong,
            ) from exc

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-able data, in reading order, without what was left at its default."""
        data: dict[str, Any] = {"goal": self.goal}
        if self.inputs:
            data["inputs"] = {
                name: spec.model_dump(exclude_unset=True) for name, spec in self.inputs.items()
            }
        data["steps"] = [step.to_dict() for step in self.steps]
        if self.output is not None:
            data["output"] = self.output
        return data

    def save(self, path: str | Path) -> Path:
        """Write it as YAML or JSON, by the path's suffix. :meth:`load` reads back an equal plan.

        Raises:
            UsageError: ``data.suffix``, or ``data.malformed`` when a value in it is no JSON.
        """
        path = Path(path)
        data = self.to_dict()
        check_json(data, what=str(path))
        if path.suffix.lower() in (".yaml", ".yml"):
            text = write_yaml(data)
        elif path.suffix.lower() == ".json":
            text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
        else:
            raise UsageError(
                f"{path} is neither YAML nor JSON by its name.",
                code="data.suffix",
                hint="Name it .yaml or .json.",
            )
        path.write_text(text, encoding="utf-8")
        return path

    def check(self, kernel: Kernel) -> list[Problem]:
        """Everything that keeps it from running with this kernel's functions; empty if nothing does."""
        return check(self, kernel)

    def ensure(self, kernel: Kernel) -> None:
        """:meth:`check` it.

        Raises:
            PlanError: ``plan.invalid`` with every problem there is.
        """
        ensure(self, kernel)

    async def run(self, kernel: Kernel, inputs: Mapping[str, object], context: Context) -> Any:
        """Run it and return its output. Values pass between steps as JSON.

        Raises:
            PlanError: ``plan.invalid``, or ``plan.step_failed`` with the step and what it raised.
            ModelRetry: the inputs do not fit.
            PersonRequired: a step's function needs a person's answer; in a session, resume the run then.
            LimitReached: a limit was met.
        """
        return (await run_plan(self, kernel, inputs, context)).output

    async def run_detailed(
        self,
        kernel: Kernel,
        inputs: Mapping[str, object] | None = None,
        *,
        context: Context | None = None,
        limits: PlanLimits | None = None,
    ) -> PlanOutcome:
        """:meth:`run`, telling what became of every step."""
        return await run_plan(self, kernel, inputs or {}, context or kernel.context(), limits=limits)

    @classmethod
    async def resume(cls, kernel: Kernel, session: str, *, limits: PlanLimits | None = None) -> PlanOutcome:
        """Go on with the plan that was running in a session, after a crash or a person's answer.

        The plan and its inputs are those on record. Steps that are over are not run again, finished calls
        are not made again, and one in doubt is settled by what its function declares. A run that had
        finished gives its outcome once more.

        Raises:
            UsageError: ``run.nothing_to_resume``, no plan was run there.
            JournalError: ``journal.leased``, another process is resuming it.
            PersonRequired: a question waits for its answer.
        """
        log = await kernel.journal.open(session)
        run = last_run(log.events)
        past = Progress.of(run, log.events)
        if past.made is None or past.started is None:
            raise UsageError(
                f"No plan was run in session {log.id!r}.",
                code="run.nothing_to_resume",
                hint="An agent's run is resumed by its agent.",
            )
        context = kernel.context(log=log, run=run, actor=past.started.name, origin="plan", depth=1)
        async with log.claim(run or ""):
            return await go_on(cls.from_dict(past.made.plan), context, limits or PlanLimits())

    @classmethod
    async def replay(
        cls, kernel: Kernel, session: str, *, plan: Plan | None = None, limits: PlanLimits | None = None
    ) -> ReplayReport:
        """Run the plans of a session again, from the journal alone: nothing alive is called.

        Args:
            kernel: whose functions are named and whose policy is asked; none is called.
            session: where they ran; for a plan within a plan, its own session.
            plan: to be run in place of those on record, to see where it takes another way.
            limits: of the runs; how many calls were under way at once is the record's to say.

        Raises:
            UsageError: ``replay.nothing``, no plan was run there; ``replay.forgotten``.
        """
        log = await kernel.journal.open(session)
        made = {event.run: event.data.plan for event in log.events if isinstance(event.data, PlanMade)}
        bounds = (limits or PlanLimits()).model_copy(update={"concurrency": sys.maxsize})

        async def play(stage: Stage, stand_in: ReplayKernel, fresh: ReplayLog) -> None:
            mine = plan if plan is not None else cls.from_dict(made[stage.run])
            started = stage.started
            context = stand_in.context(log=fresh, run=stage.run, actor=started.name, origin="plan")
            if stage.resumed:
                await go_on(mine, context.with_(depth=1), bounds)
            else:
                await run_plan(mine, stand_in, started.input, context, limits=bounds, name=started.name)

        return await replay(log, kernel=kernel, owns=lambda started: started.what == "plan", play=play)

    def as_function(self, name: str, *, description: str = "") -> Function:
        """The plan as a function: an agent can call it, and so can a step of another plan.

        Its steps pass the policy one by one; in a conversation they are recorded in a child session.
        """

        async def call(*, _context: Context, **inputs: Any) -> Any:
            return (await run_plan(self, _context.kernel, inputs, _context, name=name)).output

        # Made again with the same call id it goes on where it was: its session keeps what it did.
        options = FunctionOptions(description=description or self.goal, idempotent=True, recorded=True)
        return Function(call, name=name, signature=self.signature, options=options)


def _place(loc: tuple[int | str, ...]) -> str:
    place = ""
    for part in loc:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place.removeprefix(".") or "it"
