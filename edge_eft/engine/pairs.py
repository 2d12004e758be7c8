"""What the files say of each other before any is loaded: pairs that make no emulation, or a doubt.

A delta of a model with itself is refused. What may be meant is only said: a base that is smaller
than its tuned model, a pair that looks swapped, chat models that are told plain prompts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from ..errors import RecipeError
from ..files.gguf_check import GGUFHeader, read_header
from ..files.model_names import BASE, TUNED, plain_name, words
from ..files.recipe import ModelSpec, Recipe
from ..files.same_weights import changes_nothing, same_weights

_NAMES = ("general.name", "general.basename", "general.finetune")


def check(recipe: Recipe, headers: Mapping[str, GGUFHeader], *, weights: bool = True) -> None:
    """Refuse a delta whose two models are one, or whose tuned model cannot be told its prompts.

    Args:
        recipe: an adapter on the reference makes another model of it.
        headers: role → header of its model file.
        weights: whether to compare them; for that the files have to be here.

    Raises:
        RecipeError: tuned and reference are the same file, or hold the same weights; or tuned is
            an adapter of zeros, or is to have its own template, and only the reference has one.
    """
    for name, delta in recipe.deltas.items():
        tuned, reference = delta.tuned, delta.reference
        if tuned.lora and not reference.lora and changes_nothing(read_header(tuned.lora)):
            raise RecipeError(
                f"the adapter of delta {name!r}, {tuned.lora.name}, was never trained (its B "
                "matrices are zeros), so that tuned − reference is nothing; give the trained one"
            )
        if tuned.lora or reference.lora:
            continue
        files = headers[f"tuned:{name}"], headers[f"reference:{name}"]
        if tuned.prompt == "template" and has_template(files[1]) and not has_template(files[0]):
            raise RecipeError(
                f"delta {name!r}: swapped? tuned ({tuned.file.name}) has no chat template and the "
                f"reference ({reference.file.name}) has one; exchange them, or name a format for "
                'tuned (prompt = "chatml")'
            )
        if os.path.realpath(tuned.file) == os.path.realpath(reference.file):
            seen = f"are the same file, {tuned.file.name}"
        elif (tuned.sha256 and tuned.sha256 == reference.sha256) or (
            weights and same_weights(*files)
        ):
            seen = f"({tuned.file.name} and {reference.file.name}) hold the same weights"
        else:
            continue
        raise RecipeError(
            f"tuned and reference of delta {name!r} {seen}, so that tuned − reference is nothing; "
            "as reference, give the model that tuned was tuned from"
        )


def doubts(recipe: Recipe, headers: Mapping[str, GGUFHeader]) -> Iterator[str]:
    """Yield a line for each thing that the user may not have meant; arguments as `check`."""
    roles = recipe.roles()
    base = headers["base"]
    for name, delta in recipe.deltas.items():
        tuned, reference = headers[f"tuned:{name}"], headers[f"reference:{name}"]
        if delta.tuned.lora is None:
            yield from _swapped(name, (delta.tuned, tuned), (delta.reference, reference))
    yield from unlike(recipe, headers)
    largest = max(recipe.deltas, key=lambda name: headers[f"tuned:{name}"].n_parameters)
    tuned, spec = headers[f"tuned:{largest}"], roles[f"tuned:{largest}"]
    is_pair = _size(tuned) == _size(headers[f"reference:{largest}"])
    if is_pair and base.n_parameters < tuned.n_parameters:
        yield (
            f"base ({_sized(roles['base'], base)}) is smaller than tuned:{largest} "
            f"({_sized(spec, tuned)}): that is down-scaling, which gives a small model's knowledge "
            "the manner of a larger one's tuning; for up-scaling, base is the largest model"
        )
    told_plainly = [
        role
        for role, spec in roles.items()
        if spec.prompt == "plain" and not role.startswith("tuned:") and has_template(headers[role])
    ]
    asked_for = recipe.base is not None and recipe.base.prompt is not None
    if "base" in told_plainly and len(told_plainly) > 1 and not asked_for:
        yield (
            "base and reference have chat templates and get plain prompts; if replies are off, "
            'edge-eft new finds by trying what suits them; prompt = "plain" in [base] says that it '
            "is meant"
        )


def _swapped(
    name: str, tuned: tuple[ModelSpec, GGUFHeader], reference: tuple[ModelSpec, GGUFHeader]
) -> Iterator[str]:
    files = f"tuned ({tuned[0].file.name}) and reference ({reference[0].file.name})"
    if has_template(reference[1]) and not has_template(tuned[1]):
        seen = "the reference has a chat template and tuned has none"
    elif _names_say_so(_names(*tuned), _names(*reference)):
        seen = "by their names, the reference is the one that was tuned"
    else:
        return
    yield f"delta {name!r}: swapped? Of {files}, {seen}; tuned is the one that behaves as you want"


def unlike(recipe: Recipe, headers: Mapping[str, GGUFHeader]) -> Iterator[str]:
    """Yield a line for each delta whose models cannot be a pair; arguments as `check`."""
    for name, delta in recipe.deltas.items():
        if delta.tuned.lora is not None:
            continue
        tuned = delta.tuned, headers[f"tuned:{name}"]
        reference = delta.reference, headers[f"reference:{name}"]
        if _size(tuned[1]) != _size(reference[1]):
            yield (
                f"delta {name!r}: tuned ({_sized(*tuned)}) and reference ({_sized(*reference)}) "
                "differ in size, so that they are no pair; reference is the model that tuned was "
                "tuned from, base the large one"
            )


def _size(header: GGUFHeader) -> tuple[int, int]:
    """Return layers and width, which tuning does not change; a vocabulary may grow in it."""
    return header.n_layer, header.integer("embedding_length")


def _names_say_so(
    tuned: Mapping[str, frozenset[str]], reference: Mapping[str, frozenset[str]]
) -> bool:
    """Return whether the names say that tuned is the base model and the reference the tuned one.

    Either both say so, or their names are the same but for that. A tune of one's own may have any
    name, and an instruct model as its reference.
    """
    of_tuned: frozenset[str] = frozenset().union(*tuned.values())
    of_reference: frozenset[str] = frozenset().union(*reference.values())
    says_base = of_tuned & BASE and not of_tuned & TUNED
    if says_base and of_reference & TUNED and not of_reference & BASE:
        return True
    return any(
        tuned[key] != reference[key] and tuned[key] - BASE == reference[key] - TUNED
        for key in tuned.keys() & reference.keys()
    )


def _names(spec: ModelSpec, header: GGUFHeader) -> dict[str, frozenset[str]]:
    """Return the words of a model's names, by where they stand."""
    names = {"file": spec.file.name} | {key: header.metadata.get(key) for key in _NAMES}
    plain = {key: plain_name(name) for key, name in names.items() if isinstance(name, str)}
    return {key: words(name) for key, name in plain.items() if name}


def has_template(header: GGUFHeader) -> bool:
    """Return whether a model's file has a chat template, of whatever name."""
    return any(key.startswith("tokenizer.chat_template") for key in header.metadata)


def _sized(spec: ModelSpec, header: GGUFHeader) -> str:
    return f"{spec.file.name}, {header.n_parameters / 1e6:,.1f} M parameters"
