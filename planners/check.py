"""A plan against a kernel: everything that would keep it from running, found before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..kernel.errors import KernloomError, NotFoundError, PlanError, suggestion
from ..kernel.messages import Frozen
from .expressions import Reference, condition, is_literal, references

if TYPE_CHECKING:
    from ..kernel.functions import Function
    from ..kernel.kernel import Kernel
    from .plan import Plan, Step

#: What a step is to the others.
STEP_FIELDS = ("result", "status", "error")


class Problem(Frozen):
    """One thing that is wrong with a plan."""

    #: The step's id; None for the plan as a whole.
    step: str | None
    #: Dotted slug, e.g. ``plan.unknown_function``.
    code: str
    #: What is wrong, with the offending value.
    message: str
    #: What to do about it.
    hint: str | None = None

    def __str__(self) -> str:
        where = "" if self.step is None else f"Step {self.step!r}: "
        return f"{where}{self.message}{f' {self.hint}' if self.hint else ''}"


def check(plan: Plan, kernel: Kernel) -> list[Problem]:
    """All problems at once, in the order of the steps. Plugins that are named are loaded."""
    ids = [step.id for step in plan.steps]
    problems: list[Problem] = []
    for position, step in enumerate(plan.steps):
        if step.id in ids[:position]:
            problems.append(
                _problem(step.id, "duplicate_id", f"There are two steps {step.id!r}.", "Rename one.")
            )
        problems += _check_call(step, kernel)
        problems += _check_step_references(step, plan)
    problems += _check_value(None, "output", plan.returned, _Scope(plan))
    problems += _check_cycles(plan.steps)
    return problems


def ensure(plan: Plan, kernel: Kernel) -> None:
    """Raise unless :func:`check` finds nothing.

    Raises:
        PlanError: ``plan.invalid``, naming every problem.
    """
    problems = check(plan, kernel)
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise PlanError(
            f"The plan {plan.goal[:80]!r} has {count}: {' '.join(map(str, problems))}",
            code="plan.invalid",
            problems=[problem.model_dump() for problem in problems],
        )


def _problem(step: str | None, code: str, message: str, hint: str | None = None) -> Problem:
    return Problem(step=step, code=f"plan.{code}", message=message, hint=hint)


def _check_call(step: Step, kernel: Kernel) -> Iterator[Problem]:
    try:
        function = kernel.function(step.call)
    except NotFoundError as exc:
        yield _problem(step.id, "unknown_function", exc.message, exc.hint)
    except KernloomError as exc:  # its plugin is blocked, disabled or broken
        yield Problem(step=step.id, code=exc.code, message=exc.message, hint=exc.hint)
    else:
        yield from _check_arguments(step, function)


def _check_arguments(step: Step, function: Function) -> Iterator[Problem]:
    """Unknown and missing arguments, and the values of those that are written out."""
    names = function.parameters.get("properties", {})
    literal = {name: value for name, value in step.args.items() if is_literal(value)}
    for wrong in function.signature.problems(literal):
        if wrong.kind == "missing":
            if wrong.argument not in step.args:
                said = f"{function.name} needs the argument {wrong.argument!r}."
                yield _problem(step.id, "missing_argument", said)
        elif wrong.kind != "extra_forbidden":
            yield _problem(step.id, "invalid_argument", f"{function.name}: {wrong.words}.")
    if function.parameters.get("additionalProperties", False):
        return
    for name in step.args:
        if name not in names:
            said = f"{function.name} has no argument {name!r}."
            yield _problem(step.id, "unknown_argument", said, suggestion(name, names))


class _Scope:
    """What an expression may refer to."""

    def __init__(self, plan: Plan, *, items: bool = False) -> None:
        self.inputs = frozenset(plan.inputs)
        self.steps = frozenset(step.id for step in plan.steps)
        self.names = ("inputs", "steps", "item", "index") if items else ("inputs", "steps")

    def check(self, ref: Reference) -> tuple[str, str, str | None] | None:
        """``(code, words, hint)`` if there is no such thing."""
        root, *path = ref
        if root not in self.names:
            if root in ("item", "index"):
                return "unknown_name", f"{root!r} is known only in the args of a step with foreach.", None
            if root in self.inputs:
                return "unknown_name", f"{root!r} is unknown.", f"Write inputs.{root}."
            if root in self.steps:
                return "unknown_name", f"{root!r} is unknown.", f"Write steps.{root}.result."
            return "unknown_name", f"{root!r} is unknown.", suggestion(root, self.names)
        if root == "inputs" and path and path[0] not in self.inputs:
            return (
                "unknown_input",
                f"The plan has no input {path[0]!r}.",
                suggestion(path[0], self.inputs),
            )
        if root == "steps":
            return self._check_step(path)
        return None

    def _check_step(self, path: list[str]) -> tuple[str, str, str | None] | None:
        if not path:
            return "unknown_step", "'steps' alone does not say which step.", "Write steps.<id>.result."
        if path[0] not in self.steps:
            return "unknown_step", f"There is no step {path[0]!r}.", suggestion(path[0], self.steps)
        if len(path) > 1 and path[1] not in STEP_FIELDS:
            hint = f"Write steps.{path[0]}.result.{path[1]}."
            return "unknown_name", f"A step has {', '.join(STEP_FIELDS)}, no {path[1]!r}.", hint
        return None


def _check_step_references(step: Step, plan: Plan) -> Iterator[Problem]:
    outer = _Scope(plan)
    inner = _Scope(plan, items=True) if step.foreach is not None else outer
    for needed in step.needs:
        if needed not in outer.steps:
            said = f"It needs {needed!r}, which is no step."
            yield _problem(step.id, "unknown_step", said, suggestion(needed, outer.steps))
    for name, value in step.args.items():
        yield from _check_value(step.id, f"args.{name}", value, inner)
    if step.when is not None:
        yield from _check_value(step.id, "when", step.when, outer, bare=True)
    if step.foreach is not None:
        yield from _check_value(step.id, "foreach", step.foreach, outer, bare=isinstance(step.foreach, str))
    if not isinstance(step.on_error, str):
        yield from _check_value(step.id, "on_error", step.on_error.default, inner)


def _check_value(
    step: str | None, place: str, value: Any, scope: _Scope, *, bare: bool = False
) -> Iterator[Problem]:
    find: Callable[[Any], Iterable[Reference]] = (
        (lambda text: condition(text).references) if bare else references
    )
    try:
        found = find(value)
    except KernloomError as exc:
        yield _problem(step, "expression", f"{place}: {exc.message}", exc.hint)
        return
    for ref in sorted(found):
        wrong = scope.check(ref)
        if wrong is not None:
            code, words, hint = wrong
            yield _problem(step, code, f"{place}: {words}", hint)


def _check_cycles(steps: Iterable[Step]) -> Iterator[Problem]:
    needs = dependencies(steps)
    cycle = find_cycle(needs)
    if len(cycle) > 0:
        around = " → ".join((*cycle, cycle[0]))
        said = f"These steps wait for each other: {around}." if len(cycle) > 1 else "It waits for itself."
        yield _problem(cycle[0], "cycle", said)


def dependencies(steps: Iterable[Step]) -> dict[str, set[str]]:
    """What each step waits for, as far as that can be read."""
    needs: dict[str, set[str]] = {}
    for step in steps:
        try:
            needs[step.id] = step.dependencies()
        except KernloomError:  # reported where the expression stands
            needs[step.id] = set(step.needs)
    return needs


def find_cycle(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """One cycle, each waiting for the next; empty if there is none."""
    over: set[str] = set()
    for start in needs:
        if start in over:
            continue
        path = [start]
        waiting = [iter(sorted(needs[start]))]
        while path:
            needed = next(waiting[-1], None)
            if needed is None:
                over.add(path.pop())
                waiting.pop()
            elif needed in path:
                return path[path.index(needed) :]
            elif needed in needs and needed not in over:
                path.append(needed)
                waiting.append(iter(sorted(needs[needed])))
    return []
