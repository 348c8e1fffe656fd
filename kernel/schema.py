"""Type hints and a docstring become JSON Schema, and arguments are checked against them.

Nothing is built before it is needed: registering a function costs no schema.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_jsonable_python
from typing_extensions import TypedDict

from .errors import ModelRetry, UsageError

_T = TypeVar("_T")
_MISSING: Any = inspect.Parameter.empty


class Signature:
    """What a Python callable accepts and returns, seen from outside.

    Args:
        call: a function, a bound method or any callable with a signature.
        hidden: an annotation whose parameter is injected and not shown (the kernel's ``Context``).
    """

    def __init__(self, call: Callable[..., Any], *, hidden: type | None = None) -> None:
        self._call = call
        self._hidden = hidden

    @cached_property
    def hidden_name(self) -> str | None:
        """The injected parameter's name, if the callable wants it."""
        if self._hidden is None:
            return None
        for name, hint in self._hints.items():
            if name != "return" and (hint is self._hidden or self._hidden in get_args(hint)):
                return name
        return None

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments: an object, every parameter described where its author did."""
        schema = tidy(self._built(self._adapter.json_schema))
        schema.setdefault("properties", {})
        for name, default in self._defaults.items():
            schema["properties"][name].setdefault("default", default)
        return schema

    @cached_property
    def returns(self) -> dict[str, Any]:
        """JSON Schema of the result; empty when the annotation says nothing that JSON can carry."""
        hint = self._hints.get("return", _MISSING)
        if hint in (_MISSING, Any):
            return {}
        try:
            return tidy(TypeAdapter(hint).json_schema(mode="serialization"))
        except PydanticUserError:
            return {}

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check and coerce; defaults are left to the callable itself.

        Raises:
            ModelRetry: names each argument that was wrong, what it was and what it should be.
        """
        try:
            return self._validate(arguments)
        except ValidationError as exc:
            validated, problems = self._mend(arguments, exc.errors(include_url=False))
        if validated is not None:
            return validated
        words = [_in_words(problem) for problem in problems]
        raise ModelRetry(
            f"The arguments do not fit: {'; '.join(words)}.",
            code="function.arguments_invalid",
            hint=f"The parameters are: {', '.join(self.schema['properties']) or 'none'}.",
            problems=words,
        )

    def problems(self, arguments: Mapping[str, Any]) -> list[ArgumentProblem]:
        """What :meth:`validate` would refuse, one by one; empty if it would not."""
        try:
            self._validate(arguments)
        except ValidationError as exc:
            _, problems = self._mend(arguments, exc.errors(include_url=False))
            return [
                ArgumentProblem(str(p["loc"][0]) if p["loc"] else "", p["type"], _in_words(p))
                for p in problems
            ]
        return []

    def _mend(
        self, arguments: Mapping[str, Any], problems: list[ErrorDetails]
    ) -> tuple[dict[str, Any] | None, list[ErrorDetails]]:
        """Validated after all, where a value only had to be parsed; else what is wrong."""
        mended = _parse_stringified(arguments, problems)
        if mended is not None:
            try:
                return self._validate(mended), []
            except ValidationError as exc:
                problems = exc.errors(include_url=False)
        return None, problems

    @cached_property
    def _validate(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        return self._adapter.validator.validate_python

    @cached_property
    def _hints(self) -> dict[str, Any]:
        target = inspect.unwrap(getattr(self._call, "__func__", self._call))
        if not inspect.isroutine(target):
            target = type(target).__call__
        try:
            return get_type_hints(target, include_extras=True)
        except NameError as exc:
            raise UsageError(
                f"A type hint of {target.__qualname__} cannot be resolved: {exc}.",
                code="function.signature",
                hint="Define or import the type in the module of the function.",
            ) from exc

    @cached_property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        found = {}
        for name, parameter in inspect.signature(self._call).parameters.items():
            if parameter.kind in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
                parameter.POSITIONAL_ONLY,
            ):
                raise UsageError(
                    f"Parameter {str(parameter)!r} of {self._call.__qualname__} cannot be given by name.",
                    code="function.signature",
                    hint="Give every parameter a name; a model passes arguments by name.",
                )
            if name != self.hidden_name:
                found[name] = parameter
        return found

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        """Defaults that JSON can show; the others are simply not shown."""
        shown = {}
        for name, parameter in self._parameters.items():
            if parameter.default is _MISSING or isinstance(parameter.default, FieldInfo):
                continue
            try:
                shown[name] = to_jsonable_python(parameter.default)
            except ValueError:
                continue
        return shown

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        described = parameter_descriptions(inspect.getdoc(self._call) or "")
        fields: dict[str, Any] = {}
        for name, parameter in self._parameters.items():
            hint = _described(self._hints.get(name, Any), described.get(name))
            if isinstance(parameter.default, FieldInfo):
                hint = Annotated[hint, parameter.default]
            fields[name] = hint if parameter.default is _MISSING else NotRequired[hint]
        return self._built(lambda: _arguments(fields))

    def _built(self, build: Callable[[], _T]) -> _T:
        try:
            return build()
        except PydanticUserError as exc:
            name = getattr(self._call, "__qualname__", None) or repr(self._call)
            raise UsageError(
                f"No schema can be made of the parameters of {name}: {exc.message.rstrip('.')}.",
                code="function.signature",
                hint="Use types that JSON can carry: str, int, list, dict, enums, pydantic models.",
            ) from exc


class ArgumentProblem(NamedTuple):
    """What is wrong with one argument."""

    #: Its name; empty when the arguments as a whole are wrong.
    argument: str
    #: ``missing``, ``extra_forbidden``, or what pydantic calls it.
    kind: str
    words: str


InputType = Literal["any", "string", "integer", "number", "boolean", "array", "object"]

_PYTHON: dict[str, Any] = {
    "any": Any, "string": str, "integer": int, "number": float, "boolean": bool, "array": list[Any],
    "object": dict[str, Any],
}  # fmt: skip


class InputSpec(BaseModel):
    """One input that a plan or a prompt declares, in the words of JSON Schema."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: InputType = "any"
    description: str = ""
    #: Used when the input is not given. An input with a default is not required.
    default: Any = None
    #: True unless there is a default; an input that is neither required nor given is None.
    required: bool | None = None

    @property
    def is_required(self) -> bool:
        """Whether it has to be given."""
        return "default" not in self.model_fields_set if self.required is None else self.required


class DeclaredSignature(Signature):
    """The signature of something that is no Python callable: inputs as its author declared them.

    Args:
        inputs: by name.
        wants_context: the call is handed the kernel's ``Context`` as ``_context``.

    Raises:
        UsageError: ``function.signature``, a name that cannot be an argument's.
    """

    def __init__(self, inputs: Mapping[str, InputSpec], *, wants_context: bool = False) -> None:
        for name in inputs:
            if not name.isidentifier() or name.startswith("_"):
                raise UsageError(
                    f"{name!r} cannot be the name of an input.",
                    code="function.signature",
                    hint="Use letters, digits and underscores, a letter first.",
                )
        self._inputs = dict(inputs)
        self._wants_context = wants_context

    @cached_property
    def hidden_name(self) -> str | None:
        """Where the context goes, if it is wanted."""
        return "_context" if self._wants_context else None

    @cached_property
    def returns(self) -> dict[str, Any]:
        """Nothing is known of the result."""
        return {}

    def defaults(self) -> dict[str, Any]:
        """A value for every input that may be left out."""
        return {name: spec.default for name, spec in self._inputs.items() if not spec.is_required}

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return {
            name: spec.default for name, spec in self._inputs.items() if "default" in spec.model_fields_set
        }

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        fields: dict[str, Any] = {}
        for name, spec in self._inputs.items():
            hint = _described(_PYTHON[spec.type], spec.description)
            if not spec.is_required:
                hint = NotRequired[hint if spec.default is not None else hint | None]
            fields[name] = hint
        return _arguments(fields)


def _arguments(fields: dict[str, Any]) -> TypeAdapter[Any]:
    # A TypedDict rather than a model: parameters may be called `json` or `copy`, and a
    # default stays the callable's own object.
    arguments = TypedDict("Arguments", fields)  # type: ignore[misc]
    # A number where text is wanted is what plans pass on and small models send.
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, coerce_numbers_to_str=True)
    arguments.__pydantic_config__ = config  # type: ignore[attr-defined]
    return TypeAdapter(arguments)


def summary(doc: str) -> str:
    """A docstring's description without its sections: what a model is told the function is for."""
    if not doc:
        return ""
    parsed = _parse_docstring(doc)
    return (parsed.description or "").strip()


def parameter_descriptions(doc: str) -> dict[str, str]:
    """``{parameter: description}`` from a Google, NumPy, Sphinx or Epydoc docstring."""
    if not doc:
        return {}
    return {
        p.arg_name: " ".join(p.description.split()) for p in _parse_docstring(doc).params if p.description
    }


def tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without the titles pydantic derives from names: they cost tokens and say nothing."""

    def walk(node: Any, *, named: bool) -> Any:
        if isinstance(node, dict):
            return {
                key: walk(value, named=key in ("properties", "$defs"))
                for key, value in node.items()
                if named or key != "title" or not isinstance(value, str)
            }
        return [walk(item, named=False) for item in node] if isinstance(node, list) else node

    tidied: dict[str, Any] = walk(schema, named=False)
    return tidied


def _parse_docstring(doc: str) -> Any:
    import docstring_parser  # 15 ms, and only functions that are described need it

    try:
        return docstring_parser.parse(doc)
    except docstring_parser.ParseError:
        return docstring_parser.parse(doc.split("\n\n", maxsplit=1)[0])


def _described(hint: Any, description: str | None) -> Any:
    """The hint with a description: ``Annotated[str, "the city"]`` wins over the docstring."""
    if get_origin(hint) is Annotated:
        for extra in get_args(hint)[1:]:
            if isinstance(extra, str):
                return Annotated[hint, Field(description=extra)]
            if isinstance(extra, FieldInfo) and extra.description:
                return hint
    return Annotated[hint, Field(description=description)] if description else hint


def _parse_stringified(arguments: Mapping[str, Any], problems: list[ErrorDetails]) -> dict[str, Any] | None:
    """Small models often send ``"[1, 2]"`` for a list: read such a string once, where it did not fit."""
    mended = dict(arguments)
    for problem in problems:
        name = problem["loc"][0] if problem["loc"] else None
        value = mended.get(name) if isinstance(name, str) else None
        if isinstance(name, str) and isinstance(value, str) and value[:1] in '[{"0123456789-tfn':
            try:
                mended[name] = json.loads(value)
            except (ValueError, RecursionError):
                continue
    return mended if mended != arguments else None


def _in_words(problem: ErrorDetails) -> str:
    place = ".".join(str(part) for part in problem["loc"]) or "arguments"
    if problem["type"] == "missing":
        return f"{place} is required"
    if problem["type"] == "extra_forbidden":
        return f"{place} is not a parameter"
    given = repr(problem["input"])
    return f"{place}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, got {given[:80]}"
