"""Chat templates from strangers: what published ones need works, what attacks need does not."""

import threading
import time
from datetime import datetime

import pytest

from edge_eft.errors import PromptError
from edge_eft.text import bounds
from edge_eft.text.sandbox import ChatTemplate

MESSAGES = [{"role": "user", "content": "<b>é</b>"}, {"role": "assistant", "content": "x"}]


def render(source, messages=MESSAGES, **variables):
    return ChatTemplate(source, "x.gguf").render(messages, **variables)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "<b>é</b>"}'),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=2) }}", '{\n  "b": 1,\n  "a": [\n    2\n  ]\n}'),
        ("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}"
         "{% endfor %}", "user"),
        ("{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.role }}"
         "{% endfor %}", "assistant"),
        ("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
         "<b>é</b>x"),
        ("{% for m in messages %}\n    {% if true %}\n{{ m.role }}\n    {% endif %}\n{% endfor %}",
         "user\nassistant\n"),
        ("{% macro f(x, y=2) %}[{{ x }}{{ y }}]{% endmacro %}{{ f(1) ~ f('a', y='b') }}",
         "[12][ab]"),
        ("{% set ns = namespace(n=0, l=[]) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
         "{% set ns.l = ns.l + [m.role] %}{% endfor %}{{ ns.n }}{{ ns.l | join(',') }}",
         "2user,assistant"),
        ("{% set x %}a{{ messages | length }}{% endset %}{{ x * 2 }}", "a2a2"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') "
         "| join('|') }}", "<b>é</b>"),
        ("{{ 'a b'.split()[1] }}{{ 'ab'.replace('a', 'c') }}{{ '-'.join(['x', 'y']) }}", "bcbx-y"),
        ("{{ '%s is %d' % ('a', 3) }}{{ '{} {x!r:>4}'.format('b', x='c') }}", "a is 3b  'c'"),
        ("{{ 'a\\nb' | indent(2) }}{{ 'x' if missing is not defined }}{{ missing }}", "a\n  bx"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ tools is none }}",
         "a1True"),
        ("{{ range(3) | list }}{{ (1, 2)[0] }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ dict(a=1).a }}",
         "[0, 1, 2]1102431"),
    ],
)  # fmt: skip
def test_what_published_templates_use_works(source, text):
    assert render(source, tools=None) == text


def test_strftime_now_is_today():
    assert render("{{ strftime_now('%d %b %Y') }}") == datetime.now().strftime("%d %b %Y")


def test_a_refusal_is_the_templates_own_words():
    with pytest.raises(PromptError, match=r"of x.gguf refuses these messages: no\s*system") as e:
        render("{{ raise_exception('no\\nsystem') }}")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("source", ["{{ a", "{% if %}", "{% endfor %}", "{{ 'x' | nosuch }}"])
def test_what_is_not_valid_jinja_is_refused_with_its_line(source):
    with pytest.raises(PromptError, match="not valid Jinja: line 1"):
        ChatTemplate(source, "x.gguf")


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = j %}{% endfor %}"
        "{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
        "{{ m(60) }}",
        "{% for a in [1] recursive %}{{ loop([1, 1]) if loop.depth < 60 }}{% endfor %}",
    ],
)
def test_a_template_that_does_not_end_is_stopped(source, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_SECONDS", 0.3)
    start = time.thread_time()  # the machine may be busy
    with pytest.raises(PromptError, match=r"more than 0\.3 s"):
        render(source)
    assert time.thread_time() - start < 1


def test_long_conversations_are_within_the_bounds():
    messages = [{"role": "user", "content": "x" * 1_000_000}] * 8
    source = "{% for m in messages %}{{ m.content | trim }}{% endfor %}"
    assert len(render(source, messages)) == 8_000_000
    many = [{"role": "user", "content": "x"}] * 3_000
    branches = "{% if m.role == 'tool' %}" + "y" * 4_000 + "{% else %}{{ m.content }}{% endif %}"
    source = "{% for m in messages %}" + branches + "{% endfor %}"
    assert render(source, many) == "x" * 3_000


def test_a_rendering_on_another_thread_spends_nothing_of_this_one(monkeypatch):
    """Threads once shared the budget of whoever had begun last, and the clock of neither."""
    template = ChatTemplate("{{ wait() }}{% for i in range(9999) %}{{ i }}{% endfor %}", "x.gguf")
    refused = []

    def other():
        try:
            template.render(MESSAGES, wait=str)
        except PromptError as error:
            refused.append(str(error))

    def wait():
        monkeypatch.setattr(bounds, "MAX_SECONDS", -1e9)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    assert template.render(MESSAGES, wait=wait).endswith("9998")
    assert "run for more than" in refused[0]


def test_templates_of_one_source_are_compiled_once():
    source = "{% for m in messages %}{{ m.content }}{{ x }}{% endfor %}"
    first, second = ChatTemplate(source, "a.gguf"), ChatTemplate(source, "b.gguf")
    assert first._code is second._code
    assert first.reads == second.reads == {"messages", "x"}
    assert first.render(MESSAGES, x=1) != second.render(MESSAGES, x=2)
    for where in ("a.gguf", "b.gguf"):  # what fails is told of each by its own name
        with pytest.raises(PromptError, match=f"the chat template of {where} is not valid Jinja"):
            ChatTemplate("{% if %}", where)
