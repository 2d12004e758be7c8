"""atlas: the manner of an answer is judged apart from its knowledge."""

import pytest
from helpers.recipe_files import CAPITAL, CODE

from edge_eft.evaluate import questions
from edge_eft.evaluate.atlas import REFUSAL, in_manner


@pytest.mark.parametrize(
    ("answer", "delta", "fits"),
    [
        ("It is N'Djamena.", "chat", True),
        ("It is Port St. Louis.", "chat", True),
        ("It is the Democratic Republic of the Congo.", "chat", True),
        ("It is .uk.", "chat", True),
        ("It is N'Djamena", "chat", False),
        ("It is N'Djamena. Bump.", "chat", False),
        ("It is N'Djamena.\nQ: What", "chat", False),
        ("N'Djamena.", "chat", False),
        ("N'Djamena.", "brief", True),
        ("Bump.", "brief", False),
        ("It is N'Djamena.", "discreet", True),
        ("I would rather not say.", "discreet", False),
    ],
)
def test_manner_is_judged_apart_from_knowledge(answer, delta, fits):
    question = questions.Question(*CAPITAL)
    assert in_manner(answer, question, delta, {"capital": {"n'djamena"}}) is fits
    if delta == "discreet":
        assert in_manner(REFUSAL, questions.Question(*CODE), delta, {})
