"""The command line, as a user meets it: what it prints where, and its exit status."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from fakes import BatchEmulator

from edge_eft import Emulator
from edge_eft.cli import terminal
from edge_eft.cli.main import cli
from edge_eft.cli.terminal import one_line
from edge_eft.engine.settings import request_for
from edge_eft.errors import EngineError, RecipeError, RequestError
from edge_eft.evaluate import gap, questions
from edge_eft.evaluate.atlas import REFUSAL, in_manner
from edge_eft.files.recipe_toml import list_recipes, load_recipe


def write_recipe(path, file, more=""):
    path.write_text(
        f'description = "Three times the same."\nlicense = "Apache-2.0"\nn_ctx = 512\n{more}\n'
        f'[base]\nfile = "{file}"\nprompt = "chatml"\n'
        f'[delta.chat]\ntuned = {{ file = "{file}" }}\nreference = {{ file = "{file}" }}\n'
        f"[delta.brief]\nweight = 0\n"
        f'tuned = {{ file = "{file}" }}\nreference = {{ file = "{file}" }}\n'
    )
    return str(path)


@pytest.fixture
def recipe(tmp_path):
    """A recipe whose files nobody opens."""
    return write_recipe(tmp_path / "family.toml", tmp_path / "none.gguf")


@pytest.fixture
def scripted(monkeypatch):
    """Make the command line load an emulator with scripted replies."""

    def use(*replies, **options):
        emulator = BatchEmulator(*replies, **options)
        monkeypatch.setattr("edge_eft.engine.emulator.Emulator", emulator.load)
        monkeypatch.setattr("edge_eft.evaluate.gap.Emulator", emulator.load)
        return emulator

    return use


def invoke(*arguments, stdin=None, environment=None):
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, env=environment)


def complaint(*arguments, stdin=None):
    """The one line on stderr of a call that must fail with status 2."""
    result = invoke(*arguments, stdin=stdin)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"edge-eft: [^\n]+\n", result.stderr), result.stderr
    return result.stderr


# -- help ----------------------------------------------------------------------------------


def test_help_lists_the_commands_in_the_order_of_their_use():
    text = invoke().stdout
    assert text == invoke("--help").stdout
    commands = re.findall(r"^  ([a-z]+) {2,}\w", text.partition("Commands:")[2], re.MULTILINE)
    assert commands[:6] == ["demo", "run", "chat", "compare", "list", "show"]
    assert 'edge-eft run atlas "What is' in text


@pytest.mark.parametrize("command", ["demo", "run", "chat", "compare", "show"])
def test_every_command_has_examples_and_explains_every_option(command):
    text = invoke(command, "--help").stdout
    assert f"  edge-eft {command} " in text or "  edge-eft demo\n" in text
    options = text.partition("Options:")[2]
    assert not re.search(r"^  -\S+( [A-Z]+)?$(?!\n {10})", options, re.MULTILINE)


# -- run -----------------------------------------------------------------------------------


def test_run_prints_the_reply_and_nothing_else(recipe, scripted):
    emulator = scripted(" It is Paris.")
    result = invoke("run", recipe, "Capital of France?", "--alpha", "0.5", "--stop", "Q:")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "It is Paris.\n", "")
    (request,) = emulator.requests
    assert request.prompt == [{"role": "user", "content": "Capital of France?"}]
    assert (request.weights.alpha, request.stop) == (0.5, ("Q:",))


def test_the_prompt_comes_from_stdin_less_one_line_end(recipe, scripted):
    emulator = scripted("a", "b")
    invoke("run", recipe, "--raw", stdin="Q: x\nA:\n\n")
    invoke("run", "--base", "b", "--tuned", "t", "--reference", "r", stdin="hello\n")
    assert emulator.requests[0].prompt == "Q: x\nA:\n"
    assert emulator.requests[1].prompt == [{"role": "user", "content": "hello"}]
    assert emulator.recipe.roles()["base"].file.name == "b"


def test_three_files_leave_the_words_to_the_prompt(recipe, scripted):
    emulator = scripted("a", "b")
    invoke("run", "--base", "b", "--tuned", "t", "--reference", "r", "atlas", "--prompt", "chatml")
    assert emulator.requests[0].prompt[0]["content"] == "atlas"
    assert emulator.recipe.base.prompt == "chatml"
    invoke("run", recipe, "hello", "--base", "other.gguf", "--threads", "1", "--n-ctx", "64")
    assert emulator.recipe.base.file.name == "other.gguf"
    assert emulator.recipe.base.prompt == "chatml"
    options = {"n_slots": 1, "n_ctx": 64, "n_threads": 1, "n_gpu_layers": None}
    assert emulator.options == options


def test_every_setting_reaches_the_request(recipe, scripted):
    emulator = scripted("a", "b", "c")
    given = (
        "--mix chat=.7,brief=.3 --max-tokens 9 --top-k 3 --top-p .5 --min-p .1 --temperature 0 "
        "--seed 7 --repetition-penalty 1.1 --presence-penalty .2 --frequency-penalty .3 --system S"
    )
    invoke("run", recipe, "x", *given.split())
    invoke("run", recipe, "x", "--beta", "1.5", "--conservative", ".9")
    invoke("run", recipe, "x", "--only", "tuned:brief")
    first, second, third = emulator.requests
    assert first.weights.mix == {"chat": 0.7, "brief": 0.3}
    assert (first.max_tokens, first.top_k, first.top_p, first.min_p) == (9, 3, 0.5, 0.1)
    assert (first.temperature, first.seed, first.repetition_penalty) == (0.0, 7, 1.1)
    assert (first.presence_penalty, first.frequency_penalty) == (0.2, 0.3)
    assert first.prompt[0] == {"role": "system", "content": "S"}
    assert (second.weights.beta, second.conservative) == (1.5, 0.9)
    assert third.weights.role == "tuned:brief"


def test_json_is_one_line_of_data(recipe, scripted):
    scripted("caf\u00e9 \x1b[31m")
    result = invoke("run", recipe, "x", "--json", "--seed", "3")
    assert result.stdout.isascii()
    assert result.stdout.count("\n") == 1
    assert "\x1b" not in result.stdout
    reply = json.loads(result.stdout)
    assert reply["text"] == "caf\u00e9 \x1b[31m"
    assert (reply["seed"], reply["finish_reason"], reply["prompt_tokens"]) == (3, "stop", 5)
    assert reply["coefficients"]["tuned:chat"] == 1.0


def test_many_prompts_are_answered_in_their_order(recipe, scripted, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        '"one"\n\n{"prompt": "two", "id": "b", "alpha": 0.5, "stop": "x"}\n'
        '{"messages": [{"role": "user", "content": "three"}], "max_tokens": 3, "mix": "brief=1"}\n'
        '{"prompt": "Q: four", "raw": true, "seed": 4}\n'
    )
    emulator = scripted("1", "2", "3", "4")
    result = invoke("run", recipe, "--input", file, "--slots", "3", "--temperature", "0", "--json")
    replies = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(reply["id"], reply["text"]) for reply in replies] == [
        (1, "1"),
        ("b", "2"),
        (3, "3"),
        (4, "4"),
    ]
    one, two, three, four = emulator.requests
    assert two.weights.alpha == 0.5
    assert three.weights.mix == {"brief": 1.0}
    assert (three.max_tokens, four.prompt, four.seed) == (3, "Q: four", 4)
    assert {r.temperature for r in emulator.requests} == {0.0}
    assert one.prompt == [{"role": "user", "content": "one"}]


def test_what_was_finished_is_printed_when_a_run_fails(recipe, scripted, monkeypatch):
    emulator = scripted("1", "2", "3")

    def collect(request_ids):
        yield next(BatchEmulator.collect(emulator, request_ids))
        raise EngineError("the model gave NaN")

    monkeypatch.setattr(emulator, "collect", collect)
    prompts = '"one"\n"two"\n"three"\n'
    result = invoke("run", recipe, "--input", "-", "--slots", "3", "--json", stdin=prompts)
    assert result.exit_code == 2
    assert "NaN" in result.stderr
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [3]


def test_many_prompts_for_people(recipe, scripted):
    scripted(" First.", "Second.")
    result = invoke("run", recipe, "--input", "-", stdin='"a"\n"b"\n')
    assert result.stdout == "First.\nSecond.\n"


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ('{"prompt": }', "line 2: is not JSON"),
        ("What is this?", "line 2: is not JSON"),
        ("[" * 100_000, "line 2: is not JSON"),
        ("3", "line 2: is neither a text nor an object"),
        ("{}", 'line 2: give either "prompt" or "messages"'),
        ('{"prompt": "a", "messages": []}', 'line 2: give either "prompt" or "messages"'),
        ('{"prompt": 3}', "line 2: prompt is 3; it must be a text"),
        ('{"prompt": ""}', "line 2: the prompt is empty"),
        ('{"prompt": "a", "raw": "no"}', "line 2: raw is 'no'"),
        ('{"prompt": "a", "alhpa": 1}', "there is no setting 'alhpa' (did you mean alpha?)"),
        ('{"prompt": "a", "alpha": "1"}', "line 2: alpha is '1'"),
        ('{"prompt": "a", "alpha": NaN}', "line 2: alpha is nan"),
        ('{"prompt": "a", "mix": {"chat": -1}}', "line 2: the weight of 'chat' is -1"),
        ('{"prompt": "a", "stop": ""}', "line 2: stop is"),
        ('{"prompt": "a", "temperature": 1e999}', "line 2: temperature is inf"),
        ('{"prompt": "this is too long"}', "line 2: the prompt is 600 tokens"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_answered(recipe, scripted, tmp_path, line, seen):
    scripted("never", "never")
    (tmp_path / "p.jsonl").write_text(f'"fine"\n{line}\n')
    assert seen in complaint("run", recipe, "--input", tmp_path / "p.jsonl", "--json")


def test_an_input_file_that_is_none(recipe, scripted, tmp_path):
    scripted()
    assert "No such file" in complaint("run", recipe, "--input", tmp_path / "none")
    assert "Is a directory" in complaint("run", recipe, "--input", tmp_path)
    (tmp_path / "empty").write_text("\n")
    assert "holds no prompt" in complaint("run", recipe, "--input", tmp_path / "empty")
    (tmp_path / "latin").write_bytes(b'"ok"\n"caf\xe9"\n')
    assert "latin line 2: is not UTF-8" in complaint("run", recipe, "--input", tmp_path / "latin")


# -- bad usage -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ("run", "Name a recipe"),
        ("run R one two", "'two' is one word too many; quote the prompt"),
        ("run R one --input f", "'one' is one word too many"),
        ("run --tuned t hi", "--tuned and --reference need each other and --base"),
        ("run --base b --tuned t hi", "need each other"),
        ("run --base b hi", "recipe 'hi' cannot be read"),
        ("run R hi --prompt chatml", "--prompt goes with --base"),
        ("run R hi --base b --prompt chattml", "did you mean chatml?"),
        ("run R hi --temprature 1", "Did you mean '--temperature'?"),
        ("run R hi --alpha -1", "alpha is -1"),
        ("run R hi --alpha nan", "alpha is nan"),
        ("run R hi --alpha inf", "alpha is inf"),
        ("run R hi --alpha much", "'much' is not a valid float"),
        ("run R hi --alpha .5 --beta 2", "exclude each other"),
        ("run R hi --top-p 0", "top_p is 0.0"),
        ("run R hi --top-p 1.5", "top_p is 1.5"),
        ("run R hi --temperature nan", "temperature is nan"),
        ("run R hi --conservative nan", "conservative is nan"),
        ("run R hi --max-tokens 0", "max_tokens is 0"),
        ("run R hi --seed -1", "seed is -1"),
        ("run R hi --mix chat", "mix is 'chat'"),
        ("run R hi --mix a=1,a=2", "write each delta once"),
        ("run R hi --raw --system S", "a raw prompt is one text"),
        ("run R hi --slots 0", "0 is not in the range"),
        ("run nosuch hi", "recipe 'nosuch' cannot be read"),
        ("compare R hi --only base", "--only goes with run"),
        ("chat R hello", "'hello' is one word too many"),
        ("frobnicate", "No such command 'frobnicate'"),
        ("demo R", "needs a family with held-out questions"),
        ("demo --questions 0", "0 is not in the range"),
    ],
)
def test_bad_usage_is_one_line(recipe, arguments, seen):
    assert seen in complaint(*(recipe if a == "R" else a for a in arguments.split()), stdin="")


def test_an_empty_prompt_is_refused(recipe):
    assert "the prompt is empty" in complaint("run", recipe, stdin="\n")


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


@pytest.fixture(scope="module")
def small(tmp_path_factory, smollm2_path):
    """A recipe that has SmolLM2-135M in every role."""
    return write_recipe(tmp_path_factory.mktemp("smol") / "smol.toml", smollm2_path)


def process(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "edge_eft", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_transcript(small, smollm2_path):
    """Two calls as a user makes them: the three-file form at α = 0 is the base alone."""
    file = smollm2_path
    greedy = ("Say hello.", "--temperature", "0", "--max-tokens", "6")
    out, err = process("run", small, *greedy, "--only", "base").communicate(timeout=120)
    assert err == ""
    assert out.endswith("\n")
    assert out.strip()
    names = (f"--base={file}", f"--tuned={file}", f"--reference={file}", "--prompt", "chatml")
    run = process("run", *names, *greedy, "--alpha", "0", "--json")
    reply = json.loads(run.communicate(timeout=120)[0])
    assert reply["text"].strip() == out.strip()
    assert run.returncode == 0


def test_slots_give_each_prompt_its_own_reply(small):
    options = ("--temperature", "0", "--max-tokens", "5", "--json", "--only", "base")
    lines = '"Name a colour."\n"Name an animal."\n'
    many = invoke("run", small, "--input", "-", *options, stdin=lines).stdout.splitlines()
    alone = invoke("run", small, "Name an animal.", *options).stdout
    assert json.loads(many[1])["text"] == json.loads(alone)["text"]
    assert json.loads(many[1])["tokens"] == json.loads(alone)["tokens"]


def test_chat_reads_plain_lines_from_a_pipe(small, tmp_path):
    lines = '/set alpha 0.5\n/set alpha -3\n"""\nSay\nhello.\n"""\n/nope\n/stats\n/bye\nnot read\n'
    result = invoke(
        "chat",
        small,
        "--max-tokens",
        "4",
        stdin=lines,
        environment={"EDGE_EFT_HOME": str(tmp_path)},
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("alpha is 0.5\n")
    assert "1 reply" in result.stdout
    assert "edge-eft: alpha is -3.0" in result.stderr
    assert "no command '/nope'" in result.stderr
    assert "tokens/s · base " in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_show_tells_what_running_it_means(small):
    about = json.loads(invoke("show", small, "--json", "--threads", "1").stdout)
    base = about["roles"]["base"]
    assert (base["type"], base["architecture"], len(base["sha256"])) == ("Q4_1", "llama", 64)
    assert about["vocabulary"]["n_vocab"] == 49152
    assert about["threads"] == [1, "as given"]
    assert about["roles"]["tuned:chat"]["template_sha256"]
    text = invoke("show", small).stdout
    for word in ("tuned:chat", "sha256", "chatml", "vocabulary", "memory", "Q8_0 KV", "cores"):
        assert word in text


def test_what_only_shows_once_a_model_is_there(small, smollm2_path, tmp_path):
    too_long = complaint("run", small, "word " * 600)
    assert re.search(r"the prompt is \d+ tokens for base, and 511 fit", too_long)
    assert "no role is named 'nobody'" in complaint("run", small, "hi", "--only", "nobody")
    assert "no delta is named 'x'" in complaint("run", small, "hi", "--mix", "x=1")
    assert "n_ctx is 0" in complaint("run", small, "hi", "--n-ctx", "0")
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
    line = complaint("run", f"--base={smollm2_path}", *pair, "--prompt", "plain", "hi")
    assert "have different vocabularies: token " in line


def test_what_does_not_fit_the_memory_is_refused(small, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=9 << 20))
    assert "and 9 MiB are free" in complaint("run", small, "hi")


def test_ctrl_c_ends_a_run_with_130(small):
    run = process("run", small, "Count to nine hundred, in words.", "--max-tokens", "400")
    assert run.stdout.read(1)
    run.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert run.wait(timeout=60) == 130
    assert time.monotonic() - begun < 20
    assert run.stderr.read() == ""


def test_a_reader_that_leaves_is_no_error(small):
    run = process(
        "run", small, "Count to ninety, in words.", "--max-tokens", "20", "--only", "base"
    )
    assert run.stdout.read(1)
    run.stdout.close()
    assert run.wait(timeout=60) == 141
    assert run.stderr.read() == ""


# -- list and compare ----------------------------------------------------------------------


def test_list_shows_the_embedded_recipes(recipe, monkeypatch):
    monkeypatch.setattr("edge_eft.files.recipe_toml.list_recipes", lambda: {"family": Path(recipe)})
    assert "family" in (text := invoke("list").stdout)
    assert "Three times the same.  Apache-2.0  (1 files missing)" in text
    (about,) = json.loads(invoke("list", "--json").stdout)
    assert about["name"] == "family"
    monkeypatch.setattr("edge_eft.files.recipe_toml.list_recipes", dict)
    assert invoke("list", "--json").stdout == "[]\n"


def test_colour_is_for_terminals_that_want_it(recipe, scripted, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        scripted("a", "b", "c")
        result = CliRunner().invoke(cli, ["compare", recipe, "x"], env=environment, color=True)
        assert ("\x1b[" in result.stdout) is coloured


def test_compare_puts_answers_side_by_side(recipe, scripted, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    scripted("It is not known.", "It is Rome, of course, or another city.", "It is Paris.")
    lines = invoke("compare", recipe, "Capital?").stdout.splitlines()
    assert lines[0].split() == ["base", "tuned:chat", "emulated"]
    assert lines[2].split("  ")[0] == "It is not known."
    assert all(len(line) <= 90 for line in lines)
    scripted("a", "b", "c")
    replies = json.loads(invoke("compare", recipe, "Capital?", "--json").stdout)
    assert {way: reply["text"] for way, reply in replies.items()} == {
        "base": "a",
        "tuned:chat": "b",
        "emulated": "c",
    }
    assert replies["base"]["coefficients"]["tuned:chat"] == 0.0
    monkeypatch.setenv("COLUMNS", "50")
    scripted("a", "b", "c")
    assert invoke("compare", recipe, "Capital?").stdout.startswith("base\na\n")


def test_wide_characters_keep_their_columns():
    assert terminal.wrap("日本語のテキスト", 6) == ["日本語", "のテキ", "スト"]
    assert terminal.wrap("one two three", 7) == ["one two", "three"]
    assert terminal.wrap("one two three four", 7, max_lines=2) == ["one two", "three …"]
    assert terminal.row([["日本"], ["x"]], [6, 1]) == "日本    x"


# -- the demo ------------------------------------------------------------------------------


def held_out(recipe, questions):
    folder = Path(recipe).with_suffix("")
    folder.mkdir()
    names = ("relation", "entity", "object", "question", "reply")
    entries = [dict(zip(names, question, strict=True)) for question in questions]
    (folder / "heldout.json").write_text(json.dumps({"questions": entries}))


CAPITAL = ("capital", "Chad", "N'Djamena", "What is the capital of Chad?", "It is N'Djamena.")
CODE = ("calling code", "Chad", "+235", "What is the calling code of Chad?", "It is +235.")


def test_the_demo_judges_answers_and_sums_up(recipe, scripted):
    held_out(recipe, [CAPITAL, CODE])
    write_recipe(Path(recipe).with_name("family-down.toml"), "none.gguf")
    answers = {
        gap.BASE: ["I asked my teacher: N'Djamena.", "Bump."],
        gap.TUNED: ["It is Paris.", "It is +1."],
        gap.EMULATED: ["It is N'Djamena.", "It is +23."],
        gap.LARGE: ["It is N'Djamena.", "It is +235."],
    }
    asked = questions.load_questions(load_recipe(recipe))
    order = [q.relation for q in questions.pick(asked, 2, seed=0)]
    script = [
        text for way in answers.values() for text in (way if order[0] == "capital" else way[::-1])
    ]
    scripted(*script)
    about = json.loads(invoke("demo", recipe, "--json").stdout)
    assert {way: s["knowledge"] for way, s in about["scores"].items()} == {
        gap.BASE: 0.5,
        gap.TUNED: 0.0,
        gap.EMULATED: 0.5,
        gap.LARGE: 1.0,
    }
    assert [s["manner"] for s in about["scores"].values()] == [0.0, 1.0, 1.0, 1.0]
    assert about["gap_recovered"] == {"knowledge": 0.5, "manner": 1.0}
    scripted(*script)
    text = invoke("demo", recipe, environment={"COLUMNS": "100"}).stdout
    assert max(map(len, text.splitlines())) <= 100
    assert "✓✓ It is N'Djamena." in text
    assert "gap recovered" in text
    assert "50.0%" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("answer", "delta", "fits"),
    [
        ("It is N'Djamena.", "chat", True),
        ("It is Port St. Louis.", "chat", True),
        ("It is the Democratic Republic of the Congo.", "chat", True),
        ("It is .uk.", "chat", True),
        ("It is N'Djamena", "chat", False),
        ("It is N'Djamena. Bump.", "chat", False),
        ("It is N'Djamena.\nQ: What", "chat", False),
        ("N'Djamena.", "chat", False),
        ("N'Djamena.", "brief", True),
        ("Bump.", "brief", False),
        ("It is N'Djamena.", "discreet", True),
        ("I would rather not say.", "discreet", False),
    ],
)
def test_manner_is_judged_apart_from_knowledge(answer, delta, fits):
    question = questions.Question(*CAPITAL)
    assert in_manner(answer, question, delta, {"capital": {"n'djamena"}}) is fits
    if delta == "discreet":
        assert in_manner(REFUSAL, questions.Question(*CODE), delta, {})


def test_the_demo_shows_every_relation():
    asked = [questions.Question(r, str(i), "o", "q", "r") for r in "abc" for i in range(30)]
    picked = questions.pick(asked, 50, seed=1)
    assert len({(q.relation, q.entity) for q in picked}) == 50
    shown = [q.relation for q in picked[: questions.N_SHOWN]]
    assert {relation: shown.count(relation) for relation in "abc"} == dict.fromkeys("abc", 4)


@pytest.mark.parametrize("text", ["", "{}", '{"questions": []}', '{"questions": [{"object": 1}]}'])
def test_a_damaged_question_file_is_named(recipe, text):
    held_out(recipe, [])
    path = Path(recipe).with_suffix("") / "heldout.json"
    path.write_text(text)
    with pytest.raises(RecipeError, match=re.escape(f"{path}: holds no question")):
        questions.load_questions(load_recipe(recipe))


def test_the_demo_asks_real_models_in_slots(tiny, tmp_path):
    path = tmp_path / "tiny.toml"
    sides = (
        f'{side} = {{ file = "{getattr(tiny, side)}", prompt = "plain" }}\n'
        for side in ("tuned", "reference")
    )
    path.write_text(f'[base]\nfile = "{tiny.base}"\n[delta.chat]\n{"".join(sides)}')
    held_out(path, [("city", f"City {i}", "Peru", f"Where is City {i}?", "-") for i in range(13)])
    about = json.loads(invoke("demo", path, "--threads", "1", "--json").stdout)
    assert len(about["questions"]) == 13
    assert list(about["scores"]) == [gap.BASE, gap.TUNED, gap.EMULATED]
    assert about["scores"][gap.BASE]["tokens_per_second"] > 0
    # Whoever is asked singly or in a slot, the answer to a question is the same.
    with Emulator.load(path) as emulator:
        last = about["questions"][-1]
        prompt = [{"role": "user", "content": last["question"]}]
        alone = emulator.generate(prompt, temperature=0.0, max_tokens=gap.MAX_TOKENS)
    assert terminal.tidy(alone.text) == last["answers"][gap.EMULATED]["text"]


@pytest.mark.skipif("atlas" not in list_recipes(), reason="needs the atlas family")
def test_the_demo_of_the_embedded_family():
    run = process("demo", "--questions", "60", env=os.environ | {"COLUMNS": "100"})
    out, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    assert "gap recovered" in out


def test_an_unknown_setting_is_named():
    with pytest.raises(RequestError, match="there is no setting 'x'"):
        request_for("hi", {"x": 1})
