"""Prompts: a folder of templates is a plugin, and a prompt may ask a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernloom import Kernel, ModelRetry, Policy
from kernloom.kernel.errors import ApprovalRequired, FunctionFailed, UsageError
from kernloom.kernel.models.scripted import ScriptedModel
from kernloom.kernel.prompts.prompts import prompt, prompts_in

SUMMARY = """\
---
description: Sum up a text for a busy reader.
inputs:
  text: {type: string, description: What to sum up.}
  sentences: {type: integer, default: 2}
---
Sum up in {{ sentences }} sentences:

{{ text }}
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


async def test_a_folder_of_templates_is_a_plugin(tmp_path: Path) -> None:
    folder = write(
        tmp_path, summary__jinja=SUMMARY, greet__j2="Hello {{ name }}!", notes__md="not a prompt"
    )
    async with Kernel() as kernel:
        added = kernel.add_plugin(folder, name="mine")
        assert [f.name for f in added] == ["mine.greet", "mine.summary"]
        assert await kernel.invoke("mine.greet", name="{{ 7 * 7 }}") == "Hello {{ 7 * 7 }}!"
        assert (await kernel.invoke("mine.summary", text="Long.")).startswith(
            "Sum up in 2 sentences:\n\nLong."
        )
        assert "in 5 sentences" in await kernel.invoke("mine.summary", text="Long.", sentences="5")


def test_what_a_prompt_declares_is_its_schema(tmp_path: Path) -> None:
    (found,) = prompts_in(write(tmp_path, summary__jinja=SUMMARY))
    assert found.spec.description == "Sum up a text for a busy reader."
    assert found.parameters == {
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "What to sum up."},
            "sentences": {"type": "integer", "default": 2},
        },
        "required": ["text"],
        "additionalProperties": False,
    }


def test_without_declarations_its_variables_are_its_parameters() -> None:
    found = prompt("{{ b }} {{ a }} {{ tone|default('dry') }}{% for x in a %}{{ x }}{% endfor %}", name="p")
    assert found.parameters["required"] == ["a", "b"]
    assert list(found.parameters["properties"]) == ["a", "b", "tone"]


async def test_an_input_left_out_takes_its_default_or_stays_undefined() -> None:
    kernel = Kernel()
    kernel.add_function(prompt("{{ tone|default('dry') }} {{ n is defined }}", name="p"))
    assert await kernel.invoke("p") == "dry False"
    assert await kernel.invoke("p", tone="warm", n="1") == "warm True"


async def test_arguments_that_do_not_fit_are_told() -> None:
    kernel = Kernel()
    kernel.add_function(prompt("{{ n }}", name="p", inputs={"n": {"type": "integer"}}))
    with pytest.raises(ModelRetry, match="n is required"):
        await kernel.invoke("p")
    with pytest.raises(ModelRetry, match="m is not a parameter"):
        await kernel.invoke("p", n=1, m=2)


async def test_with_a_model_the_answer_is_the_result() -> None:
    kernel = Kernel()
    model = ScriptedModel(["Short.", '```json\n{"a": [1]}\n```', "no json"], name="script:test")
    kernel.add_model(model)
    kernel.add_function(prompt("Sum up: {{ text }}", name="sum_up", model="script:test"))
    kernel.add_function(prompt("List.", name="facts", model="script:test", output="json"))
    assert await kernel.invoke("sum_up", text="Long.") == "Short."
    assert model.requests[0].messages[0].text == "Sum up: Long."
    assert await kernel.invoke("facts") == {"a": [1]}
    with pytest.raises(FunctionFailed) as caught:
        await kernel.invoke("facts")
    assert caught.value.code == "prompt.no_json"


async def test_a_prompt_that_asks_a_model_spends_unless_it_says_otherwise() -> None:
    asks = prompt("x", name="asks", model="openai:gpt-4.1-mini")
    local = prompt("x", name="local", model="ollama:qwen3:4b", effects=frozenset())
    assert asks.effects == {"network", "spend"}
    assert local.effects == prompt("x", name="plain").effects == frozenset()
    kernel = Kernel(policy=Policy())
    kernel.add_function(asks)
    with pytest.raises(ApprovalRequired):
        await kernel.invoke("asks", kernel.context(origin="model"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("bad__jinja", "a\n{% for %}", "bad.jinja"),
        ("bad__jinja", "---\ninputs: [a]\n---\nx", "inputs"),
        ("bad__jinja", "---\nmodell: x\n---\nx", "modell"),
        ("bad__jinja", "---\na: [\n---\nx", "front matter"),
        ("bad__jinja", "---\ninputs: {a: {}}\n---\n{{ b }}", "'b'"),
        ("bad__jinja", "---\ninputs: {a-b: {}}\n---\n", "'a-b'"),
        ("2nd__jinja", "x", "'2nd'"),
    ],
)
def test_a_prompt_that_is_wrong_names_its_file_or_its_part(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        prompts_in(write(tmp_path, **{name: text}))
    assert words in str(caught.value)


def test_two_prompts_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        prompts_in(write(tmp_path, a__jinja="x", a__j2="y"))
    assert caught.value.code == "prompt.collision"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        prompts_in(tmp_path / "none")


def test_self_is_the_templates_own_word(tmp_path: Path) -> None:
    head = "---\ninputs: {self: {type: string}}\n---\n"
    with pytest.raises(UsageError, match="input 'self'") as caught:
        prompts_in(write(tmp_path, me__jinja=head + "I am {{ self }}"))
    assert caught.value.code == "prompt.invalid"


def test_a_folder_without_prompts_is_told_what_a_prompt_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"end in \.jinja or \.j2") as caught:
        Kernel().add_plugin(write(tmp_path, notes__md="not a prompt"), name="mine")
    assert caught.value.code == "plugin.empty"


def test_what_an_editor_leaves_in_a_folder_is_no_prompt(tmp_path: Path) -> None:
    folder = write(tmp_path, greet__jinja="Hello {{ name }}!")
    (tmp_path / ".#greet.jinja").write_text("{{", encoding="utf-8")
    assert [function.name for function in prompts_in(folder)] == ["greet"]
