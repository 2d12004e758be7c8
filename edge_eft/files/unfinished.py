"""Pulls that have not ended: what each is to bring, so that it can go on by name, or be undone.

A recipe has a name once all of it is here. Until then it is noted in a directory beside the user's
recipes, with the places in the hub's cache where its files will be.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import RecipeError
from ..system import recipe_directory
from .plain_text import reason
from .recipe import Recipe
from .recipe_names import recipes_in, write_whole
from .recipe_toml import to_toml


def unfinished() -> dict[str, Path]:
    """Return the recipes whose pull has not ended: name → TOML file."""
    try:
        return recipes_in(_directory())
    except OSError:  # no home
        return {}


def stopped_pull(name: str) -> Path | None:
    """Return the recipe of a pull that has not ended, by its name in any case of letters."""
    same = (path for known, path in unfinished().items() if known.lower() == name.lower())
    return next(same, None)


def begun(recipe: Recipe) -> None:
    """Write down what a pull that begins is to bring: the recipe as it will be.

    Raises RecipeError if it cannot be written.
    """
    try:
        directory = _directory()
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / f"{recipe.name}.toml", to_toml(recipe, directory))
    except OSError as error:
        raise RecipeError(
            f"the pull of {recipe.name!r} cannot be noted ({reason(error)}: {error.filename}); "
            "EDGE_EFT_HOME names another directory"
        ) from None


def ended(name: str) -> None:
    """Forget a pull, which has brought everything."""
    with contextlib.suppress(OSError):
        (_directory() / f"{name}.toml").unlink(missing_ok=True)


def _directory() -> Path:
    return recipe_directory().parent / "unfinished"
