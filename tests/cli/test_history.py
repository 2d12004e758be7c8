"""history: what cannot be kept is told once, and the chat goes on."""

import contextlib
import os
import pwd
import shutil
import stat

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from edge_eft.cli.chat import COMMANDS
from edge_eft.cli.chat_terminal import terminal_reader
from edge_eft.cli.history import open_history


@contextlib.contextmanager
def terminal():
    """Give a function that types a line and reads it as the chat does."""
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        read = terminal_reader(COMMANDS)

        def type_line(line):
            keys.send_bytes(line + b"\r")
            return read("› ")

        yield type_line


@pytest.mark.parametrize("place", ["file/home", "~nobody-here/x", "directory"])
def test_without_a_place_one_line_says_so_and_the_chat_remembers(
    place, monkeypatch, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    (tmp_path / "directory" / "history").mkdir(parents=True)
    home = place if place.startswith("~") else str(tmp_path / place)
    monkeypatch.setattr("os.environ", os.environ | {"EDGE_EFT_HOME": home})
    with terminal() as type_line:
        assert [type_line(b"hello"), type_line(b"\x1b[A")] == ["hello", "hello"]
    err = capsys.readouterr().err
    assert err.startswith("no history is kept: ")
    assert err.count("\n") == 1


def test_without_a_home_nothing_is_written_to_the_working_directory(monkeypatch, tmp_path, capsys):
    """platformdirs may leave ~ as it is: a directory of that name came about."""

    def nobody(_):
        raise KeyError

    for name in ("HOME", "EDGE_EFT_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_history(), InMemoryHistory)
    assert list(tmp_path.iterdir()) == []
    assert "no home directory is known" in capsys.readouterr().err


def test_a_history_that_fails_later_is_told_once(monkeypatch, tmp_path, capsys):
    home = tmp_path / "home"
    monkeypatch.setenv("EDGE_EFT_HOME", str(home))
    with terminal() as type_line:
        assert type_line(b"one") == "one"
        shutil.rmtree(home)
        assert [type_line(b"two"), type_line(b"three")] == ["two", "three"]
    assert capsys.readouterr().err.count("no history is kept") == 1


def test_bytes_that_are_not_text_do_not_end_the_prompt(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path))
    with terminal() as type_line:
        assert [type_line(b"caf\xe9!"), type_line(b"two")] == ["caf\udce9!", "two"]
    assert capsys.readouterr().err == ""
    assert "two" in (tmp_path / "history").read_text("utf-8")


def test_commands_are_recalled_and_not_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path))
    with terminal() as type_line:
        assert [type_line(b"/set alpha 1"), type_line(b"\x1b[A")] == ["/set alpha 1"] * 2
        type_line(b"hello")
    text = (tmp_path / "history").read_text("utf-8")
    assert "hello" in text
    assert "alpha" not in text


def test_a_history_is_the_owners_alone_an_older_one_too(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path))
    (tmp_path / "history").write_text("\n# 2026\n+before\n")
    (tmp_path / "history").chmod(0o644)
    with terminal() as type_line:
        assert type_line(b"\x1b[A") == "before"
    assert stat.S_IMODE((tmp_path / "history").stat().st_mode) == 0o600
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "new"))
    before = os.umask(0)
    try:
        open_history()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "history").stat().st_mode) == 0o600


def test_a_history_that_is_a_link_is_not_followed(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path))
    (tmp_path / "history").symlink_to(tmp_path / "elsewhere")
    assert isinstance(open_history(), InMemoryHistory)
    assert "no history is kept" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_log_there_is_no_history(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path))
    assert isinstance(open_history(kept=False), InMemoryHistory)
    assert list(tmp_path.iterdir()) == []
