"""The policy: reading may, changing the world asks, and a line of code was decided by writing it."""

from __future__ import annotations

import pytest

from kernloom import ApprovalRequired, Function, Kernel, Policy, function
from kernloom.kernel.errors import FunctionDenied
from kernloom.kernel.functions import Effect, Origin, Verdict
from kernloom.kernel.policy import ApprovalRequest


def made(*effects: Effect, approval: Verdict | None = None) -> Function:
    @function(effects=effects, approval=approval)
    async def act() -> str:
        return "done"

    return Function.of(act, plugin="shop")


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        ((), "allow"),
        (("read",), "allow"),
        (("write",), "ask"),
        (("read", "network"), "ask"),
        (("exec",), "ask"),
    ],
)
def test_the_default_asks_before_anything_changes(effects: tuple[Effect, ...], verdict: Verdict) -> None:
    assert Policy().decide(made(*effects)) == verdict


def test_the_strictest_effect_decides() -> None:
    policy = Policy(effects={"write": "allow", "network": "deny"})
    assert policy.decide(made("write")) == "allow"
    assert policy.decide(made("write", "network")) == "deny"


def test_the_longest_pattern_wins_over_effects_and_declaration() -> None:
    policy = Policy(functions={"shop.*": "deny", "shop.act": "allow"})
    assert policy.decide(made("write", approval="ask")) == "allow"
    assert Policy(functions={"shop.*": "deny"}).decide(made("read")) == "deny"


@pytest.mark.parametrize(("origin", "verdict"), [("code", "allow"), ("model", "ask"), ("plan", "ask")])
def test_only_a_line_of_code_needs_no_yes(origin: Origin, verdict: Verdict) -> None:
    assert Policy().decide(made("write"), origin=origin) == verdict


async def test_nobody_to_ask_is_an_error_that_says_what_would_have_been_asked() -> None:
    kernel = Kernel()
    with pytest.raises(ApprovalRequired) as caught:
        await kernel.invoke(made("write"), kernel.context(origin="model", actor="bot"))
    asked = {"function": "shop.act", "arguments": {}, "effects": ["write"], "actor": "bot"}
    assert caught.value.details.items() >= asked.items()


@pytest.mark.parametrize("yes", [True, False])
async def test_a_persons_word_is_final(yes: bool) -> None:
    asked: list[ApprovalRequest] = []

    async def approve(request: ApprovalRequest) -> bool:
        asked.append(request)
        return yes

    kernel = Kernel(approve=approve)
    if yes:
        assert await kernel.invoke(made("spend"), kernel.context(origin="model")) == "done"
    else:
        with pytest.raises(FunctionDenied):
            await kernel.invoke(made("spend"), kernel.context(origin="model"))
    assert [request.function for request in asked] == ["shop.act"]


async def test_a_denied_function_is_refused_even_to_code() -> None:
    with pytest.raises(FunctionDenied):
        await Kernel(policy=Policy(functions={"shop.act": "deny"})).invoke(made())
