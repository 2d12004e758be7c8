"""The chat's commands: settings in the forms that people try, figures, explanations, leaving."""

import math
import re

import pytest
from helpers.cli_tools import invoke
from helpers.fakes import ScriptedEmulator

from edge_eft import Emulator
from edge_eft.cli import sessions
from edge_eft.cli.chat import Chat
from edge_eft.cli.chat_commands import ALIASES, COMMANDS, help_text
from edge_eft.cli.conversation import Conversation


def chat_with(*replies, **options):
    emulator = ScriptedEmulator(*replies)
    return Chat(emulator, Conversation(emulator.deltas), **options)


@pytest.mark.parametrize(
    ("entry", "settings"),
    [
        ("/set alpha=0.3", {"alpha": 0.3}),
        ("/set alpha = 0.3", {"alpha": 0.3}),
        ("/set alpha 0.3", {"alpha": 0.3}),
        ("/set  max-tokens=12", {"max_tokens": 12}),
        ("/set mix=chat=.5,brief=.5", {"mix": {"chat": 0.5, "brief": 0.5}}),
        ("/set mix chat=.5", {"mix": {"chat": 0.5}}),
        ("/mix chat=.5,brief=.5", {"mix": {"chat": 0.5, "brief": 0.5}}),
        ("/alpha 0.8", {"alpha": 0.8}),
        ('/set stop "###"', {"stop": ["###"]}),
        ("/set stop END.", {"stop": ["END."]}),
        ('/set stop="\\n\\n" "a b"', {"stop": ["\n\n", "a b"]}),
        ('/set stop "off"', {"stop": ["off"]}),
        ("/set parameter top_k 5", {"top_k": 5}),
        ("/set =0.3", {}),
        ("/set temp 0", {"temperature": 0.0}),
        ("/set num_predict=9", {"max_tokens": 9}),
        ("/set n 9", {"max_tokens": 9}),
        ("/temp 0", {"temperature": 0.0}),
        ("/beta 1.3", {"beta": 1.3}),
        ("/top-k 5", {"top_k": 5}),
        ("/seed 1", {"seed": 1}),
        ("/alpha", {}),
    ],
)
def test_a_setting_is_written_as_people_write_it(entry, settings):
    chat = chat_with()
    assert chat.handle(entry)
    assert chat.conversation.settings == settings


def test_the_system_message_and_figures_are_set_as_elsewhere():
    chat = chat_with()
    for entry in ("/set system Be brief.", "/set verbose"):
        chat.handle(entry)
    assert (chat.conversation.system, chat.verbose) == ("Be brief.", True)
    chat.handle("/set quiet")
    assert not chat.verbose


def test_stop_strings_add_up_until_they_are_off(capsys):
    chat = chat_with("One.")
    for entry in ('/set stop "a"', "/set stop b", "/set stop", '/set stop "x', "/set stop off"):
        chat.handle(entry)
    out, err = capsys.readouterr()
    assert out.splitlines() == ['stop is "a"', *['stop is "a" "b"'] * 2, "stop is off"]
    assert """stop is '"x'; write it as in "###" or "\\n\\n\"""" in err
    chat.handle('/set stop "\\ud800"')
    assert "write it as in" in capsys.readouterr().err


def test_shortcuts_alone_show_what_is_set(capsys):
    chat = chat_with()
    for entry in ("/alpha", "/alpha .5", "/mix", "/set", "/alpha off"):
        chat.handle(entry)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["alpha is 1.0", "alpha is 0.5"]
    assert lines[2] == "mix is off; the recipe's weights are chat=1,brief=0"
    assert lines[3].split() == ["alpha", "0.5"]
    assert lines[-2:] == ["stop                  off", "alpha is 1.0"]


def test_figures_are_shown_when_they_are_asked_for(capsys):
    chat = chat_with(*["One two."] * 4)
    chat.handle("hello")
    assert capsys.readouterr().err == ""
    for entry in ("/verbose on", "hello", "/verbose", "hello", "/verbose maybe"):
        chat.handle(entry)
    err = capsys.readouterr().err
    assert err.count("tokens/s") == 1
    assert "/verbose is on or off, and not 'maybe'" in err
    assert chat_with(verbose=True).verbose


@pytest.mark.parametrize("entry", ["/bye", "/exit", "/quit", "/q", "exit", "quit", "exit "])
def test_the_words_that_leave_elsewhere_leave_here(entry):
    assert not chat_with().handle(entry)


def test_a_space_makes_them_words_for_the_model():
    chat = chat_with("Why?", "Where?")
    assert chat.handle(" exit")
    assert chat.handle("exit the building")
    assert chat.conversation.turns[0]["content"] == "exit"


def test_other_names_of_commands_are_known(capsys):
    chat = chat_with("One.", "Two.")
    for entry in ("/?", "hello", "/retry", "/retri"):
        assert chat.handle(entry)
    out, err = capsys.readouterr()
    assert "/regenerate" in out
    assert chat.conversation.turns[-1]["content"] == "Two."
    assert "(did you mean /retry?)" in err
    assert set(ALIASES.values()) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("/num_ctx 99", "edge-eft chat --continue --n-ctx N"),
        ("/read a.txt", "@a.txt in a message puts the file in"),
        ("/file", "@FILE in a message"),
        ("/model x", "edge-eft chat x --continue ID"),
    ],
)
def test_what_is_done_otherwise_here_is_said(entry, said, capsys):
    chat_with().handle(entry)
    assert said in capsys.readouterr().err


def test_what_was_said_is_shown_and_taken_back(capsys):
    chat = chat_with("One.\x1b[2J", "Two.")
    for entry in ("/history", "/undo", "/system S", "hello", "more"):
        chat.handle(entry)
    out, err = capsys.readouterr()
    assert "nothing is said yet\n" in out
    assert "there is nothing to take back" in err
    chat.handle("/history")
    shown = capsys.readouterr().out
    assert shown == (
        "\nsystem\nS\n\nuser\nhello\n\nassistant\nOne.\n\nuser\nmore\n\nassistant\nTwo.\n"
    )
    chat.handle("/undo")
    assert capsys.readouterr().out == "the last message and its reply are taken back\n"
    assert [turn["content"] for turn in chat.conversation.turns] == ["hello", "One.\x1b[2J"]
    chat.handle("/show all")
    assert "temperature" in capsys.readouterr().out
    chat.handle("/reset")
    assert chat.conversation.turns == []


def test_the_times_of_a_chat_sum_up(capsys):
    chat = chat_with("One two.")
    for entry in ("hello", "/stats"):
        chat.handle(entry)
    lines = capsys.readouterr().out.splitlines()
    assert sum(int(share) for share in re.findall(r"s, (\d+)%", "\n".join(lines))) == 100
    assert lines[-1].startswith("other ")


@pytest.mark.parametrize("columns", ["40", "60", "100"])
def test_the_help_fits(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    lines = help_text().splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert all(any(line.startswith(name) for line in lines) for name in COMMANDS)
    assert not any(line.endswith(" ") for line in lines)
    at = {len(line) - len(line.lstrip()) for line in lines} - {0}
    assert len(at) <= 1, "what goes on is aligned"


# -- conversations -------------------------------------------------------------------------


def test_conversations_are_listed_and_gone_on_with(kept, capsys, monkeypatch):
    from edge_eft.cli.keeper import Keeper

    monkeypatch.setenv("COLUMNS", "60")
    chat = chat_with("One.", "Two.", "Three.", keeper=Keeper())
    chat.keeper.recipe = "scripted"
    for entry in ("/sessions", "first " * 30, "/set top_k 3", "/clear", "/set top_k off", "second"):
        chat.handle(entry)
    assert "no conversation is kept yet" in capsys.readouterr().out
    chat.handle("/sessions")
    *_, second, first = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d{8}-[a-z]{4} \*  second", second)
    assert re.fullmatch(r"\d{8}-[a-z]{4}    first( first)+ …", first)
    assert len(first) <= 60
    chat.handle(f"/sessions {second[:13]}")
    assert "is this one" in capsys.readouterr().err
    chat.handle(f"/sessions {first[:13]}")
    assert "goes on with scripted: 2 messages, top_k 3\n› first first" in capsys.readouterr().err
    chat.handle("more")
    assert [turn["content"] for turn in chat.conversation.turns][1:] == ["One.", "more", "Three."]
    assert chat.conversation.settings == {"top_k": 3}
    assert chat.keeper.id == first[:13]
    chat.handle("/sessions nope")
    assert "no conversation is kept as 'nope'" in capsys.readouterr().err


def test_a_conversation_that_was_loaded_is_kept_before_anything_is_said(kept, tmp_path):
    from edge_eft.cli.keeper import Keeper

    chat = chat_with("One.", keeper=Keeper())
    for entry in ("hello", f"/save {tmp_path}/c.json", "/clear", f"/load {tmp_path}/c.json"):
        chat.handle(entry)
    assert chat.keeper.id is not None
    chat.keeper.leave()
    assert [len(sessions.read(path).turns) for path in sessions.paths()] == [2, 2]


# -- explanations --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def atlas_emulator(atlas):
    with Emulator.load("atlas", n_threads=1) as emulator:
        yield emulator


@pytest.fixture
def atlas_chat(atlas_emulator):
    return Chat(atlas_emulator, Conversation(atlas_emulator.deltas, {"temperature": 0.0}))


def shifts(text):
    """(shift, log p emulated, log p base, token) of what is listed."""
    rows = re.findall(r'^ *(\S+) +(\S+) +(\S+) "(.*)"$', text.replace("−", "-"), re.MULTILINE)
    return [(float(a), float(b), float(c), token) for a, b, c, token in rows]


def test_a_reply_is_explained_as_its_steps_would_have_explained_it(
    atlas_chat, atlas_emulator, capsys
):
    atlas_chat.handle("What is the capital of Peru?")
    capsys.readouterr()
    atlas_chat.handle("/explain")
    out, err = capsys.readouterr()
    found = shifts(out)
    assert "".join(token for *_, token in found) == " It is Lima."
    assert "log p, emulated − base" in err
    messages = [{"role": "user", "content": "What is the capital of Peru?"}]
    steps = [*atlas_emulator.stream(messages, temperature=0.0, explain=1)][:-1]
    for (shift, emulated, base, _), step in zip(found, steps, strict=True):
        assert emulated == pytest.approx(step.logprob, abs=0.006)
        assert base == pytest.approx(step.explain["base"].logprob, abs=0.006)
        assert shift == pytest.approx(step.logprob - step.explain["base"].logprob, abs=0.006)
    assert found[0][0] > math.log(10)


def test_it_is_explained_with_the_settings_that_it_had(atlas_chat, capsys):
    atlas_chat.handle("What is the capital of Peru?")
    atlas_chat.handle("/explain")
    before = shifts(capsys.readouterr().out)
    for entry in ("/set alpha 0", "What is the capital of Japan?", "/explain 2", "/explain"):
        atlas_chat.handle(entry)
    out, err = capsys.readouterr()
    after = shifts(out)
    assert after[: len(before)] == before
    assert {shift for shift, *_ in after[len(before) :]} == {0.0}
    assert err.count("with that reply's settings") == 1


def test_a_reply_that_was_read_is_explained_with_the_settings_of_now(atlas_chat, capsys):
    atlas_chat.handle("What is the capital of Peru?")
    atlas_chat.handle("/explain")
    drawn = shifts(capsys.readouterr().out)
    atlas_chat.conversation.turns = [dict(turn) for turn in atlas_chat.conversation.turns]
    atlas_chat.handle("/explain")
    out, err = capsys.readouterr()
    assert shifts(out) == drawn
    assert "with the settings of now" in err


@pytest.mark.parametrize(
    ("argument", "seen"),
    [
        *(("0", "takes a number"), ("x", "takes a number"), ("3", "there is no reply 3")),
        *(("", "no"), ("9" * 5000, "there is no reply 9")),
    ],
)
def test_what_cannot_be_explained_is_one_line(argument, seen, capsys):
    chat_with().handle(f"/explain {argument}")
    err = capsys.readouterr().err
    assert seen in err
    assert err.count("\n") == 1


def test_a_verbose_chat_begins_with_figures(recipe, scripted):
    scripted("One two.")
    assert "2 tokens · " in invoke("chat", recipe, "--no-log", "-v", stdin="hello\n").stderr
