"""A parsed template, rewritten so that it pays for what it does."""

# ruff: noqa: N802, N815 - visit_<Node> is how jinja2 names them
from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.visitor import NodeTransformer

from ..errors import nearest

#: Nodes of a loop's or macro's body that cost one unit each time it runs.
_NODES_PER_UNIT = 8


class Metering(NodeTransformer):
    """Rewrites a parsed template so that it pays for what it does; refuses what is not offered."""

    def __init__(self, *, filters: Iterable[str], tests: Iterable[str]) -> None:
        self._filters = filters
        self._tests = tests
        self._collecting = 0

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Any node: only the kinds listed are let through."""
        if not isinstance(node, _OFFERED):
            tag = _TAGS.get(type(node).__name__, type(node).__name__.lower())
            raise TemplateSyntaxError(f"{tag} is not offered in templates", node.lineno)
        return super().visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Each pass costs the loop's weight."""
        if node.recursive:
            raise TemplateSyntaxError("a recursive loop is not offered in templates", node.lineno)
        weight = _weight([*node.body, node.test] if node.test is not None else node.body)
        self.generic_visit(node)
        node.iter = _filter("<each>", node.iter, nodes.Const(weight))
        return node

    def visit_Macro(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
        """Each call costs the macro's weight: a loop of one pass that runs first."""
        price = nodes.ExprStmt(
            _filter("<each>", nodes.List([nodes.Const(0)]), nodes.Const(_weight(node.body)))
        )
        self._collect(node)
        node.body.insert(0, price.set_lineno(node.lineno))
        return node

    visit_CallBlock = visit_Macro

    def _collect(self, node: nodes.Node) -> nodes.Node:
        self._collecting += 1
        self.generic_visit(node)
        self._collecting -= 1
        return node

    visit_AssignBlock = _collect
    visit_FilterBlock = _collect

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        """Plain text costs something only where it is collected."""
        return _filter("<text>", nodes.Const(node.data)) if self._collecting else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        """A tuple made by a template is a list: nested tuples take unbounded time to hash."""
        self.generic_visit(node)
        return node if node.ctx == "store" else nodes.List(node.items, lineno=node.lineno)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """``a ~ b`` may double a text."""
        self.generic_visit(node)
        return _filter("<join>", nodes.List(node.nodes))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Comparing and searching read their operands; against a constant that is cheap."""
        searches = any(operand.op in ("in", "notin") for operand in node.ops)
        simple = any(isinstance(side, nodes.Const) for side in (node.expr, *(o.expr for o in node.ops)))
        self.generic_visit(node)
        if searches or not simple:
            node.expr = _scanned(node.expr)
            for operand in node.ops:
                operand.expr = _scanned(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """A slice copies."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _scanned(node.node)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        """A filter has to be there."""
        _known("filter", node, self._filters)
        return self.generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        """A test has to be there."""
        _known("test", node, self._tests)
        return self.generic_visit(node)


_OFFERED = (
    nodes.Template, nodes.Output, nodes.For, nodes.If, nodes.Macro, nodes.CallBlock, nodes.FilterBlock,
    nodes.With, nodes.Assign, nodes.AssignBlock, nodes.ExprStmt, nodes.Name, nodes.NSRef, nodes.Literal,
    nodes.Helper, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem, nodes.Getattr,
    nodes.Slice, nodes.Concat, nodes.Compare, nodes.BinExpr, nodes.UnaryExpr,
)  # fmt: skip
_TAGS = {"FromImport": "import", "Scope": "autoescape"}


def _known(kind: str, node: nodes.Filter | nodes.Test, offered: Iterable[str]) -> None:
    if node.name not in offered:
        near = nearest(node.name, [name for name in offered if name.isidentifier()])
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise TemplateSyntaxError(f"there is no {kind} {node.name!r}{hint}", node.lineno)


def _filter(name: str, value: nodes.Node, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(
        cast(nodes.Expr, value), name, list(arguments), [], None, None, lineno=value.lineno or 1
    )


def _scanned(node: nodes.Expr) -> nodes.Expr:
    constant = isinstance(node, nodes.Const) or (
        isinstance(node, nodes.List) and all(isinstance(item, nodes.Const) for item in node.items)
    )
    return node if constant else _filter("<scan>", node)


def _weight(body: Iterable[nodes.Node]) -> int:
    return 1 + sum(1 for node in body for _ in node.find_all(nodes.Node)) // _NODES_PER_UNIT
