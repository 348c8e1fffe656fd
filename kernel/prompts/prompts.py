"""Prompt templates as functions: rendered, or rendered and asked of a model.

A prompt is a file ``summary.jinja`` (or ``.j2``) in a folder that is added as a plugin. What it needs to
say of itself stands above the text, between two lines of ``---``; all of it is optional::

    ---
    description: Sum up a text for a busy reader.
    inputs:
      text: {type: string, description: What to sum up.}
      sentences: {type: integer, default: 2}
    model: openai:gpt-4.1-mini
    ---
    Sum up in {{ sentences }} sentences:

    {{ text }}

Without ``inputs`` the template's own variables are its parameters, all text. Without ``model`` the
function returns the rendered text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ..errors import FunctionFailed, UsageError
from ..functions import Context, Effect, Function, FunctionOptions
from ..messages import Frozen, user
from ..models.base import ChatRequest
from ..safe_yaml import read_yaml
from ..schema import DeclaredSignature, InputSpec
from .templates import Template

SUFFIXES = (".jinja", ".j2")
#: Bytes of one file; its text may have fewer characters still, see ``TemplateLimits``.
_MAX_BYTES = 1_000_000
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?\n?", re.DOTALL | re.MULTILINE)


class PromptHead(Frozen):
    """What a prompt file says above its text."""

    #: The function's name; the file's by default.
    name: str | None = None
    #: What it is for, as a model is told.
    description: str = ""
    #: Its parameters; the template's variables, all text, by default.
    inputs: dict[str, InputSpec] | None = None
    #: ``provider:model`` to ask; None returns the rendered text.
    model: str | None = None
    #: ``json``: the model's answer is parsed, and the function returns data.
    output: Literal["text", "json"] = "text"
    #: What it does to the world; with a model ``network`` and ``spend`` by default.
    effects: frozenset[Effect] | None = None


def prompts_in(folder: Path) -> list[Function]:
    """A function for every template in ``folder``, by name.

    Raises:
        UsageError: there is no such folder, no prompt in it, or one that is not valid; it is named.
    """
    if not folder.is_dir():
        raise UsageError(
            f"There is no folder {str(folder)!r}.",
            code="prompt.no_folder",
            hint="Pass a folder of templates.",
        )
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise UsageError(
            f"There is no prompt in {str(folder)!r}.",
            code="plugin.empty",
            hint=f"Prompts are files that end in {' or '.join(SUFFIXES)}.",
        )
    functions = [read_prompt(path) for path in paths]
    seen: dict[str, Path] = {}
    for function, path in zip(functions, paths, strict=True):
        if function.name in seen:
            raise UsageError(
                f"{path} and {seen[function.name]} are both called {function.name!r}.",
                code="prompt.collision",
            )
        seen[function.name] = path
    return sorted(functions, key=lambda function: function.name)


def read_prompt(path: Path) -> Function:
    """The function of one prompt file.

    Raises:
        UsageError: ``prompt.invalid``, ``template.syntax``; the file is named.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path} has more than {_MAX_BYTES:,} bytes.", code="prompt.invalid")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"The prompt {path} cannot be read: {exc}.", code="prompt.invalid") from exc
    front = _FRONT_MATTER.match(text)
    head = _head(front.group(1), path) if front else PromptHead()
    name = head.name or path.name.partition(".")[0].replace("-", "_")
    return _function(
        text[front.end() :] if front else text, head.model_copy(update={"name": name}), str(path)
    )


def prompt(
    template: str,
    *,
    name: str,
    description: str = "",
    inputs: Mapping[str, InputSpec | Mapping[str, Any]] | None = None,
    model: str | None = None,
    output: Literal["text", "json"] = "text",
    effects: frozenset[Effect] | None = None,
) -> Function:
    """A prompt function made in code; see the module for what the parts mean.

    Raises:
        UsageError: ``prompt.invalid``, ``template.syntax``.

    ::

        kernel.add_function(prompt("Greet {{ name }}.", name="greet"))
    """
    given = (
        None if inputs is None else {key: InputSpec.model_validate(spec) for key, spec in inputs.items()}
    )
    head = PromptHead(
        name=name, description=description, inputs=given, model=model, output=output, effects=effects
    )
    return _function(template, head, name)


def _head(text: str, path: Path) -> PromptHead:
    data = read_yaml(text, what=f"The front matter of {path}")
    try:
        return PromptHead.model_validate({} if data is None else data)
    except ValidationError as exc:
        wrong = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'it'}: {p['msg']}" for p in exc.errors())
        raise UsageError(
            f"The front matter of {path} does not fit: {wrong}.", code="prompt.invalid"
        ) from exc


def _function(source: str, head: PromptHead, where: str) -> Function:
    name = head.name or ""
    if not name.isidentifier():
        raise UsageError(
            f"{name!r} ({where}) cannot be a function's name.",
            code="prompt.invalid",
            hint="Use letters, digits and underscores, or say name: in the front matter.",
        )
    template = Template(source, name=where)
    inputs = head.inputs
    if inputs is None:
        inputs = {
            variable: InputSpec(type="string", required=variable not in template.optional)
            for variable in sorted(template.variables)
        }
    elif unknown := template.variables - inputs.keys() - template.optional:
        raise UsageError(
            f"The prompt {where} uses {', '.join(map(repr, sorted(unknown)))}, not named by its inputs.",
            code="prompt.invalid",
            hint="Add it to inputs, or take it out of the text.",
        )
    if "self" in inputs:
        raise UsageError(
            f"The prompt {where} has an input 'self', which in a template is the template.",
            code="prompt.invalid",
            hint="Give it another name.",
        )
    effects: frozenset[Effect] = frozenset({"network", "spend"} if head.model else ())
    signature = DeclaredSignature(inputs, wants_context=head.model is not None)
    options = FunctionOptions(
        description=head.description or f"The prompt {name}.",
        effects=effects if head.effects is None else head.effects,
        inline=head.model is None,
    )
    call = (
        _Render(template, inputs) if head.model is None else _Ask(template, inputs, head.model, head.output)
    )
    return Function(call, name=name, signature=signature, options=options)


class _Render:
    """Gives back the text."""

    def __init__(self, template: Template, inputs: Mapping[str, InputSpec]) -> None:
        self._template = template
        # An input without a default that is left out stays undefined, so that `is defined` can tell.
        self._defaults = {
            name: spec.default for name, spec in inputs.items() if "default" in spec.model_fields_set
        }

    def __call__(self, **values: Any) -> str:
        return self._template.render({**self._defaults, **values})


class _Ask(_Render):
    """Asks a model with the text."""

    def __init__(
        self, template: Template, inputs: Mapping[str, InputSpec], model: str, output: str
    ) -> None:
        super().__init__(template, inputs)
        self._model = model
        self._output = output

    async def __call__(self, *, _context: Context, **values: Any) -> Any:  # type: ignore[override]
        text = super().__call__(**values)
        response = await _context.kernel.model(self._model).complete(ChatRequest(messages=(user(text),)))
        answer = response.message.text
        return _data(answer, self._model) if self._output == "json" else answer


def _data(answer: str, model: str) -> Any:
    """The JSON in an answer, with or without a fence around it."""
    text = answer.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0]
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise FunctionFailed(
            f"{model} was to answer with JSON and said {answer[:120]!r}.", code="prompt.no_json"
        ) from exc
