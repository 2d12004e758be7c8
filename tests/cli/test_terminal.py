"""What a terminal is shown: nothing that drives it, in lines and columns that fit."""

import io
import sys

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_eft.cli.terminal import ControlFilter, talk

LINE = "one two three four-five six"


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("a\rb\x00c\x7fd\x85e\x08", "abcde"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[?25l\x1b[1;2Hx", "x"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9d0;title\x9cx", "x"),
        ("\x1bP$q\x1b\\x\x1b_G\x1b\\y\x1b^z\x1b\\", "xy"),
        ("\x1b]no end\nnext line", "\nnext line"),
        ("\x1bcx\x1b(By\x1b\nz", "xy\nz"),
        ("\x1b\x1b[2Jx", "x"),
        ("access\u202e = \u2066user\u2069", "access = user"),
        ("👩\u200d💻 می\u200cخواهم é", "👩\u200d💻 می\u200cخواهم é"),
    ],
)
def test_control_sequences_are_dropped_whole_however_they_are_cut(text, harmless):
    assert ControlFilter().filter(text) == harmless
    one_by_one = ControlFilter()
    assert "".join(map(one_by_one.filter, text)) == harmless


@given(st.lists(st.text("a[];?0m\\\n\t\x07\x1b\x9b\x9d\x9c\x90\r\u202eP]", max_size=6)))
def test_nothing_that_drives_a_terminal_passes_and_cuts_do_not_matter(chunks):
    filtered = ControlFilter()
    parts = "".join(map(filtered.filter, chunks))
    assert parts == ControlFilter().filter("".join(chunks))
    assert not set(parts) & set("\x07\x1b\x9b\x9d\x9c\x90\r\u202e")
    assert parts.count("\n") == "".join(chunks).count("\n")


@pytest.mark.parametrize(
    ("is_terminal", "said"), [(True, "one two three\nfour-five six\n"), (False, f"{LINE}\n")]
)
def test_no_terminal_cuts_the_words_of_a_note(monkeypatch, is_terminal, said):
    err = io.StringIO()
    err.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("NO_COLOR", "1")
    talk(LINE)
    assert click.unstyle(err.getvalue()) == said
