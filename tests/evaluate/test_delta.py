"""delta: how often it overrules the base, and how far it moves it."""

import math

import numpy as np
import pytest
from helpers.emulator_tools import GREEDY, open_emulator
from helpers.families import twin

from edge_eft.evaluate.delta import MAX_TOKENS, QUESTIONS, divergence, measure

ROLES_IN_ORDER = ("base", "tuned:tuned", "reference:tuned")


def test_divergence_of_small_numbers():
    with np.errstate(divide="ignore"):
        p = np.log(np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]], np.float32))
    q = np.log(np.array([[0.25, 0.25, 0.5], [0.25, 0.25, 0.5]], np.float32))
    assert divergence(p, q) == pytest.approx([math.log(2), 0.0], abs=1e-6)


def test_figures_are_those_of_the_replies_token_by_token(atlas):
    """Recomputed from what the emulator explains of every step, over the whole vocabulary."""
    with open_emulator(atlas, prompt="template") as emulator:
        effect = measure(emulator, questions=QUESTIONS[:2])
        everything = emulator.vocabulary.n_vocab
        settings = {"explain": everything, "max_tokens": MAX_TOKENS, **GREEDY}
        steps = [
            step
            for question in QUESTIONS[:2]
            for step in emulator.stream([{"role": "user", "content": question}], **settings)
        ]
    assert effect.n_tokens == len(steps)
    changed = sum(step.explain["base"].top[0][0] != step.token for step in steps)
    assert 0 < changed < len(steps)
    assert effect.changed == pytest.approx(changed / len(steps))
    divergences = []
    for step in steps:
        base, tuned, reference = (row_of(step, role, everything) for role in ROLES_IN_ORDER)
        combined = base + tuned - reference
        combined -= np.logaddexp.reduce(combined)
        divergences.append(divergence(combined[None], base[None])[0])
    assert effect.kl == pytest.approx(np.mean(divergences), rel=1e-3)
    assert effect.emulated_speed > 0.0
    assert effect.base_speed > 0.0


def row_of(step, role, n_vocab):
    """(n_vocab,) log-probabilities of one role, from an explanation that has all."""
    row = np.full(n_vocab, np.nan)
    for token, _, logprob in step.explain[role].top:
        row[token] = logprob
    return np.where(np.isneginf(row), -1e9, row)


def test_a_delta_that_changes_nothing_is_seen_as_that(atlas, tmp_path):
    same = twin(atlas.reference, tmp_path)
    with open_emulator((atlas.base, same, atlas.reference), prompt="template") as emulator:
        effect = measure(emulator, questions=QUESTIONS[:2])
    assert effect.changed == 0.0
    assert effect.kl == pytest.approx(0.0, abs=1e-5)


def test_at_the_end_of_its_time_one_question_was_answered(atlas):
    steps = []
    with open_emulator(atlas, prompt="template") as emulator:
        effect = measure(emulator, until=-math.inf, on_step=lambda *step: steps.append(step[:2]))
    n = len(QUESTIONS)
    assert steps == [(0, n + 1), (n, n + 1), (n + 1, n + 1)]
    assert 1 <= effect.n_tokens < MAX_TOKENS
