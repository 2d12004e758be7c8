"""`edge-eft chat`: its commands, its conversation, Ctrl-C, and the terminal."""

import json
import signal

import pytest
from helpers.cli_tools import invoke
from helpers.fakes import ScriptedEmulator

from edge_eft.cli.chat import COMMANDS, Chat
from edge_eft.cli.conversation import Conversation
from edge_eft.cli.keeper import Keeper


def chat_with(*replies, keeper=None, **options):
    emulator = ScriptedEmulator(*replies, **options)
    return Chat(emulator, Conversation(emulator.deltas), keeper)


def contents(chat):
    return [turn["content"] for turn in chat.conversation.turns]


# -- settings ------------------------------------------------------------------------------


def test_a_setting_acts_on_the_next_reply():
    chat = chat_with("One.", "Two.")
    chat.handle("/set alpha 0.8")
    chat.handle("/set max-tokens 12")
    chat.handle("hello")
    assert chat.emulator.requests[0].weights.alpha == 0.8
    assert chat.emulator.requests[0].max_tokens == 12


# -- conversation --------------------------------------------------------------------------


def test_replies_join_the_conversation_verbatim(capsys):
    chat = chat_with(" It is Paris.", "It is Rome.")
    assert chat.handle("France?")
    chat.handle("/verbose")
    assert capsys.readouterr() == ("It is Paris.\nfigures after each reply: on\n", "")
    assert chat.handle("Italy?")
    assert contents(chat) == ["France?", " It is Paris.", "Italy?", "It is Rome."]
    assert [t["role"] for t in chat.emulator.requests[1].prompt] == ["user", "assistant", "user"]
    out, err = capsys.readouterr()
    assert out == "It is Rome.\n"
    assert "3 tokens" in err
    assert "base 60%, tuned:chat 20%, combine 0%, sample 0%" in err


def test_a_system_message_goes_first_until_it_is_dropped():
    chat = chat_with("Yes.", "Yes.")
    chat.handle("/system Be brief.")
    chat.handle("one")
    chat.handle("/system off")
    chat.handle("two")
    first, second = chat.emulator.requests
    assert first.prompt[0] == {"role": "system", "content": "Be brief."}
    assert second.prompt[0]["role"] == "user"


def test_regenerate_replaces_the_last_reply(capsys):
    chat = chat_with("One.", "Another.")
    chat.handle("/regenerate")
    assert "no message to reply to" in capsys.readouterr().err
    chat.handle("hello")
    chat.handle("/regenerate")
    assert contents(chat) == ["hello", "Another."]


def test_a_conversation_that_is_full_is_told_what_forgets_it(capsys):
    """It was told to shorten a prompt of one line."""
    chat = chat_with("One.")
    chat.handle("this is too long")
    assert "/clear" not in capsys.readouterr().err, "nothing was said yet"
    chat.handle("hello")
    chat.handle("this is too long")
    assert "and 511 fit; /clear forgets what was said" in capsys.readouterr().err
    assert contents(chat) == ["hello", "One."]


def test_a_full_conversation_that_is_kept_is_told_how_to_go_on_with_more_room(kept, capsys):
    chat = chat_with("One.", keeper=Keeper())
    chat.handle("hello")
    chat.handle("this is too long")
    assert ", edge-eft chat --continue --n-ctx 1024 goes on with" in capsys.readouterr().err


def test_clear_keeps_the_settings():
    chat = chat_with("One.")
    chat.handle("/set top_k 5")
    chat.handle("hello")
    chat.handle("/clear")
    assert contents(chat) == []
    assert chat.conversation.settings == {"top_k": 5}


def test_a_saved_conversation_comes_back(tmp_path):
    chat = chat_with("One.")
    for entry in ("/set mix chat=1,brief=.5", "/system S", "hello", f"/save {tmp_path}/c.json"):
        chat.handle(entry)
    other = chat_with("Two.")
    other.handle(f"/load {tmp_path}/c.json")
    assert other.conversation == chat.conversation
    assert [file.name for file in tmp_path.iterdir()] == ["c.json"]
    other.handle("again")
    other.handle(f"/save {tmp_path}/c.json")
    assert len(json.loads((tmp_path / "c.json").read_text())["messages"]) == 4


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", '{"messages": []}', "[" * 100_000])
def test_what_is_not_a_saved_chat_is_neither_loaded_nor_overwritten(tmp_path, capsys, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    chat = chat_with("One.")
    chat.handle("hello")
    chat.handle(f"/load {path}")
    chat.handle(f"/save {path}")
    err = capsys.readouterr().err
    assert f"{path} is not a saved chat; /save writes one" in err
    assert f"{path} exists and is not a saved chat" in err
    assert path.read_text() == text
    assert contents(chat) == ["hello", "One."]


def test_loading_checks_the_settings(tmp_path, capsys):
    path = tmp_path / "c.json"
    path.write_text('{"settings": {"alpha": -1}, "system": null, "messages": []}')
    chat = chat_with()
    chat.handle(f"/load {path}")
    chat.handle("/load")
    chat.handle(f"/load {tmp_path}/none.json")
    err = capsys.readouterr().err
    assert "alpha is -1" in err
    assert "/load needs a file" in err
    assert "none.json: cannot be read (No such file or directory)" in err
    assert chat.conversation.settings == {}


# -- commands ------------------------------------------------------------------------------


def test_an_unknown_command_is_named_and_a_leading_space_makes_it_text(capsys):
    chat = chat_with("A file.")
    assert chat.handle("/hlep")
    assert "there is no command '/hlep' (did you mean /help?)" in capsys.readouterr().err
    assert chat.handle(" /etc/passwd is what?")
    assert contents(chat) == ["/etc/passwd is what?", "A file."]


def test_help_names_every_command(capsys):
    chat = chat_with()
    chat.handle("/help")
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
    assert not chat.handle("/bye")


def test_compare_shows_three_answers_and_leaves_the_conversation_alone(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    chat = chat_with("Kept.", "from base", "from tuned", "from all", "b", "t", "a")
    chat.handle("/compare")
    assert "no message yet" in capsys.readouterr().err
    chat.handle("hello")
    capsys.readouterr()
    chat.handle("/compare")
    assert "from base" in (out := capsys.readouterr().out)
    assert "from all" in out
    roles = [request.weights.role for request in chat.emulator.requests[1:]]
    assert roles == ["base", "tuned:chat", None]
    assert len({request.seed for request in chat.emulator.requests[1:]}) == 1
    chat.handle("/compare something else")
    assert chat.emulator.requests[-1].prompt[-1]["content"] == "something else"
    assert contents(chat) == ["hello", "Kept."]


def test_stats_show_replies_tokens_and_shares_of_time(capsys):
    chat = chat_with("One two.")
    chat.handle("hello")
    chat.handle("/stats")
    out = capsys.readouterr().out
    assert "1 reply, 2 tokens" in out
    assert "7 of 512 tokens" in out
    assert "0.90 s, 60%" in out


# -- what goes wrong -----------------------------------------------------------------------


def test_a_message_that_does_not_fit_is_taken_back(capsys):
    chat = chat_with("Fine.")
    assert chat.handle("this is too long")
    assert "edge-eft: the prompt is 600 tokens" in capsys.readouterr().err
    chat.handle("short")
    assert contents(chat) == ["short", "Fine."]


def test_a_reply_that_breaks_off_is_kept(capsys):
    chat = chat_with("One two three.", fail_at=2)
    assert chat.handle("hello")
    assert contents(chat) == ["hello", "One two"]
    assert "base gave NaN" in capsys.readouterr().err


def test_an_empty_reply_leaves_no_trace():
    chat = chat_with("")
    assert chat.handle("hello")
    assert contents(chat) == []


def test_terminal_sequences_of_a_model_do_not_reach_the_terminal(capsys):
    chat = chat_with("red \x1b[31mtext\x1b]0;title\x07 \x9b2J end")
    chat.handle("hello")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "title" not in out


def test_ctrl_c_keeps_the_partial_reply_and_the_chat(capsys):
    handler = signal.getsignal(signal.SIGINT)
    chat = chat_with("One two three.", "More.", press_at=2)
    assert chat.handle("hello")
    assert contents(chat) == ["hello", "One two"]
    assert "stopped" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler
    assert not chat.emulator.interrupted.is_set()
    chat.emulator.press_at = None
    chat.handle("go on")
    assert contents(chat)[2:] == ["go on", "More."]


def test_a_second_ctrl_c_leaves():
    chat = chat_with("One two three.", press_at=2, presses=2)
    assert not chat.handle("hello")
    assert contents(chat) == ["hello", "One two"]


def test_ctrl_c_before_the_reply_begins_stops_it_too(monkeypatch, capsys):
    """Between the prompt and the first decode it is a KeyboardInterrupt, which ended the chat."""
    chat = chat_with("One.")
    with monkeypatch.context() as patch:
        patch.setattr(Conversation, "request", lambda _: signal.raise_signal(signal.SIGINT))
        assert chat.handle("hello")
    assert contents(chat) == []
    assert "stopped" in capsys.readouterr().err
    assert chat.handle("hello")
    assert contents(chat) == ["hello", "One."]


def test_ctrl_c_before_the_first_token_leaves_no_half_turn():
    chat = chat_with("One.", press_at=0)
    assert chat.handle("hello")
    assert contents(chat) == []


# -- the terminal --------------------------------------------------------------------------


def test_chat_reads_plain_lines_from_a_pipe_and_writes_no_history(small, tmp_path):
    lines = '/set alpha 0.5\n/set alpha -3\n"""\nSay\nhello.\n"""\n/nope\n/stats\n/bye\nnot read\n'
    result = invoke(
        "chat",
        small,
        *("--max-tokens", "4", "--seed", "4"),
        stdin=lines,
        environment={"EDGE_EFT_HOME": str(tmp_path)},
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("alpha is 0.5\n")
    assert "1 reply" in result.stdout
    assert "edge-eft: alpha is -3.0" in result.stderr
    assert "no command '/nope'" in result.stderr
    assert "cut at max_tokens (4)" in result.stderr
    assert "tokens/s" not in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["sessions"], "and no history"


def chat_lines(recipe, scripted, data, *replies):
    """What a chat over these bytes from a pipe is asked, and its result."""
    emulator = scripted(*replies)
    result = invoke("chat", recipe, stdin=data)
    return [request.prompt[-1]["content"] for request in emulator.requests], result


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_piped_lines_end_as_windows_ends_them_too(recipe, scripted, encoding):
    data = 'Grüße\r\n/set alpha 0.5\r\n"""\r\na\r\nb\r\n"""\r\n'.encode(encoding)
    asked, result = chat_lines(recipe, scripted, data, "One.", "Two.")
    assert asked == ["Grüße", "a\nb"]
    assert result.stdout == "One.\nalpha is 0.5\nTwo.\n"


def test_a_piped_line_that_is_not_text_ends_the_chat_in_one_line(recipe, scripted):
    asked, result = chat_lines(recipe, scripted, b"one\ncaf\xe9\n", "One.")
    assert asked == ["one"]
    assert result.exit_code == 2
    assert "edge-eft: a line on stdin is not UTF-8; convert it" in result.stderr.splitlines()[-1]
