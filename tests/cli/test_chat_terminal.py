"""The chat's terminal: keys, pastes, completion, the editor, and what writes a reply."""

import contextlib
import os
import stat
import sys
import termios

import pytest
from helpers.fakes import ScriptedEmulator
from helpers.screen import Screen, shown_on
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from edge_eft.cli.chat import COMMANDS, Chat, talk_with
from edge_eft.cli.chat_terminal import (
    completions,
    read_entry,
    reply_writer,
    silent_keys,
    terminal_reader,
)
from edge_eft.cli.conversation import Conversation
from edge_eft.cli.reply_view import MarkdownWriter
from edge_eft.cli.terminal import ReplyWriter

# -- entries -------------------------------------------------------------------------------


def lines_of(*lines):
    left = iter(lines)

    def read(_):
        try:
            line = next(left)
        except StopIteration:
            raise EOFError from None
        if line is KeyboardInterrupt:
            raise line
        return line

    return read


def test_three_quotes_hold_several_lines():
    assert read_entry(lines_of("one")) == "one"
    assert read_entry(lines_of('"""a', "b", 'c"""')).strip() == "a\nb\nc"
    assert read_entry(lines_of('"""one line"""')).strip() == "one line"
    assert read_entry(lines_of('"""', "/set is text here", '"""')) == "\n\n/set is text here\n"
    assert read_entry(lines_of('"""never', "closed")).strip() == "never\nclosed"


def test_ctrl_c_drops_a_message_of_several_lines():
    """It was sent as far as it went."""
    assert read_entry(lines_of('"""a', "b", KeyboardInterrupt)) == ""


# -- keys ----------------------------------------------------------------------------------


@pytest.fixture
def typed(monkeypatch, tmp_path):
    """What the prompt returns when these keys are typed, one entry after the other."""
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        reader = terminal_reader(COMMANDS)

        def read(text, prompt="› "):
            keys.send_text(text)
            return reader(prompt)

        yield read


def test_the_prompt_edits_and_recalls(typed, tmp_path):
    assert typed("hello\r") == "hello"
    assert typed("\x1b[A\r") == "hello"
    assert typed("abc\x03def\r") == "def", "Ctrl-C drops what is typed"
    assert "hello" in (tmp_path / "home" / "history").read_text()
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_ctrl_c_where_nothing_is_typed_says_how_to_leave_and_leaves_when_repeated(typed, capsys):
    """One press left, which ended many a chat that was to be cleared."""
    hint = "Ctrl-C again or Ctrl-D leaves\n"
    assert typed("\x03hello\r") == "hello"
    assert capsys.readouterr().err == hint
    assert typed("\x03abc\x03\x03def\r") == "def", "what was typed in between starts it anew"
    assert capsys.readouterr().err == hint * 2
    with pytest.raises(EOFError):
        typed("\x03\x03")
    with pytest.raises(EOFError):
        typed("\x04")


def test_ctrl_c_in_a_further_line_drops_the_entry(typed):
    with pytest.raises(KeyboardInterrupt):
        typed("\x03", prompt="… ")


def test_a_paste_of_several_lines_is_one_entry(typed):
    assert typed("\x1b[200~one\r\ntwo\n\nthree\x1b[201~ and more\r") == "one\ntwo\n\nthree and more"
    assert typed("one\x1b\rtwo\r") == "one\ntwo", "Alt-Enter goes on in another line"


@pytest.mark.parametrize("by_hand", [True, False])
def test_ctrl_c_between_a_reply_and_the_prompt_ends_no_chat(by_hand, typing, monkeypatch):
    """Who stops a reply that has just ended lost the conversation. A script's Ctrl-C ends it."""
    entries = iter([KeyboardInterrupt, "hello"])
    monkeypatch.setattr("edge_eft.cli.chat.terminal_reader", lambda *_, **__: None)
    monkeypatch.setattr("edge_eft.cli.chat.read_entry", lambda _: lines_of(next(entries))(""))
    emulator = ScriptedEmulator("Yes.")
    chat = Chat(emulator, Conversation(emulator.deltas))
    monkeypatch.setattr(chat, "handle", lambda _: False)
    with shown_on(Screen()) if by_hand else contextlib.nullcontext():
        if by_hand:
            talk_with(chat)
        else:
            with pytest.raises(KeyboardInterrupt):
                talk_with(chat)


# -- completion ----------------------------------------------------------------------------


def words(text):
    return [word for word, *_ in completions(text, COMMANDS)]


def test_completion_knows_commands_settings_and_values():
    assert words("/sa") == ["/save", "/save!"]
    assert words("/set top") == ["top_k", "top_p"]
    assert words("/set only ") == ["base", "tuned", "reference", "off"]
    assert words("/set draft=a") == ["auto"]
    assert words("/set top_k o") == ["off"]
    assert words("hello /s") == []
    assert words("/set top_k 4") == []


def test_completion_knows_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("notes.txt", "my notes.txt", "n\x1b[2J\u202e.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "notes").mkdir()
    assert words("read @n") == ["notes/", "notes.txt"]
    assert words("@my") == ['"my notes.txt"']
    assert list(completions('@"my n', COMMANDS)) == [('"my notes.txt"', len('"my n'), "")]
    assert words("a@n") == []
    assert words("@nothing") == []
    assert words("/load notes.") == ["notes.txt"]
    assert words("/help @n") == []


# -- the editor ----------------------------------------------------------------------------


@pytest.fixture
def typing(monkeypatch):
    """Let stdin be a terminal, which is returned."""
    master, slave = os.openpty()
    with open(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield slave
    os.close(master)


@pytest.fixture
def editor(monkeypatch, tmp_path, typing):
    """Let the user's editor be this script of Python, with the file's name as `path`."""

    def use(script):
        program = tmp_path / "editor"
        program.write_text(f"#!{sys.executable}\nimport sys\npath = sys.argv[1]\n{script}\n")
        program.chmod(0o755)
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", str(program))

    return use


def after(entry, *replies):
    """The chat after an entry, on a terminal."""
    emulator = ScriptedEmulator(*replies)
    chat = Chat(emulator, Conversation(emulator.deltas))
    with shown_on(Screen()):
        assert chat.handle(entry)
    return [turn["content"] for turn in chat.conversation.turns]


def test_the_editors_text_is_the_message(editor):
    editor("open(path, 'a').write('and\\n/bye is text here\\n')")
    message = "begun\nand\n/bye is text here"
    assert after("/edit begun ", "Yes.") == [message, "Yes."]


def test_what_was_written_in_the_editor_is_shown_above_the_reply(editor, capsys):
    editor("open(path, 'w').write('\\n'.join(f'line {i}\x1b[2J' for i in range(14)))")
    after("/edit", "Yes.")
    err = capsys.readouterr().err
    assert "› line 0\n  line 1\n" in err
    assert err.endswith("  line 9\n  … (4 more lines)\n")
    assert "\x1b" not in err


def test_nothing_is_sent_if_nothing_was_saved(editor, capsys):
    editor("pass")
    assert after("/edit abc") == []
    editor("open(path, 'w').write(' \\n')")
    assert after("/edit abc") == []
    assert capsys.readouterr().err == "nothing was saved; nothing is sent\n" * 2


def test_an_editor_that_fails_is_told(editor, capsys, monkeypatch):
    editor("sys.exit(3)")
    assert after("/edit") == []
    assert "edge-eft: " in (err := capsys.readouterr().err)
    assert err.endswith("Editing failed; EDITOR names the editor to use\n")
    monkeypatch.setenv("EDITOR", "/nowhere/\x1b[2Jvi")
    assert after("/edit") == []
    assert "\x1b" not in (err := capsys.readouterr().err)
    assert err.count("\n") == 1
    editor("open(path, 'wb').write(b'\\xff')")
    assert after("/edit") == []
    assert "not UTF-8" in capsys.readouterr().err
    editor("import os; os.unlink(path)")
    assert after("/edit") == []
    assert "cannot be read (No such file or directory); nothing is sent" in capsys.readouterr().err


def test_an_editor_that_dies_leaves_the_terminal_as_it_was(editor, typing):
    before = termios.tcgetattr(typing)
    raw = f"import os, signal; os.system('stty raw -echo < {os.ttyname(typing)}')"
    editor(f"{raw}; os.kill(os.getpid(), signal.SIGKILL)")
    assert after("/edit") == []
    assert termios.tcgetattr(typing) == before


def test_an_editor_needs_a_terminal(capsys):
    emulator = ScriptedEmulator()
    Chat(emulator, Conversation(emulator.deltas)).handle("/edit abc")
    assert capsys.readouterr().err == (
        "edge-eft: an editor needs a terminal; @FILE puts a file into a message\n"
    )


# -- the reply -----------------------------------------------------------------------------


def test_markdown_is_for_terminals_that_can_show_it():
    assert isinstance(reply_writer(plain=False), ReplyWriter)
    with shown_on(Screen()):
        assert isinstance(reply_writer(plain=False), MarkdownWriter)
        assert isinstance(reply_writer(plain=True), ReplyWriter)
        os.environ["TERM"] = "dumb"
        assert isinstance(reply_writer(plain=False), ReplyWriter)


def test_a_plain_reply_is_raw_and_one_line_end_follows():
    for plain, shown in ((True, "**One** two.\n"), (False, "One two.\n")):
        emulator, screen = ScriptedEmulator("**One** two."), Screen()
        chat = Chat(emulator, Conversation(emulator.deltas), plain=plain)
        with shown_on(screen):
            chat.handle("hello")
        assert screen.text() == shown
        assert chat.conversation.turns[-1]["content"] == "**One** two.", "as the model said it"


def test_keys_are_not_shown_during_a_reply(typing):
    before = termios.tcgetattr(typing)
    with shown_on(Screen()), silent_keys(lambda: None):
        meanwhile = termios.tcgetattr(typing)
    assert not meanwhile[3] & termios.ECHO
    assert meanwhile[3] & termios.ISIG, "Ctrl-C works"
    assert termios.tcgetattr(typing) == before
