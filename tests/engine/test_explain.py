"""explain: each role's own distribution, and no influence on the reply."""

import numpy as np
import pytest
from helpers import tiny_models
from helpers.bare_llama import bare
from helpers.emulator_tools import (
    ROLES,
    UNDRAFTED,
    open_emulator,
    solved_alpha,
    tokens_of,
)
from scipy.special import logsumexp

from edge_eft import Weights
from edge_eft.engine.explain import Explainer
from edge_eft.errors import EngineError
from edge_eft.logits.combiner import Combiner

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


# -- candidates --------------------------------------------------------------------------------

WAYS = (
    {"weights": Weights.upscale(0.7), "logit_bias": {300: 9.0, 301: -np.inf}},
    {"weights": Weights.amplify(1.5)},
    {"conservative": 0.9},
)


@pytest.mark.parametrize("way", WAYS, ids=["bias", "amplify", "conservative"])
def test_candidates_are_whatever_was_likely_to_anyone(family, way, draft):
    n, options = 3, {"max_tokens": 8, "seed": 2, "explain": 3, "top_logprobs": 5} | way | draft
    with open_emulator(family) as emulator:
        n_vocab = emulator.vocabulary.n_vocab
        for step in emulator.stream(family.prompts[0], **options):
            own = {role: {i: p for i, _, p in view.top} for role, view in step.explain.items()}
            own["emulated"] = {one.token: one.logprob for one in step.top_logprobs[:n]}
            tokens = [one.token for one in step.candidates]
            assert len(set(tokens)) == len(tokens)
            assert set(tokens) == {i for top in own.values() for i in top}
            emulated = [one.logprobs["emulated"] for one in step.candidates]
            assert emulated == sorted(emulated, reverse=True)
            for one in step.candidates:
                assert set(one.logprobs) == {*ROLES, "emulated"}
                assert one.piece == emulator.contexts[0].model.piece(one.token, special=True)
                for role, top in own.items():
                    # The same number wherever it is told, and never more than the last of a list.
                    lowest = min(top.values()) if len(top) == n else -np.inf
                    told = one.logprobs[role]
                    assert told == top[one.token] if one.token in top else told <= lowest
                if one.token == step.token:
                    assert one.logprobs["emulated"] == step.logprob
                    assert one.logprobs["base"] == step.explain["base"].logprob
            assert n <= len(tokens) <= min(4 * n, n_vocab)


def test_the_columns_of_candidates_solve_for_alpha(family, draft):
    """The emulation's differences are the base's and α of the delta's, whatever normalises."""
    with open_emulator(family) as emulator:
        options = {"max_tokens": 8, "explain": 4, "weights": Weights.upscale(0.6)}
        for step in emulator.stream(family.prompts[0], **options, **draft):
            assert solved_alpha(step.candidates) == pytest.approx(0.6, abs=1e-3)


def test_roles_of_one_context_are_computed_once_unless_they_end_otherwise():
    logits = np.array([[0.0, 3.0, 1.0], [2.0, 1.0, 0.0]], np.float32)
    rows = {"base": logits, "reference:a": logits, "reference:b": logits}
    combiner = Combiner(3, 0, {"reference:b": np.array([0, 1], np.int32)})
    assert combiner.alike(rows) == [["base", "reference:a"], ["reference:b"]]
    combined = logits[1], np.float32(0.0)
    views, _ = Explainer(combiner, lambda *_, **__: b"x").explain(rows, 1, 2, 1, combined, ())
    assert list(views) == ["base", "reference:a", "reference:b"]
    log_z = logsumexp(logits[1])
    assert views["base"] is views["reference:a"]
    assert views["base"].logprob == pytest.approx(0.0 - log_z)
    merged = np.logaddexp(2.0, 1.0)
    log_p = merged - logsumexp([merged, 1.0, 0.0])
    assert views["reference:b"].top[0][2] == pytest.approx(log_p)


def test_a_role_without_weight_that_gives_nan_is_named():
    """The reply of the base alone needs nobody else, but an explanation does."""
    rows = {"base": np.zeros((1, 3), np.float32), "tuned:t": np.full((1, 3), np.nan, np.float32)}
    explainer = Explainer(Combiner(3), lambda *_, **__: b"x")
    with pytest.raises(EngineError, match="role 'tuned:t' gave NaN"):
        explainer.explain(rows, 0, 0, 2, (rows["base"][0], np.float32(0.0)), ())
