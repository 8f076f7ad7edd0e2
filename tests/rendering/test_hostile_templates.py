"""Templates that want to hang the run, fill its memory or reach Python are refused, soon and with our own errors."""

from __future__ import annotations

import resource
import time

import pytest

from understudy.errors import RenderError
from understudy.rendering.refusal import TurnRefused
from understudy.rendering.template import ChatTemplate

MESSAGES = [{"role": "user", "content": "hello"}]
MAX_SECONDS = 30  # far more than any of them needs, so that a slow machine does not fail the test
MAX_GROWTH_KIB = 700_000

# ruff: noqa: E501
HUNGRY = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "huge range": "{% for a in range(10**9) %}x{% endfor %}",
    "repetition": "{{ 'x' * 10**10 }}",
    "repeated list": "{% set l = [1] * 10**9 %}{{ l }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "squaring": "{% set ns = namespace(x=10) %}{% for a in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
    "padding method": "{{ 'x'.ljust(10**10) }}",
    "zfill": "{{ 'x'.zfill(10**10) }}",
    "center filter": "{{ 'x' | center(10**10) }}",
    "indent": "{{ 'a\\nb' | indent(10**10) }}",
    "percent format": "{{ '%9999999999d' % 1 }}",
    "star format": "{{ '%*d' % (10**10, 1) }}",
    "format method": "{{ '{:9999999999}'.format(1) }}",
    "nested format": "{{ '{:{}}'.format(1, 10**10) }}",
    "format filter": "{{ '%9999999999d' | format(1) }}",
    "doubling by concatenation": "{% set ns = namespace(x='xx') %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by addition": "{% set ns = namespace(x='xx') %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling of lists": "{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by nesting": "{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "doubling into JSON": "{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "doubling by blocks": "{% set x %}xx{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "replacement": "{% set x = 'a' * 100000 %}{{ x.replace('a', x).replace('a', x) }}",
    "replace filter": "{% set x = 'a' * 100000 %}{{ x | replace('a', x) | replace('a', x) }}",
    "join": "{% set x = 'a' * 100000 %}{{ x | join(x) | join(x) }}",
    "join method": "{% set x = 'a' * 100000 %}{{ x.join(x.join(x)) }}",
    "batch": "{{ [1] | batch(10**9, 'x') | list }}",
    "macro recursion": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "exponential macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "recursive loop": "{% for a in [[[1]]] recursive %}{{ loop([a, a]) }}{% endfor %}",
    "big output": "{% set x = 'a' * 100000 %}{% for a in range(99999) %}{{ x }}{% endfor %}",
    "filling lists": "{% for a in range(99999) %}{% set x = range(99999) | list %}{{ x | length }}{% endfor %}",
    "sorting": "{% for a in range(99999) %}{{ range(99999) | sort | last }}{% endfor %}",
    "lipsum": "{{ lipsum(n=10**7) }}",
}

ESCAPES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "attr filter": "{{ '' | attr('__class__') }}",
    "format string": "{{ '{0.__class__.__mro__}'.format('') }}",
    "mutation": "{{ messages.append(1) }}",
    "dict mutation": "{{ messages[0].update({'role': 'x'}) }}",
    "import": "{% import 'os' as os %}{{ os }}",
    "include": "{% include '/etc/passwd' %}",
    "self": "{{ self.__init__.__globals__ }}",
    "range's class": "{{ range.__class__ }}",
    "raise_exception's globals": "{{ raise_exception.__globals__ }}",
}

BROKEN = {
    "open block": "{% if %}",
    "unknown tag": "{% frobnicate %}",
    "unknown filter": "{{ messages | frobnicate }}",
    "deep nesting": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "many ifs": "{% if true %}" * 3000,
}


def outcome(source: str) -> str:
    """Compile and run a template; return what it wrote, or the name of our error."""
    try:
        template = ChatTemplate(source, {}, "2025-01-01T00:00:00")
        return template.render(MESSAGES, None, add_generation_prompt=True)
    except (TurnRefused, RenderError) as error:
        return type(error).__name__


@pytest.mark.parametrize("name", HUNGRY)
def test_a_template_without_bounds_is_refused_within_bounds(name: str) -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert outcome(HUNGRY[name]) in ("TurnRefused", "RenderError")
    assert time.process_time() - started < MAX_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB


@pytest.mark.parametrize("name", ESCAPES)
def test_a_template_cannot_reach_out_of_the_sandbox(name: str) -> None:
    written = outcome(ESCAPES[name])
    assert written in ("TurnRefused", "RenderError") or not any(
        sign in written for sign in ("class", "module", "function", "root:", "<built-in")
    )
    assert MESSAGES == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_template_is_our_error(name: str) -> None:
    assert outcome(BROKEN[name]) in ("TurnRefused", "RenderError")
