"""Pulls that have not ended: what each is to bring, so that it can go on by name, or be undone.

A recipe has a name once all of it is here. Until then it is noted in a directory beside the user's
recipes, with the places in the hub's cache where its files will be.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import EdgeEftError, RecipeError
from ..system import recipe_directory
from .plain_text import reason
from .pulled import model_files, partial_files
from .recipe import Recipe
from .recipe_names import load_recipe, named, recipes_in, write_whole
from .recipe_toml import to_toml


def unfinished() -> dict[str, Path]:
    """Return the recipes whose pull has not ended: name → TOML file."""
    try:
        return recipes_in(_directory())
    except OSError:  # no home
        return {}


def stopped_pull(name: str) -> Path | None:
    """Return the recipe of a pull that has not ended, by its name in any case of letters."""
    return named(name, unfinished())


def begun(recipe: Recipe) -> None:
    """Write down what a pull that begins is to bring: the recipe as it will be.

    An earlier pull of that name that brought other files stays known under another.

    Raises RecipeError if it cannot be written.
    """
    try:
        directory = _directory()
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{recipe.name}.toml"
        if path.exists() and _has_come(path) - _places(recipe):
            path.replace(next(free for free in _others(path) if not free.exists()))
        write_whole(path, to_toml(recipe, directory))
    except OSError as error:
        raise RecipeError(
            f"the pull of {recipe.name!r} cannot be noted ({reason(error)}: {error.filename}); "
            "EDGE_EFT_HOME names another directory"
        ) from None


def ended(name: str) -> None:
    """Forget a pull, which has brought everything."""
    with contextlib.suppress(OSError):
        (_directory() / f"{name}.toml").unlink(missing_ok=True)


def _has_come(path: Path) -> set[Path]:
    """Return the files of an earlier pull, whole or not, that are here."""
    with contextlib.suppress(EdgeEftError):
        return {place for place in _places(load_recipe(path)) if os.path.lexists(place)}
    return set()


def _places(recipe: Recipe) -> set[Path]:
    """Return where the files of a recipe are, or will be, and what has come of them."""
    specs = [spec for spec in recipe.models().values() if not spec.needs_pull]
    return {place for spec in specs for place in (*model_files(spec), *partial_files(spec))}


def _others(path: Path) -> Iterator[Path]:
    yield from (path.with_name(f"{path.stem}.{number}.toml") for number in itertools.count(2))


def _directory() -> Path:
    return recipe_directory().parent / "unfinished"
