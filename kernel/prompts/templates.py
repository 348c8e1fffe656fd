"""Templates and expressions: Jinja2 in a sandbox, compiled once, bounded in size and cost.

::

    Template("Dear {{ name }}, {% for line in lines %}…").render({"name": "Ann", "lines": []})
    Expression("steps.total.result * 2").evaluate({"steps": {"total": {"result": 21}}})   # 42, an int

Values are never rendered: one that contains ``{{ }}`` stays text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, TypeVar, cast

from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.runtime import Undefined

from ..errors import KernloomError, LimitReached, UsageError, nearest, suggestion
from .metering import VIEWS, Meter, TooCostlyError
from .rewriting import Metering
from .sandbox import MissingValueError, Sandbox, lasting

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """What one template may take."""

    #: Characters of its source.
    source: int = 64_000
    #: Characters of its output, and characters or items of any one value it builds on the way.
    output: int = 1_000_000
    #: Units of work: passes of loops, calls, and every 64 characters or items handled. 200,000 take
    #: well under a second.
    work: int = 200_000


DEFAULT_LIMITS = TemplateLimits()
_SANDBOX = Sandbox()
#: Programs kept compiled, here and in the caches of templates and expressions.
_CACHED = 1024


class _Program:
    """What a template and an expression have in common: compiled code and a place for errors."""

    _kind = "template"

    def __init__(
        self, source: str, *, name: str = "template", limits: TemplateLimits = DEFAULT_LIMITS
    ) -> None:
        self.source = source
        self.name = name
        self.limits = limits
        if len(source) > limits.source:
            raise LimitReached(
                f"The {self._kind} {name!r} has {len(source):,} characters; the limit is "
                f"{limits.source:,}.",
                code="template.too_costly",
                hint="Pass the text as a value instead of writing it into the template.",
            )
        self._code, self._facts = _guarded(self, lambda: _compiled(self._parse, source))

    @staticmethod
    def _parse(source: str) -> nodes.Template:
        raise NotImplementedError

    @property
    def variables(self) -> frozenset[str]:
        """The names it takes from outside."""
        return self._facts.variables

    @property
    def optional(self) -> frozenset[str]:
        """Those of :attr:`variables` it can do without: it asks ``is defined`` or has a ``default``."""
        return self._facts.optional

    @property
    def references(self) -> frozenset[tuple[str, ...]]:
        """What it reads, as far as it is written out: ``("steps", "x")`` for ``steps.x``."""
        return self._facts.references

    def describe(self, exc: BaseException, line: int | None = None) -> str:
        """``template 'greeting', line 3``."""
        line = line or _line(exc.__traceback__, self._facts.lines if hasattr(self, "_facts") else ())
        where = (
            f"{self._kind} {self.name!r}"
            if self.name != "template"
            else f"{self._kind} {_brief(self.source)!r}"
        )
        return f"{where}, line {line}" if line and "\n" in self.source else where

    def _meter(self, values: Mapping[str, Any]) -> Meter:
        meter = Meter(_SANDBOX, {**_SANDBOX.globals, **values}, self.name, {})
        meter.left = self.limits.work
        meter.size = self.limits.output
        meter.measured = {}
        return meter

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Template(_Program):
    """Text with ``{{ }}`` and ``{% %}`` in it.

    Args:
        source: Jinja2. Blocks stand on lines of their own without leaving empty lines behind.
        name: what errors call it.
        limits: what it may take.

    Raises:
        UsageError: ``template.syntax``, with the line.
        LimitReached: ``template.too_costly``, its source is too long or too deeply nested.
    """

    @staticmethod
    def _parse(source: str) -> nodes.Template:
        return _SANDBOX.parse(source)

    def render(self, values: Mapping[str, Any]) -> str:
        """The text, with ``values`` filled in.

        Raises:
            UsageError: ``template.undefined`` names what has no value; ``template.forbidden`` is something
                the sandbox does not offer; ``template.failed`` anything else that went wrong in it.
            LimitReached: ``template.too_costly``.
        """
        return _guarded(self, lambda: self._render(values), values)

    def _render(self, values: Mapping[str, Any]) -> str:
        pieces: list[str] = []
        size, limit = 0, self.limits.output
        for piece in self._code(self._meter(values)):
            size += len(piece)
            if size > limit:
                raise TooCostlyError(f"output of more than {limit:,} characters")
            pieces.append(piece)
        return "".join(pieces)


class Expression(_Program):
    """One expression, whose value keeps its type.

    Args:
        source: what would stand between ``{{`` and ``}}``.
        name: what errors call it.
        limits: what it may take.

    Raises:
        UsageError: ``template.syntax``.
        LimitReached: ``template.too_costly``, its source is too long or too deeply nested.
    """

    _kind = "expression"

    @staticmethod
    def _parse(source: str) -> nodes.Template:
        parser = Parser(_SANDBOX, source, state="variable")
        expression = parser.parse_expression()
        if not parser.stream.eos:
            raise TemplateSyntaxError(
                f"unexpected {parser.stream.current.value!r}", parser.stream.current.lineno
            )
        return nodes.Template([nodes.Assign(nodes.Name(_RESULT, "store"), expression, lineno=1)], lineno=1)

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Its value.

        Raises:
            UsageError, LimitReached: as :meth:`Template.render`.
        """
        return _guarded(self, lambda: self._evaluate(values), values)

    def _evaluate(self, values: Mapping[str, Any]) -> Any:
        meter = self._meter(values)
        for _ in self._code(meter):
            pass
        value = meter.vars[_RESULT]
        if isinstance(value, Undefined):
            str(value)  # raises, naming what is missing
        if not lasting(value):
            raise SecurityError(f"its value is a {type(value).__name__}, which is no data")
        if isinstance(value, (range, *VIEWS)):
            return list(cast("Iterable[Any]", value))
        return value


_RESULT = "_value_of_the_expression"


@lru_cache(maxsize=_CACHED)
def template(source: str) -> Template:
    """A template with default limits, compiled when first seen."""
    return Template(source)


@lru_cache(maxsize=_CACHED)
def expression(source: str) -> Expression:
    """An expression with default limits, compiled when first seen."""
    return Expression(source)


def whole_expression(text: str) -> str | None:
    """What stands in ``{{ … }}`` if that is all of ``text``; None if there is anything else."""
    inner = text.strip()
    if not (inner.startswith("{{") and inner.endswith("}}") and len(inner) >= 4):
        return None
    try:
        kinds = [kind for _, kind, _ in _SANDBOX.lex(inner)]
    except TemplateSyntaxError:
        return None
    if kinds.count("variable_begin") != 1 or kinds[-1] != "variable_end":
        return None
    inner = inner[2:-2]
    if inner[:1] in ("-", "+"):  # whitespace control
        inner = inner[1:]
    return inner.removesuffix("-").strip()


def is_template(text: str) -> bool:
    """Whether there is anything in ``text`` to render."""
    return "{{" in text or "{%" in text


def _guarded(program: _Program, work: Callable[[], _T], values: Mapping[str, Any] | None = None) -> _T:
    """Run ``work``; whatever a template makes go wrong is said in words, with its line."""
    try:
        return work()
    except KernloomError:
        raise
    except TemplateSyntaxError as exc:
        raise _error(program, _syntax(exc), exc, line=exc.lineno, code="template.syntax") from exc
    except (TooCostlyError, RecursionError, MemoryError) as exc:
        said = str(exc) if isinstance(exc, TooCostlyError) else "it is nested too deeply"
        raise LimitReached(
            f"The {program.describe(exc)} is too costly: {said}.",
            code="template.too_costly",
            hint="Make it smaller, or prepare its values beforehand.",
        ) from exc
    except MissingValueError as exc:
        known = _names_in(exc.owner) if exc.owner is not None else list(values or ())
        raise UsageError(
            f"In the {program.describe(exc)}, {exc.name!r} is undefined.",
            code="template.undefined",
            hint=suggestion(exc.name, known),
            name=exc.name,
            near=nearest(exc.name, known),
        ) from exc
    except SecurityError as exc:
        raise _error(program, str(exc), exc, code="template.forbidden") from exc
    except Exception as exc:  # whatever an expression can raise: 1 / 0, 'a' + 1, a property of an object
        said = f"{type(exc).__name__}: {exc}"
        if values is None:
            raise _error(program, said, exc, code="template.syntax") from exc
        raise _error(program, said, exc, code="template.failed") from exc


def _syntax(exc: TemplateSyntaxError) -> str:
    return (exc.message or "").replace("'end of template'", "end").replace("end of template", "end")


def _error(
    program: _Program, said: str, exc: BaseException, *, code: str, line: int | None = None
) -> UsageError:
    return UsageError(
        f"The {program.describe(exc, line)}: {said.rstrip('.')}.", code=code, template=program.name
    )


def _line(trace: TracebackType | None, lines: Iterable[tuple[int, int]]) -> int | None:
    """The source's line that was running, found through the code that was made of it."""
    at = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILENAME:
            at = trace.tb_lineno
        trace = trace.tb_next
    return max((source for source, code in lines if code <= at), default=None) if at else None


def _brief(source: str) -> str:
    return source if len(source) <= 60 else source[:59] + "…"


def _names_in(owner: Any) -> list[str]:
    if isinstance(owner, Mapping):
        return [key for key in owner if isinstance(key, str)]
    return [name for name in getattr(owner, "__dict__", ()) if not name.startswith("_")]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of a program from its syntax tree."""

    variables: frozenset[str]
    optional: frozenset[str]
    references: frozenset[tuple[str, ...]]
    #: ``(line of the source, line of the code)``, for errors.
    lines: tuple[tuple[int, int], ...]


@lru_cache(maxsize=_CACHED)
def _compiled(
    parse: Callable[[str], nodes.Template], source: str
) -> tuple[Callable[[Meter], Iterator[str]], _Facts]:
    tree = parse(source)
    tree = Metering(filters=_SANDBOX.filters, tests=_SANDBOX.tests).visit(tree)
    tree.set_environment(_SANDBOX)
    variables = frozenset(meta.find_undeclared_variables(tree)) - _SANDBOX.globals.keys()
    optional = variables & _optional(tree)
    references = frozenset(_references(tree, variables))
    code = _SANDBOX.compile(tree, filename=_FILENAME)
    template = _SANDBOX.template_class.from_code(_SANDBOX, code, _SANDBOX.globals)
    facts = _Facts(variables, optional, references, tuple(template.debug_info))
    return cast("Callable[[Meter], Iterator[str]]", template.root_render_func), facts


_FILENAME = "<kernloom template>"


def _optional(tree: nodes.Template) -> set[str]:
    asked = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    asked += [use.node for use in tree.find_all(nodes.Filter) if use.name in ("default", "d") and use.node]
    return {node.name for node in asked if isinstance(node, nodes.Name)}


def _references(tree: nodes.Node, variables: Iterable[str]) -> Iterator[tuple[str, ...]]:
    for child in tree.iter_child_nodes():
        path = _path(child)
        if path is None:
            yield from _references(child, variables)
        elif path[0] in variables:
            yield path


def _path(node: nodes.Node) -> tuple[str, ...] | None:
    """``a.b["c"]`` as ``("a", "b", "c")``; it ends where an index is not written out."""
    if isinstance(node, nodes.Name):
        return (node.name,) if node.ctx == "load" else None
    if isinstance(node, nodes.Getattr):
        path = _path(node.node)
        return None if path is None else (*path, node.attr)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        path = _path(node.node)
        return None if path is None else (*path, str(node.arg.value))
    return None
