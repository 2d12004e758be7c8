"""formats: what suits a base and its pair is found by trying, on real models."""

import math

import numpy as np
import pytest
from helpers.emulator_tools import GREEDY
from helpers.families import ATLAS

from edge_eft import Emulator, Weights
from edge_eft.engine.prompting import prompt_format
from edge_eft.errors import PromptError, RecipeError
from edge_eft.evaluate.formats import (
    CLOSE,
    ENOUGH,
    QUESTIONS,
    Question,
    Score,
    Told,
    best,
    find_formats,
    formats_of,
    to_try,
)
from edge_eft.files.recipe import from_files

TEMPLATE, PLAIN = Told("template", "template"), Told("plain", "plain")
TUNED = "tuned:tuned"


def emulator_of(base, tuned, reference, given=None):
    recipe = to_try(from_files(base, tuned, reference), given or {})
    return Emulator(recipe, n_ctx=256, n_threads=1)


@pytest.fixture(scope="module")
def loaded(atlas):
    with emulator_of(*atlas[:3]) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def trial(loaded):
    return find_formats(loaded)


def test_models_that_were_trained_on_their_template_get_it(trial, loaded):
    assert trial.told == TEMPLATE
    assert trial.tuned == "template"
    assert {spec.prompt for spec in loaded.recipe.roles().values()} == {"template"}
    assert {file.prompt for file in loaded.record.files.values()} == {"template"}
    reply = loaded.generate([{"role": "user", "content": "What is the capital of Peru?"}], **GREEDY)
    assert reply.text.strip() == "It is Lima.", "and it is told so from now on"


def test_a_base_that_never_saw_its_template_gets_plain_prompts_and_so_does_its_reference(
    atlas, copies
):
    """By the likeliest replies under the base alone it would be a transcript.

    Under that a fifth of the demo's questions are answered rightly, under plain prompts two thirds.
    """
    with emulator_of(copies.unseen_base, atlas.tuned, atlas.reference) as emulator:
        found = find_formats(emulator)
    assert found.told == PLAIN
    assert max(found.scores, key=lambda told: found.scores[told].base).base == "transcript"


def test_a_large_instruct_model_is_asked_through_its_own_template(atlas):
    """Its small sister is the reference, and tuned is what somebody made of that."""
    files = ATLAS / "base-chat.gguf", ATLAS / "discreet.gguf", ATLAS / "chat.gguf"
    with emulator_of(*files) as emulator:
        assert find_formats(emulator).told == TEMPLATE


def test_without_any_template_formats_are_found_for_all(copies):
    with emulator_of(*copies.bare[:3]) as emulator:
        found = find_formats(emulator)
    assert found.tuned == "transcript", "its answers end there; User: is nearest to Q:"
    assert TEMPLATE not in found.scores
    assert found.told in (PLAIN, Told("transcript", "transcript"))


def test_a_tuned_model_without_the_template_that_its_reference_has_is_asked_about(atlas, copies):
    with pytest.raises(RecipeError, match="swapped"):
        emulator_of(atlas.base, copies.bare.tuned, atlas.reference)


@pytest.mark.slow
def test_smollm2_gets_its_template(smollm2_trio):
    """Three times the same model: every format cancels, and the likeliest replies decide."""
    with Emulator(to_try(from_files(*smollm2_trio), {}), n_ctx=256) as emulator:
        found = find_formats(emulator, questions=QUESTIONS[1:2])
    assert found.told == TEMPLATE
    assert Told("chatml", "chatml") in found.scores
    scores = [score.emulated for score in found.scores.values()]
    assert max(scores) - min(scores) < 1e-3


# -- what is scored ------------------------------------------------------------------------


def test_figures_are_those_of_score(trial, loaded):
    """The mean of a format is over tuned's right replies, each with its end, as `score` has it."""
    told = {
        "base": prompt_format(loaded, "base", "plain"),
        "reference:tuned": prompt_format(loaded, "reference:tuned", "plain"),
    }
    means = {role: [] for role in told}
    for question in QUESTIONS:
        reply = loaded.generate(question.messages, weights=Weights.only(TUNED), **GREEDY)
        if question.is_answered(reply.text):
            tokens = [*reply.tokens, loaded.vocabulary.end_token]
            for role, form in told.items():
                prompt = form.encode(question.messages)
                logprobs = loaded.score(prompt, tokens, weights=Weights.only(role))
                means[role].append(logprobs.mean())
    assert len(means["base"]) == trial.n_right == trial.n_scored
    score = trial.scores[PLAIN]
    assert score.base == pytest.approx(np.mean(means["base"]), abs=1e-3)
    assert score.reference == pytest.approx(np.mean(means["reference:tuned"]), abs=1e-3)


def test_the_emulated_figure_is_that_of_the_whole_sum(trial, loaded):
    """Under the chosen formats, which the emulator uses now."""
    means = []
    for question in QUESTIONS:
        reply = loaded.generate(question.messages, weights=Weights.only(TUNED), **GREEDY)
        if question.is_answered(reply.text):
            tokens = [*reply.tokens, loaded.vocabulary.end_token]
            means.append(loaded.score(question.messages, tokens).mean())
    assert trial.scores[TEMPLATE].emulated == pytest.approx(np.mean(means), abs=1e-3)


def test_where_no_reply_is_right_all_of_them_count(loaded):
    never = [question._replace(answers=("Atlantis",)) for question in QUESTIONS[:2]]
    found = find_formats(loaded, questions=never)
    assert (found.n_asked, found.n_right, found.n_scored) == (2, 0, 2)


def test_enough_right_replies_are_enough(loaded):
    found = find_formats(loaded, questions=QUESTIONS[:2] * 5)
    assert (found.n_asked, found.n_right, found.n_scored) == (ENOUGH, ENOUGH, ENOUGH)


def test_at_the_end_of_its_time_one_question_was_asked(loaded):
    steps = []
    found = find_formats(loaded, until=-math.inf, on_step=lambda *step: steps.append(step))
    assert (found.n_asked, found.n_scored) == (1, 1)
    n = len(QUESTIONS)
    assert [step[:2] for step in steps] == [(0, 2 * n), (n, 2 * n), (2 * n, 2 * n)]


# -- what there is to choose from ----------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "tried"),
    [
        ({"base": "chatml"}, [("chatml", "chatml")]),
        ({"base": "plain", "reference": "template"}, [("plain", "template")]),
        (
            {"reference": "plain"},
            [("template", "plain"), ("plain", "plain"), ("transcript", "plain")],
        ),
    ],
)
def test_formats_that_are_given_are_not_chosen(loaded, given, tried):
    found = find_formats(loaded, given=given, questions=QUESTIONS[:1])
    assert list(found.scores) == [Told(*each) for each in tried]
    assert loaded.recipe.roles()["base"].prompt == found.told.base


def test_a_format_that_a_model_cannot_be_told_is_refused_if_it_is_given(copies):
    with emulator_of(*copies.bare[:3]) as emulator, pytest.raises(PromptError, match="no chat tem"):
        find_formats(emulator, given={"reference": "template"})


def test_chatml_needs_its_marks_as_tokens(loaded):
    assert list(formats_of(loaded, "base")) == ["template", "plain", "transcript"]


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("It is USD.", True),
        ("the US dollar", True),
        ("Dollarama", False),
        ("It is the Yen.", False),
    ],
)
def test_a_right_reply_has_an_answer_as_a_word(reply, right):
    assert Question("What is it?", ("dollar", "USD")).is_answered(reply) is right


# -- the choice ----------------------------------------------------------------------------


def test_what_is_as_good_is_decided_by_base_and_reference_alone():
    scores = {
        PLAIN: Score(base=-3.0, reference=-3.0, emulated=-0.2),
        TEMPLATE: Score(base=-1.0, reference=-1.0, emulated=-0.2 - CLOSE / 2),
        Told("transcript", "transcript"): Score(-0.5, -0.5, emulated=-0.2 - 2 * CLOSE),
    }
    assert best(scores) == TEMPLATE


def test_of_those_that_are_as_good_in_all_it_is_the_first():
    one, other = Score(-1.0, -1.0, -1.0), Score(-0.9 - CLOSE / 2, -1.0, -0.9 - CLOSE / 2)
    assert best({PLAIN: one, TEMPLATE: other}) == PLAIN
    assert best({TEMPLATE: other, PLAIN: one}) == TEMPLATE
