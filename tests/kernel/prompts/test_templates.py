"""Templates and expressions: what they say, what they refuse, and what they cannot cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.kernel.errors import KernloomError, LimitReached, UsageError
from kernloom.kernel.prompts.templates import (
    Expression,
    Template,
    TemplateLimits,
    is_template,
    template,
    whole_expression,
)

SMALL = TemplateLimits(source=64_000, output=100_000, work=5_000)
VALUES: dict[str, Any] = {
    "name": "Ann",
    "items": [{"name": f"n{i}", "price": i} for i in range(100)],
    "numbers": list(range(1_000)),
    "doc": "word " * 10_000,
    "now": datetime(2031, 5, 4, tzinfo=UTC),
}


def render(source: str, **values: Any) -> str:
    return Template(source).render(values)


def test_a_loop_leaves_no_empty_lines() -> None:
    source = "Lines:\n{% for line in lines %}\n- {{ loop.index }}. {{ line.text }}\n{% endfor %}\nEnd."
    assert render(source, lines=[{"text": "a"}, {"text": "b"}]) == "Lines:\n- 1. a\n- 2. b\nEnd."


def test_a_value_is_never_rendered_itself() -> None:
    assert render("{{ x }} {{ y ~ '' }}", x="{{ 7 * 7 }}", y="{% for %}") == "{{ 7 * 7 }} {% for %}"
    assert render("{% set z = x %}{{ z }}", x="{{ 7 * 7 }}") == "{{ 7 * 7 }}"


def test_nothing_is_escaped_for_html() -> None:
    assert render("{{ x }} {{ y|tojson }}", x="<a & b>", y={"k": "<é>"}) == '<a & b> {"k":"<é>"}'


def test_keys_of_a_mapping_win_over_its_methods() -> None:
    assert render("{{ order.items|join('+') }}", order={"items": [1, 2]}) == "1+2"
    assert render("{% for k, v in order.items() %}{{ k }}{{ v }}{% endfor %}", order={"a": 1}) == "a1"


def test_filters_give_lists_that_can_be_printed_and_measured() -> None:
    assert render("{{ xs|map('upper') }} {{ xs|select|length }}", xs=["a", "b"]) == "['A', 'B'] 2"


def test_macros_blocks_and_namespaces_work() -> None:
    source = (
        "{% macro item(x) %}<{{ x }}>{% endmacro %}{% set ns = namespace(n=0) %}"
        "{% for x in xs %}{% set ns.n = ns.n + x %}{{ item(x) }}{% endfor %}"
        "{% set both %}[{{ ns.n }}]{% endset %}{{ both }}{% filter upper %}end{% endfilter %}"
    )
    assert render(source, xs=[1, 2]) == "<1><2>[3]END"


def test_a_date_is_written_as_asked() -> None:
    assert render("{{ now.strftime('%Y-%m') }} {{ now.isoformat() }}", now=VALUES["now"]) == (
        "2031-05 2031-05-04T00:00:00+00:00"
    )


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("steps.a.result * 2", 42),
        ("steps.a.result > 20 and not missing is defined", True),
        ("[1, steps.a.result]", [1, 21]),
        ("{'a': steps.a.result}", {"a": 21}),
        ("(1, 2)", [1, 2]),
        ("range(3)", [0, 1, 2]),
        ("steps.keys()", ["a"]),
        ("none", None),
        ("'{{ x }}'", "{{ x }}"),
        ("-1", -1),
        ("steps['a']['result'] if true else 0", 21),
    ],
)
def test_an_expression_keeps_its_type(source: str, value: Any) -> None:
    found = Expression(source).evaluate({"steps": {"a": {"result": 21}}})
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("{{ x }}", "x"),
        ("  {{ x }}\n", "x"),
        ("{{- x -}}", "x"),
        ("{{ -1 }}", "-1"),
        ("{{ '}}' }}", "'}}'"),
        ("{{ {'a': {}} }}", "{'a': {}}"),
        ("{{ a }}{{ b }}", None),
        ("{{ a }} b", None),
        ("a", None),
        ("{{", None),
        ("{{}}", ""),
    ],
)
def test_one_whole_expression_is_told_from_a_text_with_expressions(text: str, inner: str | None) -> None:
    assert whole_expression(text) == inner


def test_a_program_knows_what_it_takes() -> None:
    source = "{{ a.b['c'] }} {% for x in steps.s.result[0].y %}{{ x.name }}{% endfor %} {{ d|default('') }}"
    found = Template(source)
    assert found.variables == {"a", "steps", "d"}
    assert found.optional == {"d"}
    assert ("a", "b", "c") in found.references
    assert ("steps", "s", "result", "0", "y") in found.references
    assert Expression("steps[item].result").references == {("steps",), ("item",)}


def test_a_template_is_compiled_once() -> None:
    assert template("{{ once }}") is template("{{ once }}")


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("{{ nam }}", "template.undefined", "Did you mean 'name'?"),
        ("a\n{{ items[0].nme }}", "template.undefined", "line 2, 'nme' is undefined. Did you mean 'name'?"),
        ("\n\n{{ 1 / 0 }}", "template.failed", "line 3: ZeroDivisionError"),
        ("\n{% for %}", "template.syntax", "line 2"),
        ("{{ x", "template.syntax", "unexpected end"),
        ("{{ name|uper }}", "template.syntax", "did you mean 'upper'?"),
        ("{{ name is strin }}", "template.syntax", "did you mean 'string'?"),
        ("{{ name + 1 }}", "template.failed", "TypeError"),
    ],
)
def test_what_went_wrong_is_said_with_its_line(source: str, code: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template(source).render(VALUES)
    assert caught.value.code == code
    assert words in str(caught.value)


#: What reaches for Python's insides, for other files, or for methods that are not data's.
FORBIDDEN = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ items|map('attr', '__class__')|list }}",
    "{{ items|groupby('__class__') }}",
    "{{ items|map(attribute='__class__')|join }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ '%s'|format(name.__class__) }}",
    "{{ '%(x)s' % {'x': 1} }}",
    "{{ name.upper.__self__ }}",
    "{{ name.encode().__class__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ range.__globals__ }}",
    "{{ namespace.__init__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner() }}",
    "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._iterable }}{% endfor %}",
    "{{ name.upper }}",
    "{{ range }}",
    "{{ '' ~ name.upper }}",
    "{{ items.append(1) }}",
    "{{ items.clear() }}",
    "{{ items[0].update({'a': 1}) }}",
    "{{ numbers.sort() }}",
    "{{ (5).to_bytes(4, 'big') }}",
    "{{ now.strftime('%010000000d') }}",
    "{{ now.replace(year=1) }}",
    "{{ name|safe }}",
    "{{ numbers|random }}",
    "{% import 'os' as os %}",
    "{% from 'os' import path %}",
    "{% include '/etc/passwd' %}",
    "{% extends 'base' %}",
    "{% block a %}{% endblock %}",
    "{% autoescape true %}{% endautoescape %}",
    "{% for x in items recursive %}{{ loop(items) }}{% endfor %}",
    "{{ name() }}",
    "{{ caller() }}",
]


@pytest.mark.parametrize("source", FORBIDDEN)
def test_the_sandbox_refuses_what_is_not_offered(source: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template(source).render(VALUES)
    assert caught.value.code in (
        "template.forbidden",
        "template.syntax",
        "template.undefined",
        "template.failed",
    )


_GROW = "{% set ns = namespace(x=START, y=START) %}{% for i in range(60) %}BODY{% endfor %}"


def _growing(start: str, body: str, sink: str = "") -> str:
    return _GROW.replace("START", start).replace("BODY", body) + sink


#: What would take the machine's time or memory if it were done.
COSTLY = [
    "{{ range(10**9) }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ range(10**30) }}",
    "{{ 'a' * 10**9 }}",
    "{{ [0] * 10**9 }}",
    "{{ 10**9 * 'a' }}",
    "{{ 9**(9**9) }}",
    "{{ 10**2000 * 10**2000 }}",
    "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "{% for a in items %}{% for b in items %}{% for c in items %}x{% endfor %}{% endfor %}{% endfor %}",
    "{{ '%10000000s'|format('x') }}",
    "{{ '%*d'|format(10000000, 1) }}",
    "{{ '%.9999999f'|format(1.0) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a'.center(10**9) }}",
    "{{ 'a'.zfill(10**9) }}",
    "{{ 'a'|center(10**9) }}",
    "{{ 'a'|indent(10**9, first=true) }}",
    "{{ doc|replace(' ', '\n')|indent(doc) }}",
    "{{ doc.replace('', doc) }}",
    "{{ doc|replace('w', doc) }}",
    "{{ doc.join(numbers|map('string')) }}",
    "{{ numbers|join(doc) }}",
    "{{ numbers|slice(10**9)|length }}",
    "{{ [1]|batch(10**9, 'x')|length }}",
    "{{ 1.5|round(10**9, 'floor') }}",
    "{{ doc|wordwrap(1, wrapstring=doc) }}",
    "{{ numbers|tojson(indent=10**9) }}{{ [[[[[[numbers]]]]]]|tojson(indent=60) }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{{ " + "f(" * 40 + "'aaaaaaaa'" + ")" * 40 + " }}",
    _growing("'aaaa'", "{% set ns.x = ns.x ~ ns.x %}"),
    _growing("'aaaa'", "{% set ns.x = ns.x + ns.x %}"),
    _growing("'aaaa'", "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
    _growing("[1]", "{% set ns.x = ns.x + ns.x %}"),
    _growing("[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x }}"),
    _growing("[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x|tojson }}"),
    _growing("[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x|string|length }}"),
    _growing("[1]", "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}", "{{ ns.x == ns.y }}"),
    _growing("[1]", "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}", "{{ ns.x is eq ns.y }}"),
    _growing("[1]", "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}", "{{ ns.x in [ns.y] }}"),
    _growing("1", "{% set ns.x = dict(a=ns.x, b=ns.x) %}", "{{ ns.x }}"),
    _growing("1", "{% set ns.x = dict(a=ns.x, b=ns.x).values() %}", "{{ ns.x }}"),
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "{{ 1" + "+1" * 20_000 + " }}",
    "{{ name" + "|upper" * 8_000 + " }}",
    "{% if name %}" * 3_000,
    "{{" * 20_000,
    "{% for i in range(4999) %}{{ doc|sort|length }}{% endfor %}",
    "{% for i in range(4999) %}{% if 'zz' in doc %}{% endif %}{% endfor %}",
    "{% for i in range(4999) %}{% set x = doc[:] %}{% endfor %}",
    "{% for i in range(4999) %}{% set n = doc.count('zz') %}{% endfor %}",
    "{% for i in range(4999) %}{{ numbers|map(attribute='x')|list|length }}{% endfor %}",
    "{% for i in range(4999) %}" + "{% set x = [1, 2, 3, 4] %}" * 50 + "{% endfor %}",
    "{{ doc|upper|length }}" * 2_000,
    "x" * 64_001,
]


@pytest.mark.parametrize("source", COSTLY, ids=lambda s: s[:60])
def test_a_costly_template_is_stopped_before_it_costs(source: str) -> None:
    with pytest.raises(LimitReached) as caught:
        Template(source, limits=SMALL).render(VALUES)
    assert caught.value.code == "template.too_costly"


def test_a_nested_tuple_cannot_be_made_into_a_key() -> None:
    source = _growing("(1,)", "{% set ns.x = (ns.x, ns.x) %}", "{{ {ns.x: 1} }}")
    with pytest.raises(UsageError, match="unhashable"):
        Template(source).render({})


def test_a_namespace_that_holds_itself_cannot_be_written() -> None:
    with pytest.raises(UsageError) as caught:
        render("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}")
    assert caught.value.code == "template.forbidden"


def test_output_over_the_limit_is_refused_not_cut() -> None:
    assert Template("{{ x }}", limits=TemplateLimits(output=10)).render({"x": "a" * 10}) == "a" * 10
    with pytest.raises(LimitReached):
        Template("{{ x }}{{ x }}", limits=TemplateLimits(output=10)).render({"x": "a" * 6})


def test_every_render_has_an_account_of_its_own() -> None:
    source = Template("{% for n in numbers %}{{ n }}{% endfor %}", limits=TemplateLimits(work=5_000))
    for _ in range(5):
        assert source.render({"numbers": range(1_000)}).startswith("012")


def test_a_generator_is_paid_for_as_it_goes() -> None:
    def endless() -> Any:
        while True:
            yield 1

    with pytest.raises(LimitReached):
        Template("{% for n in numbers %}{% endfor %}", limits=SMALL).render({"numbers": endless()})


@pytest.mark.parametrize("source", ["name.upper", "range", "namespace()", "{'a': 1}.get"])
def test_the_value_of_an_expression_is_data(source: str) -> None:
    with pytest.raises(UsageError) as caught:
        Expression(source).evaluate({"name": "x"})
    assert caught.value.code == "template.forbidden"


def test_an_expression_is_one_expression() -> None:
    for source in ("1; 2", "a b", "", "1 }} {{ 2", "x = 1"):
        with pytest.raises(UsageError) as caught:
            Expression(source)
        assert caught.value.code == "template.syntax"


@given(st.text(max_size=40))
def test_any_text_given_as_a_value_comes_out_as_it_went_in(text: str) -> None:
    assert template("{{ x }}").render({"x": text}) == text
    assert template("{% for a in [x] %}{{ a }}{% endfor %}").render({"x": text}) == text


@given(st.text(alphabet="{}%#-+ \n'\"\\ax|.()[]1", max_size=30))
def test_any_source_is_rendered_or_refused_in_our_own_words(source: str) -> None:
    try:
        Template(source, limits=SMALL).render({"a": "A", "x": [1]})
    except KernloomError as exc:
        assert exc.code.startswith("template.")
    assert isinstance(is_template(source), bool)
