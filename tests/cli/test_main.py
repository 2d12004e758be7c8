"""main: the help, and that whatever a user gets wrong is one line and an exit status."""

import re
import signal
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.cli_tools import complaint, invoke, process
from helpers.recipe_files import write_recipe

from edge_eft.cli.terminal import one_line

# -- help ----------------------------------------------------------------------------------


def test_help_lists_the_commands_in_the_order_of_their_use():
    text = invoke().stdout
    assert text == invoke("--help").stdout
    commands = re.findall(r"^  ([a-z]+) {2,}\w", text.partition("Commands:")[2], re.MULTILINE)
    assert commands[:6] == ["demo", "run", "chat", "compare", "list", "show"]
    assert 'edge-eft run atlas "What is' in text


@pytest.mark.parametrize("command", ["demo", "run", "chat", "compare", "show", "inspect"])
def test_every_command_has_examples_and_explains_every_option(command):
    text = invoke(command, "--help").stdout
    assert f"  edge-eft {command} " in text or "  edge-eft demo\n" in text
    assert re.search(r"^  -h, --help", text, re.MULTILINE)
    assert not re.search(r"^  -\S+(, -\S+)?( [A-Z]+)?$(?!\n {10})", text, re.MULTILINE)


def test_options_are_in_groups_with_their_ranges_and_defaults():
    text = invoke("run", "--help").stdout
    groups = re.findall(r"^(\w[\w ]+):$", text.partition("Examples:")[2], re.MULTILINE)
    named = ["Prompt", "Models", "Loading", "The dials", "Sampling", "Speed", "Output", "Options"]
    assert groups == named
    told = " ".join(text.split())
    for option in (
        "-a, --alpha A Strength of the delta: 0 is the base alone. [default: 1; 0 or more]",
        "-t, --temperature T 0 always takes the likeliest token. [default: 0.8; 0 to 100]",
        "--top-p P Draw from the likeliest that sum to P. [default: 0.95; more than 0, up to 1]",
        "together. [default: 4; 1 to 64]",
    ):
        assert option in told


# -- bad usage -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ("run", "the prompt is empty; say something"),
        ("run R one two", "'two' is one word too many; quote the prompt"),
        ("run R one --input f", "'one' is a prompt, and --input has the prompts"),
        ("run --tuned t hi", "--base, --tuned and --reference go together"),
        ("run --base b --tuned t hi", "go together, without a recipe"),
        ("run --base b hi", "--base alone goes with a recipe, and 'hi' is none"),
        ("run R hi --base b --format chattml", "did you mean chatml?"),
        ("run R hi --temprature 1", "did you mean --temperature?"),
        ("run R hi --alpha -1", "--alpha is -1"),
        ("run R hi --alpha nan", "--alpha is 'nan'; it must be a number, 0 or more"),
        ("run R hi --alpha inf", "--alpha is 'inf'"),
        ("run R hi --alpha much", "--alpha is 'much'; it must be a number"),
        ("run R hi --alpha .5 --beta 2", "exclude each other"),
        ("run R hi --top-p 0", "--top-p is 0.0; it must be a number, more than 0, up to 1"),
        ("run R hi --top-p 1.5", "--top-p is 1.5"),
        ("run R hi --temperature nan", "--temperature is 'nan'"),
        ("run R hi --conservative nan", "--conservative is 'nan'"),
        ("run R hi --max-tokens 0", "--max-tokens is 0; it must be a whole number, 1 or more"),
        ("run R hi --seed -1", "--seed is -1"),
        ("run R hi --mix chat", "--mix is 'chat'; write each delta once"),
        ("run R hi --mix a=1,a=2", "write each delta once"),
        ("run R hi --raw --system S", "a raw prompt is one text"),
        ("run R hi --slots 0", "--slots is 0; it must be a whole number, 1 to 64"),
        ("run R hi --draft 16", "--draft is '16'; it must be a whole number, 0 to 15, or auto"),
        ("run nosuch", "recipe 'nosuch' is not known; `edge-eft list` shows the names"),
        ("compare R hi --only base", "--only goes with run"),
        ("chat R hello", "'hello' is one word too many"),
        ("run --base R hi", "--base takes a GGUF file, and "),
        ("run R hi --base R", "is a recipe; a recipe is named without an option"),
        ("run --base b --tuned t --reference R hi", "--reference takes a GGUF file"),
        ("run --base b", "--base alone needs a recipe"),
        ("run --base= --tuned t --reference r hi", "--base is empty"),
        ("run R hi --base b --tuned t --reference r", "take the place of a recipe"),
        ("run --base=~nobody-here/b --tuned t --reference r hi", "no home directory is known"),
        ("bench R hello", "'hello' is one word too many; no prompt goes here"),
        ("chat R --tempera 0", "there is no option --tempera; did you mean --temperature?"),
        ("run R hi --tokens 9", "there is no option --tokens; did you mean --max-tokens?"),
        ("run R hi --sed 1", "did you mean --seed"),
        ("run R hi --xyzzy", "there is no option --xyzzy (see"),
        ("frobnicate", "there is no command 'frobnicate'; there are: demo, run"),
        ("pulll qwen3-8b", "there is no command 'pulll' (did you mean pull?)"),
        ("demo R", "needs a family with held-out questions"),
        ("demo --questions 0", "--questions is 0; it must be a whole number, 1 or more"),
    ],
)
def test_bad_usage_is_one_line(recipe, arguments, seen):
    assert seen in complaint(*(recipe if a == "R" else a for a in arguments.split()), stdin="")


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (("license", "licence"), "unknown key `licence`"),
        (("reference = ", "referenec = "), "unknown key `delta.chat.referenec`"),
        (("[base]", "[bsae]"), "unknown key `bsae` (did you mean base?)"),
        (("[base]\n", "["), "is not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_one_line(recipe, change, seen):
    path = Path(recipe)
    path.write_text(path.read_text().replace(*change))
    assert seen in complaint("run", recipe, "hi")


GGUF_WITH_IMPOSSIBLE_COUNTS = b"GGUF" + struct.pack("<IQQ", 3, 2**62, 2**62) + bytes(32)


@pytest.mark.parametrize(
    "content", [None, "directory", b"", b"no model\n" * 99, GGUF_WITH_IMPOSSIBLE_COUNTS]
)
def test_a_wrong_model_file_is_one_line(tmp_path, content):
    file = tmp_path / "x.gguf"
    if content == "directory":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    assert str(file) in complaint("run", write_recipe(tmp_path / "r.toml", file), "hi")


def test_names_from_outside_cannot_steer_the_terminal():
    assert "\x1b" not in complaint("run", "\x1b[31mred", "hi")
    assert one_line("a\nb\x1b]0;title\x07c") == "a bc"


def test_ctrl_c_is_130_and_quiet(recipe, scripted):
    scripted("One two three.", press_at=2)
    result = invoke("run", recipe, "hi")
    assert (result.exit_code, result.stderr) == (130, "")


# -- on a real model -----------------------------------------------------------------------


def test_complaints_that_need_a_loaded_model_are_one_line_too(small, smollm2_path, tmp_path):
    too_long = complaint("run", small, "word " * 600)
    assert re.search(r"the prompt is \d+ tokens for base, and 511 fit", too_long)
    assert "no role is named 'nobody'" in complaint("run", small, "hi", "--only", "nobody")
    assert "no delta is named 'x'" in complaint("run", small, "hi", "--mix", "x=1")
    assert "--n-ctx is 0; it must be" in complaint("run", small, "hi", "--n-ctx", "0")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(smollm2_path.read_bytes()[:4_000_000])
    assert str(cut) in complaint("run", small, "hi", "--base", cut)
    wrong = write_recipe(tmp_path / "wrong.toml", cut)
    Path(wrong).write_text(
        Path(wrong).read_text().replace("[base]\n", f'[base]\nsha256 = "{"0" * 64}"\n')
    )
    assert "the recipe states 000000000000…" in complaint("run", wrong, "hi")


def test_models_of_two_families_are_refused(smollm2_path, tiny):
    pair = (f"--tuned={tiny.tuned}", f"--reference={tiny.reference}")
    line = complaint("run", f"--base={smollm2_path}", *pair, "--format", "plain", "hi")
    assert "have different vocabularies: token " in line


def test_what_does_not_fit_the_memory_is_refused(small, monkeypatch):
    memory = SimpleNamespace(available=9 << 20, total=9 << 30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert "and 9 MiB are free" in complaint("run", small, "hi")


def test_ctrl_c_ends_a_run_with_130(small):
    run = process("run", small, "Count to nine hundred, in words.", "--max-tokens", "400")
    assert run.stdout.read(1)
    run.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert run.wait(timeout=60) == 130
    assert time.monotonic() - begun < 20
    assert run.stderr.read() == ""


def test_a_reader_that_leaves_ends_a_run_quietly_with_141(small):
    run = process(
        "run", small, "Count to ninety, in words.", "--max-tokens", "20", "--only", "base"
    )
    assert run.stdout.read(1)
    run.stdout.close()
    assert run.wait(timeout=60) == 141
    assert run.stderr.read() == ""


# -- one thing is not called by two names ---------------------------------------------------


def test_what_a_refusal_says_to_do_is_not_refused_next(recipe, smollm2_path):
    """A model was no TOML file, and a TOML file no model, whatever was tried."""
    line = complaint("run", smollm2_path, "hi")
    assert "is one GGUF file, and a recipe names three: edge-eft run --base" in line
    line = complaint("run", "--base", recipe, "hi")
    assert "is a recipe; a recipe is named without an option, before the prompt" in line
    assert "name one before the prompt, or add --tuned" in complaint("run", "--base", "b", "hi")


def test_a_working_directory_that_is_gone_is_one_line(recipe, scripted, tmp_path, monkeypatch):
    scripted("a")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for words in (["r.toml"], [recipe, "--base", "x.gguf"], [recipe, "--input", "p.jsonl"]):
        assert "the working directory is gone" in complaint("run", *words)
    assert invoke("run", recipe, "hi").stdout == "a\n"


def test_a_tilde_behind_an_equals_sign_is_the_home_directory(tmp_path, monkeypatch):
    """A shell expands it only where a word begins."""
    monkeypatch.setenv("HOME", str(tmp_path))
    sides = ("--tuned=~/t.gguf", "--reference=~/r.gguf")
    assert f"{tmp_path}/b.gguf: no such file" in complaint("run", "--base=~/b.gguf", *sides, "hi")
    assert f"{tmp_path}/r.gguf: no such" in complaint("convert", *sides, "--out=~/out")
    line = complaint("convert", "--tuned=chat=~nobody-here/t", "--reference=r", "--out=o")
    assert "no home directory is known for '~nobody-here/t'" in line
