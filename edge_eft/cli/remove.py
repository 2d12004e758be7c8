"""`edge-eft remove`: takes a recipe of one's own away, and the models that a pull got for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EdgeEftError, RecipeError
from ..files.plain_text import reason
from ..system import byte_size
from .command import REMOVING, option
from .command import command as new_command
from .completion import complete_here
from .options import json_option, yes_option
from .terminal import agreed, one_line, say, talk, to_json

if TYPE_CHECKING:
    from ..files.recipe import Recipe


_OWN = "pull did not get it"


@dataclass(frozen=True)
class Plan:
    """What goes, and what stays.

    Attributes:
        recipes: name → its TOML file.
        stopped: those of pulls of these names that have not ended.
        files: in the hub's cache, which nothing else needs; `n_bytes` is their size.
        partials: what has come of files that are not whole, and the names they would get.
        kept: file → why it stays.
    """

    recipes: dict[str, Path]
    stopped: tuple[Path, ...]
    files: tuple[Path, ...]
    n_bytes: int
    kept: dict[Path, str]
    partials: dict[Path, Path]


@new_command("remove")
@click.argument("names", nargs=-1, required=True, metavar="RECIPE...", shell_complete=complete_here)
@yes_option
@option("--keep-files", is_flag=True, group=REMOVING, help="Remove the recipe alone.")
@json_option
def command(names: tuple[str, ...], yes: bool, keep_files: bool, as_json: bool) -> None:
    """Remove recipes of your own, and the models that were pulled for them.

    A model that another recipe needs stays, and so does every file that pull did not get. What a
    stopped pull has fetched is removed as well.

    \b
    Examples:
      edge-eft remove mine
      edge-eft rm qwen3-8b --yes
    """
    plan = make_plan(names, keep_files=keep_files)
    if not yes:
        _ask(plan)
        plan = make_plan(names, keep_files=keep_files)  # a pull may have ended in the meantime
    freed = carry_out(plan)
    if as_json:
        kept = [{"file": str(file), "why": why} for file, why in plan.kept.items()]
        gone = [str(file) for file in (*plan.files, *plan.partials)]
        say(to_json({"removed": [*plan.recipes], "files": gone, "freed": freed, "kept": kept}))
        return
    own = [file for file, why in plan.kept.items() if why == _OWN]
    told = [f"{byte_size(freed)} freed"] if freed or not own else []
    told += ["your own model files stay"] if own else []
    say("; ".join([f"removed {one_line(', '.join(plan.recipes))}", *told]))
    for file, why in plan.kept.items():
        if why != _OWN:
            say(f"stays: {one_line(str(file))} ({one_line(why)})")
    _say_default(plan)


def _say_default(plan: Plan) -> None:
    """Say so if a recipe that is gone is the default one."""
    from . import config_file

    file: Mapping[str, Any] = {}
    with contextlib.suppress(click.ClickException):
        file = config_file.read()
    default = os.environ.get("EDGE_EFT_RECIPE") or file.get("recipe")
    if str(default) in plan.recipes:  # a file may say anything
        talk(
            f"{one_line(str(default))} was your default recipe: edge-eft config set recipe NAME, "
            "or edge-eft config unset recipe"
        )


def make_plan(names: Sequence[str], *, keep_files: bool = False) -> Plan:
    """Return what removing these recipes would do. Nothing is changed.

    Raises RecipeError if one is not the user's own.
    """
    from ..files.pulled import is_cached, model_files, partial_files
    from ..files.recipe_names import adapter_beside, load_recipe
    from ..files.unfinished import unfinished

    recipes = {path.stem: path for path in map(_own, names)}
    begun = unfinished()
    stopped = tuple(begun[name] for name in recipes if name in begun)
    needed, unread = _needed_by_others({*recipes.values(), *stopped})
    partials: dict[Path, Path] = {}
    files: dict[str, Path] = {}
    kept: dict[Path, str] = {}
    for path in dict.fromkeys([*recipes.values(), *stopped]):
        try:
            recipe = load_recipe(path)
        except EdgeEftError:
            continue  # what is no recipe names no files
        for spec in recipe.models().values():
            if spec.needs_pull:
                continue
            for file in filter(os.path.lexists, model_files(spec)):
                real = os.path.realpath(file)
                if file == adapter_beside(path):
                    continue  # it goes with its recipe
                if keep_files:
                    kept[file] = "as you asked"
                elif not is_cached(spec):
                    kept[file] = _OWN
                elif real in needed:
                    kept[file] = f"{needed[real]} needs it"
                elif unread:
                    kept[file] = f"whether {unread} needs it is not known: it cannot be read"
                else:
                    files[os.path.abspath(file)] = file
            if path in stopped and not (keep_files or unread):
                found = partial_files(spec).items()
                partials |= {at: name for at, name in found if os.path.realpath(at) not in needed}
    sizes = {os.path.realpath(file): _size(file) for file in (*files.values(), *partials)}
    return Plan(recipes, stopped, tuple(files.values()), sum(sizes.values()), kept, partials)


def carry_out(plan: Plan) -> int:
    """Remove what `plan` says. Returns the bytes that were freed.

    Whenever it is stopped, no recipe is left that looks whole and is not: the files go first, and a
    recipe whose files are gone says so.

    Raises RecipeError if a file cannot be removed.
    """
    from ..files.pulled import forget, forget_partials
    from ..files.recipe_names import adapter_beside

    try:
        freed = forget(plan.files) + forget_partials(plan.partials)
        for path in (*plan.recipes.values(), *plan.stopped):
            if (adapter := adapter_beside(path)).is_file():
                freed += _size(adapter)
                adapter.unlink()
            path.unlink(missing_ok=True)
    except OSError as error:
        raise RecipeError(
            f"{error.filename}: cannot be removed ({reason(error)}); the recipe stays, and "
            "`edge-eft list` says what is left of it; --keep-files removes the recipe alone"
        ) from None
    return freed


def _own(name: str) -> Path:
    """Return the own recipe that is meant, or raise RecipeError."""
    from ..files.recipe_names import (
        catalogue,
        embedded_recipes,
        not_known,
        own_recipe,
        own_recipes,
    )
    from ..files.unfinished import stopped_pull

    if path := own_recipe(name) or stopped_pull(name):
        return path
    if name in embedded_recipes():
        raise RecipeError(f"{name!r} comes with edge_eft and stays; remove takes recipes of yours")
    if name in catalogue():
        raise RecipeError(f"{name!r} was not pulled: there is nothing of it to remove")
    if name.endswith(".toml") or os.path.dirname(name):
        raise RecipeError(
            f"{name!r} is a path; remove takes names that `edge-eft list` shows, and a file of "
            "yours elsewhere is yours to delete"
        )
    raise RecipeError(not_known(name, own_recipes()))


def _needed_by_others(going: set[Path]) -> tuple[dict[str, str], str]:
    """Return real path → recipe, of what the recipes that stay need; and one that is unreadable."""
    needed: dict[str, str] = {}
    unread = ""
    for name, recipe in _staying(going):
        if recipe is None:
            unread = name
            continue
        for spec in recipe.models().values():
            for file in _all_files(spec):
                needed.setdefault(os.path.realpath(file), name)
    return needed, unread


def _staying(going: set[Path]) -> Iterator[tuple[str, Recipe | None]]:
    from ..files.recipe_names import embedded_recipes, load_recipe, own_recipes
    from ..files.unfinished import unfinished

    for name, path in [
        *own_recipes().items(),
        *embedded_recipes().items(),
        *unfinished().items(),
    ]:
        if path not in going:
            try:
                yield name, load_recipe(path)
            except EdgeEftError:
                yield name, None


def _all_files(spec: Any) -> Iterator[Path]:
    from ..files.gguf_split import part_paths
    from ..files.pulled import partial_files

    yield from partial_files(spec)
    if not spec.needs_pull:
        for path in filter(None, (spec.file, spec.lora)):
            yield from part_paths(path)


def _ask(plan: Plan) -> None:
    """Ask on the terminal, and exit if the answer is no; an error where nobody can be asked."""
    names = ", ".join(plan.recipes)
    size = f" and free about {byte_size(plan.n_bytes)}" if plan.n_bytes else ""
    answer = agreed(f"Remove {names}{size}?")
    if answer is None:
        raise click.UsageError(
            f"Removing {names} is not asked without a terminal; --yes confirms it."
        )
    if not answer:
        say("edge-eft: nothing was removed", err=True)
        raise click.exceptions.Exit(1)


def _size(file: Path) -> int:
    return file.stat().st_size if os.path.isfile(file) else 0
