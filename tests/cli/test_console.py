"""rich on our terms: what a console of ours writes, where, and when it is quiet."""

import contextlib
import io
import os
import sys

import pytest
from rich.table import Table

from edge_eft.cli import terminal
from edge_eft.cli.console import console, rendered, show, text


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


def test_a_dumb_terminal_has_the_width_that_it_says(monkeypatch, capsys):
    for name, value in (("COLUMNS", "40"), ("TERM", "dumb"), ("FORCE_COLOR", "1")):
        monkeypatch.setenv(name, value)
    show(text("word " * 30, "bold"))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    assert "\x1b" not in out


def test_without_colours_there_are_no_styles(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    show(text("a", "bold red"))
    monkeypatch.setenv("NO_COLOR", "1")
    show(text("a", "bold red"))
    assert capsys.readouterr().out == "\x1b[1;31ma\x1b[0m\na\n"


def test_lines_end_where_their_text_does_and_what_is_not_to_be_wrapped_is_not_cut(
    monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "40")
    table = Table.grid()
    table.add_row("a", "b" * 5)
    table.add_row("a", "b")
    show(table, text("x" * 99, no_wrap=True, overflow="ignore"), "")
    assert capsys.readouterr().out == f"abbbbb\nab\n{'x' * 99}\n\n"


def test_what_is_rendered_for_say_is_styled_text(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    shown = rendered(text("a\x1b[5m", "bold"), "b")
    assert shown == "\x1b[1ma\x1b[0m\nb"
    assert isinstance(shown, terminal.Styled)


def test_nobody_who_reads_is_a_broken_pipe_and_no_end_of_the_process(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))
    with pytest.raises(BrokenPipeError):
        show(text("a" * 70_000))
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.close()


def test_a_stream_without_unicode_is_shown_in_ascii(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "ascii", errors="replace")
    monkeypatch.setattr(sys, "stdout", out)
    table = Table("a")
    table.add_row("1")
    show(table)
    out.flush()
    assert b"?" not in out.buffer.getvalue()
