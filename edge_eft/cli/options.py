"""Options that commands share: which models, which settings.

The declarations load nothing but click; recipes and models are loaded when they are asked for.
"""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ..engine.settings import SETTINGS
from ..errors import RecipeError
from ..files.plain_text import decode
from ..text.formats import FORMATS
from .terminal import set_quiet, start_logging

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from ..files.recipe import Recipe

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}  # of every command

Command = Callable[..., None]


class Text(click.ParamType):
    """Words for a model. What is not UTF-8 comes as half characters, which no model can be told."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return decode(value.encode())
        except UnicodeEncodeError:
            self.fail(f"{value!r:.60} is not UTF-8.", param, ctx)


@dataclass(frozen=True)
class Models:
    """Which models, and how they are loaded."""

    base: str | None
    tuned: str | None
    reference: str | None
    lora: str | None
    prompt: str | None
    n_ctx: int | None
    threads: int | None
    gpu_layers: int | None

    def recipe(self, words: Sequence[str], *, at_most: int) -> tuple[Recipe, list[str]]:
        """Return the recipe that options and words name, and the words after it.

        With --reference there is no recipe among the words; `at_most` words may follow it.
        """
        from ..files.recipe_names import list_recipes

        recipes = list_recipes()
        self._check_files(recipes)
        names_files = self.tuned is not None or self.reference is not None
        given = more = "--tuned and --reference"
        if self.lora is not None:
            given, more = "--reference and --lora", "--reference"
        if not words and self.base is not None and not names_files:
            raise click.UsageError(f"--base alone needs a recipe; or add {more}.")
        if not names_files and not words and self.lora is not None:
            raise click.UsageError(
                f"Name a recipe, or --base, {more}; {_lora_goes_with(self.lora)}."
            )
        if not names_files and not words:
            raise click.UsageError(f"Name a recipe (atlas), or --base, {more}.")
        rest = list(words if names_files else words[1:])
        if len(rest) > at_most:
            why = f"{given} take the place of a recipe; " if names_files else ""
            what = "quote the prompt" if at_most else "no prompt goes here"
            raise click.UsageError(f"{rest[at_most]!r} is one word too many; {why}{what}.")
        if names_files:
            return self._of_files(), rest
        _check_order(words, recipes)
        if self.base is not None and not (words[0] in recipes or os.path.lexists(words[0])):
            raise click.UsageError(
                f"--base alone goes with a recipe, and {words[0]!r} is none; name one before the "
                f"prompt, or add {more}."
            )
        return self._named(words[0]), rest

    def _named(self, word: str) -> Recipe:
        from ..files.recipe_names import load_recipe

        try:
            recipe = load_recipe(word)
        except RecipeError as error:
            if self.lora is None or os.path.lexists(word):
                raise
            raise RecipeError(f"{error}; {_lora_goes_with(self.lora)}") from None
        if self.lora is not None:
            return recipe.with_lora(self.lora, base=self.base, prompt=self.prompt)
        return recipe.with_base(self.base, prompt=self.prompt)

    def _of_files(self) -> Recipe:
        from ..files.recipe import from_files

        if self.lora is None:
            if self.base is None or self.tuned is None or self.reference is None:
                raise click.UsageError(
                    "--base, --tuned and --reference go together, without a recipe; "
                    "with a recipe goes --base alone."
                )
            return from_files(self.base, self.tuned, self.reference, prompt=self.prompt)
        if self.tuned is not None:
            raise click.UsageError(
                "--lora makes the tuned model of the reference: leave out --tuned."
            )
        if self.base is None or self.reference is None:
            raise click.UsageError("--base, --reference and --lora go together, without a recipe.")
        from ..files.lora import lora_on_files

        return lora_on_files(self.base, self.reference, self.lora, prompt=self.prompt)

    def _check_files(self, recipes: Mapping[str, Path]) -> None:
        """Raise UsageError if an option that takes a file has something else."""
        for role in ("base", "tuned", "reference", "lora"):
            name = getattr(self, role)
            what = "a LoRA adapter" if role == "lora" else "a GGUF file"
            if name == "":
                raise click.UsageError(f"--{role} is empty; name {what}.")
            there = Path.exists if role == "lora" else Path.is_file
            named = name in recipes and not there(Path(name))
            if name is not None and (named or name.endswith(".toml")):
                raise click.UsageError(
                    f"--{role} takes {what}, and {name!r} is a recipe; a recipe is named "
                    "without an option, before the prompt."
                )

    def load(self, recipe: Recipe, *, n_slots: int = 1) -> Emulator:
        """Load it all; may take a while, and shows how far it is."""
        from .untried import load

        return load(
            recipe,
            untried=self.tuned is not None and self.prompt is None,
            n_ctx=self.n_ctx,
            n_threads=self.threads,
            n_gpu_layers=self.gpu_layers,
            n_slots=n_slots,
        )


def _check_order(words: Sequence[str], recipes: Mapping[str, Path]) -> None:
    """Raise UsageError if the recipe follows the prompt."""
    known = words[0] in recipes or os.path.lexists(words[0])
    if not known and len(words) > 1 and words[1] in recipes:
        command = click.get_current_context().info_name
        right = f"edge-eft {command} {words[1]} {shlex.quote(words[0])}"
        raise click.UsageError(f"The recipe comes first: {right}.")


def _lora_goes_with(adapter: str) -> str:
    """Return which recipes an adapter can be used with, for a message."""
    from ..files.lora import recipes_for
    from ..files.recipe import absolute

    found = recipes_for(absolute(adapter))
    if not found:
        return "--lora goes with a recipe that the adapter fits, and none here is known to"
    return f"--lora goes with a recipe, and this adapter fits {', '.join(found)}"


quiet_option = click.option(
    "--quiet",
    "-q",
    is_flag=True,
    is_eager=True,  # before anything is said
    expose_value=False,
    callback=lambda ctx, param, value: set_quiet(value),
    help="Say on stderr nothing but errors: no progress, no notes.",
)


def model_options(command: Command) -> Command:
    """Add the options for the models, given to the command as `models`."""

    @functools.wraps(command)
    def packed(*, verbose: bool, **options: Any) -> None:
        start_logging(verbose)
        models = Models(**{name: options.pop(name) for name in Models.__dataclass_fields__})
        command(models=models, **options)

    for option in (
        quiet_option,
        click.option("--verbose", "-v", is_flag=True, help="Say on stderr what is going on."),
        click.option("--gpu-layers", type=int, metavar="N", help="Per model; default: all."),
        click.option("--threads", type=int, metavar="N", help="Default: the physical cores."),
        click.option("--n-ctx", type=int, metavar="N", help="Context length in tokens."),
        click.option(
            "--prompt",
            type=Text(),
            metavar="FORMAT",
            help=f"Of the base: {', '.join(FORMATS)}.",
        ),
        click.option(
            "--lora",
            metavar="ADAPTER",
            help="LoRA (GGUF, or PEFT directory) of the small instruct model, to lead the large.",
        ),
        click.option("--reference", metavar="FILE", help="GGUF that `tuned` was tuned from."),
        click.option("--tuned", metavar="FILE", help="GGUF of the small tuned model."),
        click.option("--base", metavar="FILE", help="GGUF of the large base model."),
    ):
        packed = option(packed)
    return packed


def complete_recipe(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names that the first word of a command may be, or say that it is a path."""
    if any(ctx.params.get(name) for name in (param.name or "", "tuned", "reference")):
        return []  # a prompt follows, which nobody can complete
    from ..files.recipe_names import catalogue, embedded_recipes, own_recipes

    places = (catalogue(), "to pull"), (own_recipes(), "yours"), (embedded_recipes(), "embedded")
    about = {name: what for names, what in places for name in names}
    found = [
        CompletionItem(name, help=what)
        for name, what in sorted(about.items())
        if name.startswith(incomplete)
    ]
    return found or [CompletionItem(incomplete, type="file")]


def complete_here(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of recipes that are here and were not typed yet."""
    from ..files.recipe_names import embedded_recipes, own_recipes

    names = own_recipes().keys() | (
        embedded_recipes().keys() if ctx.command.name != "remove" else ()
    )
    names -= set(ctx.params.get(param.name or "") or ())
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def setting_options(command: Command) -> Command:
    """Add SETTINGS as options, given to the command as `settings` (those that were set)."""

    @functools.wraps(command)
    def packed(**options: Any) -> None:
        given = {name: options.pop(name) for name in [*SETTINGS, "stop"]}
        settings = {name: value for name, value in given.items() if value not in (None, ())}
        command(settings=settings, **options)

    packed = click.option(
        "--stop", type=Text(), multiple=True, metavar="S", help="End before S; repeatable."
    )(packed)
    for name, setting in reversed(SETTINGS.items()):
        flag = f"--{name.replace('_', '-')}"
        packed = click.option(flag, type=setting.read, metavar=setting.metavar, help=setting.help)(
            packed
        )
    return packed


def slots_option(help: str) -> Callable[[Command], Command]:
    """Return the option for how many requests are decoded together, given as `slots`."""
    return click.option(
        "--slots",
        type=click.IntRange(1, 64),
        default=4,
        show_default=True,
        metavar="N",
        help=help,
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
system_option = click.option("--system", type=Text(), metavar="S", help="System message.")
recipe_argument = click.argument(
    "words", nargs=-1, metavar="[RECIPE]", shell_complete=complete_recipe
)
words_argument = click.argument(
    "words", nargs=-1, metavar="[RECIPE] [PROMPT]", shell_complete=complete_recipe
)
