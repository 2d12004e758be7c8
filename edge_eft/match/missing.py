"""What is missing to complete a trio of the models that are here, and where it can be had.

The catalogue is asked first: it knows the file, its size and the name to pull. Of other families
only the kind of model that is missing is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..files.gguf_split import model_stem
from ..files.hub_file import HubFile
from ..files.model_names import ModelName, model_name
from ..files.recipe import ModelSpec, Recipe
from .candidates import Candidate
from .trios import TIMES_LARGER, Trio


@dataclass(frozen=True)
class Missing:
    """One model that is not here, and those of its trio that are.

    Attributes:
        here: role → title.
        role: of the missing one.
        what: its name, or its kind in words.
        size, repo: its bytes, and where the hub has it, if the catalogue knows; else None.
        pull: the catalogue's name for the trio; None if it has none.
    """

    here: tuple[tuple[str, str], ...]
    role: str
    what: str
    size: int | None = None
    repo: str | None = None
    pull: str | None = None


def missing(
    candidates: Sequence[Candidate], trios: Sequence[Trio], recipes: Iterable[Recipe]
) -> list[Missing]:
    """Return what is missing, one model for each line.

    Args:
        candidates, trios: the models here, and what `match.propose` made of them.
        recipes: the catalogue.
    """
    models = [each for each in candidates if not each.header.is_adapter]
    used = {each.identity for trio in trios for each in (trio.base, trio.tuned, trio.reference)}
    titles = {each.title for each in models if each.identity in used}
    found: dict[tuple[object, ...], Missing] = {}
    for recipe in sorted(recipes, key=lambda recipe: _unlike(recipe, models)):
        lack = _of_recipe(recipe, models)
        # Who has a trio already is not told of all others, nor of each quantisation of one.
        if lack and not titles.issuperset(title for _, title in lack.here):
            name = model_name(lack.what)
            found.setdefault((lack.here, lack.role, name.core, name.sizes), lack)
    known = {title for lack in found.values() for _, title in lack.here}
    left = [each for each in models if each.title not in titles | known]
    return [*found.values(), *_by_kind(left, models)]


def _of_recipe(recipe: Recipe, models: Sequence[Candidate]) -> Missing | None:
    """Return the one model that a recipe lacks here; None if it lacks none, or more."""
    here: dict[str, str] = {}
    lacking: list[tuple[str, ModelSpec]] = []
    families = set()
    for role, spec in recipe.roles().items():
        side = role.partition(":")[0]
        if spec.lora is not None:
            return None
        name = _name_of(spec)
        match = next((each for each in models if is_model(each, name, side == "tuned")), None)
        if match:
            here[side] = match.title
            families.add(match.family)
        else:
            lacking.append((side, spec))
    adopts = any(delta.tuned.adopt for delta in recipe.deltas.values())
    if len(lacking) != 1 or (len(families) > 1 and not adopts):
        return None
    side, spec = lacking[0]
    source = spec.source if isinstance(spec.source, HubFile) else None
    return Missing(
        tuple(here.items()),
        side,
        model_stem(spec.file),
        size=source.size if source else None,
        repo=source.repo if source else None,
        pull=recipe.name,
    )


def _unlike(recipe: Recipe, models: Sequence[Candidate]) -> tuple[int, int, str]:
    """Return a key that has recipes of the very files that are here first."""
    here = {each.title.lower() for each in models}
    specs = recipe.roles().values()
    others = sum(model_stem(spec.file).lower() not in here for spec in specs)
    return others, len(recipe.name), recipe.name


def _name_of(spec: ModelSpec) -> ModelName:
    return model_name(model_stem(spec.file))


def is_model(model: Candidate, name: ModelName, tuned: bool) -> bool:
    """Return whether a file is the model of a name, whatever its quantisation."""
    return (
        bool(name.core)
        and (model.name.core, model.tuned) == (name.core, tuned)
        and model.name.sizes == name.sizes
        and {mark for mark in name.marks if mark.startswith("v")} <= model.name.marks
    )


def _by_kind(left: Sequence[Candidate], models: Sequence[Candidate]) -> Iterator[Missing]:
    """Yield what completes the models that are in no trio, where that is one model."""
    for small in {each.identity: each for each in left}.values():
        larger = [
            each
            for each in models
            if each.family == small.family
            and each.name.core == small.name.core
            and not each.tuned
            and each.header.n_parameters >= TIMES_LARGER * small.header.n_parameters
        ]
        alike = [e for e in models if (e.family, e.shape) == (small.family, small.shape)]
        if larger and small.tuned:
            base = max(larger, key=lambda each: each.header.n_parameters)
            here = (("tuned", small.title), ("base", base.title))
            what = f"the pre-trained model that {small.title} was tuned from"
            yield Missing(here, "reference", what)
        elif small.tuned:
            for reference in alike:
                if not reference.tuned and reference.name.core == small.name.core:
                    here = (("tuned", small.title), ("reference", reference.title))
                    yield Missing(here, "base", "a larger pre-trained model of the family")
                    break
        elif larger and not any(each.tuned for each in alike):
            base = max(larger, key=lambda each: each.header.n_parameters)
            here = (("reference", small.title), ("base", base.title))
            yield Missing(here, "tuned", f"a model that was tuned from {small.title}")
