"""shading: what the delta did is seen without colours, too."""

import math
import sys

import pytest
from helpers.pseudo_terminal import OwnTerminal

from edge_eft.cli.shading import show_shifts, sign
from edge_eft.evaluate.token_shifts import TokenShift

SHIFTS = [
    TokenShift(" It", -0.1, -3.0),
    TokenShift(" is", -0.1, -1.0),
    TokenShift(" so", -0.5, -0.5),
    TokenShift(" not", -1.0, -0.1),
    TokenShift(" Lima\x1b[5m", -5.0, -0.1),
]


@pytest.mark.parametrize(
    ("factor", "expected"), [(10.1, "++"), (9, "+"), (2.1, "+"), (1.9, ""), (1, ""), (0.6, "")]
)
def test_a_sign_stands_for_a_factor(factor, expected):
    assert sign(math.log(factor)) == expected
    assert sign(-math.log(factor)) == expected.replace("+", "-")
    assert (sign(math.inf), sign(-math.inf)) == ("++", "--")


def test_both_impossible_is_no_shift():
    assert TokenShift("x", -math.inf, -math.inf).shift == 0.0


def shaded(monkeypatch, **environment):
    screen = OwnTerminal()
    monkeypatch.setattr(sys, "stdout", screen.out)
    monkeypatch.setattr(sys, "stderr", screen.err)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    show_shifts(SHIFTS)
    return screen.text()


def test_tokens_are_shaded_on_a_terminal(monkeypatch):
    text = shaded(monkeypatch)
    reply, *legend = text.splitlines()
    assert reply == (
        "\x1b[1;4;32m It\x1b[0m\x1b[4;32m is\x1b[0m so\x1b[7;31m not\x1b[0m\x1b[1;7;31m Lima\x1b[0m"
    )
    assert legend[0].startswith(
        "\x1b[2mwhat the delta did: \x1b[0m\x1b[1;4;32munderlined and bold: 10"
    )
    assert "4 of 5 tokens at least twice or half as likely as under the base alone" in text


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_terminal_without_styles_gets_a_list(monkeypatch, environment):
    lines = shaded(monkeypatch, **environment).replace("\x1b[2m", "").splitlines()
    assert lines[0] == '    2.90    −0.10    −3.00 " It"'
    assert len(lines) == 6
