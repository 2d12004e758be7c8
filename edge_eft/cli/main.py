"""The command line: which commands there are, and how every one of them ends.

stdout is data, stderr is talk. Whatever a user can get wrong is one line on stderr and status 2.
Commands are imported when they are called, and what they import is needed for their options alone:
`--help`, `--version`, completion and a wrong option load no NumPy and no native code.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import click

from ..errors import EdgeEftError
from ..files.plain_text import reason
from .command import HELP
from .refusals import refusal
from .terminal import one_line, say

_EXAMPLES = """\b
Examples:
  edge-eft demo
  edge-eft run atlas "What is the capital of France?"
  edge-eft chat --base large.gguf --tuned small-chat.gguf --reference small.gguf
"""


class Commands(click.Group):
    """Commands in the order of their use, imported when they are called; errors in one line."""

    # name → module, the command in it, and what --help says without importing it
    lazy: ClassVar = {
        "demo": (".demo", "demo", "See the method work, on questions that no tuning data holds."),
        "run": (".run", "run", "Answer a prompt, or many."),
        "chat": (".chat", "chat", "Talk with the emulation; /help there lists the commands."),
        "compare": (".run", "compare", "Answer one prompt with base, tuned and the emulation."),
        "list": (".list", "command", "List the recipes: what is here, and what can be pulled."),
        "show": (".show", "show", "Show a recipe, its files, and what running it means here."),
        "inspect": (".inspect", "command", "Show what the delta did to each token of a reply."),
        "log": (".log", "command", "List, show and delete the conversations that chat has kept."),
        "serve": (".serve", "command", "Serve recipes to programs that speak OpenAI's interface."),
        "pull": (".pull", "pull", "Get the models of a recipe from the Hugging Face hub."),
        "new": (".new", "command", "Make a recipe of three model files of yours."),
        "verify": (".verify", "command", "Compare the files of recipes with what they state."),
        "remove": (".remove", "command", "Remove a recipe of yours, and what was pulled for it."),
        "match": (".match", "command", "Find models on this machine that make an emulation."),
        "convert": (".convert", "command", "Quantise a tuned model like its reference."),
        "doctor": (
            ".doctor",
            "doctor",
            "Look at this installation and machine, and why it is slow.",
        ),
        "config": (".config", "command", "Show your own defaults, and set or unset one."),
        "completion": (".completion", "command", "Print the script that completes for a shell."),
        "bench": (".bench", "command", "Measure how fast a recipe is here."),
    }

    aliases: ClassVar = {"ls": "list", "rm": "remove", "logs": "log"}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; `help COMMAND` is COMMAND --help."""
        if args and args[0] == "help":
            args = [*args[1:], "--help"]
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if words[0].partition("=")[0] != error.option_name or len(words) < 2:
                raise
            line = shlex.join(words) if len(words) < 20 else f"{error.option_name} …"
            raise click.UsageError(
                f"a command comes before {error.option_name}: edge-eft run {line[:200]}", ctx
            ) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command and its arguments; of other words, refuse with what was meant."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            from .foreign import command_instead

            if told := command_instead(args):
                raise click.UsageError(told, ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        name = self.aliases.get(name, name)
        if name not in self.lazy:
            return None
        module, command, _ = self.lazy[name]
        found: click.Command = getattr(importlib.import_module(module, __package__), command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list in --help, for which nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (*_, about) in self.lazy.items()])

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and exit: 2 on what the user can mend, 130 on Ctrl-C, 141 if nobody reads."""
        for file in (sys.stdout, sys.stderr):
            if hasattr(file, "reconfigure"):
                file.reconfigure(errors="replace")
        extra |= {"standalone_mode": False}
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            extra["color"] = False
        try:
            status = super().main(*args, **extra) or 0
        except click.ClickException as error:
            status = fail(refusal(error))
        except EdgeEftError as error:
            status = fail(str(error))
        except click.Abort:
            status = 130
        sys.exit(status if isinstance(status, int) else 0)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments, which may print a help text."""
        with _endings():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _endings():
            return super().invoke(ctx)


@contextlib.contextmanager
def _endings() -> Iterator[None]:
    """Turn what ends a command from outside into an exit status; click would print something."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    except BrokenPipeError:
        _close_stdout()
        raise click.exceptions.Exit(141) from None
    except OSError as error:
        _close_stdout()
        about = f"{error.filename}: " if error.filename else ""
        raise click.exceptions.Exit(
            fail(f"{about}cannot read or write ({reason(error)})")
        ) from None


def _close_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter complains at its exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str) -> int:
    """Say on stderr what is wrong. Returns the exit status."""
    with contextlib.suppress(OSError):  # stderr may be closed or full
        say(f"edge-eft: {one_line(message)}", err=True)
    return 2


@click.group(
    cls=Commands,
    invoke_without_command=True,
    epilog=_EXAMPLES,
    context_settings=HELP,
)
@click.version_option(package_name="edge-eft", message="edge-eft %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run a large base model as if it had been fine-tuned.

    At every token, what tuning changed in a small model is added to a large one of its family:
    base + alpha × (tuned − reference). A recipe names the models of one emulation; three GGUF
    files make one, too. Everything runs here, offline.
    """
    if ctx.invoked_subcommand is None:
        say(ctx.get_help())


def main() -> None:
    """Run the command line in this process; the console script is `supervise.main`."""
    cli(prog_name="edge-eft")
