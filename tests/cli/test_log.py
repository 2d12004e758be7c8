"""`edge-eft log`: lists, shows and deletes what chats have kept."""

import json
import os
from types import SimpleNamespace

import pytest
from helpers.cli_tools import complaint, invoke
from helpers.json_keys import unseen_keys
from helpers.kept_sessions import turn, write

from edge_eft.cli import log, sessions
from edge_eft.cli.keeper import Keeper


@pytest.fixture
def two(kept):
    """Two conversations: that of the capital of Peru was used last."""
    write(kept, turn("user", "hello"), name="20261127-bbbb", when=1000)
    drawn = {"event": "reply", "after": 1}, {"event": "piece", "text": " It is\nLima."}
    peru = turn("user", "What is the\ncapital of Peru? " + "Please. " * 40)
    end = {"event": "end", "tokens": 4, "finish_reason": "stop", "drafts_tested": [1]}
    return write(kept, peru, *drawn, end, name="20261128-kqzm", when=2000)


def test_conversations_are_listed_the_last_one_first(two, monkeypatch):
    lines = [line.rstrip() for line in invoke("log").stdout.splitlines()]
    assert lines[0].split() == ["id", "used", "recipe", "messages", "begins"]
    assert lines[2].startswith("20261128-kqzm")
    assert "  atlas          2  What is the capital of Peru? Please. " in lines[2]
    assert lines[2].endswith("…")
    assert lines[3].startswith("20261127-bbbb")
    newest = invoke("logs", "-n", "1").stdout
    assert [line.rstrip() for line in newest.splitlines()] == lines[:3]
    monkeypatch.setenv("COLUMNS", "40")
    narrow = invoke("log").stdout.splitlines()
    assert max(map(len, narrow)) <= 40
    assert narrow[2].startswith("20261128-kqzm  What is the capital")


def test_a_time_that_no_calendar_has_is_shown_as_the_last_day():
    """On some file systems a clock that ran ahead leaves years that are not dates."""
    stated = SimpleNamespace(st_mtime=1e12)
    assert log._when(SimpleNamespace(stat=lambda: stated)) == "9999-12-30 00:00"


def test_a_search_lists_those_that_have_the_text(two):
    assert "20261128" in (found := invoke("log", "--search", "lima").stdout)
    assert "20261127" not in found
    result = invoke("log", "--search", "Bolivia")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no conversation has 'Bolivia'" in result.stderr


def test_one_is_shown_as_text_and_as_json_which_a_chat_loads(two, recipe, scripted, tmp_path):
    shown = invoke("log", "kq").stdout
    assert shown.startswith("20261128-kqzm · ")
    assert "\nuser\nWhat is the\ncapital of Peru? Please. " in shown
    assert shown.endswith("\nassistant\nIt is\nLima.\n")
    about = json.loads(invoke("log", "kq", "--json").stdout)
    assert {key.partition(".")[0] for key in unseen_keys("log", about)} == {"settings", "replies"}
    assert about["replies"] == [{"message": 1, "finish_reason": "stop", "tokens": 4}]
    assert about["messages"][1] == {"role": "assistant", "content": " It is\nLima."}
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps(about))
    emulator = scripted("One.")
    invoke("chat", recipe, stdin=f"/load {saved}\nmore\n")
    assert [t["content"] for t in emulator.requests[0].prompt][1:] == [" It is\nLima.", "more"]


def test_the_list_as_json_has_what_the_table_has_and_nothing_else(two):
    first, second = json.loads(invoke("log", "--json").stdout)
    assert [*first] == ["id", "begun", "used", "recipe", "n_messages", "begins", "path"]
    assert (first["id"], first["n_messages"], second["begins"]) == ("20261128-kqzm", 2, "hello")
    assert first["path"] == str(two)


def test_where_nothing_is_kept_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "none"))
    result = invoke("log")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "edge-eft: no conversation is kept; `edge-eft chat` begins one\n"
    assert invoke("log", "--json").stdout == "[]\n"


def test_those_that_are_named_are_deleted(two):
    assert "Without a terminal nothing is asked; --yes" in complaint("log", "--delete", "kq")
    assert invoke("log", "--delete", "kq", "--yes").stdout == "deleted 1 conversation\n"
    assert [path.stem for path in sessions.paths()] == ["20261127-bbbb"]
    assert "no conversation is kept as 'kq'" in complaint("log", "--delete", "kq", "--yes")


def test_all_are_deleted_but_what_a_chat_has_open(two):
    two.with_name("20261126-cccc.jsonl").write_text("not a conversation")
    with Keeper() as keeper:
        keeper.resume(two)
        result = invoke("log", "--delete", "--all", "-y")
    assert result.exit_code == 2
    assert result.stdout == "deleted 2 conversations\n"
    assert result.stderr == "edge-eft: 20261128-kqzm is open in a chat; leave that first\n"
    assert sessions.paths() == [two]


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ("--delete", "takes the ids of conversations, or --all"),
        ("--delete kq --all", "takes the ids of conversations, or --all"),
        ("--all", "go with --delete"),
        ("kq bb", "One conversation is shown at a time"),
        ("kq --search x", "One conversation is shown at a time"),
        ("nope", "no conversation is kept as 'nope'; `edge-eft log` lists them"),
        ("-n 0", "0; it must be"),
    ],
)
def test_what_does_not_go_together_is_one_line(two, words, seen):
    assert seen in complaint("log", *words.split())


def test_what_cannot_be_read_is_told_and_the_others_are_listed(two):
    two.with_name("20261126-cccc.jsonl").write_text("not a conversation")
    with open(two, "ab") as file:
        file.write(b"damaged\n")
    result = invoke("log")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4
    assert "20261126-cccc.jsonl: cannot be read (it is not a conversation" in result.stderr
    assert "1 damaged line of its file is left out" in invoke("log", "kq").stderr
    os.unlink(two)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("delete abc", "'delete' is not an ID; it is edge-eft log --delete abc"),
        ("show abc", "it is edge-eft log abc"),
        ("search two words", "it is edge-eft log --search two words"),
        ("list", "it is edge-eft log (see"),
        ("Lima", "edge-eft log --search Lima looks into their messages"),
    ],
)
def test_a_verb_in_place_of_an_id_is_told_the_line(words, meant):
    assert meant in complaint("log", *words.split())
