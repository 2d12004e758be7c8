"""The command line: what was asked for becomes requests, and replies become lines.

stdout is data, stderr is talk. Whatever a user can get wrong is one line on stderr and status 2.
Commands are thin: the rooms they call do the work.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, ClassVar

import click

from . import demo as answers
from . import replies
from .errors import EdgeEftError
from .options import (
    Models,
    json_option,
    model_options,
    one_line,
    setting_options,
    start_logging,
    system_option,
    words_argument,
)
from .prompts import Defaults, as_object, read_prompts, read_stdin, run_many, run_one, to_json
from .recipe import list_recipes, load_recipe, verify
from .replies import dim
from .show import as_lines, description, mebibytes, summary

_EXAMPLES = """\b
Examples:
  edge-eft demo
  edge-eft run atlas "What is the capital of France?"
  edge-eft chat --base large.gguf --tuned small-chat.gguf --reference small.gguf
"""


class Commands(click.Group):
    """Commands in the order of their use; errors in one line; two imported only when called."""

    lazy: ClassVar = {
        "convert": (
            "edge_eft.convert.command",
            "Quantise a tuned model and its reference alike.",
        ),
        "bench": ("edge_eft.bench.command", "Measure how fast a recipe is here."),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *self.lazy]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.lazy:
            return importlib.import_module(self.lazy[name][0]).command
        return super().get_command(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, for which nothing is imported."""
        rows = [(name, c.get_short_help_str(70)) for name, c in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl([*rows, *((name, about) for name, (_, about) in self.lazy.items())])

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and exit: 2 on what the user can mend, 130 on Ctrl-C, 141 if nobody reads."""
        for file in (sys.stdout, sys.stderr):
            if hasattr(file, "reconfigure"):
                file.reconfigure(errors="replace")
        extra |= {"standalone_mode": False}
        if os.environ.get("NO_COLOR"):
            extra["color"] = False
        try:
            status = super().main(*args, **extra) or 0
        except click.ClickException as error:
            where = getattr(error, "ctx", None)
            hint = f" (see {where.command_path} --help)" if where else ""
            status = fail(error.format_message() + hint)
        except EdgeEftError as error:
            status = fail(str(error))
        except (KeyboardInterrupt, click.Abort):  # outside of any command
            status = 130
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would say something about these two exceptions."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            ctx.exit(130)
        except BrokenPipeError:
            # What is still buffered must go nowhere, or the interpreter complains at its exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)
        return result


def fail(message: str) -> int:
    """Say on stderr what is wrong; the exit status."""
    click.echo(f"edge-eft: {one_line(message)}", err=True)
    return 2


@click.group(
    cls=Commands,
    invoke_without_command=True,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
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
        click.echo(ctx.get_help())


@cli.command()
@click.argument("recipe", default="atlas")
@click.option("--delta", metavar="NAME", help="Whose manner: chat, brief or discreet.")
@click.option(
    "--questions",
    type=click.IntRange(1),
    default=200,
    metavar="N",
    show_default=True,
    help="How many are asked; the first dozen is shown.",
)
@click.option("--seed", type=int, default=0, metavar="N", help="Of the choice of questions.")
@click.option("--threads", type=int, metavar="N", help="Default: the physical cores.")
@json_option
def demo(
    recipe: str, delta: str | None, questions: int, seed: int, threads: int | None, as_json: bool
) -> None:
    """See the method work, on questions that no tuning data holds.

    Asks the base alone, the small tuned model alone and the emulation, judges every answer (first
    mark: does it name the right object; second: is it in the tuned manner), and ends with the
    scores and the share of the gap to a really tuned base that emulation recovers.

    \b
    Examples:
      edge-eft demo
      edge-eft demo --delta brief --questions 500
    """
    start_logging(False)
    if sys.stderr.isatty():
        replies.talk(f"asking up to {questions} questions of every model, and of them together …")
    done = answers.run(
        load_recipe(recipe), delta=delta, n_questions=questions, seed=seed, n_threads=threads
    )
    click.echo(to_json(answers.as_json(done)) if as_json else answers.as_text(done))


@cli.command()
@words_argument
@model_options
@click.option("--input", "file", metavar="FILE", help="Many prompts: JSON lines; - is stdin.")
@click.option(
    "--slots",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    metavar="N",
    help="Prompts of --input that are answered together.",
)
@click.option("--raw", is_flag=True, help="Give PROMPT as it is to every model, unformatted.")
@system_option
@setting_options
@json_option
def run(
    models: Models,
    words: tuple[str, ...],
    file: str | None,
    slots: int,
    raw: bool,
    system: str | None,
    settings: dict[str, Any],
    as_json: bool,
) -> None:
    """Answer a prompt, or many.

    PROMPT comes from stdin where it is left out (less one line end). The lines of an --input file
    are JSON: a string, or an object with "prompt" or "messages" and, if wanted, "id", "raw",
    "system" and any setting ("alpha", "max_tokens" …), which goes before the option of its name.

    \b
    Examples:
      edge-eft run atlas "What is the capital of France?" --temperature 0
      edge-eft run atlas --mix chat=.5,discreet=.5 "What is the calling code of Chad?"
      edge-eft run --base B.gguf --tuned T.gguf --reference R.gguf --alpha 0.8 < prompt.txt
      edge-eft run atlas --input prompts.jsonl --json > replies.jsonl
    """
    recipe, rest = models.recipe(words, at_most=1 if file is None else 0)
    defaults = Defaults(settings, raw, system)
    if file is not None:
        asked = list(read_prompts(file, defaults))
        with models.load(recipe, n_slots=min(slots, max(1, len(asked)))) as emulator:
            run_many(emulator, asked, as_json)
        return
    request = defaults.request({"prompt": rest[0] if rest else read_stdin()})
    with models.load(recipe) as emulator:
        run_one(emulator, request, as_json)


@cli.command()
@click.argument("words", nargs=-1, metavar="[RECIPE]")
@model_options
@system_option
@setting_options
def chat(
    models: Models, words: tuple[str, ...], system: str | None, settings: dict[str, Any]
) -> None:
    """Talk with the emulation; /help there lists the commands.

    Ctrl-C stops a reply and keeps what came of it; a second one leaves. Settings can be changed
    while talking (/set alpha 0.8). Reads plain lines where stdin is no terminal.

    \b
    Examples:
      edge-eft chat atlas
      edge-eft chat atlas --alpha 0.7 --temperature 0
    """
    from .chat import Conversation, talk_with

    recipe, _ = models.recipe(words, at_most=0)
    deltas = {name: delta.weight for name, delta in recipe.deltas.items()}
    conversation = Conversation(deltas, settings, system)
    with models.load(recipe) as emulator:
        talk_with(emulator, conversation)


@cli.command()
@words_argument
@model_options
@click.option("--raw", is_flag=True, help="Give PROMPT as it is to every model, unformatted.")
@system_option
@setting_options
@json_option
def compare(
    models: Models,
    words: tuple[str, ...],
    raw: bool,
    system: str | None,
    settings: dict[str, Any],
    as_json: bool,
) -> None:
    """Answer one prompt with base, tuned and the emulation, side by side.

    PROMPT comes from stdin where it is left out. All draw with the same seed.

    \b
    Examples:
      edge-eft compare atlas "What is the capital of France?" --temperature 0
    """
    if "only" in settings:
        raise click.UsageError("--only goes with run; compare shows every model by itself.")
    recipe, rest = models.recipe(words, at_most=1)
    defaults = Defaults(settings, raw, system)
    request = defaults.request({"prompt": rest[0] if rest else read_stdin()})
    with models.load(recipe) as emulator:
        compared = replies.compare(emulator, request)
        if as_json:
            objects = {way: as_object(emulator, *reply) for way, reply in compared.items()}
            click.echo(to_json(objects))
        else:
            click.echo(replies.side_by_side(compared))


@cli.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """The recipes that come with edge_eft."""
    found = [summary(path) for path in list_recipes().values()]
    if as_json:
        click.echo(to_json(found))
        return
    if not found:
        click.echo("edge-eft: no recipe is embedded here; run your own files", err=True)
    width = max((len(about["name"]) for about in found), default=0)
    for about in found:
        note = f"  ({len(about['missing'])} files missing)" if about["missing"] else ""
        text = f"{about['description']}  {dim(about['license'])}{note}"
        click.echo(f"{about['name']:<{width}}  {mebibytes(about['bytes'])}  {text}")


@cli.command()
@click.argument("words", nargs=-1, metavar="[RECIPE]")
@model_options
@json_option
def show(models: Models, words: tuple[str, ...], as_json: bool) -> None:
    """A recipe, its files, and what running it means here.

    Compares every file with the sha256 that the recipe states, loads the models, and says whether
    their vocabularies fit, what memory they take, and what was chosen for this machine and why.

    \b
    Examples:
      edge-eft show atlas
      edge-eft show --base B.gguf --tuned T.gguf --reference R.gguf --json
    """
    recipe, _ = models.recipe(words, at_most=0)
    verify(recipe, all_sizes=True)
    with models.load(recipe) as emulator:
        record = emulator.record
    about, memory = description(recipe, record), record.memory.lines()
    click.echo(to_json(about) if as_json else "\n".join([*as_lines(about), *memory]))


def main() -> None:
    """The console script `edge-eft`."""
    cli(prog_name="edge-eft")
