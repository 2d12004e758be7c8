"""`edge-eft config`: the user's own defaults, where each comes from, and how to change one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from . import config_file
from .command import HELP, Group, Option
from .command import command as new_command
from .config_file import COMMANDS, KEYS
from .options import json_option
from .refusals import refused_value
from .terminal import dim, one_line, say, talk, to_json


class Effective(NamedTuple):
    """A default as it is in force: its key, the value in words, and where it comes from."""

    key: str
    value: str | list[str] | None
    source: str


class Commands(Group):
    """set, unset, get; of what else is typed, the line that was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command and its arguments; a key is told what goes before it."""
        word, rest = args[0], args[1:]
        told = ""
        if word in ("list", "ls", "show") and not rest:
            told = "edge-eft config"
        elif word in ("list", "ls", "show"):
            told = f"edge-eft config get {shlex.join(rest)}"
        elif word in ("rm", "remove", "delete", "reset"):
            told = f"edge-eft config unset {shlex.join(rest) or 'KEY'}"
        elif "=" in word or rest:
            told = f"edge-eft config set {shlex.join(args)}"
        elif _is_key(ctx, word):
            told = f"edge-eft config get {word}"
        if self.get_command(ctx, word) is None and told and not ctx.resilient_parsing:
            raise click.UsageError(f"there is no command {word!r:.80}; it is {told[:200]}", ctx)
        return super().resolve_command(ctx, args)


@click.group("config", cls=Commands, invoke_without_command=True, context_settings=HELP)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show your own defaults, and where each comes from; get, set or unset one.

    The first of these that has a value counts: the command line, the environment
    (EDGE_EFT_TEMPERATURE), the configuration file, the recipe, the built-in default. In the file,
    a table with a command's name is for that command alone: chat.temperature is temperature in
    [chat].

    \b
    Examples:
      edge-eft config
      edge-eft config set recipe atlas
      edge-eft config set chat.temperature 0.6
      edge-eft config get temperature
      edge-eft config unset recipe
    """
    if ctx.invoked_subcommand is not None:
        return
    path, found = config_file.path_or_none(), list(effective(ctx))
    if as_json:
        values = {each.key: {"value": each.value, "from": each.source} for each in found}
        say(to_json({"path": str(path) if path else None, "values": values}))
        return
    say(one_line(f"{path or 'there is no home directory, and no file'}"))
    _show(found)
    known = {f"EDGE_EFT_{key.upper()}" for key in KEYS} | {
        *("EDGE_EFT_HOME", "EDGE_EFT_CACHE", "EDGE_EFT_API_KEY", "EDGE_EFT_SUPERVISOR")
    }
    for name in sorted(name for name in os.environ if name.startswith("EDGE_EFT_")):
        if name not in known and not name.startswith("EDGE_EFT_TEST_"):
            talk(f"{one_line(name)} is set, and nothing reads it")


def _show(found: Sequence[Effective]) -> None:
    """Print a line for each; without rich, which takes longer than all of this."""
    for each in found:
        shown = each.value if isinstance(each.value, str) else ", ".join(each.value or ["-"])
        line = f"{each.key:<22}{one_line(shown):<24}{each.source}"
        say(dim(line) if each.source == "built in" else line)


def _complete_key(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return [CompletionItem(key) for key in KEYS if key.startswith(incomplete)]


def _complete_value(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return what completes the values of the option that the key is the default of."""
    try:
        table, name = _split(ctx, ctx.params.get("key") or "")
        option, owner = _option(ctx, table, name)
    except click.ClickException:
        return []
    if option.is_flag:
        return [CompletionItem(v) for v in ("true", "false") if v.startswith(incomplete)]
    if name == "draft":
        return [CompletionItem("auto")] if "auto".startswith(incomplete) else []
    inner = click.Context(owner, parent=ctx, info_name=owner.name, resilient_parsing=True)
    return option.shell_complete(inner, incomplete)


@new_command("set")
@click.argument("key", shell_complete=_complete_key)
@click.argument("value", required=False, shell_complete=_complete_value)
@click.pass_context
def set_key(ctx: click.Context, key: str, value: str | None) -> None:
    """Write a default into the configuration file: KEY, or COMMAND.KEY for one command."""
    if value is None:
        key, equals, value = key.partition("=")
        if not equals:
            raise click.UsageError(f"VALUE is missing; give edge-eft config set {key} VALUE", ctx)
    table, name = _split(ctx, key)
    config_file.read()
    option, owner = _option(ctx, table, name)
    if name == "recipe":
        value = _recipe(value)
    with click.Context(owner, parent=ctx, info_name=owner.name) as inner:
        words = config_file.as_words(name, value, owner)
        try:
            typed = option.type_cast_value(inner, words)
        except click.BadParameter as error:
            raise click.ClickException(refused_value(error, key)) from None
    _write(table, name, _literal(typed, value))


@new_command("get")
@click.argument("key", shell_complete=_complete_key)
@click.pass_context
def get_key(ctx: click.Context, key: str) -> None:
    """Print the default that holds: a line for each text of a key that takes several."""
    table, name = _split(ctx, key)
    found = {each.key: each for each in effective(ctx)}
    one = found.get(f"{table}.{name}") or found[name]
    for text in [one.value] if isinstance(one.value, str) else one.value or ():
        say(text)


@new_command("unset")
@click.argument("key", shell_complete=_complete_key)
@click.pass_context
def unset_key(ctx: click.Context, key: str) -> None:
    """Remove a default from the configuration file."""
    table, name = _split(ctx, key)
    data = config_file.read()
    if name not in (data.get(table, {}) if table else data):
        raise click.ClickException(
            f"{config_file.path_or_none()}: has no {key!r:.60}; `edge-eft config` shows what it has"
        )
    _write(table, name, None)


command.add_command(set_key)
command.add_command(get_key)
command.add_command(unset_key)


def effective(ctx: click.Context) -> Iterator[Effective]:
    """Yield every key, and the keys in tables, with their values; wrong ones are refused."""
    data = config_file.read()
    for name in KEYS:
        option, owner = _option(ctx, "", name)
        variable = str(option.envvar)
        source = "built in"
        if value := os.environ.get(variable):
            source = variable
        elif name in data:
            value, source = data[name], "file"
        yield _checked(ctx, option, owner, name, value, source)
    for table in COMMANDS:
        for name, value in data.get(table, {}).items():
            option, owner = _option(ctx, table, name)
            yield _checked(ctx, option, owner, f"{table}.{name}", value, "file")


def _checked(
    ctx: click.Context, option: Option, owner: click.Command, key: str, value: Any, source: str
) -> Effective:
    if source == "built in":
        default = option.show_default if isinstance(option.show_default, str) else option.default
        words = str(default) if isinstance(default, str | int | float) else None
        return Effective(key, "off" if option.is_flag else words, source)
    words = config_file.as_words(option.name or "", value, owner)
    inner = click.Context(owner, parent=ctx, info_name=owner.name)
    try:
        option.type_cast_value(inner, words)
    except click.BadParameter as error:
        where = source if source != "file" else f"{config_file.path_or_none()}: {key}"
        raise click.ClickException(refused_value(error, where)) from None
    return Effective(key, words, source)


def _is_key(ctx: click.Context, word: str) -> bool:
    try:
        _split(ctx, word)
    except click.ClickException:
        return False
    return True


def _split(ctx: click.Context, key: str) -> tuple[str, str]:
    """Return the table and the name of a key as it is typed, or refuse it.

    What an option is called is a key, too: temp, model.
    """
    table, _, name = key.lstrip("-").replace("-", "_").rpartition(".")
    if table and table not in COMMANDS:
        raise click.ClickException(
            f"{key!r:.60} is not a key; a command's own is COMMAND.KEY, with one of "
            f"{', '.join(COMMANDS)}"
        )
    name = name if name in KEYS else _by_option(ctx, name)
    config_file.check_key(name, "")
    return table, name


def _by_option(ctx: click.Context, word: str) -> str:
    """Return the key of the option that is called `word`, else the word."""
    flag = f"--{word.replace('_', '-')}"
    for _, param in _keyed(ctx, COMMANDS):
        if flag in param.opts:
            return param.name or word
    return word


def _keyed(ctx: click.Context, names: Iterable[str]) -> Iterator[tuple[click.Command, Option]]:
    """Yield the options of commands that can have a default, each with its command."""
    root = ctx.find_root()
    group = root.command
    assert isinstance(group, click.Group)
    for name in names:
        owner = group.get_command(root, name)
        assert owner is not None
        for param in owner.params:
            if isinstance(param, Option) and param.key:
                yield owner, param


def _option(ctx: click.Context, table: str, name: str) -> tuple[Option, click.Command]:
    """Return the option that a key is the default of, and its command."""
    for owner, param in _keyed(ctx, [table] if table else COMMANDS):
        if param.name == name:
            return param, owner
    raise click.ClickException(f"{table} has no option {name!r}; give it without `{table}.`")


def _recipe(value: str) -> str:
    """Return the name or the absolute path of a recipe, which there has to be."""
    from ..files.recipe import absolute
    from ..files.recipe_names import list_recipes, load_recipe

    if any(spec.needs_pull for spec in load_recipe(value).models().values()):
        talk(f"its models are not here yet: edge-eft pull {one_line(value)}")
    return value if value in list_recipes() or not os.path.exists(value) else str(absolute(value))


def _literal(typed: Any, value: str) -> str:
    """Return a value in TOML."""
    from ..files.recipe_toml import quoted

    if isinstance(typed, bool):
        return str(typed).lower()
    if isinstance(typed, int | float) and not isinstance(typed, bool):
        return repr(typed)
    return f"[{quoted(value)}]" if isinstance(typed, tuple) else quoted(value)


def _write(table: str, name: str, literal: str | None) -> None:
    from ..files.plain_text import reason
    from ..files.recipe_names import write_whole

    path = config_file.path_or_none()
    if path is None:
        raise click.ClickException("no home directory is known; EDGE_EFT_HOME names a directory")
    try:
        text = config_file.edited(config_file.read_text(path), table, name, literal)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except ValueError:
        line = f"write {name} = {literal}" if literal is not None else f"remove {name}"
        raise click.ClickException(
            f"{path}: {name} is not on a line of its own; {line} there yourself"
        ) from None
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be written ({reason(error)})") from None
    key = f"{table}.{name}" if table else name
    talk(f"{key} is {literal}" if literal is not None else f"{key} is unset")
