"""score: the log-probability of a given reply, as the steps would have it."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import tiny_models
from helpers.bare_llama import bare
from helpers.emulator_tools import (
    GREEDY,
    open_emulator,
    run,
    tokens_of,
)
from scipy.special import log_softmax

from edge_eft import Request, Weights
from edge_eft.errors import EngineError, PromptError, RequestError

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 32, 33, 40])
@pytest.mark.parametrize("weights", [Weights.upscale(1.0), Weights.amplify(1.3)])
def test_score_is_what_the_steps_say(tiny, n, weights):
    options = {"max_tokens": n, "temperature": 1.0, "seed": n, "weights": weights}
    with open_emulator(tiny, n_ctx=64) as emulator:
        steps = list(emulator.stream("the red", **options))
        tokens = tokens_of(steps)
        score = emulator.score("the red", tokens, weights=weights)
        assert score.shape == (n,)
        assert score.dtype == np.float32
        assert score.tolist() == [np.float32(step.logprob) for step in steps]
    total = 0.0
    for path, c in zip(tiny, weights.coefficients({"tuned": 1.0}).values(), strict=False):
        model = bare(path)
        total = total + c * model.log_probabilities(model.tokenize("the red"), tokens)
    expected = log_softmax(total, axis=-1)[np.arange(n), tokens]
    np.testing.assert_allclose(score, expected, rtol=0, atol=1e-4)


def test_score_takes_texts_ids_and_the_end_token(family):
    prompt = family.prompts[0]
    with open_emulator(family) as emulator:
        generation = emulator.generate(prompt, max_tokens=10, **GREEDY)
        end = emulator.vocabulary.end_token
        by_ids = emulator.score(prompt, [*generation.tokens, end])
        by_text = emulator.score(prompt, generation.text)
        assert by_text.sum() <= by_ids[:-1].sum() + 1e-3 or len(by_text) != len(by_ids) - 1
        assert (by_ids <= 0).all()
        assert emulator.score(prompt, []).shape == (0,)
        conservative = emulator.score(prompt, generation.tokens, conservative=0.9)
        assert np.isfinite(conservative).all()


def test_score_takes_a_whole_request(tiny):
    """As `generate` does: what a chat template is told has no other way."""
    weights = Weights.upscale(0.5)
    request = Request("the red", weights=weights, max_tokens=3, seed=1)
    with open_emulator(tiny) as emulator:
        tokens = emulator.generate(replace(request, max_tokens=9)).tokens
        by_request = emulator.score(request, tokens)
        assert by_request.tolist() == emulator.score("the red", tokens, weights=weights).tolist()
        with pytest.raises(RequestError, match="takes no further options, such as weights"):
            emulator.score(request, tokens, weights=weights)


def test_score_takes_a_reply_that_fills_the_context_and_no_more(tiny):
    """Whatever `generate` can give can be scored."""
    with open_emulator(tiny, n_ctx=48) as emulator:
        for n_prompt in (1, 20, 47):
            prompt = "?" * (n_prompt - 1)
            steps = list(emulator.stream(prompt, max_tokens=99, logit_bias={tiny_models.EOS: -99}))
            assert n_prompt + len(steps) == 49
            score = emulator.score(prompt, tokens_of(steps))
            np.testing.assert_allclose(score, [step.logprob for step in steps], atol=1e-4)
        with pytest.raises(PromptError, match="70 tokens and 4"):
            emulator.score("?" * 19, [300] * 50)


def test_score_takes_a_free_slot_and_disturbs_no_request(tiny):
    request = Request("the red one", max_tokens=12, seed=1)
    with open_emulator(tiny) as emulator:
        expected = tokens_of(emulator.stream(request))
        score = emulator.score("it is", [300, 301])
    with open_emulator(tiny, n_slots=2) as emulator:
        request_id = emulator.submit(request)
        steps = emulator.step()
        assert np.array_equal(emulator.score("it is", [300, 301]), score)
        steps += emulator.step()
        emulator.submit(Request("a", max_tokens=30))
        steps += [step for step in emulator.step() if step.request_id == request_id]
        with pytest.raises(EngineError, match="all 2 slots are in use"):
            emulator.score("it is", [300, 301])
        steps += run(emulator)[request_id]
        assert tokens_of(steps) == expected


@pytest.mark.parametrize(
    "tokens", [[-1], [352], [300, -1, 301], [300, 352, 301], [300, 2**40, 301]]
)
def test_score_refuses_impossible_tokens(tiny, tokens):
    with open_emulator(tiny, n_ctx=64) as emulator:
        with pytest.raises(RequestError):
            emulator.score("the", tokens)
        assert emulator.score("the", [300]).shape == (1,)
