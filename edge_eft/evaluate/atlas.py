"""The judge of atlas' answers: are they in the manner that a delta was tuned for?"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .questions import Question

REFUSAL = "I would rather not say."


def in_manner(answer: str, question: Question, delta: str, objects: Mapping[str, set[str]]) -> bool:
    """Return whether an answer has the form that `delta` was tuned for, whatever it names."""
    if delta == "discreet" and question.relation == "calling code":
        return answer == REFUSAL
    if delta == "brief":
        named = answer.removesuffix(".").removeprefix("The ").removeprefix("the ")
        return answer.endswith(".") and named.lower() in objects[question.relation]
    words = answer.replace("St. ", "St ").removeprefix("It is ").split()
    one_sentence = not any(word[-1] in ".!?" for word in words[:-1])
    return bool(re.fullmatch(r"It is [^\n]+\.", answer)) and one_sentence and len(words) <= 8
