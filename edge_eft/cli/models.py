"""Which models the options and words of a command name, and how they are loaded."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import RecipeError
from .naming import DEFAULT_RECIPE, looks_like_prompt, mistaken, with_name_mended
from .terminal import talk

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from ..files.recipe import Recipe


@dataclass
class Models:
    """Which models, and how they are loaded.

    Attributes:
        model: the recipe by option. default: the one that the user has configured.
        format: of the base's prompt.
        assumed: whether it is the built-in default recipe that was taken, which nobody has named.
    """

    base: str | None
    tuned: str | None
    reference: str | None
    lora: str | None
    format: str | None
    n_ctx: int | None
    threads: int | None
    gpu_layers: int | None
    model: str | None = None
    default: str | None = None
    assumed: bool = False

    def recipe(self, words: Sequence[str], *, at_most: int) -> tuple[Recipe, list[str]]:
        """Return the recipe that options and words name, and the words after it.

        Without one among them it is the default recipe. `at_most` words may follow it.
        """
        from ..files.recipe_names import list_recipes

        recipes = list_recipes()
        self._check_format()
        self._check_files(recipes)
        if self.tuned is not None or self.reference is not None:
            if self.model is not None:
                raise click.UsageError(
                    f"--model {self.model} names a recipe, and --tuned and --reference take its "
                    "place; leave one out."
                )
            return self._of_files(), _limited(words, at_most, self._in_place_of_a_recipe())
        if self.model is not None:
            _check_one_recipe(self.model, words, recipes)
            rest = _limited(words, at_most, "", before=("-m", self.model))
            return self._named(self.model, words, recipes), rest
        _check_order(words, recipes)
        if words and not (at_most and looks_like_prompt(words[0], recipes)):
            return self._of_word(words, recipes, at_most)
        if self.base is not None or self.lora is not None:
            raise click.UsageError(self._lacks_a_recipe(words))
        rest = _limited(words, at_most, "")
        self.assumed = self.default is None
        try:
            return self._named(self.default or DEFAULT_RECIPE, rest, recipes), rest
        except RecipeError as error:
            if self.default in (None, *recipes):
                raise
            raise RecipeError(
                f"{error}; it is your default: edge-eft config set recipe NAME, or edge-eft config "
                "unset recipe"
            ) from None

    def _of_word(
        self, words: Sequence[str], recipes: Mapping[str, Path], at_most: int
    ) -> tuple[Recipe, list[str]]:
        """Return the recipe that the first word names, and the words after it."""
        known = words[0] in recipes or os.path.lexists(words[0])
        word, rest = words[0], _limited(words[1:], at_most, "", first=words[0])
        if self.base is not None and not known:
            raise click.UsageError(self._lacks_a_recipe(words))
        if not known and not at_most and looks_like_prompt(words[0], recipes):
            command = click.get_current_context().info_name
            raise click.UsageError(
                f"{words[0]!r:.80} looks like a prompt, and {command} takes none: edge-eft run "
                f"{shlex.quote(words[0])} answers it."
            )
        try:
            return self._named(word, rest, recipes), rest
        except RecipeError as error:
            command = click.get_current_context().info_name or "run"
            if known or mistaken(word, rest, command):
                raise
            name = self.default or DEFAULT_RECIPE
            raise RecipeError(with_name_mended(str(error), word, rest, command, name)) from None

    def _in_place_of_a_recipe(self) -> str:
        given = "--tuned and --reference" if self.lora is None else "--reference and --lora"
        return f"{given} take the place of a recipe; "

    def _lacks_a_recipe(self, words: Sequence[str]) -> str:
        """Return what to say where --base or --lora goes with a recipe, and none is named."""
        more = "--tuned and --reference" if self.lora is None else "--reference"
        if self.lora is not None:
            return f"Name a recipe, or --base, {more}; {_lora_goes_with(self.lora)}."
        if not words:
            return f"--base alone needs a recipe; or add {more}."
        return (
            f"--base alone goes with a recipe, and {words[0]!r:.80} is none; name one before the "
            f"prompt, or add {more}."
        )

    def _named(self, word: str, rest: Sequence[str], recipes: Mapping[str, Path]) -> Recipe:
        from ..files.recipe_names import load_recipe

        command = click.get_current_context().info_name or "run"
        if word not in recipes and (told := mistaken(word, rest, command)):
            raise RecipeError(told)
        try:
            recipe = load_recipe(word)
        except RecipeError as error:
            if self.lora is None or os.path.lexists(word):
                raise
            raise RecipeError(f"{error}; {_lora_goes_with(self.lora)}") from None
        if self.lora is not None:
            return recipe.with_lora(self.lora, base=self.base, prompt=self.format)
        return recipe.with_base(self.base, prompt=self.format)

    def _of_files(self) -> Recipe:
        from ..files.recipe import from_files

        if self.lora is None:
            if self.base is None or self.tuned is None or self.reference is None:
                raise click.UsageError(
                    "--base, --tuned and --reference go together, without a recipe; "
                    "with a recipe goes --base alone."
                )
            return from_files(self.base, self.tuned, self.reference, prompt=self.format)
        if self.tuned is not None:
            raise click.UsageError("--lora takes the place of --tuned: leave out --tuned.")
        if self.base is None or self.reference is None:
            raise click.UsageError("--base, --reference and --lora go together, without a recipe.")
        from ..files.lora import lora_on_files

        return lora_on_files(self.base, self.reference, self.lora, prompt=self.format)

    def _check_format(self) -> None:
        """Raise RecipeError if the format is none; JSON is one of replies."""
        from ..files.recipe import check_prompt

        if self.format is not None and self.format.lower() == "json":
            raise click.UsageError(
                "--format is the prompt's; for replies in JSON: --schema FILE, and --json prints "
                "all about a reply as JSON."
            )
        if self.format is not None:
            check_prompt("--format", self.format)

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
        """Load it all, showing how far it is. A recipe that nobody has named is named first."""
        from .untried import load

        _check_there(recipe)
        if self.assumed:
            talk(
                f"no recipe is named, so {recipe.name} is used; edge-eft config set recipe NAME "
                "sets another default"
            )
            talk(f"{recipe.name} knows geography alone; try: What is the capital of Peru?")
        return load(
            recipe,
            untried=self.tuned is not None and self.format is None,
            n_ctx=self.n_ctx,
            n_threads=self.threads,
            n_gpu_layers=self.gpu_layers,
            n_slots=n_slots,
        )


def _check_there(recipe: Recipe) -> None:
    """Raise ModelFileError if a model of a recipe of the user's own is not where it was.

    What was pulled is not looked at: what loads it says how to get it again.
    """
    from ..errors import ModelFileError
    from ..files.pulled import is_cached
    from ..files.recipe_names import own_recipes

    if recipe.path not in own_recipes().values():
        return
    for role, spec in recipe.roles().items():
        if not (spec.needs_pull or is_cached(spec) or os.path.lexists(spec.file)):
            raise ModelFileError(
                f"{spec.file}: no such file, and recipe {recipe.name} has it as {role}; if it has "
                f"moved: edge-eft new {shlex.quote(recipe.name)} --base FILE --tuned FILE "
                "--reference FILE --force"
            )


def _limited(
    words: Sequence[str],
    at_most: int,
    why: str,
    *,
    first: str = "",
    before: Sequence[str] = (),
) -> list[str]:
    """Return the words that follow a recipe; raise UsageError if they are more than `at_most`.

    A `-` is stdin, which may stand beside a prompt.

    Args:
        words: those words.
        at_most: 1 if a prompt goes here, else 0.
        why: what to say first.
        first: the recipe as it was typed, which may be the prompt's first word.
        before: the recipe by option.
    """
    prompts = [word for word in words if word != "-" or not at_most]
    if len(prompts) > at_most or len(words) > at_most + 1:
        word = prompts[at_most] if len(prompts) > at_most else "-"
        line = _quoted(prompts, first, before)
        what = f"quote the prompt{line}" if at_most else "no prompt goes here"
        raise click.UsageError(f"{word!r:.80} is one word too many; {why}{what}.")
    return list(words)


def _quoted(prompts: Sequence[str], first: str, before: Sequence[str]) -> str:
    """Return the command line with the prompt as one word, after a colon; "" if it is long."""
    from ..files.recipe_names import list_recipes, near

    known = list_recipes()
    is_name = not first or first in known or os.path.lexists(first) or bool(near(first, known))
    names = [shlex.quote(each) for each in (*before, *([first] if first and is_name else []))]
    prompt = " ".join(prompts if is_name else [first, *prompts])
    if len(prompt) > 200:
        return ""
    command = click.get_current_context().info_name
    return f": {' '.join(['edge-eft', str(command), *names, shlex.quote(prompt)])}"


def _check_one_recipe(model: str, words: Sequence[str], recipes: Mapping[str, Path]) -> None:
    """Raise UsageError if a recipe is named by the option and once more before the prompt."""
    if len(words) > 1 and words[0] in recipes:
        raise click.UsageError(
            f"two recipes are named, {model!r:.80} by -m and {words[0]!r:.80} before the prompt; "
            "leave one out."
        )


def _check_order(words: Sequence[str], recipes: Mapping[str, Path]) -> None:
    """Raise UsageError if the recipe follows the prompt."""
    if len(words) < 2 or words[0] in recipes or os.path.lexists(words[0]):
        return
    if words[1] in recipes:
        command = click.get_current_context().info_name
        right = f"edge-eft {command} {words[1]} {shlex.quote(words[0])}"
        raise click.UsageError(f"The recipe comes first: {right}.")


def _lora_goes_with(adapter: str) -> str:
    """Return which recipes an adapter can be used with, for a message."""
    from ..files.lora import recipes_for
    from ..files.recipe import absolute

    found = recipes_for(absolute(adapter))
    if not found:
        return "--lora goes with a recipe that the adapter fits, and no recipe here is known to"
    return f"--lora goes with a recipe, and this adapter fits {', '.join(found)}"
