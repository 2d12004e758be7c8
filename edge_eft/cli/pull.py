"""`edge-eft pull`: the models of a recipe from the Hugging Face hub, and the recipe that has them.

`pull_plan` decides what is needed before anything large is fetched; here it is told, fetched, and
written down. The recipe comes last and at once, when every file is whole: what has a name works.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from ..system import byte_size
from ..text.formats import FORMATS
from .command import FETCHING, MODELS, RECIPE, option
from .command import command as new_command
from .completion import complete_format, complete_recipe
from .options import json_option, quiet_option
from .progress import Display, Transfer
from .pull_report import as_data, end_lines, plan_lines
from .terminal import is_quiet, one_line, say, start_logging, talk, to_json
from .values import Text

if TYPE_CHECKING:
    from ..files.recipe import ModelSpec, Recipe
    from .pull_plan import Plan
    from .pull_wish import Wish

_REPO = "REPO[:FILE]"


@dataclass(frozen=True)
class Ways:
    """How to pull, as asked for on the command line."""

    update: bool
    for_lora: bool
    anyway: bool
    dry_run: bool
    as_json: bool


@new_command("pull")
@click.argument("recipe", required=False, metavar="[NAME]", shell_complete=complete_recipe)
@option(
    "--base", group=MODELS, metavar=_REPO, help="The large model's repository, and file or kind."
)
@option("--tuned", group=MODELS, metavar=_REPO, help="The small tuned model's.")
@option("--reference", group=MODELS, metavar=_REPO, help="The model's that `tuned` was tuned from.")
@option(
    "--name",
    group=RECIPE,
    metavar="NAME",
    show_default="the recipe's, or the base's",
    help="Name of the recipe here.",
)
@option(
    "--format",
    "prompt",
    group=MODELS,
    type=Text(),
    aliases=["--prompt"],
    metavar="FORMAT",
    shell_complete=complete_format,
    help=f"Prompt format of the base: {', '.join(FORMATS)}, or Jinja.",
)
@option(
    "--for-lora",
    is_flag=True,
    group=FETCHING,
    help="Fetch the instruct models, for `chat NAME --lora`.",
)
@option(
    "--update", is_flag=True, group=FETCHING, help="Take the newest files, not the pinned ones."
)
@option(
    "--anyway", is_flag=True, group=FETCHING, help="Fetch what does not fit into memory here, too."
)
@option(
    "--dry-run", is_flag=True, group=FETCHING, help="Say what would be fetched, and fetch nothing."
)
@quiet_option
@json_option
def pull(
    recipe: str | None,
    base: str | None,
    tuned: str | None,
    reference: str | None,
    name: str | None,
    prompt: str | None,
    **ways: Any,
) -> None:
    """Get the models of a recipe from the Hugging Face hub.

    NAME is a recipe of `edge-eft list`, or the file of one that names its models' sources. A QUANT
    such as Q8_0 stands for the file of that kind: --base OWNER/NAME-GGUF:Q4_K_M. Headers come
    first: what cannot work together is refused before anything large is fetched. Files go to the
    cache that programs share (HF_HOME), and what was interrupted goes on where it stopped.

    \b
    Examples:
      edge-eft pull qwen3-8b
      edge-eft pull qwen3-8b --base :Q8_0 --name qwen3-8b-q8
      edge-eft pull --base A/B-GGUF:Q4_0 --tuned C/D-GGUF --reference E/F-GGUF --name mine
    """
    start_logging(False)
    files = {"base": base, "tuned": tuned, "reference": reference}
    given = {role: text for role, text in files.items() if text is not None}
    if recipe is None and None in files.values():
        raise click.UsageError(
            "Name a recipe (`edge-eft list` shows them), or --base, --tuned and --reference, "
            "each OWNER/NAME of a repository on the hub."
        )
    if recipe is not None and (given.keys() - {"base"}):
        raise click.UsageError("--tuned and --reference go without a recipe; with one, --base.")
    if base is not None and ways["for_lora"]:
        raise click.UsageError("--for-lora fetches no base; it goes without --base.")
    if prompt is not None and base is None:
        raise click.UsageError("--format goes with --base; the recipe has its own formats.")
    if recipe is not None:
        asked = _named(recipe, given, name, prompt)
    else:
        asked = _of_files(given, name, prompt)
    _pull(*asked, Ways(**ways))


def _named(
    given: str, files: dict[str, str], name: str | None, prompt: str | None
) -> tuple[Recipe, dict[str, Wish]]:
    """Return the recipe of a name or a file, and what was asked for in place of its base."""
    from ..errors import RecipeError
    from ..files.hub_file import HubFile
    from ..files.recipe_names import embedded_recipes, list_recipes, load_recipe
    from ..files.unfinished import stopped_pull
    from .pull_wish import no_recipe, wish

    if told := no_recipe(given):
        raise RecipeError(told)
    if given in embedded_recipes():
        raise RecipeError(
            f"{given!r} comes with edge_eft; it is here already: edge-eft chat {given}"
        )
    begun = None if given in list_recipes() else stopped_pull(given)
    recipe = load_recipe(begun or given)
    wishes = {}
    if "base" in files:
        source = recipe.base.source if recipe.base else None
        usual = source.repo if isinstance(source, HubFile) else ""
        wishes["base"] = wish(files["base"], usual)
        if prompt is not None and recipe.base is not None:
            recipe = replace(recipe, base=replace(recipe.base, prompt=prompt))
    # What has a name here keeps it, whatever the file was called when that was written in it.
    own = begun.stem if begun else given if given in list_recipes() else recipe.name
    return replace(recipe, name=name or own), wishes


def _of_files(
    files: dict[str, str], name: str | None, prompt: str | None
) -> tuple[Recipe, dict[str, Wish]]:
    """Return a recipe of three repositories, and what was asked for of each."""
    from ..files.recipe import check_prompt
    from ..files.recipe_names import check_new_name
    from .pull_wish import name_of, recipe_of, wish

    if prompt is not None:
        check_prompt("--format", prompt)
    wishes = {role: wish(text) for role, text in files.items()}
    name = name or name_of(wishes["base"])
    check_new_name(name)
    recipe = recipe_of(wishes, name, prompt)
    roles = {"base": "base", "tuned": "tuned:tuned", "reference": "reference:tuned"}
    return recipe, {roles[role]: each for role, each in wishes.items()}


def _pull(recipe: Recipe, wishes: dict[str, Wish], ways: Ways) -> None:
    from ..files import hub_transfer
    from ..files.recipe_names import check_name, check_place, save_recipe
    from ..files.recipe_toml import to_toml
    from ..files.unfinished import begun, ended
    from .pull_wish import unpinned

    check_name(recipe.name)
    own = _own(recipe.name)
    if own is not None:
        recipe = replace(recipe, name=own.name)
    if own is not None and own.path != recipe.path:
        recipe, wishes = _as_pinned(recipe, wishes, own), {}
    plan = _plan(unpinned(recipe) if ways.update else recipe, wishes, ways)
    missing = sum(model.missing for model in plan.models)
    if ways.dry_run and ways.as_json:
        say(to_json(as_data(plan, missing, None)))
        return
    for line in plan_lines(plan, missing) if ways.dry_run or not is_quiet() else ():
        say(line, err=not ways.dry_run)
    _check_memory(plan, missing, ways)
    if ways.dry_run:
        return
    if plan.recipe != own:
        check_place()
    hub_transfer.check_space(missing)
    to_toml(plan.recipe, ".")  # a path that a recipe cannot name is said before, too
    if missing:
        begun(plan.recipe)
    plan, damaged = _fetch(plan, missing, _again(plan.recipe.name, wishes, ways))
    missing += damaged
    unchanged = own is not None and plan.recipe == own
    path = own.path if own and unchanged else save_recipe(plan.recipe, force=own is not None)
    ended(plan.recipe.name)
    if ways.as_json:
        say(to_json(as_data(plan, missing, path)))
    if not is_quiet():
        for line in end_lines(plan, missing, unchanged=unchanged, for_lora=ways.for_lora):
            say(line, err=True)


def _plan(recipe: Recipe, wishes: dict[str, Wish], ways: Ways) -> Plan:
    from .pull_plan import Planner

    asking = "asking the hub for names, sizes and headers"
    try:
        with Display(asking):
            return Planner().plan(recipe, wishes, for_lora=ways.for_lora)
    except KeyboardInterrupt:
        if not is_quiet():
            say("edge-eft: stopped; nothing was fetched yet", err=True)
        raise


def _again(name: str, wishes: dict[str, Wish], ways: Ways) -> str:
    """Return what goes on with a pull that is stopped, and what undoes it."""
    from ..files.recipe_names import list_recipes, own_recipes

    again = f"edge-eft pull {name}{' --for-lora' * ways.for_lora}{' --anyway' * ways.anyway}"
    if (wishes or ways.update) and name in list_recipes():
        again = "the same command"  # the name alone stands for what has it
    undo = "" if name in own_recipes() else f", edge-eft remove {name} removes what came"
    return f"{again} goes on from there{undo}"


def _own(name: str) -> Recipe | None:
    """Return the user's own recipe of a name, in any case of letters, under the name it has."""
    from ..files.recipe_names import load_recipe, own_recipe

    path = own_recipe(name)
    return replace(load_recipe(path), name=path.stem) if path else None


def _as_pinned(recipe: Recipe, wishes: dict[str, Wish], own: Recipe) -> Recipe:
    """Return `recipe` with the models that one's own of that name has pinned, which are the same.

    Raises RecipeError if one is another model: the name is taken.
    """
    from ..errors import RecipeError
    from ..files.hub_file import HubFile
    from .pull_wish import Wish, is_meant

    specs, have = recipe.models(), own.models()
    pinned = {}
    for role, spec in specs.items():
        wish = wishes.get(role)
        if wish is None and isinstance(spec.source, HubFile):
            wish = Wish(spec.source.repo, spec.source.file)
        if wish is None:
            continue
        if role not in have or not is_meant(have[role].source, wish):
            raise RecipeError(
                f"there is a recipe {own.name!r} already, and its {role} is another model; take "
                f"another name with --name, or remove it first: edge-eft remove {own.name}"
            )
        same = have[role]
        pinned[role] = replace(spec, file=same.file, sha256=same.sha256, source=same.source)
    licence = recipe.license or own.license
    return replace(recipe.with_models(pinned), path=own.path, license=licence)


def _check_memory(plan: Plan, missing: int, ways: Ways) -> None:
    """Refuse to fetch what does not fit here, or say so where nothing more is to be fetched."""
    from ..errors import NotEnoughMemoryError
    from .pull_plan import check_memory

    try:
        check_memory(plan)
    except NotEnoughMemoryError as error:
        if missing and not (ways.anyway or ways.dry_run):
            hint = "--anyway fetches it all the same, for another time or machine"
            raise NotEnoughMemoryError(f"{error}; {hint}") from None
        talk(f"edge-eft: {one_line(str(error))}")


def _fetch(plan: Plan, missing: int, again: str) -> tuple[Plan, int]:
    """Bring every file. `again` is what to say of it where it is stopped.

    Returns the plan with the hashes that the hub did not state, and the bytes of what was here and
    damaged, which were fetched again.
    """
    from ..errors import HubError
    from ..files import hub_transfer
    from ..files.hashes import model_sha256

    total = sum(model.n_bytes for model in plan.models)
    hashed: dict[str, ModelSpec] = {}
    damaged = 0
    try:
        with Transfer(plan.recipe.name, total) as transfer:

            def moved(n_bytes: int) -> None:
                nonlocal damaged
                damaged -= min(n_bytes, 0)
                transfer.moved(n_bytes)

            for model in plan.models:
                for part in model.parts:
                    name = f"{model.repository.repo}/{part.path}"
                    here = hub_transfer.missing(model.repository, part) == 0
                    transfer.step(f"{'comparing' if here else 'fetching'} {name}", part.size)
                    hub_transfer.fetch(model.repository, part, moved, transfer.note)
            _check_here(plan)
            for model in plan.models:
                if not all(part.sha256 for part in model.parts):
                    found = model_sha256(model.spec.file)
                    if model.spec.sha256 not in (None, found):
                        raise HubError(f"{model.spec.file}: is not what the recipe was made for")
                    hashed |= {role: replace(model.spec, sha256=found) for role in model.roles}
    except KeyboardInterrupt:
        left = sum(model.missing for model in plan.models)
        if not is_quiet():
            came = f"{byte_size(missing - left)} of {byte_size(missing)} came"
            say(f"edge-eft: stopped; {came}; {again}", err=True)
        raise
    return replace(plan, recipe=plan.recipe.with_models(hashed)), damaged


def _check_here(plan: Plan) -> None:
    """Raise HubError if a file went away while others came: no recipe names what is not here."""
    from ..errors import HubError
    from ..files.pulled import model_files

    for model in plan.models:
        for file in model_files(model.spec):
            if not file.is_file():
                raise HubError(f"{file}: was removed while the rest came; pull again, for it alone")
