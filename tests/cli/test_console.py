"""rich on our terms: what a console of ours writes, where, and when it is quiet."""

import io
import sys

import pytest
from rich.table import Table

from edge_eft.cli import terminal
from edge_eft.cli.console import console, show, text


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    monkeypatch.setattr(terminal, "_quiet", False)


def test_into_a_pipe_no_control_character_goes(capsys):
    table = Table("a", "b")
    table.add_row("1", text("two", "bold red"))
    show(table, text("x", "dim"))
    out, err = capsys.readouterr()
    assert "two" in out
    assert err == ""
    assert all(c.isprintable() or c == "\n" for c in out)


def test_markup_and_emoji_codes_are_text(capsys):
    show("[bold]b[/bold] :smile: [/]", text("[red]r"))
    assert capsys.readouterr().out == "[bold]b[/bold] :smile: [/]\n[red]r\n"


def test_quiet_silences_stderr_alone(capsys):
    terminal.set_quiet(True)
    show("talk", err=True)
    terminal.talk("more talk")
    show("data")
    terminal.say("an error", err=True)
    assert capsys.readouterr() == ("data\n", "an error\n")


def test_lines_fit_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    assert console().width == 40
    show("word " * 30)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40


def test_a_stream_without_unicode_is_shown_in_ascii(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "ascii", errors="replace")
    monkeypatch.setattr(sys, "stdout", out)
    table = Table("a")
    table.add_row("1")
    show(table)
    out.flush()
    assert b"?" not in out.buffer.getvalue()
