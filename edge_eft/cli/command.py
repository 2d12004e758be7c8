"""Commands and options as this command line has them: help in groups, defaults of the user's own.

Built on click's own ways: an option that has a key is looked up in the environment and in the
configuration file where the command line does not give it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import click

from .foreign import check, instead
from .values import span

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}  # of every command

# The headings of --help, in this order; what has none of them comes last, under "Options".
MODELS, LOADING, PROMPT = "Models", "Loading", "Prompt"
DIALS, SAMPLING, SPEED, OUTPUT = "The dials", "Sampling", "Speed", "Output"
LISTENING, ACCESS = "Listening", "Access"  # of `serve`
RUNS = "Measuring"  # of what measures
TYPES, RECIPE = "Types", "The recipe"  # of what makes recipes
TALK = "Conversation"  # of `chat`
FETCHING, REMOVING = "Fetching", "Removing"  # of `pull`, and of what removes
GROUPS = (
    PROMPT,
    LISTENING,
    ACCESS,
    RUNS,
    TALK,
    FETCHING,
    REMOVING,
    MODELS,
    TYPES,
    RECIPE,
    LOADING,
    DIALS,
    SAMPLING,
    SPEED,
    OUTPUT,
)


class Option(click.Option):
    """An option with a group in --help, and a key if the user can set a default for it.

    Args:
        group: one of GROUPS.
        key: whether EDGE_EFT_NAME and the configuration file may say its value.
        aliases: further names, which --help does not show.
    """

    def __init__(
        self,
        decls: Sequence[str],
        *,
        group: str = "",
        key: bool = False,
        aliases: Sequence[str] = (),
        **attrs: Any,
    ) -> None:
        super().__init__(decls, **attrs)
        self.group, self.key = group, key
        self.shown = list(self.opts)
        self.opts += aliases
        if key:
            self.envvar = f"EDGE_EFT_{(self.name or '').upper()}"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the names that are shown, and the help text."""
        every, self.opts = self.opts, self.shown
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Return default and range, in our words."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        if isinstance(self.type, click.IntRange | click.FloatRange) and (words := span(self.type)):
            extra["range"] = words
        return extra


class Context(click.Context):
    """A context that knows the user's own defaults."""

    def lookup_default(self, name: str, call: Any = True) -> Any:
        """Return what the configuration file says of a parameter, None if nothing.

        Neither completion nor --help looks there: both work whatever the file holds.
        """
        keyed = any(p.name == name and getattr(p, "key", False) for p in self.command.params)
        if self.resilient_parsing or not keyed:
            return super().lookup_default(name, call)
        from .config_file import value_for

        return value_for(self, name)


class Command(click.Command):
    """A command whose --help shows its options under headings."""

    context_class = Context

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; of what is refused, it is known in which command that was."""
        words = list(args)  # click takes its list apart
        try:
            if not ctx.resilient_parsing:
                check(words, ctx)
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if told := instead(error.option_name, words, ctx):
                raise click.UsageError(told, ctx) from None
            error.ctx = error.ctx or ctx
            raise
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, heading by heading."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in (*GROUPS, "Options")}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                groups[getattr(param, "group", "") or "Options"].append(record)
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


class Group(Command, click.Group):
    """A command with commands of its own, which --help lists behind its options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, heading by heading, and the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


option = functools.partial(click.option, cls=Option)


def command(name: str, **settings: Any) -> Any:
    """Return the decorator that makes a function a command; `settings` are of its context."""
    return click.command(name, cls=Command, context_settings={**HELP, **settings})
