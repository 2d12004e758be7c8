"""foreign: habits from other programs are told what to type here."""

import shlex

import pytest
from helpers.cli_tools import complaint, invoke

from edge_eft.cli import foreign
from edge_eft.cli.main import Commands, cli


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("run atlas -p 'Who is it?'", "the prompt needs no option: edge-eft run 'Who is it?'"),
        ("run --prompt 'Who is it?'", "the prompt needs no option: edge-eft run 'Who is it?'"),
        ("run --prompt=hello", "the prompt needs no option: edge-eft run hello (the prompt's f"),
        ("chat -p 'Who is it?'", "the prompt needs no option: edge-eft run 'Who is it?'"),
        ("compare -p Who", "the prompt needs no option: edge-eft compare Who"),
        ("chat --prompt hello", "the prompt needs no option: edge-eft run hello (the prompt's f"),
        ("run -f a.txt", "a file goes in by stdin: edge-eft run < a.txt, or as @a.txt in a chat"),
        ("run hi -temp 0", "there is no option -temp; here it is --temperature 0"),
        ("run hi --ngl 9", "here it is --gpu-layers 9"),
        ("serve --keepalive 5m", "here it is --keep-alive 5m"),
        ("run hi -o temperature 0", "a setting is an option: --temperature 0.7, say"),
        ("run hi -ngl 99", "there is no option -ngl; here it is --gpu-layers 99"),
        ("run hi -sys Brief.", "there is no option -sys; here it is --system Brief."),
        ("run hi -no-cnv", "edge-eft run answers once"),
        ("run hi -c 2048", "there is no option -c; here it is --n-ctx 2048"),
        ("run hi --ctx-size=2048", "here it is --n-ctx 2048"),
        ("run -c", "edge-eft chat --continue goes on with a conversation"),
        ("run hi --n-predict 9", "here it is --max-tokens 9"),
        ("run hi --max_tokens 9", "here it is --max-tokens 9"),
        ("run hi --stream", "replies are shown as they come"),
        ("run --interactive", "a conversation is edge-eft chat"),
        ("run hi --keepalive 5m", "models stay loaded in edge-eft serve alone"),
        ("run hi --think=false", """--chat-template-kwargs '{"enable_thinking": false}'"""),
        ("-m atlas 'Who is it?'", "a command comes before -m: edge-eft run -m atlas 'Who is it?'"),
        ("create mine", "there is no command 'create'; edge-eft new NAME makes a recipe"),
        ("version", "it is edge-eft --version"),
        ("ps", "models are loaded by run and chat until they end"),
        ("atlas", "edge-eft run atlas 'a prompt', or edge-eft chat atlas"),
        ("atlas 'Who is it?'", "a command comes first: edge-eft run atlas 'Who is it?'"),
        ("'Who is it?'", "looks like a prompt: edge-eft run 'Who is it?' answers it"),
        ("gone.gguf", "'gone.gguf': no such file"),
        ("help nosuch", "there is no command 'nosuch'"),
    ],
)
def test_a_habit_is_told_what_to_type(line, seen):
    assert seen in complaint(*shlex.split(line), stdin="")


def test_no_command_or_option_of_ours_is_called_foreign():
    assert not set(foreign._COMMANDS) & {*Commands.lazy, *Commands.aliases}
    for name in ("run", "chat"):
        options = {opt for param in cli.get_command(None, name).params for opt in param.opts}
        ours = {told for told in foreign.OPTIONS.values() if told.startswith("--")}
        assert ours <= options | {"--schema"}


def test_the_format_may_still_be_given_by_its_old_name(scripted):
    emulator = scripted(*"ab")
    for value in ("chatml", "{{ messages[0].content }}"):
        assert invoke("run", "atlas", "--prompt", value, "hi").exit_code == 0
    assert emulator.requests[0].prompt[0]["content"] == "hi"


def test_what_follows_two_dashes_is_not_an_option(scripted):
    emulator = scripted("a")
    assert invoke("run", "atlas", "--", "-ngl").exit_code == 0
    assert emulator.requests[0].prompt[0]["content"] == "-ngl"


def test_help_is_a_command_too():
    assert invoke("help").stdout == invoke("--help").stdout
    assert invoke("help", "run").stdout == invoke("run", "--help").stdout
    assert invoke("help", "config", "set").stdout == invoke("config", "set", "--help").stdout


def test_names_in_suggestions_cannot_steer_the_terminal():
    for words in (["\x1b[31mred one"], ["run", "-p", "\x1b[2J"], ["-m", "\x1b[2J"]):
        assert "\x1b" not in complaint(*words, stdin="")


def test_a_schema_may_be_typed(scripted):
    emulator = scripted("{}")
    schema = '{"type": "object"}'
    assert invoke("run", "atlas", "hi", "--schema", schema).exit_code == 0
    assert emulator.requests[0].constraint.to_dict()["json_schema"] == {"type": "object"}
    assert "--schema: is not JSON" in complaint("run", "atlas", "hi", "--schema", "{oops")
