"""`chat --continue`: the conversation, its recipe and its settings are those that were left."""

import os
import re
import signal
import sys

import pytest
from helpers.cli_tools import complaint, invoke
from helpers.recipe_files import write_recipe
from helpers.tmux import Tmux

from edge_eft.cli import sessions
from edge_eft.cli.keeper import Keeper


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def chat(recipe, scripted):
    """Chat with scripted replies. Returns the emulator, which has the requests, and the result."""

    def run(*words, say="hello\n", replies=("One.", "Two.")):
        emulator = scripted(*replies)
        result = invoke("chat", *words, stdin=say)
        assert result.exit_code == 0, result.output
        return emulator, result

    return run


def asked(emulator, i=-1):
    return [turn["content"] for turn in emulator.requests[i].prompt]


def test_the_last_chat_goes_on_with_its_recipe_settings_and_system(chat, recipe):
    chat(recipe, "--temperature", "0", "--system", "S", say="hello\n/set alpha=0.5\n")
    emulator, result = chat("--continue", say="more\n")
    assert asked(emulator) == ["S", "hello", "One.", "more"]
    assert emulator.requests[-1].temperature == 0
    assert emulator.requests[-1].weights.alpha == 0.5
    (path,) = sessions.paths()
    told = "2 messages, temperature 0.0, alpha 0.5, a system message"
    assert f"{path.stem} goes on with family: {told}\n" in result.stderr
    assert "› hello\nOne.\n" in result.stderr
    assert "hello" not in result.stdout
    assert len(sessions.read(path).turns) == 4


def test_options_go_over_what_was_kept(chat, recipe):
    chat(recipe, "--temperature", "0", "--top-k", "3", "--system", "S")
    emulator, _ = chat("-c", "--temperature", "0.7", "--system", "T", say="more\n")
    assert emulator.requests[-1].temperature == 0.7
    assert emulator.requests[-1].top_k == 3
    assert asked(emulator)[0] == "T"
    session = sessions.read(sessions.paths()[0])
    assert (session.settings["temperature"], session.system) == (0.7, "T")


def test_a_configured_default_does_not_go_over_what_was_kept(chat, recipe, monkeypatch):
    chat(recipe, "--temperature", "0", "--system", "S")
    for name, value in {
        "TEMPERATURE": ".7",
        "TOP_K": "3",
        "SYSTEM": "T",
        "RECIPE": "atlas",
    }.items():
        monkeypatch.setenv(f"EDGE_EFT_{name}", value)
    emulator, _ = chat("-c", say="more\n")
    assert emulator.requests[-1].temperature == 0
    assert emulator.requests[-1].top_k == 3
    assert asked(emulator)[0] == "S"


def test_an_id_picks_one_and_a_recipe_before_it_is_what_it_goes_on_with(chat, recipe, tmp_path):
    other = write_recipe(tmp_path / "other.toml", tmp_path / "none.gguf")
    chat(recipe, say="first\n")
    (first,) = sessions.paths()
    chat(other, say="second\n")
    # Ids end in random letters: as many of them as tell the two apart.
    ids = [first.stem, *({path.stem for path in sessions.paths()} - {first.stem})]
    short = next(ids[0][:n] for n in range(1, 99) if not ids[1].startswith(ids[0][:n]))
    emulator, _ = chat("--continue", short, say="more\n")
    assert asked(emulator)[0] == "first"
    os.utime(first, (1, 1))
    emulator, _ = chat("--continue", say="more\n")
    assert asked(emulator)[0] == "second", "alone: the last one"
    os.utime(first, (1, 1))
    emulator, _ = chat(recipe, "--continue", say="more\n")
    assert asked(emulator)[0] == "first", "with a recipe: the last one with it"
    emulator, result = chat(other, "--continue", first.stem, say="more\n")
    assert asked(emulator)[0] == "first"
    assert "goes on with other (it was with family): 6 messages" in result.stderr
    assert sessions.read(first).recipe == "other"


def test_models_named_by_files_are_found_from_another_directory(
    chat, tiny, tmp_path, monkeypatch, scripted
):
    monkeypatch.chdir(tiny.base.parent)
    files = [f"--{role}={getattr(tiny, role).name}" for role in ("base", "tuned", "reference")]
    chat(*files, "--prompt", "plain", "--n-ctx", "99", "--threads", "1")
    session = sessions.read(sessions.paths()[0])
    assert session.models["base"] == str(tiny.base)
    assert "threads" not in session.models, "another machine has others"
    monkeypatch.chdir(tmp_path)
    emulator, _ = chat("--continue", say="more\n")
    assert emulator.recipe.base.file == tiny.base
    assert emulator.options["n_ctx"] == 99
    assert len(asked(emulator)) == 3
    emulator, _ = chat("--continue", "--n-ctx", "64", say="more\n")
    assert emulator.options["n_ctx"] == 64


def test_what_cannot_go_on_is_one_line(chat, recipe, tmp_path):
    assert "no conversation is kept; leave out --continue" in complaint("chat", "--continue")
    gone = write_recipe(tmp_path / "gone.toml", tmp_path / "none.gguf")
    chat(gone)
    (path,) = sessions.paths()
    os.unlink(gone)
    line = complaint("chat", "--continue")
    assert f"{path.stem} was with gone: " in line
    assert f"edge-eft chat RECIPE --continue {path.stem} takes another" in line
    assert "no conversation with" in complaint("chat", recipe, "--continue")
    assert "no conversation is kept as 'zzzzz'" in complaint("chat", "--continue", "zzzzz")
    line = complaint("chat", "--continue", "atlas")
    assert "a recipe comes first: edge-eft chat atlas --continue" in line
    path.write_text("no JSON")
    assert "is not a conversation" in complaint("chat", "--continue", path.stem)


def test_settings_that_do_not_suit_another_recipe_are_one_line(chat, recipe, installed):
    chat(recipe, "--mix", "chat=.5")
    (path,) = sessions.paths()
    line = complaint("chat", "family", "--beta", "1.1", "--alpha", "0.5", "--continue", path.stem)
    assert "exclude each other" in line


def test_a_recipe_of_ones_own_is_found_by_its_name(chat, pull):
    pull("mine")
    chat("mine")
    assert sessions.read(sessions.paths()[0]).models == {"recipe": "mine"}
    emulator, _ = chat("--continue", say="more\n")
    assert emulator.recipe.name == "mine"
    pull("mine-8b")
    chat("Mine:8B", say="as others write it\n")
    emulator, _ = chat("--continue", say="more\n")
    assert emulator.recipe.name == "mine-8b"


def test_with_no_log_a_chat_goes_on_and_leaves_no_trace(chat, recipe):
    chat(recipe)
    (path,) = sessions.paths()
    before = path.read_bytes()
    emulator, _ = chat("--continue", "--no-log", say="more\n")
    assert len(asked(emulator)) == 3
    chat(recipe, "--no-log")
    assert sessions.paths() == [path]
    assert path.read_bytes() == before


def test_a_chat_that_is_open_elsewhere_is_copied(chat, recipe):
    chat(recipe)
    (path,) = sessions.paths()
    with Keeper() as keeper:
        keeper.resume(path)
        _, result = chat("--continue", say="more\n")
    assert "is open in another chat; this one goes on with a copy" in result.stderr
    assert sorted(len(sessions.read(path).turns) for path in sessions.paths()) == [2, 4]


def test_a_long_reply_is_shown_in_part(chat, recipe):
    chat(recipe, replies=("word " * 1000,))
    _, result = chat("--continue", say="")
    assert 500 < len(result.stderr) < 1100
    assert "word …" in result.stderr


@pytest.mark.slow
def test_a_chat_killed_in_mid_reply_goes_on_where_it_was(smollm2_trio, home):
    roles = ("base", "tuned", "reference")
    files = [f"--{role}={path}" for role, path in zip(roles, smollm2_trio, strict=True)]
    chat, environment = [sys.executable, "-m", "edge_eft", "chat"], {"EDGE_EFT_HOME": str(home)}
    words = [*chat, *files, "--format", "plain", "--alpha", "0", "--temperature", "0"]
    with Tmux(words, environment=environment) as terminal:
        terminal.wait_for("›", 60)
        terminal.type("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,")
        shown = terminal.wait_until(re.compile(r"14, .*\b40,", re.DOTALL).search, 60)
        terminal.kill()
        assert terminal.exit_status() == 128 + signal.SIGKILL
    (path,) = sessions.paths()
    session = sessions.read(path)
    assert session.cut
    seen = re.findall(r"\d+", shown.partition("12, 13,\n")[2])
    said = re.findall(r"\d+", session.turns[-1]["content"])
    assert said[0] == seen[0] == "14"
    assert len(said) > len(seen) - 12, "some words are lost at most"
    with Tmux([*chat, "--continue", "--max-tokens", "8"], environment=environment) as terminal:
        shown = terminal.wait_for("›", 60)
        assert re.search("goes on with .*: 2 messages", shown)
        assert "this reply was cut off; /regenerate draws it anew" in shown
        terminal.type("/regenerate")
        terminal.wait_until(lambda shown: "cut at max_tokens" in shown and shown.endswith("›"), 60)
        terminal.type("exit")
        assert terminal.exit_status() == 0
        shown = terminal.text()
    assert f"kept as {path.stem}: edge-eft chat --continue goes on with it" in shown
    assert len(sessions.read(path).turns) == 2
    assert not sessions.read(path).cut
