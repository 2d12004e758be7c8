"""Options that commands share: which models, which settings.

The declarations load nothing but click; recipes and models are loaded when they are asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..engine.settings import SETTINGS
from ..text.formats import FORMATS
from .terminal import start_logging

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from ..files.recipe import Recipe

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}  # of every command

Command = Callable[..., None]


@dataclass(frozen=True)
class Models:
    """Which models, and how they are loaded."""

    base: str | None
    tuned: str | None
    reference: str | None
    prompt: str | None
    n_ctx: int | None
    threads: int | None
    gpu_layers: int | None

    def recipe(self, words: Sequence[str], *, at_most: int) -> tuple[Recipe, list[str]]:
        """Return the recipe that options and words name, and the words after it.

        With --tuned and --reference there is no recipe among the words; `at_most` words may
        follow it.
        """
        from ..files.recipe import from_files
        from ..files.recipe_toml import load_recipe

        names_files = self.tuned is not None or self.reference is not None
        if names_files and None in (self.base, self.tuned, self.reference):
            raise click.UsageError("--tuned and --reference need each other and --base")
        if not names_files and not words:
            raise click.UsageError("Name a recipe (atlas), or --base, --tuned and --reference.")
        rest = list(words if names_files else words[1:])
        if len(rest) > at_most:
            raise click.UsageError(f"{rest[at_most]!r} is one word too many; quote the prompt.")
        if names_files:
            prompt = self.prompt or "plain"
            return from_files(self.base, self.tuned, self.reference, prompt=prompt), rest  # type: ignore[arg-type]
        recipe = load_recipe(words[0])
        if self.base is not None:
            recipe = recipe.with_base(self.base, prompt=self.prompt)
        elif self.prompt is not None:
            raise click.UsageError("--prompt goes with --base; the recipe has its own formats.")
        return recipe, rest

    def load(self, recipe: Recipe, *, n_slots: int = 1) -> Emulator:
        """Load it all; may take a while."""
        from ..engine.emulator import Emulator

        return Emulator(
            recipe,
            n_ctx=self.n_ctx,
            n_threads=self.threads,
            n_gpu_layers=self.gpu_layers,
            n_slots=n_slots,
        )


def model_options(command: Command) -> Command:
    """Add the options for the models, given to the command as `models`."""

    @functools.wraps(command)
    def packed(*, verbose: bool, **options: Any) -> None:
        start_logging(verbose)
        models = Models(**{name: options.pop(name) for name in Models.__dataclass_fields__})
        command(models=models, **options)

    for option in (
        click.option("--verbose", "-v", is_flag=True, help="Say on stderr what is going on."),
        click.option("--gpu-layers", type=int, metavar="N", help="Per model; default: all."),
        click.option("--threads", type=int, metavar="N", help="Default: the physical cores."),
        click.option("--n-ctx", type=int, metavar="N", help="Context length in tokens."),
        click.option("--prompt", metavar="FORMAT", help=f"Of the base: {', '.join(FORMATS)}."),
        click.option("--reference", metavar="FILE", help="GGUF that `tuned` was tuned from."),
        click.option("--tuned", metavar="FILE", help="GGUF of the small tuned model."),
        click.option("--base", metavar="FILE", help="GGUF of the large base model."),
    ):
        packed = option(packed)
    return packed


def setting_options(command: Command) -> Command:
    """Add SETTINGS as options, given to the command as `settings` (those that were set)."""

    @functools.wraps(command)
    def packed(**options: Any) -> None:
        given = {name: options.pop(name) for name in [*SETTINGS, "stop"]}
        settings = {name: value for name, value in given.items() if value not in (None, ())}
        command(settings=settings, **options)

    packed = click.option("--stop", multiple=True, metavar="S", help="End before S; repeatable.")(
        packed
    )
    for name, setting in reversed(SETTINGS.items()):
        flag = f"--{name.replace('_', '-')}"
        packed = click.option(flag, type=setting.read, metavar=setting.metavar, help=setting.help)(
            packed
        )
    return packed


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
system_option = click.option("--system", metavar="S", help="System message.")
words_argument = click.argument("words", nargs=-1, metavar="[RECIPE] [PROMPT]")
