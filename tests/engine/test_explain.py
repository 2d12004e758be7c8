"""explain: each role's own distribution, and no influence on the reply."""

import pytest
from helpers import tiny_models
from helpers.bare_llama import bare
from helpers.emulator_tools import (
    ROLES,
    UNDRAFTED,
    open_emulator,
    tokens_of,
)
from scipy.special import logsumexp

from edge_eft import Weights

pytestmark = pytest.mark.timeout(60)


def test_explain_shows_whole_distributions(tiny):
    n_vocab = tiny_models.N_VOCAB
    with open_emulator(tiny) as emulator:
        for weights in (Weights.upscale(1.0), Weights.upscale(0.0), Weights.only("tuned")):
            prompt = "the red one"
            options = {"explain": n_vocab, "max_tokens": 5, "seed": 1} | UNDRAFTED
            steps = list(emulator.stream(prompt, weights=weights, **options))
            for step in steps:
                assert set(step.explain) == ROLES
            for role, path in zip(("base", "tuned:tuned", "reference:tuned"), tiny, strict=False):
                model = bare(path)
                rows = model.log_probabilities(model.tokenize(prompt), tokens_of(steps))
                for step, row in zip(steps, rows, strict=True):
                    view = step.explain[role]
                    assert abs(logsumexp([p for _, _, p in view.top])) < 1e-4
                    assert len(view.top) == n_vocab
                    assert abs(view.logprob - row[step.token]) < 1e-4
                    for token, _, logprob in view.top:
                        assert abs(logprob - row[token]) < 1e-4


@pytest.mark.parametrize("n", [1, 3, 10_000])
def test_explain_gives_the_likeliest_first(tiny, n):
    with open_emulator(tiny) as emulator:
        for step in emulator.stream("the red", explain=n, max_tokens=6, seed=1):
            for view in step.explain.values():
                logprobs = [p for _, _, p in view.top]
                assert len(view.top) == min(n, tiny_models.N_VOCAB)
                assert logprobs == sorted(logprobs, reverse=True)
                assert view.logprob <= logprobs[0]
                model = emulator.contexts[0].model
                for token, text, _ in view.top:
                    assert text == model.piece(token, special=True).decode("utf-8", "replace")
        assert next(emulator.stream("the red")).explain is None


def test_explain_changes_no_token(family):
    options = {"max_tokens": 12, "seed": 3}
    with open_emulator(family) as emulator:
        plain = emulator.generate(family.prompts[0], **options)
        explained = list(emulator.stream(family.prompts[0], explain=2, **options))
        tokens = [t for t in tokens_of(explained) if t != emulator.vocabulary.end_token]
        assert tokens == plain.tokens
