"""``kernloom functions`` and ``kernloom call``: what can be called, and calling it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..kernel import invocation
from ..kernel.errors import KernloomError, ModelRetry, PersonRequired, UsageError
from ..kernel.functions import Function, as_json
from ..kernel.kernel import Kernel
from .commands import Command, text_or_stdin
from .own_calls import call_on_record
from .questions import say_how_to_answer
from .screen import Screen, table
from .workspace import open_journal, open_kernel


@click.command(cls=Command)
@click.argument("names", nargs=-1)
@click.pass_obj
def functions(screen: Screen, names: tuple[str, ...]) -> None:
    """List what can be called.

    NAMES narrow it: math, or math.evaluate. A function named alone is shown with its parameters.
    """
    asyncio.run(_list(screen, names))


async def _list(screen: Screen, names: tuple[str, ...]) -> None:
    async with open_kernel(screen) as kernel:
        found = sorted(kernel.functions(*(names or ("*",))), key=lambda function: function.name)
        data = [described(function) for function in found]
        if len(found) == 1 and names and "." in names[0]:
            screen.result(data, _page(screen, found[0]))
        else:
            rows = [[called(f), _effects(screen, f), first_sentence(f.description)] for f in found]
            screen.result(data, table(rows))
        if not names:
            for record in kernel.plugins.records():
                if record.status not in ("ok", "disabled"):
                    screen.note(f"{record.name}: {record.status} -> kernloom plugins show {record.name}")


def described(function: Function) -> dict[str, Any]:
    """A function as JSON."""
    return {
        "name": function.name,
        "description": function.description,
        "effects": sorted(function.effects),
        "parameters": function.parameters,
        "returns": function.returns,
    }


def called(function: Function) -> str:
    """``units.convert(value, unit, to='m')``: how one calls it."""
    required = set(function.parameters.get("required", ()))
    parameters = function.parameters.get("properties", {})
    words = [
        name if name in required else f"{name}={json.dumps(schema.get('default'), ensure_ascii=False)}"
        for name, schema in parameters.items()
    ]
    return f"{function.name}({', '.join(words)})"


def first_sentence(text: str) -> str:
    """The first line of a description."""
    return text.strip().partition("\n")[0]


def _effects(screen: Screen, function: Function) -> str:
    words = " ".join(sorted(function.effects)) or "-"
    return screen.paint(words, "warn") if function.changes else words


def _page(screen: Screen, function: Function) -> str:
    required = set(function.parameters.get("required", ()))
    rows = [
        [name, _type(schema), "" if name in required else _default(schema), schema.get("description", "")]
        for name, schema in function.parameters.get("properties", {}).items()
    ]
    lines = [screen.paint(called(function), "strong"), "", function.description, ""]
    lines += [table(rows, indent="  "), ""] if rows else []
    lines.append(f"effects: {' '.join(sorted(function.effects)) or 'none'}")
    lines.append(example(function))
    return "\n".join(lines)


def example(function: Function) -> str:
    """The command that calls it, with its required arguments."""
    words = [f"{name}=…" for name in function.parameters.get("required", ())]
    return " ".join(["kernloom call", function.name, *words])


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    return str(schema.get("type") or schema.get("$ref", "any").rpartition("/")[2])


def _default(schema: Mapping[str, Any]) -> str:
    return f"= {json.dumps(schema.get('default'), ensure_ascii=False)}"


@click.command(cls=Command)
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--args", "given", metavar="JSON", help="All arguments as a JSON object; - reads stdin.")
@click.option("-y", "--yes", is_flag=True, help="Approve the call.")
@click.pass_obj
def call(screen: Screen, name: str, arguments: tuple[str, ...], given: str | None, yes: bool) -> None:
    """Call one function: call math.evaluate expression=2+3.

    A value is read as JSON where the parameter is no text; KEY=- reads it from stdin. A function that
    changes something asks first: on a terminal you answer, elsewhere --yes does, or it exits with 3 and
    waits: kernloom runs resolve.
    """
    asyncio.run(_call(screen, name, arguments, given, yes))


async def _call(screen: Screen, name: str, words: Sequence[str], given: str | None, yes: bool) -> None:
    async with open_kernel(screen, yes=yes) as kernel:
        function = kernel.function(name)
        arguments = parsed(function, words, given)
        recorded = function.changes or kernel.policy.decide(function, origin="person") == "ask"
        try:
            value = await (_recorded if recorded else _plain)(screen, kernel, function, arguments)
        except ModelRetry as exc:
            raise wrong_arguments(function, exc) from exc
    show_result(screen, name, value)


def show_result(screen: Screen, name: str, value: Any) -> None:
    """What a function returned."""
    data = as_json(value)
    shown = value if isinstance(value, str) else json.dumps(data, ensure_ascii=False, indent=2)
    screen.result({"function": name, "result": data}, shown)


async def _plain(_: Screen, kernel: Kernel, function: Function, arguments: dict[str, Any]) -> Any:
    context = kernel.context(actor="person", origin="person")
    return await invocation.invoke(function, arguments, context)


async def _recorded(screen: Screen, kernel: Kernel, function: Function, arguments: dict[str, Any]) -> Any:
    """A call that changes something is in the journal, as intended before and as done after."""
    function.signature.validate(arguments)  # a typing error is nothing that happened
    async with open_journal(screen) as journal:
        log = await journal.create()
        try:
            return await call_on_record(kernel, log, function, arguments)
        except PersonRequired as exc:
            await say_how_to_answer(exc, journal, log.id)
            raise


def parsed(function: Function, words: Sequence[str], given: str | None) -> dict[str, Any]:
    """The arguments somebody typed.

    Raises:
        UsageError: a word without ``=``, or ``--args`` that is no JSON object.
    """
    arguments: dict[str, Any] = json_object(given) if given is not None else {}
    parameters = function.parameters.get("properties", {})
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError(
                f"{word!r} is no KEY=VALUE.",
                code="call.argument",
                hint=f"It is called so: {example(function)}.",
            )
        arguments[key] = _value(text_or_stdin(text), parameters.get(key, {}))
    return arguments


def json_object(text: str) -> dict[str, Any]:
    """What was given as ``--args``.

    Raises:
        UsageError: ``call.args``, it is no JSON object.
    """
    text = text_or_stdin(text)
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise UsageError(
            f"--args is no JSON: {exc}.", code="call.args", hint='Write {"key": value}.'
        ) from exc
    if not isinstance(value, dict):
        raise UsageError(f"--args is a JSON {type(value).__name__}, not an object.", code="call.args")
    return value


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """JSON when it is some, except where the parameter is text: an order number stays as typed."""
    if schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def wrong_arguments(function: Function, error: ModelRetry) -> KernloomError:
    """The words a model is told, turned to the person who typed them."""
    return UsageError(error.message, code=error.code, hint=f"It takes {called(function)}.", **error.details)
