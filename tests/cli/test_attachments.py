"""Files in a message: what an @ puts in, what stays a word, and what is refused."""

import os

import pytest
from helpers.fakes import ScriptedEmulator

from edge_eft.cli.attachments import put_in, unmet
from edge_eft.cli.chat import Chat
from edge_eft.cli.conversation import Conversation
from edge_eft.errors import RequestError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "notes.txt").write_bytes("Grüße\r\nzwei\n".encode())
    (tmp_path / "my notes.txt").write_text("mine")
    (tmp_path / "src").mkdir()
    return tmp_path


def test_a_file_is_put_in_with_its_name():
    assert put_in("Sum up @notes.txt, please.") == (
        "Sum up notes.txt, please.\n\nnotes.txt:\n```\nGrüße\nzwei\n```",
        [("notes.txt", 11)],
    )


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ('@"my notes.txt"', "my notes.txt"),
        ("@'my notes.txt'", "my notes.txt"),
        ("@~/notes.txt", "~/notes.txt"),
        ("@./src/../notes.txt?!", "./src/../notes.txt"),
    ],
)
def test_names_may_have_blanks_a_home_and_what_follows_in_a_sentence(word, name):
    text, attached = put_in(f"What is {word}")
    assert [file.name for file in attached] == [name]
    assert text.startswith(f"What is {name}")


def test_a_file_that_is_named_twice_is_put_in_once():
    text, attached = put_in('@notes.txt and @notes.txt, and @"my notes.txt"')
    assert [file.name for file in attached] == ["notes.txt", "my notes.txt"]
    assert text.count("Grüße") == 1


@pytest.mark.parametrize(
    "text",
    [
        "me@notes.txt",
        "@nobody says @ and @@notes.txt",
        '@"no such file" @\'',
        "@src is a directory, @src/ too",
        "@nobody/notes.txt @~nobody/x",
        "@" + "x" * 5000,
        "@\x00 @\ud800",
        "",
    ],
)
def test_what_names_no_file_stays_text(text):
    assert put_in(text) == (text, [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("@nofile.txt, hello", ["no file nofile.txt here; @nofile.txt is sent as text"]),
        ("@a/b and @a/b", ["no file a/b here; @a/b is sent as text"]),
        ('@"my note.txt"', ["no file my note.txt here; @my note.txt is sent as text"]),
        ("see @src/.", ["src/ is a directory; @ takes a file; @src/ is sent as text"]),
        ("me@nofile.txt @nobody says @ and @@x.y @you. @notes.txt, @\x00 @\ud800", []),
    ],
)
def test_a_word_that_looks_like_a_path_and_is_none_is_told(text, told):
    assert unmet(text) == told


def test_a_fence_is_longer_than_any_in_the_text(folder):
    (folder / "a.md").write_text("```python\nx\n````\n")
    assert put_in("@a.md")[0] == "a.md\n\na.md:\n`````\n```python\nx\n````\n`````"
    (folder / "a.md").write_text("")
    assert put_in("@a.md")[0] == "a.md\n\na.md:\n```\n\n```"


@pytest.mark.parametrize(
    ("data", "about"),
    [
        (b"caf\xe9", "is not UTF-8 text; convert it"),
        (b"\x00\x01", "is not UTF-8 text"),
        (b"GGUF" + bytes(2 << 20), "is a GGUF model"),
        (b"x" * ((1 << 20) + 1), "cannot be put in (it is larger than 1 MiB)"),
    ],
)
def test_what_is_not_a_text_that_fits_is_refused(folder, data, about):
    (folder / "a").write_bytes(data)
    with pytest.raises(RequestError) as raised:
        put_in("hello @a")
    assert str(raised.value).startswith(f"a {about}")


def test_what_has_no_end_is_refused(folder):
    os.mkfifo(folder / "pipe")
    for name in ("pipe", "/dev/zero"):
        with pytest.raises(RequestError, match=r"cannot be put in \(it is not an ordinary file"):
            put_in(f"@{name}")


def test_chat_says_what_it_puts_in_and_keeps_what_it_sent(folder, capsys):
    emulator = ScriptedEmulator("A list.")
    chat = Chat(emulator, Conversation(emulator.deltas))
    (folder / "n\x1b[2J\u202e.txt").write_text("text")
    assert chat.handle("What is @n\x1b[2J\u202e.txt and @notes.txt?")
    err = capsys.readouterr().err
    assert err.startswith(
        "n.txt is put into the message: 4 characters\n"
        "notes.txt is put into the message: 11 characters\n"
    )
    assert "Grüße" in emulator.requests[0].prompt[-1]["content"]
    (folder / "a").write_bytes(b"\xff")
    assert chat.handle("@a @no\x1b[2J.txt")
    assert len(chat.conversation.turns) == 2
    assert "edge-eft: a is not UTF-8" in capsys.readouterr().err
    emulator.replies.append("None.")
    chat.handle("@no\x1b[2J.txt")
    assert capsys.readouterr().err == "no file no.txt here; @no.txt is sent as text\n"
