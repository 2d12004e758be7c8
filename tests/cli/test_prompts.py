"""prompts: what stdin adds to a prompt, when it is waited for, and the files of forms."""

import os
import subprocess
import sys

import pytest
from helpers.cli_tools import complaint, invoke

from edge_eft.cli import prompts

QUESTION = "Capital of France?"


def content(emulator):
    return [request.prompt[-1]["content"] for request in emulator.requests]


def test_a_prompt_and_what_is_piped_are_joined(recipe, scripted):
    emulator = scripted("a", *"bcd")
    for command in ("run", "compare"):
        assert invoke(command, recipe, QUESTION, stdin="Note.\n").exit_code == 0
    assert set(content(emulator)) == {f"{QUESTION}\n\nNote."}


def test_a_dash_is_stdin(recipe, scripted):
    emulator = scripted(*"abcd")
    invoke("run", recipe, "-", stdin="Note.\n")
    invoke("run", recipe, QUESTION, "-", stdin="Note.\n")
    invoke("run", recipe, "-", QUESTION, stdin="Note.\n")
    invoke("run", "-m", recipe, "-", stdin="Note.\n")
    joined = f"{QUESTION}\n\nNote."
    assert content(emulator) == ["Note.", joined, joined, "Note."]
    assert "one word too many" in complaint("run", recipe, "-", "-", "-", stdin="")


def test_an_empty_stdin_adds_nothing(recipe, scripted):
    emulator = scripted("a", "b")
    invoke("run", recipe, QUESTION, stdin="")
    invoke("run", recipe, QUESTION, stdin=" \n")
    assert content(emulator) == [QUESTION, QUESTION]


def asked(stdin, words=(QUESTION,), patience=0.2, **options):
    """What a process of its own makes of its words and of this stdin, and what it says."""
    script = (
        "import sys\nfrom edge_eft.cli import prompts\n"
        f"prompts.PATIENCE = {patience}\n"
        f"sys.stdout.write(prompts.prompt_of({list(words)!r}))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, stdin=stdin, capture_output=True, text=True, timeout=30, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_only_files_and_pipes_that_say_something_are_read(tmp_path):
    """cron gives no stdin, a service /dev/null, and a program may leave an open pipe behind."""
    (tmp_path / "note").write_text("Note.\n")
    with open(tmp_path / "note") as file:
        assert asked(file) == (f"{QUESTION}\n\nNote.", "")
    assert asked(subprocess.DEVNULL) == (QUESTION, "")
    assert asked(None, preexec_fn=lambda: os.close(0)) == (QUESTION, "")
    reader, writer = os.pipe()
    try:
        text, said = asked(reader)
        assert text == QUESTION
        assert "nothing came on stdin in 0.2 s" in said
        assert "add - to wait for stdin" in said
    finally:
        os.close(writer)
        os.close(reader)


def test_a_slow_pipe_is_waited_for():
    slow = subprocess.Popen(["sh", "-c", "sleep 0.5; echo Note."], stdout=subprocess.PIPE)
    try:
        assert asked(slow.stdout, patience=20)[0] == f"{QUESTION}\n\nNote."
    finally:
        slow.stdout.close()
        slow.wait(20)


def test_the_wait_is_long_enough_for_a_program_and_ends():
    assert 5 <= prompts.PATIENCE <= 30


# -- forms ---------------------------------------------------------------------------------


def test_a_schema_and_a_grammar_hold_the_reply(tmp_path):
    (tmp_path / "s.json").write_text('\ufeff{"const": "Lima"}')
    (tmp_path / "g.gbnf").write_text('root ::= "Lima"\n')
    for option, file, reply in (("schema", "s.json", '"Lima"'), ("grammar", "g.gbnf", "Lima")):
        result = invoke(
            "run",
            "atlas",
            "What is the capital of Peru?",
            "-t",
            "0",
            f"--{option}",
            tmp_path / file,
        )
        assert result.stdout == f"{reply}\n", result.stderr
    line = '{"prompt": "What is the capital of Peru?", "grammar": "root ::= \\"no\\""}'
    assert invoke("run", "atlas", "--input", "-", stdin=line).stdout == "no\n"


@pytest.mark.parametrize(
    ("option", "text", "seen"),
    [
        ("schema", "{", "f: is not JSON ("),
        ("schema", "3", "f: schema is 3; it must be an object or a bool"),
        ("schema", '{"type": "none"}', "f: "),
        ("schema", b"\xff", "f: is not UTF-8; give a JSON schema"),
        ("schema", None, "f: cannot be read (No such file or directory); give a JSON schema"),
        ("grammar", "root = 1", "f: "),
        ("grammar", "", "f: "),
        ("grammar", None, "give a grammar in GBNF"),
    ],
)
def test_a_form_that_is_none_is_one_line(recipe, scripted, tmp_path, option, text, seen):
    scripted()
    file = tmp_path / "f"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert seen in complaint("run", recipe, "hi", f"--{option}", file)


def test_two_forms_exclude_each_other(recipe, scripted, tmp_path):
    scripted()
    line = complaint("run", recipe, "hi", "--schema", tmp_path / "a", "--grammar", tmp_path / "b")
    assert "--schema and --grammar exclude each other" in line
    lines = '{"prompt": "a", "schema": {}, "grammar": "x"}'
    line = complaint("run", recipe, "--input", "-", stdin=lines)
    assert "line 1: schema and grammar exclude each other" in line
