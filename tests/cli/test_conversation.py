"""conversation: settings are checked when they are made, and can be taken back."""

import contextlib
import json
import os
import resource
import tracemalloc
from dataclasses import replace

import pytest
from helpers.fakes import ScriptedEmulator
from hypothesis import given
from hypothesis import strategies as st

from edge_eft.cli.conversation import Conversation
from edge_eft.engine.settings import SETTINGS
from edge_eft.errors import RequestError


@pytest.fixture
def conversation():
    return Conversation(ScriptedEmulator.deltas)


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("alpha -1", "alpha is -1.0"),
        ("alpha nan", "alpha is nan"),
        ("alpha much", "alpha is 'much'; it must be a number"),
        ("top_k 1.5", "top_k is '1.5'; it must be a whole number"),
        ("top_p 0", "top_p is 0.0; it must be a number, more than 0, up to 1"),
        ("draft x", "draft is 'x'; it must be a whole number, 0 to 15, or auto"),
        ("num_ctx 99", "leave, and: edge-eft chat --continue --n-ctx N"),
        ("seed -1", "seed is -1"),
        ("mix chat", "mix is 'chat'"),
        ("mix polite=1", "no delta is named 'polite'"),
        ("alhpa 1", "did you mean alpha?"),
        ("conservative 0.9", "conservative decoding is defined for alpha 1"),
    ],
)
def test_a_wrong_setting_changes_nothing(conversation, argument, complaint):
    conversation.set("alpha 0.5")
    with pytest.raises(RequestError, match=complaint.replace("?", r"\?")):
        conversation.set(argument)
    assert conversation.settings == {"alpha": 0.5}


def test_a_setting_takes_the_place_of_those_that_it_excludes(conversation):
    for argument, said, settings in (
        ("alpha 0", "alpha is 0.0", {"alpha": 0.0}),
        ("beta 1.3", "beta is 1.3, in place of alpha", {"beta": 1.3}),
        ("mix chat=1", "mix is chat=1", {"beta": 1.3, "mix": {"chat": 1.0}}),
        ("only tuned:brief", "only is tuned:brief, in place of beta and mix", None),
        ("alpha off", "alpha is 1.0", {"only": "tuned:brief"}),
        ("alpha .5", "alpha is 0.5, in place of only", {"alpha": 0.5}),
    ):
        assert conversation.set(argument) == said
        assert settings is None or conversation.settings == settings


def test_only_names_a_role_of_the_recipe(conversation):
    assert conversation.set("only tuned:brief") == "only is tuned:brief"
    with pytest.raises(RequestError, match="no role is named 'nobody'"):
        conversation.set("only nobody")


def test_a_setting_can_be_shown_and_taken_back(conversation):
    assert conversation.set("mix chat=.7,brief=.3") == "mix is chat=0.7,brief=0.3"
    assert conversation.set("mix") == "mix is chat=0.7,brief=0.3"
    assert conversation.set("mix off") == "mix is off"
    assert conversation.set("temperature") == "temperature is 0.8"
    assert "min_p" in conversation.set("")


# -- files ---------------------------------------------------------------------------------


SAVED = {"settings": {}, "system": None, "messages": []}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a FIFO, a link to itself, and a file of 10 GB."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    os.symlink("loop", "loop")
    os.mkdir("directory")
    with open("large", "wb") as file:
        file.truncate(10 << 30)
    return tmp_path


def both_refuse(conversation, name):
    """Neither command takes the name; the conversation stays. Returns what they say."""
    conversation.say("user", "hello")
    before = replace(conversation, turns=list(conversation.turns))
    said = []
    for command in (conversation.load, conversation.save):
        with pytest.raises(RequestError) as caught:
            command(name)
        said.append(str(caught.value))
    assert conversation == before
    assert not [file for file in os.listdir() if file.startswith(".edge")]
    return said


NAMES = (
    *("fifo", "loop", "directory", "large", ".", "..", "/", "no/such", "large/x", "a" * 300),
    *("a\0b", "\ud800", "/dev/zero", "/dev/full", "/dev/null", "/proc/self/mem", "/proc/x"),
    *("~nobody-here/x", ""),
)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.timeout(20)
def test_a_name_that_is_no_file_of_its_own_loses_nothing(conversation, place, name):
    tracemalloc.start()
    said = both_refuse(conversation, name)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert "\n" not in "".join(said)
    assert os.stat("large").st_size == 10 << 30


@pytest.mark.parametrize(
    "content",
    [
        b"caf\xe9",
        b"\xff\xfe{",
        b'{"settings": {}, "system": null, "messages": ' + b"[" * 200_000,
        b'{"settings": {}, "system": "\\ud800", "messages": []}',
        b'{"settings": {}, "system": null, "messages": [{"role": "user", "content": "\\udfff"}]}',
        b'{"settings": {"stop": ["\\ud800"]}, "system": null, "messages": []}',
        b'{"settings": {"seed": ' + b"1" * 5000 + b'}, "system": null, "messages": []}',
        b'{"settings": {}, "system": null, "messages": {}}x',
    ],
    ids=range(8),
)
def test_a_file_that_is_no_saved_chat_loses_nothing(conversation, place, content):
    (place / "x").write_bytes(content)
    loading, saving = both_refuse(conversation, "x")
    assert loading == "x is not a saved chat; /save writes one"
    assert saving == "x exists and is not a saved chat; choose a new name"
    assert (place / "x").read_bytes() == content


def test_a_file_that_holds_another_conversation_is_not_overwritten(conversation, place):
    for role in ("user", "assistant", "user", "assistant"):
        conversation.say(role, "of the first")
    conversation.save("x")
    before = (place / "x").read_bytes()
    conversation.clear()
    with pytest.raises(RequestError, match="nothing is said yet"):
        conversation.save("x")
    conversation.say("user", "of the second")
    refusal = "x holds another conversation of 4 messages; choose another name, or /save! x repl"
    with pytest.raises(RequestError, match=refusal):
        conversation.save("x")
    assert (place / "x").read_bytes() == before
    assert conversation.save("x", over_another=True) == "saved 1 message to x"
    (place / "notes").write_text("mine")
    with pytest.raises(RequestError, match="is not a saved chat"):
        conversation.save("notes", over_another=True)


def test_a_conversation_is_saved_again_where_it_was_and_over_its_own_beginning(conversation, place):
    conversation.say("user", "hello")
    conversation.save("x")
    conversation.turns = [{"role": "user", "content": "said otherwise"}]
    assert conversation.save("./x") == "saved 1 message to x"
    other = Conversation(ScriptedEmulator.deltas)
    other.load("x")
    other.say("assistant", "One.")
    other.save("x")
    conversation.files.clear()
    with pytest.raises(RequestError, match="another conversation"):
        conversation.save("x")
    conversation.take_over({}, None, [*other.turns, {"role": "user", "content": "more"}])
    assert conversation.save("x") == "saved 3 messages to x"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_saved_chat_may_have_been_through_an_editor(conversation, place, encoding):
    text = json.dumps(SAVED | {"system": "Grüße"}, ensure_ascii=False, indent=1)
    (place / "x").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    conversation.load("x")
    assert conversation.system == "Grüße"


def test_a_full_disk_says_so_and_leaves_the_old_chat(conversation, place):
    conversation.say("user", "hello")
    conversation.save("x")
    before = (place / "x").read_bytes()
    conversation.say("assistant", "a" * 5000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(RequestError, match=r"^x: cannot be written \(File too large\)$"):
            conversation.save("x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (place / "x").read_bytes() == before
    assert not [file for file in os.listdir() if file.startswith(".edge")]


def test_names_of_any_characters_and_of_250_bytes_are_written(conversation, place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    conversation.say("user", "hello")
    for name in ("a" * 250, "a\u3000\u00a0b😀.json", "caf\udce9", "~/home.json"):
        conversation.save(name)
        assert conversation.load(name).startswith("loaded 1 message from ")
    assert (place / "home.json").is_file()


@given(
    st.dictionaries(
        st.sampled_from([*SETTINGS, "stop", "nope"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
            max_leaves=4,
        ),
        max_size=2,
    )
)
def test_settings_of_any_kind_are_refused_in_words(tmp_path_factory, settings):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_text(json.dumps(SAVED | {"settings": settings}))
    conversation = Conversation(ScriptedEmulator.deltas)
    with contextlib.suppress(RequestError):
        conversation.load(str(path))
        conversation.set("")
        conversation.request("hi")
