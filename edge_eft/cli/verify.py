"""`edge-eft verify`: whether the files of recipes are those that they state, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..files.plain_text import reason
from .command import command as new_command
from .completion import complete_here
from .options import json_option
from .progress import sha256
from .terminal import counted, one_line, say, to_json

if TYPE_CHECKING:
    from ..files.recipe import ModelSpec, Recipe

Verdict = Literal["ok", "differs", "damaged", "missing", "not stated", "not pulled"]
_GOOD = ("ok", "not stated")
_SURE = (None, "exact")  # confidence of a source whose size is not a guess


@dataclass(frozen=True)
class Checked:
    """One file of a recipe, the roles that use it, and what came of comparing it.

    Attributes:
        sha256: of its content; None if it was not read to its end.
        why: what was seen where it is not as stated, and what to do.
    """

    recipe: str
    roles: tuple[str, ...]
    file: str
    verdict: Verdict
    sha256: str | None = None
    why: str = ""


@new_command("verify")
@click.argument("names", nargs=-1, metavar="[RECIPE]...", shell_complete=complete_here)
@json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Compare the files of recipes with the sha256 and size they state, and check their headers.

    Without a name: all that is here. Status 2 if a file differs or is missing; one whose sha256 is
    not stated is read as far as its header, and is no fault.

    \b
    Examples:
      edge-eft verify atlas
      edge-eft verify --json
    """
    from ..errors import EdgeEftError
    from ..files.recipe_names import load_recipe

    broken = False
    recipes: dict[str, Recipe] = {}
    for name in names or _all_here():
        try:
            recipes[name] = load_recipe(name)
        except EdgeEftError as error:
            if names:
                raise
            say(f"edge-eft: {one_line(str(error))}", err=True)
            broken = True
    checked: list[Checked] = []
    hashed: dict[str, str] = {}
    table = None if as_json else _Table(recipes)
    for name, recipe in recipes.items():
        for each in check(recipe, name, hashed):
            if each.verdict == "not pulled" and not names:
                continue  # it is not here, and nobody asked for it
            checked.append(each)
            if table:
                table.add(each)
    if as_json:
        say(to_json([asdict(each) for each in checked]))
    bad = [each for each in checked if each.verdict not in _GOOD]
    for name in dict.fromkeys(each.recipe for each in bad):
        say(f"edge-eft: {one_line(_advice(recipes[name], name, bad))}", err=True)
    if bad or broken:
        raise click.exceptions.Exit(2)


def _all_here() -> list[str]:
    from ..files.recipe_names import embedded_recipes, own_recipes

    return list(dict.fromkeys([*embedded_recipes(), *own_recipes()]))


def check(recipe: Recipe, name: str, hashed: dict[str, str]) -> Iterator[Checked]:
    """Yield what comes of each file of `recipe`; `hashed` keeps real path → sha256."""
    from ..files.pulled import is_for_lora, model_files

    models: dict[Any, list[str]] = {}
    specs = recipe.models()
    for role, spec in specs.items():
        key = spec.source if spec.needs_pull else (spec.lora or spec.file, spec.sha256)
        models.setdefault(key, []).append(role)
    for_lora = is_for_lora(recipe)
    for roles in models.values():
        spec = specs[roles[0]]
        if spec.needs_pull:
            if roles != ["instruct"] and not for_lora:  # the one only adapters need, the rest not
                yield Checked(name, tuple(roles), str(spec.source), "not pulled")
            continue
        files = model_files(spec)
        hashes: tuple[str | None, ...] = (None,) * len(files)
        if spec.sha256 is not None:
            hashes = spec.sha256 if isinstance(spec.sha256, tuple) else (spec.sha256,)
        wrong = _wrong_as_a_whole(spec, files, hashes)
        for file, stated in zip_longest(files, hashes[: len(files)]):
            each = Checked(name, tuple(roles), str(file), "missing", why="there is no such file")
            yield _compared(each, stated, wrong, hashed) if os.path.isfile(file) else each


def _wrong_as_a_whole(
    spec: ModelSpec, files: Sequence[Path], hashes: Sequence[str | None]
) -> tuple[Verdict, str]:
    """Return what is wrong with a model's size or header: "ok" if nothing is, or a part lacks."""
    from ..errors import ModelFileError
    from ..files.gguf_check import read_header
    from ..files.hub_file import HubFile

    if len(hashes) != len(files):
        return "differs", f"a model of {len(files)} files, and {len(hashes)} sha256 are stated"
    if not all(map(os.path.isfile, files)):
        return "ok", ""
    size, source = sum(file.stat().st_size for file in files), spec.source
    stated = source.size if isinstance(source, HubFile) and source.confidence in _SURE else None
    if stated not in (None, size):
        return "differs", f"the model has {size:,} bytes, and {stated:,} are stated"
    try:
        header = read_header(files[0])
    except ModelFileError as error:
        return "damaged", str(error)
    if header.is_adapter != (spec.lora is not None):
        return "damaged", "an adapter, not a model" if header.is_adapter else "not an adapter"
    return "ok", ""


def _compared(
    each: Checked, stated: str | None, wrong: tuple[Verdict, str], hashed: dict[str, str]
) -> Checked:
    verdict, why = wrong
    if stated is None:
        return replace(each, verdict="not stated" if verdict == "ok" else verdict, why=why)
    real = os.path.realpath(each.file)
    if real not in hashed:
        try:
            hashed[real] = sha256(Path(each.file))
        except OSError as error:
            return replace(each, verdict="damaged", why=f"cannot be read ({reason(error)})")
    found = hashed[real]
    if found != stated:
        verdict, why = "differs", f"sha256 is {found[:12]}…, and {stated[:12]}… is stated"
    return replace(each, verdict=verdict, sha256=found, why=why)


class _Table:
    """The table for people, a row as soon as its file was compared."""

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        from .tables import Column

        roles = [f"{role}," for recipe in recipes.values() for role in recipe.models()]
        self._columns = (
            Column("verdict", width=_width("not stated")),
            Column("file", width=_width("file", *map(one_line, _names(recipes)))),
            Column("recipe", width=_width("recipe", *map(one_line, recipes))),
            Column("roles", width=_width("roles", *map(one_line, roles))),
        )
        self._begun = False

    def add(self, each: Checked) -> None:
        """Show a file, by its name where it is as stated, else with its path and what is wrong."""
        from .console import line, show
        from .tables import Listing

        listing = Listing(*self._columns, run_in=True, lead=2, headless=self._begun)
        colour = {"ok": "green", "not stated": "yellow"}.get(each.verdict, "red")
        about = (os.path.basename(each.file), each.recipe, ", ".join(each.roles))
        listing.add(line(each.verdict, colour), *map(line, about))
        if each.why:
            listing.remark(line(f"{each.file}: {each.why}", "dim"))
        show(listing)
        self._begun = True


def _names(recipes: Mapping[str, Recipe]) -> Iterator[str]:
    """Yield by what each file is shown."""
    from ..files.pulled import model_files

    for recipe in recipes.values():
        for spec in recipe.models().values():
            if spec.needs_pull:
                yield os.path.basename(str(spec.source))
            else:
                yield from (file.name for file in model_files(spec))


def _width(*texts: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, texts))


def _advice(recipe: Recipe, name: str, bad: Sequence[Checked]) -> str:
    """Return what to do about the files of a recipe that are not as stated."""
    from ..files.hub_file import HubFile
    from ..files.pulled import pull_command

    mine = [each for each in bad if each.recipe == name]
    count = f"{counted(len(mine), 'file')} of {name!r}"
    get = f"{pull_command(recipe)} gets {'it' if len(mine) == 1 else 'them'}"
    if all(each.verdict == "not pulled" for each in mine):
        return f"{count} not on this machine yet; {get}"
    specs = recipe.models()
    if not all(isinstance(specs[each.roles[0]].source, HubFile) for each in mine):
        return f"{count} not as stated; put back what was there, or correct {recipe.path}"
    again = "" if any(each.verdict == "not pulled" for each in mine) else " again"
    return f"{count} not as stated; {get}{again}"
