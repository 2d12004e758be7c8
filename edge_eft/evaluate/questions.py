"""The held-out questions of a family: reading them, and choosing some."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import islice, zip_longest

from ..errors import RecipeError
from ..files.plain_text import decode, read_regular, reason
from ..files.recipe import Recipe

_MAX_BYTES = 64 << 20
N_TIMED = 12  # of a choice, one of each relation in turn come first


@dataclass(frozen=True)
class Question:
    """A question about a held-out entity, the object that answers it, and the `chat` reply."""

    relation: str
    entity: str
    object: str
    question: str
    reply: str

    def names_object(self, answer: str) -> bool:
        """Return whether the right object stands in the answer, as whole words."""
        pattern = rf"(?<![\w+.-]){re.escape(self.object)}(?![\w-])"
        return re.search(pattern, answer, re.IGNORECASE) is not None


def load_questions(recipe: Recipe) -> list[Question]:
    """Return the held-out questions of a family, from NAME/heldout.json next to its recipe.

    Raises RecipeError if there are none.
    """
    if recipe.path is None:
        raise RecipeError("the demo needs a recipe with held-out questions, such as atlas")
    path = recipe.path.with_suffix("") / "heldout.json"
    try:
        entries = json.loads(decode(read_regular(path, _MAX_BYTES)))["questions"]
        questions = [Question(*(str(entry[f.name]) for f in fields(Question))) for entry in entries]
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({reason(error)}); the demo needs a family with held-out "
            "questions, such as atlas"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecipeError(f"{path}: holds no questions ({error!r}); get the file again") from None
    if not questions:
        raise RecipeError(f"{path}: holds no question; get the file again")
    return questions


def pick(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """Return `n` questions at random, after those to time: one of each relation in turn."""
    left = random.Random(seed).sample(questions, len(questions))
    by_relation: dict[str, list[Question]] = {}
    for question in left:
        by_relation.setdefault(question.relation, []).append(question)
    turns = (q for turn in zip_longest(*by_relation.values()) for q in turn if q is not None)
    timed = list(islice(turns, N_TIMED))
    return [*timed, *(q for q in left if q not in timed)][:n]
