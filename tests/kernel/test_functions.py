"""Functions: schema from hints and docstring, validation, timeouts, results."""

from __future__ import annotations

import asyncio
import enum
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from kernloom import Context, Function, Kernel, function
from kernloom.kernel.errors import (
    FunctionFailed,
    FunctionInDoubt,
    FunctionTimeout,
    ModelRetry,
    UsageError,
)
from kernloom.kernel.functions import as_json, as_text


class Unit(enum.Enum):
    metric = "metric"
    imperial = "imperial"


class PlainTypedDict(TypedDict):
    """Pydantic wants the one of typing_extensions before Python 3.12."""

    verbose: Callable[[], bool]


class Place(BaseModel):
    lat: float
    lon: float
    label: str = ""


@function(effects={"network"})
async def forecast(
    city: str,
    days: int = 1,
    unit: Unit = Unit.metric,
    at: Place | None = None,
    tags: list[str] | None = None,
    mode: Literal["short", "long"] = "short",
    note: Annotated[str, "free text"] = "",
    hours: Annotated[int, Field(ge=0, le=23)] = 12,
) -> Place:
    """Forecast for a city.

    Args:
        city: The city's English name.
        days: How many days
            ahead.
    """
    return at or Place(lat=float(days), lon=float(hours), label=f"{city} {unit.value}")


FORECAST = Function.of(forecast, plugin="weather")


async def call(target: Any, **arguments: Any) -> Any:
    return await Function.of(target).invoke(arguments, Kernel().context())


def test_the_schema_says_what_hints_and_docstring_say() -> None:
    properties = FORECAST.parameters["properties"]
    assert FORECAST.parameters["required"] == ["city"]
    assert properties["city"] == {"type": "string", "description": "The city's English name."}
    assert properties["days"] == {"type": "integer", "description": "How many days ahead.", "default": 1}
    assert properties["unit"]["default"] == "metric"
    assert properties["mode"]["enum"] == ["short", "long"]
    assert properties["note"]["description"] == "free text"
    assert properties["hours"]["maximum"] == 23
    assert FORECAST.parameters["$defs"]["Place"]["required"] == ["lat", "lon"]
    assert FORECAST.parameters["additionalProperties"] is False
    assert FORECAST.description == "Forecast for a city."
    assert FORECAST.returns["required"] == ["lat", "lon"]
    json.dumps(FORECAST.parameters)


@pytest.mark.parametrize(
    "doc",
    [
        "Add.\n\nArgs:\n    a: First one.\n    b: Second.\n",
        "Add.\n\n:param a: First one.\n:param b: Second.\n",
        "Add.\n\nParameters\n----------\na : int\n    First one.\nb : int\n    Second.\n",
    ],
)
def test_three_docstring_styles_are_read(doc: str) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    add.__doc__ = doc
    properties = Function.of(add).parameters["properties"]
    assert properties["a"]["description"] == "First one."
    assert properties["b"]["description"] == "Second."


async def test_arguments_are_coerced_to_their_types() -> None:
    place = await call(forecast, city="Oslo", days="3", unit="imperial", at={"lat": "1", "lon": 2})
    assert place == Place(lat=1.0, lon=2.0)


async def test_a_list_sent_as_text_is_read_where_text_does_not_fit() -> None:
    async def count(items: list[int]) -> int:
        return sum(items)

    assert await call(count, items="[1, 2, 3]") == 6


async def test_a_number_is_taken_where_text_is_wanted() -> None:
    async def shout(text: str) -> str:
        return f"{text}!"

    assert await call(shout, text=397.8) == "397.8!"


async def test_every_wrong_argument_is_named_at_once() -> None:
    with pytest.raises(ModelRetry) as caught:
        await call(forecast, days="many", colour="red")
    words = str(caught.value)
    assert "city is required" in words
    assert "days" in words
    assert "'many'" in words
    assert "colour is not a parameter" in words
    assert caught.value.code == "function.arguments_invalid"


async def test_parameters_may_be_called_as_pydantic_calls_its_own() -> None:
    def odd(json: str, copy: int = 2, model_config: str = "x", schema: bool = True) -> str:
        return f"{json}{copy}{model_config}{schema}"

    assert await call(odd, json="j", copy="5") == "j5xTrue"


async def test_a_context_is_injected_and_hidden_from_the_schema() -> None:
    def who(greeting: str, context: Context) -> str:
        return f"{greeting} {context.actor}"

    made = Function.of(who)
    assert list(made.parameters["properties"]) == ["greeting"]
    assert await made.invoke({"greeting": "hi"}, Kernel().context(actor="librarian")) == "hi librarian"
    with pytest.raises(ModelRetry):
        await made.invoke({"greeting": "hi", "context": "forged"}, Kernel().context())


async def test_sync_runs_off_the_loop_and_inline_on_it() -> None:
    @function
    def hop() -> int:
        return threading.get_ident()

    @function(inline=True)
    def stay() -> int:
        return threading.get_ident()

    assert await call(hop) != threading.get_ident()
    assert await call(stay) == threading.get_ident()


async def test_an_exception_becomes_a_failure_with_its_cause() -> None:
    def divide(a: int, b: int) -> float:
        return a / b

    with pytest.raises(FunctionFailed, match="ZeroDivisionError") as caught:
        await call(divide, a=1, b=0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_slow_reader_times_out_and_a_slow_writer_is_in_doubt() -> None:
    @function(timeout=0.01)
    async def read() -> None:
        await asyncio.sleep(5)

    @function(timeout=0.01, effects={"write"})
    async def write() -> None:
        await asyncio.sleep(5)

    with pytest.raises(FunctionTimeout):
        await call(read)
    with pytest.raises(FunctionInDoubt):
        await call(write)


async def test_a_timeout_of_the_functions_own_is_its_failure_not_ours() -> None:
    @function(timeout=60)
    async def impatient() -> None:
        raise TimeoutError("upstream")

    with pytest.raises(FunctionFailed, match="upstream"):
        await call(impatient)


async def test_cancellation_reaches_the_function() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(call(wait))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


def test_a_decorated_function_stays_what_it_was() -> None:
    @function(effects={"read"})
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == 8


@pytest.mark.parametrize(
    "bad",
    [lambda: function(effects={"fly"}), lambda: function(inline=True)(forecast)],  # type: ignore[arg-type]
)
def test_a_wrong_declaration_is_refused_where_it_is_written(bad: Any) -> None:
    with pytest.raises(UsageError):
        bad()


def test_parameters_that_cannot_be_named_are_refused() -> None:
    def many(*args: int, **kwargs: int) -> None: ...

    with pytest.raises(UsageError, match="by name"):
        _ = Function.of(many).parameters


@dataclass
class Odd:
    x: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        ({"a": [1, 2.5]}, '{"a":[1,2.5]}'),
        (Place(lat=1, lon=2), '{"lat":1.0,"lon":2.0,"label":""}'),
        (Odd(3), '{"x":3}'),
        (Unit.metric, '"metric"'),
        (b"\xff\x00", '"_wA="'),
        (float("inf"), "Infinity"),
    ],
)
def test_results_become_text_a_model_can_read(value: object, text: str) -> None:
    assert as_text(value) == text


def test_a_result_that_json_cannot_carry_is_shown_not_lost() -> None:
    assert "object" in as_text(object())
    assert "object" in as_json([object()])[0]


@given(
    st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
)
def test_any_arguments_are_accepted_or_refused_in_words(arguments: dict[str, Any]) -> None:
    try:
        FORECAST.signature.validate(arguments)
    except ModelRetry as error:
        assert error.details["problems"]


@pytest.mark.parametrize("sort", ["thread", "inline", "async"])
@pytest.mark.parametrize("error", [StopIteration("nothing left"), SystemExit(4)])
async def test_what_would_stop_a_loop_or_a_program_is_the_functions_failure(
    error: BaseException, sort: str
) -> None:
    kernel = Kernel()

    @function(inline=sort == "inline")
    def stops() -> None:
        raise error

    async def stops_late() -> None:
        raise error

    kernel.add_function(stops_late if sort == "async" else stops, plugin="odd")
    with pytest.raises(FunctionFailed) as caught:
        async with asyncio.timeout(5):
            await kernel.invoke("odd.stops_late" if sort == "async" else "odd.stops")
    assert type(error).__name__ in str(caught.value)


def test_a_type_that_has_no_schema_is_named_with_its_function() -> None:
    def each(visit: Callable[[int], int]) -> None: ...
    def typed(options: PlainTypedDict) -> None: ...

    for broken in (each, typed):
        with pytest.raises(UsageError) as caught:
            _ = Function.of(broken).spec
        assert caught.value.code == "function.signature"
        assert broken.__qualname__ in str(caught.value)


def test_a_result_that_contains_itself_is_shown_not_raised() -> None:
    knot: list[Any] = []
    knot.append(knot)
    assert as_json(knot) == "[[...]]"
    assert as_text(knot) == "[[...]]"
