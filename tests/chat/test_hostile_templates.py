# SPDX-License-Identifier: Apache-2.0
"""Templates that try to run for ever, fill the memory or reach Python: each is a TemplateError."""

from __future__ import annotations

import resource
import time
from random import Random

import pytest
from chat_data import DATA, need, read_cases

from freehold.chat.budget import MAX_SECONDS
from freehold.chat.template import MAX_SOURCE, ChatTemplate
from freehold.errors import TemplateError

# Generous: they tell "bounded" from "not", on a machine that is busy with other things.
CPU_SECONDS = 10 * MAX_SECONDS
MEGABYTES = 400

GROW = (
    "{%% set ns = namespace(x=%s) %%}{%% for i in range(60) %%}{%% set ns.x = %s %%}{%% endfor %%}"
)
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}"
ENDS = "{% endfor %}{% endfor %}"
BIG = "{% set x = 'a' * 1000000 %}"

TOO_LONG = {
    "empty loops": LOOPS + ENDS,
    "loops that count": "{% set ns = namespace(n=0) %}" + LOOPS
    + "{% set ns.n = ns.n + 1 %}" + ENDS,
    "loops in a set block": "{% set x %}" + LOOPS + "y" * 500 + ENDS + "{% endset %}",
    "loops that print": LOOPS + "y" * 500 + ENDS,
    "loops in a filter block": "{% filter upper %}" + LOOPS + "yyyy" + ENDS + "{% endfilter %}",
    "nested small loops": "{% for a in [1, 2] %}" * 19 + "{% endfor %}" * 19,
    "recursive loop": "{% set l = [1, 2] %}{% for x in l recursive %}{{ loop(l) }}{% endfor %}",
    "macro calling itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro calling itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}"
    "{% endif %}x{% endmacro %}{{ f(60) }}",
    "block printing itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "nested callers": "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call f() %}" * 15 + "y" * 20_000 + "{% endcall %}" * 15,
    "sorting again and again": "{% for i in range(99999) %}"
    "{% set x = range(99999) | map('string') | sort %}{% endfor %}",
    "searching": "{% set x = ('a' * 10000) ~ 'b' %}{% set y = 'a' * 2000000 %}"
    "{% for i in range(99999) %}{% if x in y %}{% endif %}{% endfor %}",
    "searching a lazy list": BIG + "{{ (x ~ 'b') in range(99999) | map('string')"
    " | map('replace', '1', x) }}",
    "counting": BIG + "{{ x.count('aaaaaaaaaaaaaaaaaaaaaaaaab') }}" * 900,
    "a huge range": "{% for a in range(10 ** 12) %}x{% endfor %}",
}  # fmt: skip

TOO_LARGE = {
    "string times number": "{{ 'a' * 10**9 }}",
    "number times string": "{{ 10**9 * 'a' }}",
    "list times number": "{{ ([0] * 10**9) | length }}",
    "marked-up string times number": "{{ ('a' | safe) * 10**9 }}",
    "power": "{{ 2 ** (2 ** 40) }}",
    "float power": "{{ 2.0 ** 100000 }}",
    "growing number": GROW % ("3", "ns.x * ns.x"),
    "growing by ~": GROW % ("'aaaa'", "ns.x ~ ns.x") + "{{ ns.x }}",
    "growing by +": GROW % ("'aaaa'", "ns.x + ns.x"),
    "growing list": GROW % ("[1]", "ns.x + ns.x"),
    "lists of lists": GROW % ("[1]", "[ns.x, ns.x]") + "{{ ns.x }}",
    "lists of lists, compared": "{% set m = namespace(x=[1]) %}" + GROW % ("[1]", "[ns.x, ns.x]")
    + "{% for i in range(60) %}{% set m.x = [m.x, m.x] %}{% endfor %}{{ ns.x == m.x }}",
    "dicts of dicts": GROW % ("1", "{'a': ns.x, 'b': ns.x}") + "{{ ns.x | tojson }}",
    "dicts by call": GROW % ("1", "dict(a=ns.x, b=ns.x)") + "{{ ns.x }}",
    "tuples of tuples": GROW % ("(1,)", "(ns.x, ns.x)") + "{{ ns.x | string }}",
    "kept slices": BIG + "{% set ns = namespace(y=()) %}{% for i in range(9999) %}"
    "{% set ns.y = (x[1:], ns.y) %}{% endfor %}",
    "kept list slices": "{% set x = [1] * 200000 %}{% set ns = namespace(y=[]) %}"
    "{% for i in range(9999) %}{% set ns.y = [x[:], ns.y] %}{% endfor %}",
    "kept splits": "{% set a = 'a,' * 900000 %}{% set ns = namespace(y=()) %}"
    "{% for i in range(999) %}{% set ns.y = (a.split(','), ns.y) %}{% endfor %}",
    "kept dict copies": "{% set d = {}.fromkeys(range(100000), 1) %}{% set ns = namespace(y=()) %}"
    "{% for i in range(9999) %}{% set ns.y = (d.copy(), ns.y) %}{% endfor %}",
    "shared value": "{{ {}.fromkeys(range(100000), 'a' * 1000000) | string | length }}",
    "percent width": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (1000000000, 1) }}",
    "percent repeated": BIG + "{{ ('%(a)s' * 100000) % {'a': x} }}",
    "format width": "{{ '{:1000000000}'.format(1) }}",
    "format nested width": "{{ '{:{w}}'.format(1, w=10**9) }}",
    "format repeated": BIG + "{{ ('{0}' * 100000).format(x) }}",
    "format of markup": "{{ ('{:1000000000}' | safe).format(1) }}",
    "percent of markup": "{{ ('%1000000000d' | safe) % 1 }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "center filter": "{{ 'a' | center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\\t'.expandtabs(10**9) }}",
    "replace": BIG + "{{ x.replace('a', x) }}",
    "replace filter": BIG + "{{ x | replace('a', x) }}",
    "join": BIG + "{{ x.join(x) }}",
    "join filter": "{% set x = 'a' * 100000 %}{{ x | join(x) }}",
    "translate": "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}",
    "to_bytes": "{{ (5).to_bytes(10**9, 'big') }}",
    "bytes": "{{ 'a'.encode().ljust(10**9) }}",
    "indent filter": "{{ ('a\n' * 100000) | indent(10**9) }}",
    "batch filter": "{{ [1] | batch(10**9, 'x') | list }}",
    "slice filter": "{{ [1] | slice(10**9) | list }}",
    "round filter": "{{ 1.5 | round(10**9, 'ceil') }}",
    "wordwrap filter": "{{ ('a ' * 900000) | wordwrap(2) }}",
    "map over a long string": BIG + "{{ x | map('upper') | list | length }}",
    "sum of lists": "{{ ([[1]] * 200000) | sum(start=[]) | length }}",
    "tojson indent": "{{ [1] | tojson(indent=10**9) }}",
    "strftime width": "{{ strftime_now('%1000000000Y') }}",
    "lipsum": "{{ lipsum(10**9) }}",
    "deep json": "{{ ('[' * 100000) | from_json }}",
    "huge json number": "{{ ('9' * 100000) | from_json }}",
    "escaping": "{% autoescape true %}{% for i in range(99999) %}{{ '<' * 100000 }}{% endfor %}"
    "{% endautoescape %}",
}  # fmt: skip

SOURCES = {
    "too long": " " * (MAX_SOURCE + 1),
    "parentheses": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "not": "{{ " + "not " * 15_000 + "1 }}",
    "sum": "{{ " + "+".join("1" * 30_000) + " }}",
    "attributes": "{{ a" + ".b" * 30_000 + " }}",
    "subscripts": "{{ " + "a[" * 15_000 + "1" + "]" * 15_000 + " }}",
    "lists": "{{ " + "[" * 15_000 + "]" * 15_000 + " }}",
    "ifs": "{% if 1 %}" * 3_000 + "{% endif %}" * 3_000,
    "fors": "{% for a in [1, 2] %}" * 1_500 + "{% endfor %}" * 1_500,
    "many parts": "{{ " + "~".join("a" * 30_000) + " }}",
    "open tags": "{{" * 30_000,
    "open string": "{{ '" + "\\'" * 30_000,
    "white space": " " * 60_000 + "{%",
    "long number": "{{ " + "9" * 60_000 + " }}",
    "raw": "{% raw %}" * 7_000,
}

ESCAPES = {
    "class": "{{ ''.__class__ }}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr filter": "{{ '' | attr('__class__') }}",
    "subscript": "{{ ''['__class__'] }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "format attribute": "{{ '{0.__class__}'.format(1) }}",
    "format map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "map attribute": "{{ [1] | map(attribute='__class__') | list }}",
    "function globals": "{{ raise_exception.__globals__ }}",
    "namespace": "{{ namespace.__init__ }}",
    "self": "{{ self.__init__ }}",
    "message": "{{ messages[0].__class__ }}",
    "generator": "{{ (messages | map('upper')).gi_frame }}",
    "include": "{% include '/etc/passwd' %}",
    "include ignored": "{% include ['a', 'b'] ignore missing %}",
    "import": "{% import 'x' as y %}",
    "from import": "{% from 'x' import y %}",
    "extends": "{% extends 'x' %}",
    "append": "{% set x = [] %}{{ x.append(1) }}",
    "update": "{{ messages[0].update({'a': 1}) }}",
    "call of nothing": "{{ nothing() }}",
}


def stop(source: str) -> str:
    """Render; the message of the TemplateError that must come, in bounded time and memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.thread_time()
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(source).render([{"role": "user", "content": "hi"}])
    assert time.thread_time() - start < CPU_SECONDS
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEGABYTES * 1024
    assert len(caught.value.message) < 500
    return caught.value.message


@pytest.mark.parametrize("name", TOO_LONG)
def test_too_long(name):
    stop(TOO_LONG[name])


@pytest.mark.parametrize("name", TOO_LARGE)
def test_too_large(name):
    stop(TOO_LARGE[name])


@pytest.mark.parametrize("name", SOURCES)
def test_sources(name):
    stop(SOURCES[name])


@pytest.mark.parametrize("name", ESCAPES)
def test_escapes(name):
    message = stop(ESCAPES[name])
    assert "root:" not in message


def test_mutated_templates_render_or_fail_cleanly():
    sources = sorted(need(DATA / "templates/jinja").glob("*.jinja"))
    contexts = list(read_cases("templates/goldens.json")["contexts"].values())
    tokens = ["{{", "}}", "{%", "%}", "for", "if", "[", "(", "**", "*", "~", "+", "range(99999)"]
    tokens += ["messages", "'a'*999999", "loop", "tojson", "|", ".", "'", "namespace()", "99999999"]
    random = Random(20250710)
    rendered = 0
    for _ in range(250):
        source = random.choice(sources).read_text(encoding="utf-8")
        for _ in range(random.randint(1, 5)):
            place = random.randrange(len(source))
            tail = source[place + random.choice([0, 0, 1, 9]) :]
            source = source[:place] + random.choice([*tokens, ""]) + tail
        context = dict(random.choice(contexts))
        start = time.thread_time()
        try:
            ChatTemplate(source, bos_token=context.pop("bos_token")).render(**context)
            rendered += 1
        except TemplateError:
            pass  # anything else fails the test
        assert time.thread_time() - start < CPU_SECONDS
    assert 0 < rendered < 250


def test_a_harmless_template_works_after_a_hostile_one():
    stop(TOO_LONG["empty loops"])
    assert ChatTemplate("{{ messages[0].content }}").render([{"content": "fine"}]) == "fine"


def test_a_long_conversation_is_not_hostile():
    source = (
        "{% set ns = namespace(text='', seen=[]) %}{% for m in messages %}"
        "{% if m.role == 'user' and m.content in m.content %}"
        "{% set ns.text = ns.text ~ m.content %}{% set ns.seen = ns.seen + [m] %}"
        "{% endif %}{{ m.content | trim }}{% endfor %}{{ ns.text | length }}{{ ns.seen | length }}"
    )
    messages = [{"role": "user", "content": f"{i} " + "word " * 40} for i in range(500)]
    output = ChatTemplate(source).render(messages)
    assert output.endswith(f"{sum(len(m['content']) for m in messages)}500")
    long = [{"role": "user", "content": "x" * 5_000_000}]
    assert len(ChatTemplate("{{ messages[0].content ~ '!' }}").render(long)) == 5_000_001
