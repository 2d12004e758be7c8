"""What click refuses, in our words: what was seen, and what to do."""

from __future__ import annotations

import re

import click
from click.core import ParameterSource

from ..validate import did_you_mean
from .values import Written, span

# How click's own types put it; of a number, of a truth value and of a choice.
_SEEN = re.compile(r"(.*) (?:is not a valid|is not in the range|is not one of)\b.*", re.DOTALL)

_LONGEST = 80  # characters of a value that are shown


def refusal(error: click.ClickException) -> str:
    """Return one line about what click, or a command in its way, refuses."""
    told = error.format_message()
    if isinstance(error, click.MissingParameter):
        told = _missing(error)
    elif isinstance(error, click.BadParameter):
        told = refused_value(error, _where(error))
    elif isinstance(error, click.NoSuchOption):
        told = _no_option(error)
    elif isinstance(error, click.BadOptionUsage):
        told = _misused(error)
    elif isinstance(error, click.UsageError) and error.ctx and _is_of_click(told):
        told = _surplus(error.ctx, told)
    context = getattr(error, "ctx", None)
    return f"{told} (see {context.command_path} --help)" if context else told


def _is_of_click(told: str) -> bool:
    return told.startswith(("Got unexpected", "Missing command", "No such command"))


def _surplus(ctx: click.Context, told: str) -> str:
    words = told.partition("(")[2].rstrip(")")
    names = ctx.command.list_commands(ctx) if isinstance(ctx.command, click.Group) else []
    if told.startswith("Missing command"):
        return f"a command is missing; there are: {', '.join(names)}"
    if told.startswith("No such command"):
        word = told.split("'")[1] if "'" in told else told
        near = did_you_mean(word, names) or f"; there are: {', '.join(names)}"
        return f"there is no command {word!r:.80}{near}"
    return f"{words!r:.80} is one word too many; leave it out, or quote what belongs together"


def refused_value(error: click.BadParameter, where: str) -> str:
    """Return what is wrong with a value that came from `where`, and what it must be."""
    kind = error.param.type if error.param is not None else None
    found = _SEEN.fullmatch(error.message)
    if found is None or kind is None:
        message = error.message.rstrip(".")  # of ours it may go on after "is": a value comes first
        return f"{where} is {message}" if re.match(r"['\"\d]", message) else f"{where}: {message}"
    seen = found[1] if len(found[1]) <= _LONGEST else f"{found[1][:_LONGEST]}…"
    return f"{where} is {seen}; it must be {wanted(kind)}"


def wanted(kind: click.ParamType) -> str:
    """Return in words what values a type of click's takes."""
    if isinstance(kind, click.Choice):
        return f"one of {', '.join(map(str, kind.choices))}"
    if isinstance(kind, type(click.BOOL)):
        return "true or false"
    if isinstance(kind, Written):
        return kind.wanted
    range_of = f", {span(kind)}" if isinstance(kind, click.IntRange | click.FloatRange) else ""
    whole = isinstance(kind, click.IntRange) or kind is click.INT
    return f"a {'whole ' if whole else ''}number{range_of}".rstrip(", ")


def _where(error: click.BadParameter) -> str:
    """Return the option, the variable or the line of the file that a wrong value came from."""
    param, ctx = error.param, error.ctx
    if param is None or ctx is None:
        return str(error.param_hint or "a value")
    source = ctx.get_parameter_source(param.name or "")
    if source is ParameterSource.ENVIRONMENT:
        return str(param.envvar)
    if source is ParameterSource.DEFAULT_MAP:
        from .config_file import place_of

        return place_of(param.name or "", ctx)
    return _called(param)


def _called(param: click.Parameter) -> str:
    """Return the name of a parameter: the long one of an option."""
    if isinstance(param, click.Option):
        return next((name for name in param.opts if name.startswith("--")), param.opts[0])
    return (param.metavar or (param.name or "").upper()).strip("[].…")


def _missing(error: click.MissingParameter) -> str:
    param = error.param
    if param is None:
        return "a value is missing"
    called = _called(param)
    if isinstance(param.type, click.Choice):
        return f"{called} is missing; give {wanted(param.type)}"
    if isinstance(param, click.Option):
        given = error.ctx.params if error.ctx else {}  # what was typed has been read before
        lacking = [
            each
            for each in (error.ctx.command.params if error.ctx else [param])
            if each.required and isinstance(each, click.Option) and each.name not in given
        ]
        *first, last = map(_called, lacking)
        names = f"{', '.join(first)} and {last}" if first else last
        values = (f"{_called(each)} {each.metavar or each.type.name.upper()}" for each in lacking)
        return f"{names} {'are' if len(lacking) > 1 else 'is'} missing; give {' '.join(values)}"
    return f"{called} is missing; give {'at least one' if param.nargs == -1 else 'one'}"


def _no_option(error: click.NoSuchOption) -> str:
    """Return that there is no such option, with those that have its word, or like letters."""
    told = f"there is no option {error.option_name}"
    if error.ctx is None:
        return told
    word = error.option_name.lstrip("-")
    params = error.ctx.command.get_params(error.ctx)
    shown = (getattr(param, "shown", param.opts) for param in params)
    names = sorted(name for opts in shown for name in opts if name.startswith("--"))
    meant = [name for name in names if word and name.startswith(f"--{word}")]
    meant = meant or [name for name in names if len(word) > 2 and word in name]
    meant = meant or [name for name in error.possibilities or () if name in names]
    return f"{told}; did you mean {', '.join(meant[:3])}?" if meant else told


def _misused(error: click.BadOptionUsage) -> str:
    if "does not take" in error.message:
        return f"{error.option_name} takes no value; give it alone"
    params = error.ctx.command.get_params(error.ctx) if error.ctx else ()
    for param in params:
        if error.option_name in param.opts:
            shown = param.metavar or param.type.name.upper()
            return f"{error.option_name} takes a value: {error.option_name} {shown}"
    return f"{error.option_name} takes a value"
