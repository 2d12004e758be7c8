"""`edge-eft run` and `compare`: what is printed where, for one prompt or many."""

import json
import os

import pytest
from click.testing import CliRunner
from helpers.cli_tools import complaint, invoke, process
from helpers.fakes import BatchEmulator

from edge_eft.cli.main import cli
from edge_eft.errors import EngineError

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
    files = ("--base", "b", "--tuned", "t", "--reference", "r", "--prompt", "plain")
    invoke("run", *files, stdin="hello\n")
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
    options = {"n_slots": 1, "n_ctx": 64, "n_threads": 1, "n_gpu_layers": None, "on_load": None}
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


def test_many_prompts_print_one_reply_a_line(recipe, scripted):
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
        ('{"prompt": []}', "line 2: the prompt is empty"),
        ('{"prompt": ["a"]}', "line 2: prompt is ['a']; it must be a text or token ids"),
        ('{"prompt": [1, true]}', "line 2: prompt is [1, True]; it must be text, token ids"),
        ('{"prompt": [1], "system": "S"}', "line 2: a raw prompt is one text or a list of token"),
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


def test_an_input_file_that_cannot_be_read_as_prompts_is_refused(recipe, scripted, tmp_path):
    scripted()
    assert "No such file" in complaint("run", recipe, "--input", tmp_path / "none")
    assert "Is a directory" in complaint("run", recipe, "--input", tmp_path)
    (tmp_path / "empty").write_text("\n")
    assert "holds no prompt" in complaint("run", recipe, "--input", tmp_path / "empty")
    (tmp_path / "latin").write_bytes(b'"ok"\n"caf\xe9"\n')
    assert "latin line 2: is not UTF-8" in complaint("run", recipe, "--input", tmp_path / "latin")


def test_an_empty_prompt_is_refused(recipe):
    assert "the prompt is empty" in complaint("run", recipe, stdin="\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_prompts_of_windows_are_those_of_others(recipe, scripted, tmp_path, encoding):
    """A mark became part of the prompt, and so did every \\r."""
    emulator = scripted(*"abcde")
    invoke("run", recipe, "--raw", stdin="Q: x\r\nA:\r\n".encode(encoding))
    invoke("compare", recipe, "--raw", stdin="Q: x\r\nA:\r\n".encode(encoding))
    assert {request.prompt for request in emulator.requests} == {"Q: x\nA:"}
    emulator = scripted("a", "b")
    lines = '"one"\r\n\r\n{"prompt": "two\\r\\n"}\r\n'.encode(encoding)
    (tmp_path / "p.jsonl").write_bytes(lines)
    assert invoke("run", recipe, "--input", tmp_path / "p.jsonl").exit_code == 0
    prompts = [request.prompt[0]["content"] for request in emulator.requests]
    assert prompts == ["one", "two\r\n"], "what JSON says is data"


def test_files_that_were_put_together_keep_no_mark(recipe, scripted):
    emulator = scripted("a", "b")
    assert invoke("run", recipe, "--input", "-", stdin='\ufeff"a"\n\ufeff"b"\n').exit_code == 0
    assert [request.prompt[0]["content"] for request in emulator.requests] == ["a", "b"]
    emulator = scripted("a")
    invoke("run", recipe, "\ufeffone\r\ntwo", "--system", "\ufeffS")
    assert [turn["content"] for turn in emulator.requests[0].prompt] == ["S", "one\ntwo"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "seen"),
    [
        ((), b"caf\xe9", "the prompt on stdin is not UTF-8"),
        ((), "hello".encode("utf-16-le"), "the prompt on stdin is not UTF-8"),
        (("caf\udce9",), b"", "the prompt is not UTF-8"),
        (("hi", "--system", "\udce9"), b"", "--system': '\\udce9' is not UTF-8"),
        (("hi", "--stop", "\udce9"), b"", "--stop': '\\udce9' is not UTF-8"),
        (("hi", "--base", "b", "--prompt", "\udce9{{"), b"", "--prompt': '\\udce9{{' is not UTF-8"),
        (("--input", "-"), b"\xff\xfe1", "begins as UTF-16 and is not"),
        (("--input", "/dev/zero"), b"", "larger than"),
        (("--input", "caf\udce9"), b"", "caf\ufffd: cannot be read"),
        (("--input", "~nobody-here/x"), b"", "no home directory"),
    ],
)
def test_what_is_no_text_is_refused(recipe, monkeypatch, arguments, stdin, seen):
    monkeypatch.setattr("edge_eft.cli.run._MAX_INPUT_BYTES", 1 << 20)
    assert seen in complaint("run", recipe, *arguments, stdin=stdin)


def test_a_prompt_without_end_is_refused(recipe, monkeypatch):
    monkeypatch.setattr("edge_eft.cli.run._MAX_PROMPT_BYTES", 99)
    assert "cannot be read (it is larger" in complaint("run", recipe, stdin=b"x" * 100)


def test_a_reply_goes_into_a_pipe_as_the_model_said_it(recipe, scripted):
    said = "a\x1b[31m b\u2028 c\x9b2J \u202ed\r"
    scripted(said, "x", "y")
    assert invoke("run", recipe, "hi").stdout_bytes.decode() == f"{said}\n"
    scripted(said)
    assert invoke("run", recipe, "--input", "-", stdin='"a"').stdout_bytes.decode() == f"{said}\n"


# -- on a real model -----------------------------------------------------------------------


def test_three_files_at_alpha_zero_print_what_the_base_alone_prints(small, smollm2_trio):
    """Two calls as a user makes them: the three-file form at α = 0 is the base alone."""
    greedy = ("Say hello.", "--temperature", "0", "--max-tokens", "6")
    out, err = process("run", small, *greedy, "--only", "base").communicate(timeout=120)
    assert err == ""
    assert out.endswith("\n")
    assert out.strip()
    roles = ("base", "tuned", "reference")
    files = [f"--{role}={path}" for role, path in zip(roles, smollm2_trio, strict=True)]
    names = (*files, "--prompt", "chatml")
    run = process("run", *names, *greedy, "--alpha", "0", "--json")
    reply = json.loads(run.communicate(timeout=120)[0])
    assert reply["text"].strip() == out.strip()
    assert run.returncode == 0


def test_names_are_bytes_to_the_system(small, smollm2_path, tmp_path):
    greedy = ("hi", "--max-tokens", "1", "--only", "base", "--temperature", "0")
    for name in (b"\xff\xe9.gguf", "a\u3000\u00a0\u200d😀\u2028.gguf".encode()):
        path = os.fsencode(tmp_path) + b"/" + name
        os.symlink(smollm2_path, path)
        result = invoke("run", small, "--base", os.fsdecode(path), *greedy)
        assert (result.exit_code, result.stderr) == (0, "")
        os.unlink(path)
        assert "no such file" in complaint("run", small, "--base", os.fsdecode(path), *greedy)


def test_slots_give_each_prompt_its_own_reply(small):
    options = ("--temperature", "0", "--max-tokens", "5", "--json", "--only", "base")
    lines = '"Name a colour."\n"Name an animal."\n'
    many = invoke("run", small, "--input", "-", *options, stdin=lines).stdout.splitlines()
    alone = invoke("run", small, "Name an animal.", *options).stdout
    assert json.loads(many[1])["text"] == json.loads(alone)["text"]
    assert json.loads(many[1])["tokens"] == json.loads(alone)["tokens"]


# -- compare -------------------------------------------------------------------------------


def test_colour_is_for_terminals_that_want_it(recipe, scripted, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # the stream of a test is not a terminal
    for environment, coloured in (
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ):
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
    monkeypatch.setenv("COLUMNS", "40")
    scripted("a " * 30, "b", "日本語")
    lines = invoke("compare", recipe, "Capital?").stdout.splitlines()
    assert lines[:3] == ["base", "a " * 19 + "a", "a " * 9 + "a"]
    assert lines[4:7] == ["", "tuned:chat", "b"]
    assert lines[8:11] == ["", "emulated", "日本語"]
    assert max(map(len, lines)) <= 40


def test_verbose_tells_of_every_file_and_no_line_is_empty(atlas):
    done = process("run", "atlas", "hi", "--max-tokens", "1", "--verbose")
    _, talk = done.communicate(timeout=60)
    lines = talk.splitlines()
    assert done.returncode == 0
    assert f"edge-eft: loading {atlas.base}" in lines
    assert lines.count("edge-eft: starting llama.cpp") == 1
    assert all(line.removeprefix("edge-eft:").strip() for line in lines)
