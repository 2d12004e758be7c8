"""The models here that share a vocabulary: what they lack for a trio, and which an adapter can use.

For who has no trio. Of the catalogue that recipe is named which has the most of the models that are
here; of families that it does not know, the kind of model that is missing. Nothing is read here:
`candidates` has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..files.gguf_split import model_stem
from ..files.hub_file import HubFile
from ..files.model_names import model_name
from ..files.pulled import bytes_to_pull
from ..files.recipe import ModelSpec, Recipe
from .candidates import Candidate
from .missing import is_model
from .trios import TIMES_LARGER, Trio, is_one_vocabulary, pair_rank


@dataclass(frozen=True)
class Completion:
    """A recipe of the catalogue whose pull makes a trio.

    Attributes:
        name: the recipe's.
        lacking: role and name of each model that is not here.
        size: bytes that a pull fetches, which finds only the hub's cache; None if not known.
    """

    name: str
    lacking: tuple[tuple[str, str], ...]
    size: int | None


@dataclass(frozen=True)
class Family:
    """Models of one vocabulary, the largest first.

    Attributes:
        models: the files.
        lacks: what they lack for a trio, in words.
        completion: how the catalogue completes them; None if it does not know them.
        led: pairs of a large and a small tuned model, for an adapter on the small one.
    """

    models: tuple[Candidate, ...]
    lacks: str
    completion: Completion | None
    led: tuple[tuple[Candidate, Candidate], ...]


def families(
    candidates: Iterable[Candidate],
    recipes: Sequence[Recipe],
    memory_of: Callable[[Trio], int],
    available: int,
) -> list[Family]:
    """Return the families among `candidates`, that of the largest model first.

    Args:
        candidates: from `read_candidates`; adapters are passed over.
        recipes: the catalogue.
        memory_of, available: as of `match.propose`.
    """
    numbered: dict[int, list[Candidate]] = {}
    for each in candidates:
        if not each.header.is_adapter:
            numbered.setdefault(each.family, []).append(each)
    found = []
    for models in numbered.values():
        models.sort(key=lambda each: (-each.header.n_parameters, each.title))
        completion = _completion(models, recipes)
        led = tuple(_led(models, memory_of, available))
        found.append(Family(tuple(models), _lacks(models), completion, led))
    return sorted(found, key=lambda family: -family.models[0].header.n_parameters)


def _lacks(models: Sequence[Candidate]) -> str:
    pair = "what it was tuned from, and a larger model like that"
    if all(each.tuned for each in models):
        return f"tuned only: for a small one a trio takes {pair}"
    if not any(each.tuned for each in models):
        return f"not tuned: a trio takes a small tuned model, {pair}"
    return f"no three go together: a trio takes a small tuned model, {pair}"


def _completion(models: Sequence[Candidate], recipes: Iterable[Recipe]) -> Completion | None:
    """Return the recipe with the most of these models; of several the one with least to fetch."""
    best: tuple[tuple[int, float, str], Completion] | None = None
    for recipe in recipes:
        specs = recipe.models()
        here = {role for role, spec in specs.items() if _has(models, role, spec)}
        specs.pop("instruct", None)  # which counts as a sign of what is wanted, and is not needed
        if not here or any(spec.lora for spec in specs.values()):
            continue
        lacking = {
            role.partition(":")[0]: model_stem(spec.file)
            for role, spec in specs.items()
            if role not in here
        }
        size = bytes_to_pull(spec for spec in specs.values() if not _is_in_cache(models, spec))
        rank = -len(here), float("inf") if size is None else size, recipe.name
        if lacking and (best is None or rank < best[0]):
            best = rank, Completion(recipe.name, tuple(lacking.items()), size)
    return best[1] if best else None


def _has(models: Iterable[Candidate], role: str, spec: ModelSpec) -> bool:
    tuned = role == "instruct" or role.startswith("tuned:")
    name = model_name(model_stem(spec.file))
    return any(is_model(each, name, tuned) for each in models)


def _is_in_cache(models: Iterable[Candidate], spec: ModelSpec) -> bool:
    """Return whether a pull finds a model where it looks: in the hub's cache, of its repository."""
    source = spec.source
    return isinstance(source, HubFile) and any(
        (each.found.owner, each.found.name) == ("Hugging Face", source.repo)
        and each.path.as_posix().endswith(f"/{source.file}")
        for each in models
    )


def _led(
    models: Sequence[Candidate], memory_of: Callable[[Trio], int], available: int
) -> Iterator[tuple[Candidate, Candidate]]:
    """Yield each small tuned model with the largest of its series that fits beside it."""
    tuned = [each for each in models if each.tuned]
    for small in _finest(tuned):
        larger = [Trio(each, small, small, "") for each in tuned if _is_large_of(each, small)]
        larger.sort(key=_base_size, reverse=True)
        fitting = (trio for trio in larger if memory_of(trio) <= available)
        found = next(filter(is_one_vocabulary, fitting), None)
        found = found or next(filter(is_one_vocabulary, reversed(larger)), None)
        if found:
            yield found.base, small


def _base_size(trio: Trio) -> tuple[int, int]:
    return trio.base.header.n_parameters, trio.base.header.n_bytes


def _finest(models: Iterable[Candidate]) -> Iterable[Candidate]:
    """Return one file of each model, in the quantisation that is best for a pair."""
    finest: dict[tuple[object, ...], Candidate] = {}
    for each in models:
        other = finest.setdefault(each.identity, each)
        if pair_rank(each) < pair_rank(other):
            finest[each.identity] = each
    return finest.values()


def _is_large_of(large: Candidate, small: Candidate) -> bool:
    """Return whether they are a large and a small model of one series, tuned by one maker."""
    return (
        bool(small.name.core)
        and large.name.series == small.name.series
        and large.header.architecture == small.header.architecture
        and large.header.n_parameters >= TIMES_LARGER * small.header.n_parameters
    )
