"""What a recipe says of tokens, and what its models' vocabularies then share.

The models may be loaded ones or what headers tell of them (`text.vocabulary.VocabularySource`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import RecipeError
from ..text.vocabulary import UNKNOWN, CommonVocabulary, VocabularySource, reconcile
from .recipe import ModelSpec, Recipe


def reconcile_recipe(
    recipe: Recipe, roles: Mapping[str, ModelSpec], models: Mapping[str, VocabularySource]
) -> CommonVocabulary:
    """Settle what the models of a recipe share, with its `end_tokens` and `adopt`.

    Args:
        recipe: whose path messages name.
        roles: role → what the recipe says of its model, the base first.
        models: role → its model.

    Raises:
        RecipeError: a key names what is not a token of its model.
        VocabularyError: the vocabularies cannot be combined.
    """
    ends, adopt = {}, {}
    for role, spec in roles.items():
        side, _, delta = role.partition(":")
        table = f"delta.{delta}.{side}" if delta else side
        where = f"{recipe.path}: {table}" if recipe.path else table
        ends[role] = named_tokens(spec.end_tokens, models[role], f"{where}.end_tokens")
        adopt[role] = named_tokens(spec.adopt, models[role], f"{where}.adopt")
    return reconcile(models, ends, adopt)


def named_tokens(names: Sequence[str | int], model: VocabularySource, where: str) -> frozenset[int]:
    """Return the ids of tokens that a recipe names.

    Args:
        names: ids, or texts: the vocabulary's own ("<|im_end|>", "▁the"), or one that is tokenised
            as this one token (" the").
        model: whose tokens.
        where: the key, for messages.

    Raises:
        RecipeError: an id is out of range, or a text is not one token.
    """
    ids = set()
    for name in names:
        if isinstance(name, int):
            if not 0 <= name < model.n_vocab:
                last = model.n_vocab - 1
                raise RecipeError(
                    f"{where} names token {name}; the ids of {model.name} end at {last}"
                )
            ids.add(name)
            continue
        text = name.encode("utf-8", "surrogatepass")
        same = [i for i, other in enumerate(model.token_texts()) if other == text]
        found = same or model.tokenize(name, parse_special=True)
        if not same and (len(found) != 1 or model.token_attributes()[found[0]] & UNKNOWN):
            raise RecipeError(
                f"{where} names {name!r}, which is not one token of {model.name} but {len(found)}; "
                "name each token by its text in the vocabulary, or by its id"
            )
        ids.update(found)
    return frozenset(ids)
