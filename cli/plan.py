"""``kernloom plan``: plans made by a model or written by hand, checked, and run without a model."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..kernel.conversations.conversation import Conversation
from ..kernel.conversations.runs import last_run
from ..kernel.errors import (
    KernloomError,
    ModelRetry,
    NotFoundError,
    PersonRequired,
    PlanError,
    UsageError,
    did_you_mean,
    nearest,
)
from ..kernel.functions import as_json
from ..kernel.journal.events import RunCancelled
from ..kernel.kernel import Kernel
from ..kernel.safe_yaml import read_yaml, write_yaml
from ..planners.engine import run_plan
from ..planners.outcomes import PlanOutcome
from ..planners.plan import Plan
from .commands import Group, text_or_stdin
from .functions import parsed, wrong_arguments
from .questions import say_how_to_answer
from .screen import Screen, table
from .workspace import offer, open_kernel

_SUFFIXES = (".yaml", ".yml", ".json")


@click.group(cls=Group)
def plan() -> None:
    """Make, check and run saved plans."""


@plan.command()
@click.argument("goal")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Keep the plan in this file (.yaml or .json)."
)
@click.option(
    "-m", "--model", metavar="PROVIDER:MODEL", help="Who plans; it must be able to call functions."
)
@click.option("--planner", default="stepwise", show_default=True, help="Which planner.")
@offer
@click.option("-y", "--yes", is_flag=True, help="Approve every call.")
@click.pass_obj
def make(
    screen: Screen,
    goal: str,
    out: Path | None,
    model: str | None,
    planner: str,
    functions: tuple[str, ...],
    yes: bool,
) -> None:
    """Make a plan for GOAL.

    The planner 'stepwise' finds its way by acting: it calls functions, asking where the policy asks, and
    leaves the plan of what it did. -f narrows what it may call.
    """
    if out is not None:
        _ensure_writable(out)
    settings: dict[str, object] = {"model": model} if model else {}
    if functions:
        settings["functions"] = functions
    asyncio.run(_make(screen, text_or_stdin(goal), out, planner, settings, yes))


def _ensure_writable(out: Path) -> None:
    """Before anything is done that could then not be kept: planning acts."""
    if out.exists():
        raise UsageError(
            f"{out} is there already.", code="plan.exists", hint="Name another file, or remove it first."
        )
    if out.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"{out} is neither YAML nor JSON by its name.",
            code="data.suffix",
            hint="Name it .yaml or .json.",
        )
    if not os.access(out.parent, os.W_OK):
        raise UsageError(
            f"{out} cannot be written.",
            code="plan.unwritable",
            hint="Name a file in a folder that is there and that you may write to.",
        )


async def _make(
    screen: Screen, goal: str, out: Path | None, planner: str, settings: Mapping[str, object], yes: bool
) -> None:
    async with open_kernel(screen, yes=yes, journal=True) as kernel:
        chosen = kernel.planner(planner, **settings)
        screen.progress("planning …")
        try:
            data = (await chosen.plan(goal, kernel=kernel)).to_dict()
        except KernloomError as exc:
            if isinstance(exc, PersonRequired):
                await _give_up(kernel, exc)
            so_far = exc.details.get("plan")
            if out is not None and isinstance(so_far, dict) and so_far.get("steps"):
                Plan.from_dict(so_far).save(out)
                screen.note(f"It got no further; what was done so far is in {out}.")
            raise
    if out is None:
        screen.result(data, write_yaml(data).rstrip())
        return
    Plan.from_dict(data).save(out)
    screen.result({"file": str(out), "plan": data}, f"Wrote {out}: {_steps(len(data['steps']))}.")
    screen.note(f"Run it again without a model: kernloom plan run {out}")


async def _give_up(kernel: Kernel, exc: PersonRequired) -> None:
    """A planner finds its way as it goes: what it had in mind is nowhere on record to go on with."""
    exc.hint = "Planning is not resumed. Do it again with --yes, or at a terminal."
    session = exc.details.get("session")
    if isinstance(session, str):
        conversation = await Conversation.open(kernel, session)
        run = last_run(conversation.events)
        async with conversation.log.claim(run or ""):
            await conversation.mend(run=run)
            await conversation.add(RunCancelled(), actor="kernloom", run=run)


@plan.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def check(screen: Screen, file: Path) -> None:
    """Everything that keeps the plan in FILE from running; nothing is run. - reads stdin."""
    asyncio.run(_check(screen, file))


async def _check(screen: Screen, file: Path) -> None:
    loaded = _loaded(file)
    async with open_kernel(screen) as kernel:
        problems = loaded.check(kernel)
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise PlanError(
            f"{file} has {count}.\n{lines}",
            code="plan.invalid",
            problems=[problem.model_dump() for problem in problems],
        )
    screen.result({"file": str(file), "problems": []}, f"{file} can run: {_steps(len(loaded.steps))}.")
    for name, spec in loaded.inputs.items():
        screen.note(
            f"  input {name}: {json.dumps(spec.model_dump(exclude_unset=True), ensure_ascii=False)}"
        )


@plan.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--args", "given", metavar="JSON", help="All inputs as a JSON object; - reads stdin.")
@click.option("-y", "--yes", is_flag=True, help="Approve every call.")
@click.pass_obj
def run(screen: Screen, file: Path, inputs: tuple[str, ...], given: str | None, yes: bool) -> None:
    """Run the plan in FILE; no model is asked unless a step does. - reads stdin.

    Steps that do not wait for one another run side by side. What was done is kept: kernloom runs show.
    """
    asyncio.run(_run(screen, file, inputs, given, yes))


async def _run(screen: Screen, file: Path, words: Sequence[str], given: str | None, yes: bool) -> None:
    loaded, name = _loaded(file), _name(file)
    function = loaded.as_function(name)
    inputs = parsed(function, words, given)
    try:
        function.signature.validate(inputs)
        done = await execute(screen, loaded, inputs, name=name, yes=yes)
    except ModelRetry as exc:
        raise wrong_arguments(function, exc) from exc
    show_outcome(screen, done)


def show_outcome(screen: Screen, done: Ran) -> None:
    """What came of a plan: its output as the result, its steps beside it."""
    screen.result(done.data, done.text)
    screen.note(done.steps)
    screen.note(screen.paint(f"  session {done.session}", "dim", err=True))


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a plan, as it is shown."""

    session: str
    #: For ``--json``.
    data: dict[str, Any]
    #: The output.
    text: str
    #: Every step and what became of it.
    steps: str


async def execute(
    screen: Screen, loaded: Plan, inputs: Mapping[str, object], *, name: str, yes: bool
) -> Ran:
    """Run a plan in a session of its own, under ``name``."""
    async with open_kernel(screen, yes=yes, journal=True) as kernel:
        log = await kernel.journal.create()
        context = kernel.context(log=log, actor=name, origin="plan")
        screen.progress(f"running {_steps(len(loaded.steps))} …")
        try:
            outcome = await run_plan(loaded, kernel, inputs, context, name=name)
        except PersonRequired as exc:
            await say_how_to_answer(exc, kernel.journal, log.id)
            raise
    return told(loaded, outcome, log.id)


def told(plan: Plan, outcome: PlanOutcome, session: str) -> Ran:
    """What came of a plan, made ready to be shown."""
    done = outcome.steps
    output = as_json(outcome.output)
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, indent=2)
    steps = {name: {"status": step.status, "result": as_json(step.result)} for name, step in done.items()}
    calls = {step.id: step.call for step in plan.steps}
    rows = [[name, calls[name], step.status, f"{step.seconds:.2f} s"] for name, step in done.items()]
    data = {"output": output, "steps": steps, "session": session}
    return Ran(session, data, text, table(rows, indent="  "))


def _name(file: Path) -> str:
    return "stdin" if str(file) == "-" else file.stem


def _loaded(file: Path) -> Plan:
    if str(file) == "-":
        return Plan.from_dict(read_yaml(text_or_stdin("-"), what="stdin"), source="stdin")
    if not file.exists():
        siblings = file.parent.glob("*") if file.parent.is_dir() else ()
        near = nearest(file.name, [sibling.name for sibling in siblings if sibling.suffix in _SUFFIXES])
        raise NotFoundError(
            f"There is no plan {str(file)!r}.",
            code="plan.not_found",
            hint=did_you_mean([str(file.parent / name) for name in near]),
        )
    return Plan.load(file)


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
