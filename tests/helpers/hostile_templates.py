"""Chat templates that were written to get out, to run for ever, or to use up memory.

`measure` runs each in a forked child of a child process and returns what it cost.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

LOOP = "{% for i in range(99999) %}"
BIG = "{% set x = 'x' * 900000 %}"
MANY = "{% set l = range(99999) | list %}"
KEYS = (
    "{% set ns = namespace(l=[()]) %}{% for i in range(14) %}{% set ns.m = [] %}"
    "{% for t in ns.l %}{% set ns.m = ns.m + [t + (-1,), t + (-2,)] %}{% endfor %}"
    "{% set ns.l = ns.m %}{% endfor %}"
)


HELD = BIG + "{% set ns = namespace(x=x) %}{% set l = [ns] * 90000 %}"
SHARED = "cycler(" + "x," * 900 + ")"


def grown(step, start="'x'", n=99):
    return (
        "{% set ns = namespace(x=" + start + ") %}{% for i in range(" + str(n) + ") %}"
        "{% set ns.x = " + step + " %}{% endfor %}{{ ns.x }}"
    )


def straight(part, n=1200):
    return BIG + part * n


# What must not give anything of Python away: each must be refused.
ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ joiner.__init__.__globals__.x }}",
    "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "{{ namespace.__init__.__globals__.x }}",
    "{{ namespace.__globals__.x }}",
    "{{ raise_exception.__globals__['json'].x }}",
    "{{ strftime_now.__globals__['datetime'].x }}",
    "{{ self.__init__.__globals__.x }}",
    "{{ self._TemplateReference__context.x }}",
    "{{ range.__self__.x }}",
    "{{ (messages | attr('__class__')).x }}",
    "{{ (messages | attr('__cla' ~ 'ss__')).x }}",
    "{{ messages['__class__'].x }}",
    "{{ messages[0]['__cla' ~ 'ss__'].x }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{a.__class__.__mro__}'.format_map({'a': 1}) }}",
    "{{ '{0.__class__}' | format('x') }}{{ ''.__class__.x }}",
    "{{ ('{0.__class__.x}' | attr('format'))('') }}",
    "{{ ''['format'].__self__.__class__.x }}",
    "{{ ['{0.__class__.__mro__}'.format] | map('attr', '__call__') | map(attribute='x') | list }}",
    "{{ messages | map(attribute='__class__') | map(attribute='x') | list }}",
    "{{ messages | map('attr', '__class__') | map(attribute='x') | list }}",
    "{{ messages | groupby('__class__.x') | list }}{{ x.y }}",
    "{{ messages | sum('__class__.__mro__') }}",
    "{{ messages | sort(attribute='__class__.x.y') }}",
    "{{ messages | min(attribute='__class__.x.y') }}{{ x.y }}",
    "{{ ['{0.__class__.__mro__}'] | map('format', 'x') | map('upper', 1) | list }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages.sort() }}",
    "{{ messages[0].pop('role') }}",
    "{% for m in messages %}{{ loop.__init__.__globals__.x }}{% endfor %}",
    "{% for m in messages %}{{ loop._iterator.x }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func.__code__ }}",
    "{% macro m() %}{{ caller.__init__.x }}{% endmacro %}{% call m() %}{% endcall %}",
    "{{ (messages | map('upper')).gi_frame.f_builtins }}",
    "{{ (messages | select).gi_code.x }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch CANARY') }}",
    "{% from 'os' import system %}{{ system('touch CANARY') }}",
    "{% extends '/etc/passwd' %}{{ 1 }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns }}",
    "{% set ns = namespace(__init__=1) %}{{ ns }}",
    "{% set ns = namespace(**{'__html__': raise_exception}) %}{{ ns | e }}",
    "{{ ''.encode().x.y }}",
    "{{ ''.translate({}) }}",
    "{{ ''.maketrans('a', 'b') }}",
    "{{ {}.fromkeys([1]) }}",
    "{{ (1).from_bytes([1], 'big') }}",
    "{{ (1).to_bytes(9, 'big').x.y }}",
    "{{ dict.__subclasses__() }}",
    "{{ dict.mro() }}",
    "{{ range.mro() }}",
    "{{ undefined_thing.__class__.x }}",
    "{{ undefined_thing.y.__class__ }}",
    "{{ (none | attr('__class__')).x }}",
    "{{ ''.join.__self__.__class__.x }}",
    "{{ ''.join.__func__.x }}",
    "{{ g.pop.__globals__.x }}",
    "{{ config.__class__.x }}",
    "{{ request.application.__globals__.__builtins__.x }}",
    "{{ url_for.__globals__.x }}",
    "{{ get_flashed_messages.__globals__.x }}",
    "{{ environment.x }}",
    "{{ context.x }}",
    "{% debug %}{{ 1 }}",
    "{% autoescape 'x' * 10 ** 9 %}{{ 1 }}{% endautoescape %}",
]

# What must not take long, use much memory or kill the process; refused or not.
GROWTH = [
    "{{ 'x' * 10 ** 9 }}",
    "{{ 10 ** 9 * 'x' }}",
    "{{ 'x' * 9 ** 9 }}",
    "{{ [0] * 10 ** 9 }}",
    "{{ (0,) * 10 ** 9 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ (2 ** 62) ** (2 ** 62) }}",
    "{{ 0x" + "f" * 100_000 + " }}",
    "{{ " + "9" * 100_000 + " }}",
    "{{ 1" + "_1" * 50_000 + ".e }}",
    grown("ns.x * ns.x", "9"),
    grown("ns.x + ns.x", "9", 99_999),
    grown("-ns.x - ns.x", "9", 99_999),
    "{{ '%999999999d' % 1 }}",
    "{{ '%0.999999999f' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%(a)999999999d' % {'a': 1} }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{:0>999999999}'.format(1) }}",
    "{{ '{:.999999999f}'.format(1.5) }}",
    "{{ '{:{w}}'.format(1, w=999999999) }}",
    "{{ '{:{s}}'.format(1, s='999999999d') }}",
    "{{ ('{:999}' * 9999).format(*range(9999)) }}",
    BIG + "{{ ('%(a)s' * 9999) % {'a': x} }}",
    BIG + "{{ ('%r' * 9) % (x, x, x, x, x, x, x, x, x) }}",
    BIG + "{{ ('{0}' * 9999).format(x) }}",
    BIG + "{{ ('{a}' * 9999).format_map({'a': x}) }}",
    BIG + "{{ ('{0!r}' * 99).format(x) }}",
    "{{ 'x'.center(10 ** 9) }}",
    "{{ 'x'.ljust(10 ** 9) }}",
    "{{ 'x'.rjust(10 ** 9) }}",
    "{{ 'x'.zfill(10 ** 9) }}",
    "{{ '\t'.expandtabs(1000000000) }}",
    "{{ ('\t' * 900000).expandtabs(999) }}",
    "{{ 'x' | center(1000000000) }}",
    "{{ 'x\nx' | indent(1000000000) }}",
    "{{ 'x' | indent(1000000000, first=true) }}",
    "{{ ('x\r' * 400000) | indent(999) }}",
    "{{ ('x\x0b' * 400000) | indent('y' * 999) }}",
    "{{ ('x\u2028' * 400000) | indent(width=999, blank=true) }}",
    "{{ [1, 2] | tojson(indent=1000000000) }}",
    "{{ [1, 2] | tojson(indent='x' * 1000000) }}",
    "{{ [1, 2] | tojson(separators=('x' * 900000, '')) }}",
    MANY + "{{ l | tojson(indent=999) }}",
    MANY + "{{ l | tojson(indent=2) }}",
    MANY + "{{ l | tojson }}" * 99,
    "{% set x = '\x01' * 900000 %}" + "{{ x | tojson(ensure_ascii=true) }}" * 99,
    "{% set x = '\u2028' * 900000 %}" + "{{ x | tojson(ensure_ascii=true) }}" * 99,
    "{{ strftime_now('%0999999999d') }}",
    "{{ strftime_now('%c' * 900000) }}",
    "{{ strftime_now('%999d' * 99) }}",
    "{{ range(10 ** 9) | list }}",
    "{{ range(99999) | batch(1) | list }}",
    "{{ [1] | batch(1000000000, 0) | list }}",
    "{{ [1] | slice(1000000000) | list }}",
    "{{ range(99999) | batch(1) | map('list') | map('batch', 1) | map('list') | list }}",
    "{{ range(999) | map('batch', 999) | sum(start=[]) }}",
    MANY + "{{ [l, l, l] | sum(start=[]) }}",
    "{{ range(99999) | map('list') | list }}",
    "{{ [[1] * 999] * 99 | sum(start=[]) }}",
    "{{ ([[1] * 99] * 900) | sum(start=[]) }}",
    "{{ ('ā' * 900000) | list }}",
    "{{ ('ā' * 900000) | map('lower') | list }}",
    "{{ ('ā' * 900000) | map(attribute='x') | list }}",
    "{{ ('ā ' * 400000).split() }}",
    "{{ ('ā-' * 400000).split('-') | length }}" * 99,
    "{{ ('ā-' * 400000) | title }}",
    "{{ ('ā ' * 400000) | wordcount }}",
    "{{ ('x\n' * 400000).splitlines() | length }}" * 99,
    "{{ ('&' * 900000) | e | e | e | e }}",
    "{{ ('&' * 900000) | forceescape }}",
    "{{ (('&' * 900000) | safe) + ('&' * 900000) }}",
    "{{ ('<!---->' * 100000) | striptags }}",
    "{{ (('<!---->' * 100000) | safe).striptags() }}",
    grown("ns.x ~ ns.x"),
    grown("ns.x + ns.x"),
    grown("ns.x * 2"),
    grown("[ns.x, ns.x]", "[1]"),
    grown("[ns.x] + ns.x", "[1]"),
    grown("{'a': ns.x, 'b': ns.x}", "{}"),
    grown("(ns.x, ns.x)", "(1,)"),
    grown("[ns.x]", "[]", 99_999),
    grown("(ns.x,)", "()", 99_999),
    grown("{'a': ns.x}", "{}", 99_999),
    grown("ns.x.replace('x', 'xx')"),
    grown("ns.x.join(['', '', ''])"),
    grown("ns.x | replace('x', 'xx')"),
    grown("'%s%s' % (ns.x, ns.x)"),
    grown("'{0}{0}'.format(ns.x)"),
    grown("[ns.x, ns.x] | join"),
    grown("[ns.x, ns.x] | string", "['']"),
    grown("ns.x | tojson"),
    grown("ns.x | list | tojson"),
    grown("namespace(a=ns.x, b=ns.x)", "1", 99_999),
    grown("ns.x + [namespace(a=i)]", "[]", 99_999),
    grown("ns.x + [i]", "[]", 99_999),
    grown("ns.x ~ 'x'", "''", 99_999),
    grown("dict(ns.x, **{i | string: i})", "{}", 99_999),
    "{% set ns = namespace(x=[]) %}{% set ns.x = [ns] %}{% set ns.x = [ns.x, ns] %}{{ ns.x }}"
    "{{ ns.x == ns.x }}{{ ns.x | tojson }}",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}"
    "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}"
    "{% filter replace('x', 'xx') %}{{ ns.x }}{% endfilter %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}",
    BIG + "{{ x.replace('x', x) }}",
    BIG + "{{ x.replace('', x) }}",
    BIG + "{{ x | replace('x', x) }}",
    BIG + "{{ x.join(x) }}",
    BIG + "{{ x | join(x) }}",
    BIG + "{{ [x] * 9000 }}",
    BIG + "{{ range(9000) | map('replace', '', x) | join(x) }}",
    BIG + "{{ " + "~".join(["x"] * 3000) + " }}",
    BIG + "{{ [" + ",".join(["x + '1'"] * 900) + "] }}",
    BIG + "{{ [" + ",".join(["x[1:]"] * 900) + "] }}",
    BIG + "{{ [" + ",".join(["x.upper()"] * 900) + "] }}",
    BIG + "{% set a = [x[1:], x[2:], x[3:]] %}" * 99,
    BIG + "".join("{% set a" + str(i) + " = x[1:] %}" for i in range(900)),
    BIG + "".join("{% set a" + str(i) + " %}{{ x }}{% endset %}" for i in range(900)),
    BIG + LOOP + "{{ x }}{% endfor %}",
    "{% set x = '😀' * 900000 %}" + LOOP + "{{ x }}{% endfor %}",
    LOOP + "x" * 99_999 + "{% endfor %}",
    "{% set y %}" + LOOP + "x" * 99_999 + "{% endfor %}{% endset %}",
    LOOP + "{{ '" + "x" * 99_999 + "' }}{% endfor %}",
    LOOP + "{{ '" + "x" * 999 + "' | replace('x', '" + "y" * 999 + "') }}{% endfor %}",
    "{% macro m() %}" + "x" * 99_999 + "{% endmacro %}"
    "{% set y %}" + LOOP + "{{ m() }}{% endfor %}{% endset %}",
    LOOP + "{% macro a() %}{% endmacro %}{% macro b() %}{% endmacro %}{% endfor %}",
    "{% set ns = namespace() %}"
    + LOOP
    + "".join(f"{{% macro m{i}() %}}{{% endmacro %}}" for i in range(20))
    + "{% set ns.x = namespace(p=ns.x, a=m1, b=m2, c=m3, d=m4, e=m5, f=m6) %}{% endfor %}",
    HELD + "{{ l | sort(attribute='x') | first }}",
    HELD + "{{ l | map(attribute='x') | sort | first }}",
    HELD + "{{ l | map(attribute='x') | max }}",
    HELD + "{{ l | map(attribute='x') | unique | list }}",
    HELD + "{{ l | unique(attribute='x') | list }}",
    HELD + "{{ l | groupby('x') | list }}",
    HELD + "{{ l | min(attribute='x') }}",
    HELD + "{{ l | join(attribute='x') }}",
    HELD + "{{ l | map(attribute='x') | join }}",
    HELD + "{{ l | map(attribute='x') | list | string }}",
    HELD + "{{ l | sum(attribute='x', start='') }}",
    HELD + "{{ ('{0.x}' * 9999).format(ns) }}",
    HELD + "{{ ('{0[x]}' * 9999).format(ns) }}",
    HELD + "{{ raise_exception(" + SHARED + ".items) }}",
    HELD + "{{ messages[0][" + SHARED + ".items].y }}",
    HELD + "{{ 'x'.replace(" + SHARED + ".items, 'y') }}",
    HELD + "{{ 'x' | replace(" + SHARED + ".items, 'y') }}",
    HELD + "{% macro m() %}{{ messages[0][varargs].y }}{% endmacro %}{{ m(" + "x," * 900 + ") }}",
    HELD + "{% macro m() %}{{ varargs | string }}{% endmacro %}{{ m(" + "x," * 900 + ") }}",
    MANY + "".join("{% set a" + str(i) + " = cycler(*l) %}" for i in range(500)),
    MANY
    + "".join(
        "{% set a" + str(i) + " = l | slice(3) %}{{ a" + str(i) + " | first | length }}"
        for i in range(300)
    ),
    MANY + "".join("{% set a" + str(i) + " = l | groupby('real') %}" for i in range(500)),
    MANY + "".join("{% set a" + str(i) + " = l | map('string') | list %}" for i in range(500)),
    MANY + "".join("{% set a" + str(i) + " = l | batch(1) | list %}" for i in range(500)),
    MANY + "".join("{% set a" + str(i) + " = l + l %}" for i in range(500)),
]
WORK = [
    "{{ ('{' ~ ':' * 900000).format(1) }}",
    "{{ ('%' ~ '+' * 900000) % 1 }}{{ 1 }}",
    "{{ ('%(' * 400000) % {} }}",
    MANY + "{{ l | max(attribute='real" + ".real" * 150 + "') }}",
    MANY + "{{ l | sort(attribute='real" + ".real" * 150 + "') | first }}",
    MANY + "{{ l | map(attribute='real" + ".real" * 150 + "') | list | first }}",
    BIG + MANY + "{{ l | map(attribute=('real.' * 90000) ~ 'real') | list | first }}",
    MANY + "{{ cycler(*l).next() }}" * 900,
    MANY + "{% if l is in l %}{% endif %}" * 900,
    MANY + "{% set d = dict(a=1) %}" + "{{ d[l | first] }}{{ d.get(-1) }}" * 300,
    LOOP + LOOP + "{% endfor %}{% endfor %}",
    LOOP + LOOP + "{% set x = j %}{% endfor %}{% endfor %}",
    LOOP * 12 + "{% endfor %}" * 12,
    LOOP + "{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    LOOP + "{% for j in range(99999) %}{% break %}{% endfor %}{% endfor %}",
    "{% for a in [1] recursive %}{{ loop([1, 1]) if loop.depth < 60 }}{% endfor %}",
    "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(1) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% macro n() %}{% call m() %}{{ n() }}{% endcall %}"
    "{% endmacro %}{{ n() }}",
    "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    MANY + LOOP + "{% if l == l %}{% endif %}{% endfor %}",
    MANY + LOOP + "{% if -1 in l %}{% endif %}{% endfor %}",
    MANY + LOOP + "{% if l is eq(l) %}{% endif %}{% endfor %}",
    MANY + LOOP + "{% if -1 is in l %}{% endif %}{% endfor %}",
    MANY + LOOP + "{{ l[1:] | length }}{% endfor %}",
    MANY + LOOP + "{{ l | sort | first }}{% endfor %}",
    MANY + "{{ l | reverse | sort | unique | list | length }}" * 99,
    MANY + "{{ l | groupby('real') | length }}" * 99,
    MANY + "{{ l | max }}{{ l | min }}" * 99,
    MANY + "{{ l.count(-1) }}{{ l.index(99998) }}" * 99,
    MANY + "{{ l | map('string') | map('int') | map('string') | select | list | length }}" * 9,
    MANY + "{{ l" + " | map(attribute='real')" * 60 + " | list | length }}",
    MANY + "{{ l | join }}" * 99,
    MANY + "{{ l | string | length }}" * 99,
    MANY + "{{ l ~ l }}" * 99,
    MANY + "{{ (l | batch(2) | list | dictsort) }}",
    MANY + "{% for i in l %}{{ loop.changed(l) }}{% endfor %}",
    MANY + "{% for i in l %}{{ loop.length }}{{ loop.cycle(*l) }}{% endfor %}",
    KEYS + "{{ ns.l | unique | list | length }}",
    KEYS + "{{ dict(ns.l | batch(2)) }}",
    KEYS + "{{ dict(ns.l | map('list') | map('batch', 9) | list) }}",
    "{% set n = 2305843009213693951 %}{% set ns = namespace(l=[]) %}"
    "{% for i in range(9999) %}{% set ns.l = ns.l + [n * i] %}{% endfor %}"
    "{{ ns.l | unique | list }}",
    BIG + LOOP + "{% if x == x ~ '' %}{% endif %}{% endfor %}",
    BIG + "{% set y = x ~ 'y' %}" + LOOP + "{% if y in x %}{% endif %}{% endfor %}",
    BIG + "{% set y = x[1:] ~ 'y' %}" + LOOP + "{{ x == y }}{{ x < y }}{% endfor %}",
    BIG + "{% set y = x[1:] ~ 'y' %}{{ " + " < ".join(["x", "y"] * 900) + " }}",
    straight("{{ (x == x[1:]) }}"),
    straight("{{ x.upper() | length }}"),
    straight("{{ x | upper | length }}"),
    straight("{{ x.casefold() == x }}"),
    straight("{{ x[::-1] | length }}"),
    straight("{{ x.count('xx') }}"),
    straight("{{ x is upper }}"),
    straight("{{ x is eq('x') }}"),
    straight("{{ x | trim | length }}"),
    straight("{{ x.split('y') | length }}"),
    straight("{{ x | int }}"),
    straight("{{ x | float }}"),
    straight("{{ x | truncate(99) }}"),
    straight("{{ [x, x] | length }}"),
    BIG + "{{ x.rfind('xy' ~ x[:450000]) }}",
    BIG + "{{ x.rsplit('xy' ~ x[:450000]) }}",
    BIG + "{{ x.rindex('xy' ~ x[:450000]) }}",
    BIG + "{{ x.rpartition('xy' ~ x[:450000]) }}",
    BIG + "{{ x.find(x[:450000] ~ 'y') }}{{ x.count(x[:45] ~ 'y') }}",
    BIG + "{{ x.strip('abcdefghijklmnopqrstuvwyz' * 30000 ~ 'x') }}",
    BIG + "{{ x | trim('abcdefghijklmnopqrstuvwyz' * 30000 ~ 'x') }}",
    "{{ ('1' * 4300) | int }}" * 900,
    "{{ ('f' * 900000) | int(0, 16) }}",
    "{{ ('1' * 900000) | int(0, 3) }}",
    "{{ ('1' * 900000) | float }}" * 99,
    "{{ 1 | round(-1000000000) }}",
    "{{ 1.5 | round(1000000000, 'ceil') }}",
    "{{ 1 | round(-100000000, 'floor') }}",
]
PARSING = [
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "(" * 50 + "1" + ")" * 50 + " }}",
    "{{ " + "[" * 90 + "]" * 90 + " }}",
    "{{ " + "{1:" * 60 + "1" + "}" * 60 + " }}",
    "{{ " + "not " * 5000 + "1 }}",
    "{{ " + "not " * 300 + "1 }}",
    "{{ " + "-" * 5000 + "1 }}",
    "{{ " + "1 if 1 else " * 300 + "1 }}",
    "{{ " + "1 if 1 else " * 50 + "1 }}",
    "{{ a" + " | string" * 300 + " }}",
    "{{ a" + " | string" * 55 + " }}",
    "{{ a" + ".a" * 300 + " }}",
    "{{ a" + "[1]" * 300 + " }}",
    "{{ a" + "()" * 300 + " }}",
    "{{ a" + "()" * 55 + " }}",
    "{{ " + "f(" * 55 + ")" * 55 + " }}",
    "{{ 1" + "+1" * 50_000 + " }}",
    "{{ 1" + "+1" * 55 + " }}",
    "{{ 1" + "~1" * 50_000 + " }}",
    "{{ 1" + "<1" * 50_000 + " }}",
    "{{ 1" + " and 1" * 9_000 + " }}",
    "{{ 1" + " or 1" * 55 + " }}",
    "{{ [" + "1," * 50_000 + "] }}",
    "{{ f(" + ",".join(f"a{i}=1" for i in range(2_000)) + ") }}",
    "{% if true %}" * 200 + "{% endif %}" * 200,
    "{% if true %}" * 60 + "{% endif %}" * 60,
    "{% for a in b %}" * 25 + "{% endfor %}" * 25,
    "{% macro a() %}" * 50 + "{% endmacro %}" * 50,
    "{% if a %}" + "{% elif a %}" * 5_000 + "{% endif %}",
    "{% for a in b %}{% endfor %}" * 590,
    "{% macro a(b) %}{% endmacro %}" * 590,
    "".join("{% set a" + str(i) + "=1 %}" for i in range(500)) + "{% if a %}{% endif %}" * 400,
    "".join("{{ a" + str(i) + " }}" for i in range(1_950)),
    "{{ 1 }}" * 100_000,
    "".join("{% block b" + str(i) + " %}{% endblock %}" for i in range(660)),
    "{{ " + "a" * 120_000 + " }}",
    "{% for " + "a" * 60_000 + " in [1] %}{{ loop.index }}{% endfor %}",
    "{{ 1 }}" * 1_950,
    "{{ a(b) }}" * 990,
    "{{ a | string }}" * 1_190,
    "{% set x = 'a' * 10 ** 9 %}",
    "{% set x = " + "'" + "\\x41" * 30_000 + "'" + " %}{{ x }}",
    "{#" + "{#" * 60_000 + "#}{{ 1 }}",
    "{% raw %}" + "{% " * 40_000 + "{% endraw %}{{ 1 }}",
    "{{ 1 }}" + " " * 130_000,
    "{{ " + " " * 130_000 + "1 }}",
    "{{ '" + "\\\\" * 60_000,
    "{% " * 40_000,
]
BOTH = [  # long to parse, and then to run
    "{{ a | string }}" * 1_000 + LOOP + LOOP + "{% endfor %}{% endfor %}",
    "{% macro a(b) %}{% endmacro %}" * 500 + MANY + "{{ l | tojson(indent=2) }}" * 99,
    "{{ a(b) }}" * 900 + BIG + LOOP + "{{ x }}{% endfor %}",
    "{% for a in b %}{% endfor %}" * 500 + grown("ns.x + [namespace(a=i)]", "[]", 99_999),
]
LIMITED = [*GROWTH, *WORK, *PARSING, *BOTH]


class Cost(NamedTuple):
    """What came of a template: "refused", "rendered", or how its process ended."""

    outcome: str
    seconds: float  # of processor time
    megabytes: float  # of memory above that of a harmless one


def measure(sources, folder: Path) -> list[Cost]:
    """Run each template in a process of its own; their working directory is `folder`."""
    program = Path(__file__).resolve()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, program],
        input=json.dumps(["{{ messages[0].content }}", *sources]),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=True,
    )
    plain, *costs = [Cost(*row) for row in json.loads(done.stdout)]
    return [cost._replace(megabytes=cost.megabytes - plain.megabytes) for cost in costs]


class NoVocabulary:
    """A model of two control tokens that needs no file: templates are rendered, not tokenised."""

    name, chat_template, add_bos = "hostile.gguf", None, False
    bos_token, eos_token = 0, 1

    def token_texts(self):
        return [b"<s>", b"</s>"]

    def token_attributes(self):
        import numpy as np

        return np.array([8, 8], np.int32)

    def fewest_tokens(self, text):
        return 0


def run(source):
    """Render it, as an emulator would for a short conversation."""
    from edge_eft.errors import PromptError
    from edge_eft.text.prompt_format import PromptFormat

    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"}]
    source += "{{ messages[-1].content }}"  # else it is refused because the question is lost
    try:
        PromptFormat(source, NoVocabulary()).render(messages)
    except PromptError as error:
        return "refused" if "\n" not in str(error) else "refused in several lines"
    return "rendered"


def main():
    import edge_eft.text.prompt_format  # noqa: F401  so that the children need not

    run("{{ messages[0].content }}")

    costs = []
    for source in json.load(sys.stdin):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
            begun = time.process_time()
            outcome = run(source)
            os.write(writer, json.dumps([outcome, time.process_time() - begun]).encode())
            os._exit(0)
        os.close(writer)
        said = os.read(reader, 1000)
        os.close(reader)
        _, status, usage = os.wait4(child, 0)
        ended = f"ended with {status}", usage.ru_utime + usage.ru_stime
        costs.append([*(json.loads(said) if said else ended), usage.ru_maxrss / 1024])
    print(json.dumps(costs))


if __name__ == "__main__":
    main()
