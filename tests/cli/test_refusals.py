"""refusals: whatever is typed wrong is one line in our words, of every command and option."""

import re

import click
import pytest
from helpers.cli_tools import complaint, invoke

from edge_eft.cli.main import Commands, cli
from edge_eft.cli.refusals import refusal

CLICKS_WORDS = re.compile(
    r"Invalid value|is not a valid|is not in the range|is not one of|Missing (arg|opt|param|comm)|"
    r"No such (option|command)|unexpected extra|requires an argument|does not take a value|"
    r"Value must be|Usage:|Error:|Try '"
)


def subcommands():
    """Every command, and those of groups, as the words that call it."""
    for name in Commands.lazy:
        command = cli.get_command(click.Context(cli), name)
        yield (name,), command
        if isinstance(command, click.Group):
            yield from (((name, inner), each) for inner, each in command.commands.items())


COMMANDS = dict(subcommands())
OPTIONS = [
    (words, param)
    for words, command in COMMANDS.items()
    for param in command.params
    if isinstance(param, click.Option)
]


def bad_values(param):
    """Values that an option refuses by itself, whatever else is given."""
    kind = param.type
    if isinstance(kind, click.IntRange | click.FloatRange):
        yield "x"
        yield from (str(each) for each in (_below(kind),) if each is not None)
    elif kind.name in ("integer", "float", "choice"):
        yield "x"


def _below(kind):
    return None if kind.min is None else kind.min - 1


def refused(*words):
    line = complaint(*words, stdin="")
    assert not CLICKS_WORDS.search(line), line
    return line


@pytest.mark.parametrize(
    ("words", "param"), OPTIONS, ids=[f"{' '.join(w)} {p.opts[0]}" for w, p in OPTIONS]
)
def test_every_option_refuses_in_our_words(words, param):
    name = next((each for each in param.opts if each.startswith("--")), param.opts[0])
    if param.is_flag:
        assert f"{name} takes no value; give it alone" in refused(*words, f"{name}=1")
        return
    if name != "--continue":  # may stand alone
        assert f"{name} takes a value: {name} " in refused(*words, name)
    for value in bad_values(param):
        line = refused(*words, f"{name}={value}")
        assert re.search(rf"{name} is '?{re.escape(value)}", line), line
        assert "; it must be " in line


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_refuses_what_it_does_not_know(words):
    line = refused(*words, "--no-such-thing")
    assert "there is no option --no-such-thing" in line
    assert "there is no option -X" in refused(*words, "-X")
    assert f"(see cli {' '.join(words)} --help)" in line


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ("nope", "there is no command 'nope'; there are: demo"),
        ("chta", "there is no command 'chta' (did you mean chat?)"),
        ("config nope", "there is no command 'nope'; there are: get, set, unset"),
        ("completion", "SHELL is missing; give one of bash, zsh, fish"),
        ("completion csh", "SHELL is 'csh'; it must be one of bash, zsh, fish"),
        ("completion bash zsh", "'zsh' is one word too many"),
        ("doctor atlas atlas", "'atlas' is one word too many"),
        ("demo atlas x y", "'x y' is one word too many"),
        ("convert", "--reference, --tuned and --out are missing; give --reference PATH --tuned"),
        ("new x", "--base and --reference are missing; give --base FILE --reference FILE"),
        ("new x --base b", "--reference is missing; give --reference FILE"),
        ("remove", "RECIPE is missing; give at least one"),
        ("run --temp", "--temp takes a value: --temp T"),
        ("run -t", "-t takes a value: -t T"),
        ("run --formt chatml", "there is no option --formt; did you mean --format, "),
    ],
)
def test_words_are_refused_in_our_words(words, seen):
    assert seen in refused(*words.split())


@pytest.mark.parametrize(
    "error",
    [
        click.UsageError("A."),
        click.BadParameter("'x' is not a valid integer."),
        click.MissingParameter(),
        click.NoSuchOption("--x"),
        click.NoSuchCommand("x") if hasattr(click, "NoSuchCommand") else click.UsageError("x"),
        click.BadOptionUsage("--x", "Option '--x' requires an argument."),
        click.BadArgumentUsage("Argument 'x' takes 2 values."),
        click.FileError("f", "no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_error_of_click_has_a_line(error):
    """Also where click does not say which parameter or command it was."""
    assert re.fullmatch(r"[^\n]+", refusal(error))


def test_help_is_by_either_name():
    assert invoke("run", "-h").stdout == invoke("run", "--help").stdout
