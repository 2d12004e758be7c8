"""What a pull was asked for: repositories on the command line, and recipes in which they go.

Names only. `pull_plan` looks up what they mean.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ..errors import RecipeError
from ..files.hub_file import HubFile, check_repo
from ..files.model_names import quantisation
from ..files.recipe import Delta, ModelSpec, Recipe
from ..files.recipe_names import catalogue, load_recipe, natural

_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/")
_PAGE = re.compile(r"([^/:]+/[^/:]+)/(?:tree/main/?|(?:blob|resolve)/main/([^?]+))(?:\?.*)?")


@dataclass(frozen=True)
class Wish:
    """A model on the hub as it was asked for: `file` may be a file, a quantisation, or "" ."""

    repo: str
    file: str
    revision: str | None = None


def wish(text: str, usual_repo: str = "") -> Wish:
    """Read REPO, REPO:FILE or REPO:QUANT; with a `usual_repo` also :FILE and :QUANT.

    The address of a repository or a file, as a browser shows it, will do as well.

    Raises RecipeError if it is none of these.
    """
    text = _ADDRESS.sub("", text)
    if page := _PAGE.fullmatch(text):
        text = ":".join(filter(None, page.groups()))
    repo, _, file = text.partition(":")
    repo = repo.strip("/") or usual_repo
    check_repo(repo)
    return Wish(repo, file)


def name_of(base: Wish) -> str:
    """Return what a recipe is called after its base's repository: Big-8B-GGUF is big-8b."""
    return re.sub(r"[-._]gguf$", "", base.repo.partition("/")[2].lower())[:64]


def no_recipe(text: str) -> str | None:
    """Return what to say of a repository in the place of a recipe; None if `text` names none."""
    try:
        repo = wish(text).repo
    except RecipeError:
        return None
    if os.path.exists(text) or text.lower().endswith(".toml"):
        return None
    known = [
        name
        for name, path in sorted(catalogue().items(), key=lambda item: natural(item[0]))
        for role, spec in load_recipe(path).models().items()
        if role in ("base", "instruct")
        if isinstance(spec.source, HubFile) and spec.source.repo == repo
    ]
    told = f"{text!r:.120} is a repository of one model, and a recipe has three"
    if known:
        names = ", ".join(dict.fromkeys(known))
        return f"{told}; it is in {names} of the catalogue: edge-eft pull {known[0]}"
    shown = shlex.quote(text[:120])
    return f"{told}: edge-eft pull --base {shown} --tuned REPO --reference REPO --name NAME"


def is_meant(source: object, wish: Wish) -> bool:
    """Return whether a model's source is what was asked for: by its file, its kind, or at all."""
    if not isinstance(source, HubFile) or source.repo != wish.repo:
        return False
    kind = quantisation(wish.file) or wish.file.upper()
    return wish.file in ("", source.file) or kind == quantisation(source.file)


def recipe_of(wishes: Mapping[str, Wish], name: str, prompt: str | None) -> Recipe:
    """Return a recipe of three wishes, by role; its models have no files yet."""
    specs = {role: ModelSpec(Path(wish.file or "?"), source=None) for role, wish in wishes.items()}
    tuned = replace(specs["tuned"], prompt="template")
    reference = replace(specs["reference"], prompt=prompt)
    return Recipe(
        name=name,
        description="",
        license="",
        n_ctx=None,
        base=replace(specs["base"], prompt=prompt),
        deltas=MappingProxyType({"tuned": Delta("tuned", 1.0, tuned, reference)}),
        path=None,
    )


def unpinned(recipe: Recipe) -> Recipe:
    """Return `recipe` with the newest of every file in place of the one that it states."""
    specs = {
        role: replace(spec, sha256=None, source=replace(spec.source, revision=None, size=None))
        for role, spec in recipe.models().items()
        if isinstance(spec.source, HubFile) and spec.lora is None
    }
    return recipe.with_models(specs)
