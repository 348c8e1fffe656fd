"""The kernel: what can be added, how it is called, who owns a name."""

from __future__ import annotations

import asyncio
import types
from pathlib import Path
from typing import Any

import pytest

from kernloom import Kernel, PluginError, UsageError, function
from kernloom.kernel.errors import JournalError, NotFoundError
from kernloom.kernel.journal import Journal, SqliteJournalStore
from kernloom.kernel.journal.events import MessageAdded
from kernloom.kernel.messages import user
from kernloom.kernel.models import EchoModel


class Counter:
    """Counts."""

    def __init__(self) -> None:
        self.total = 0

    @function
    def add(self, n: int = 1) -> int:
        """Add to the total."""
        self.total += n
        return self.total

    @function
    async def read(self) -> int:
        """The total."""
        return self.total

    @staticmethod
    @function(inline=True)
    def double(n: int) -> int:
        """Twice n."""
        return 2 * n

    def helper(self) -> str:
        return "not offered"

    @property
    def explosive(self) -> str:
        raise AssertionError("a property must not be evaluated to look for functions")


async def test_an_instance_keeps_its_state_between_calls() -> None:
    async with Kernel() as kernel:
        added = kernel.add_plugin(Counter())
        assert [f.name for f in added] == ["counter.add", "counter.read", "counter.double"]
        await kernel.invoke("counter.add", n=2)
        await kernel.invoke("counter.add", n="3")
        assert await kernel.invoke("counter.read") == 5
        assert await kernel.invoke("counter.double", n=4) == 8


async def test_a_class_is_made_and_a_module_is_searched() -> None:
    kernel = Kernel()
    kernel.add_plugin(Counter, name="tally")
    assert await kernel.invoke("tally.add") == 1

    module = types.ModuleType("shapes")
    exec(
        "from kernloom import function\n@function\ndef area(w: int, h: int) -> int:\n    return w * h\n",
        module.__dict__,
    )
    module.__dict__["borrowed"] = Counter.double
    assert [f.name for f in kernel.add_plugin(module)] == ["shapes.area"]
    assert await kernel.invoke("shapes.area", w=3, h=4) == 12


async def test_a_folder_of_templates_is_a_plugin(tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "greet.jinja").write_text("Dear {{ name }},")
    kernel = Kernel()
    kernel.add_plugin(folder)
    assert await kernel.invoke("letters.greet", name="Ada {{ 7 * 7 }}") == "Dear Ada {{ 7 * 7 }},"


async def test_an_argument_may_be_called_context() -> None:
    kernel = Kernel()

    @function
    async def echo(context: str) -> str:
        return context

    kernel.add_function(echo, plugin="probe")
    assert await kernel.invoke("probe.echo", context="said") == "said"


def test_what_is_not_marked_is_not_offered() -> None:
    kernel = Kernel()
    kernel.add_plugin(Counter())
    with pytest.raises(NotFoundError):
        kernel.function("counter.helper")


def test_a_name_that_is_taken_is_refused_naming_both_owners() -> None:
    kernel = Kernel()
    kernel.add_plugin(Counter())
    with pytest.raises(PluginError, match="already provided by Counter") as caught:
        kernel.add_plugin(Counter())
    assert caught.value.code == "plugin.collision"
    assert len(kernel.functions()) == 3


def test_an_object_that_offers_nothing_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="offers no functions"):
        Kernel().add_plugin(object())


def test_a_near_name_is_suggested() -> None:
    kernel = Kernel()
    kernel.add_plugin(Counter())
    with pytest.raises(NotFoundError, match=r"counter\.double") as caught:
        kernel.function("counter.doubel")
    assert "counter.double" in caught.value.details["near"]  # type: ignore[operator]


def test_sync_calls_share_one_loop_so_that_clients_survive() -> None:
    loops: list[Any] = []

    async def loop() -> int:
        loops.append(asyncio.get_running_loop())
        return 1

    kernel = Kernel()
    kernel.add_function(loop, plugin="probe")
    kernel.invoke_sync("probe.loop")
    kernel.invoke_sync("probe.loop")
    assert loops[0] is loops[1]


async def test_sync_calls_work_inside_a_running_loop() -> None:
    kernel = Kernel()
    kernel.add_plugin(Counter())
    assert kernel.invoke_sync("counter.add", n=7) == 7


def test_a_sync_call_from_inside_async_work_is_refused_not_hung() -> None:
    kernel = Kernel()

    @function
    async def nested() -> int:
        return int(kernel.invoke_sync("probe.nested"))

    kernel.add_function(nested, plugin="probe")
    with pytest.raises(Exception, match="Await the async method"):
        kernel.invoke_sync("probe.nested")


async def test_closing_goes_on_when_a_model_cannot_be_closed(tmp_path: Path) -> None:
    class Stuck(EchoModel):
        async def aclose(self) -> None:
            raise OSError("the connection is gone")

    journal = Journal(SqliteJournalStore(tmp_path / "journal.db"))
    await (await journal.create()).append(MessageAdded(message=user("Hello")), actor="ann")
    kernel = Kernel(journal=journal)
    kernel.add_model(Stuck(), name="stuck")
    with pytest.raises(OSError, match="gone"):
        await kernel.aclose()
    with pytest.raises(JournalError, match="closed"):
        await journal.sessions()


def test_one_name_in_place_of_a_list_of_names_is_a_mistake() -> None:
    with pytest.raises(UsageError, match=r"allow=\['units'\]"):
        Kernel(allow="units")
