"""keeper: whatever happens to a chat, its file says what was said."""

import os
import random
import resource
import stat
from pathlib import Path

import pytest
from helpers.fakes import ScriptedEmulator

from edge_eft.cli import sessions
from edge_eft.cli.chat import Chat
from edge_eft.cli.conversation import Conversation
from edge_eft.cli.keeper import Keeper, delete
from edge_eft.errors import SessionError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def kept_chat(*replies, **options):
    """A chat of its own, whose conversation is kept."""
    emulator = ScriptedEmulator(*replies, **options)
    keeper = Keeper()
    keeper.recipe, keeper.models = "scripted", {"recipe": "scripted"}
    return Chat(emulator, Conversation(emulator.deltas), keeper)


def say(chat, *entries):
    for entry in entries:
        assert chat.handle(entry)
    return chat


def on_disk():
    """What can be read of the one conversation that is kept."""
    (path,) = sessions.paths()
    return sessions.read(path)


def same(session, conversation):
    said = [{"role": turn["role"], "content": turn["content"]} for turn in session.turns]
    return (said, session.system) == (conversation.turns, conversation.system)


# -- what is written -----------------------------------------------------------------------


def test_everything_that_changes_a_conversation_is_read_back(home):
    """At any moment, since nobody knows when the chat is killed."""
    draw = random.Random(1)
    entries = ("hello", "hello", "/regenerate", "/set alpha=0.5", "/set stop x", "/alpha off")
    entries += ("/system Be brief.", "/system off", "/mix chat=.5", "/nope", "this is too long")
    for _ in range(10):
        replies = [draw.choice((" One. Two.", "", "Three")) for _ in range(20)]
        chat = kept_chat(*replies)
        for entry in draw.choices(entries, k=20):
            say(chat, entry)
            if chat.keeper.id:
                session = on_disk()
                assert same(session, chat.conversation), entry
                settings = {k: v for k, v in chat.conversation.settings.items() if k != "stop"}
                stop = list(chat.conversation.settings.get("stop", []))
                assert session.settings == settings | ({"stop": stop} if stop else {})
                assert not session.n_damaged
                assert not session.cut
        chat.keeper.leave()
        for path in sessions.paths():
            delete(path)


def test_a_message_is_on_disk_before_its_reply_and_each_word_as_it_comes(home):
    seen = []

    class Watched(ScriptedEmulator):
        def stream(self, request):
            for step in super().stream(request):
                seen.append([turn["content"] for turn in on_disk().turns])
                yield step

    chat = kept_chat()
    chat.emulator = Watched("One two", "Three")
    say(chat, "hello", "/regenerate")
    assert seen[0] == ["hello"]
    assert seen[2] == ["hello", "One two"] or seen[2] == ["hello", "One"]
    assert seen[3] == ["hello", "One two"], "until the new one begins, the old reply stays"
    assert [turn["content"] for turn in on_disk().turns] == ["hello", "Three"]


def test_words_that_come_fast_are_written_together(home):
    chat = say(kept_chat("w " * 2000), "hello")
    lines = sessions.paths()[0].read_bytes().count(b'"piece"')
    assert 1 <= lines < 1000
    assert same(on_disk(), chat.conversation)


def test_figures_stand_with_the_reply_that_they_are_of(home):
    chat = say(kept_chat("One two.", "Other."), "hello", "/regenerate")
    assert on_disk().figures[1]["tokens"] == 1
    assert on_disk().figures[1]["finish_reason"] == "stop"
    assert [*on_disk().figures] == [1]
    assert chat.keeper.id == on_disk().id


def test_without_a_message_that_is_kept_there_is_no_file(home):
    chat = say(kept_chat("", "One."), "/set alpha 0.5", "/system S")
    assert not home.exists()
    say(chat, "this is too long", "no reply comes")
    chat.keeper.leave()
    assert sessions.paths() == []
    say(chat, "hello")
    chat.keeper.leave()
    assert (on_disk().settings, on_disk().system) == ({"alpha": 0.5}, "S")


def test_a_cleared_or_loaded_conversation_is_another(home, tmp_path):
    chat = say(kept_chat("One.", "Two.", "Three."), "a", f"/save {tmp_path}/x", "/clear", "b")
    say(chat, f"/load {tmp_path}/x", "c")
    said = [[t["content"] for t in sessions.read(path).turns] for path in sessions.paths()]
    assert sorted(said) == [["a", "One."], ["a", "One.", "c", "Three."], ["b", "Two."]]


def test_nothing_is_kept_if_nothing_is_to_be(home):
    emulator = ScriptedEmulator("One.")
    say(Chat(emulator, Conversation(emulator.deltas), Keeper(kept=False)), "hello")
    assert not home.exists()


# -- where it is written -------------------------------------------------------------------


def test_modes_are_private_whatever_the_umask(home):
    for mask in (0, 0o277):
        before = os.umask(mask)
        try:
            say(kept_chat("One."), "hello")
        finally:
            os.umask(before)
    places = [home / "sessions", *sessions.paths()]
    assert [stat.S_IMODE(place.stat().st_mode) for place in places] == [0o700, 0o600, 0o600]
    assert stat.S_IMODE(home.stat().st_mode) & 0o077 == 0


def test_a_link_in_place_of_the_directory_is_not_followed(home, tmp_path, capsys):
    home.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (home / "sessions").symlink_to(tmp_path / "elsewhere")
    chat = say(kept_chat("One.", "Two."), "a", "b")
    err = capsys.readouterr().err
    assert err.count("not kept") == err.count("\n") == 1
    assert "it is a link" in err
    assert "EDGE_EFT_HOME names another directory" in err
    assert len(chat.conversation.turns) == 4
    assert list((tmp_path / "elsewhere").iterdir()) == []
    with pytest.raises(SessionError, match="it is a link"):
        sessions.paths()


def test_a_link_in_place_of_a_file_is_neither_read_nor_written_nor_followed(home, tmp_path):
    say(kept_chat("One."), "a").keeper.leave()
    (path,) = sessions.paths()
    target = path.rename(tmp_path / path.name)
    before = target.read_bytes()
    path.symlink_to(target)
    with pytest.raises(SessionError, match="it is a link"):
        Keeper().resume(path)
    delete(path)
    assert target.read_bytes() == before
    assert sessions.paths() == []


def test_a_place_that_cannot_be_written_is_told_once(home, capsys):
    home.write_text("a file")
    chat = say(kept_chat("One.", "Two."), "a", "b")
    assert capsys.readouterr().err.count("not kept") == 1
    assert len(chat.conversation.turns) == 4


def test_a_full_disk_is_told_once_and_what_was_written_stays(home, capsys):
    chat = say(kept_chat("One.", "Two " * 2000, "Three."), "a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        say(chat, "b", "c")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    err = capsys.readouterr().err
    assert err.count("not kept from here on: File too large") == err.count("\n") == 1
    assert len(chat.conversation.turns) == 6
    assert [turn["content"] for turn in on_disk().turns[:3]] == ["a", "One.", "b"]


def test_a_disk_without_room_for_a_first_line_has_no_file_of_it(home, capsys):
    """An empty file stood there, of which `log` said that it cannot be read."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, limits[1]))
    try:
        say(kept_chat("One."), "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "not kept from here on: File too large" in capsys.readouterr().err
    assert list((home / "sessions").iterdir()) == []


# -- going on ------------------------------------------------------------------------------


def go_on(path, *replies):
    chat = kept_chat(*replies)
    session = chat.keeper.resume(path)
    chat.conversation.take_over(session.settings, session.system, session.turns)
    return chat


def test_a_conversation_goes_on_in_its_file(home):
    say(kept_chat("One."), "a").keeper.leave()
    chat = say(go_on(sessions.paths()[0], "Two."), "b", "/set top_k 3")
    assert same(on_disk(), chat.conversation)
    assert len(chat.conversation.turns) == 4
    assert on_disk().settings == {"top_k": 3}


def test_what_another_chat_has_open_is_copied(home, capsys):
    first = say(kept_chat("One.", "Three."), "a")
    (path,) = sessions.paths()
    second = go_on(path, "Two.")
    assert f"{path.stem} is open in another chat; this one goes on with a copy" in (
        capsys.readouterr().err
    )
    say(second, "b")
    say(first, "c")
    assert first.keeper.id != second.keeper.id
    for chat in (first, second):
        file = path.with_name(f"{chat.keeper.id}.jsonl")
        assert same(sessions.read(file), chat.conversation)
        with pytest.raises(SessionError, match="is open in a chat; leave that first"):
            delete(file)
    assert len(sessions.paths()) == 2


def test_a_torn_file_is_read_as_far_as_it_goes_and_goes_on(home):
    """100 of the places where a killed process may have stopped."""
    entries = ("a", "/set alpha=0.5", "b", "/regenerate", "/system S")
    say(kept_chat("One two.", "Three.", "Four."), *entries).keeper.leave()
    (path,) = sessions.paths()
    whole, first = path.read_bytes(), path.read_bytes().index(b"\n")
    kept_turns = sessions.read(path).turns
    draw = random.Random(2)
    for n in [*(draw.randrange(len(whole)) for _ in range(97)), 0, first, len(whole) - 1]:
        path.write_bytes(whole[:n])
        if n < first:
            with pytest.raises(SessionError, match="is not a conversation"):
                Keeper().resume(path)
            continue
        session = sessions.read(path)
        assert not session.n_damaged
        assert [turn["role"] for turn in session.turns] == ["user", "assistant"] * 2 or (
            len(session.turns) < 4
        )
        said = [turn["content"] for turn in session.turns]
        known = zip(said, ["a", "One two."], strict=False)
        assert all(whole_text.startswith(text) for text, whole_text in known)
        chat = say(go_on(path, "Five."), "c")
        assert same(sessions.read(path), chat.conversation), n
        assert sessions.read(path).n_damaged <= 1
        chat.keeper.leave()
    assert kept_turns[2:] == [
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "Four."},
    ]


def test_a_reply_that_was_cut_off_is_kept_and_can_be_drawn_anew(home):
    say(kept_chat("One."), "a").keeper.leave()
    (path,) = sessions.paths()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))  # without its end
    assert on_disk().cut
    assert [turn["content"] for turn in on_disk().turns] == ["a", "One."]
    chat = say(go_on(path, "Two."), "/regenerate")
    assert [turn["content"] for turn in chat.conversation.turns] == ["a", "Two."]
    assert not on_disk().cut
    assert same(on_disk(), chat.conversation)


def test_a_message_without_a_reply_gives_way_to_the_next(home, capsys):
    say(kept_chat("One."), "a").keeper.leave()
    (path,) = sessions.paths()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    chat = say(go_on(path, "Two."), "b")
    assert "had no reply and is left out" in capsys.readouterr().err
    assert [turn["content"] for turn in chat.conversation.turns] == ["b", "Two."]
    assert same(on_disk(), chat.conversation)


def test_settings_of_another_recipe_change_nothing(home, capsys):
    say(kept_chat("One."), "a", "/mix brief=1").keeper.leave()
    (path,) = sessions.paths()
    chat = kept_chat("Two.")
    chat.conversation.deltas = {"other": 1.0}
    say(chat, f"/sessions {path.stem}")
    assert "no delta is named 'brief'" in capsys.readouterr().err
    assert chat.keeper.id is None
    assert chat.conversation.turns == []


def test_a_path_is_under_the_state_directory(home):
    say(kept_chat("One."), "a")
    (path,) = sessions.paths()
    assert path.parent == Path(home) / "sessions"
