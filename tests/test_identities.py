"""What the papers' algebra promises, on real models: α = 0 is the base, tuned ≡ reference too, …

A raw string prompt and one thread, so that every role decodes the same tokens in the same way. The
other side of each identity is bare llama.cpp and a float64 log-softmax.
"""

import functools

import numpy as np
import pytest
from helpers.bare_llama import bare
from helpers.families import twin

from edge_eft import Emulator, Weights

pytestmark = pytest.mark.timeout(120)

N = 8


@pytest.fixture(scope="module", params=["atlas", "tiny", "smollm2"])
def paths(request):
    """(base, tuned, reference, prompt); SmolLM2 comes with a twin."""
    return paths_of(request)


@pytest.fixture(
    scope="module", params=["atlas", "tiny", pytest.param("smollm2", marks=pytest.mark.slow)]
)
def small_paths(request):
    """Likewise, where SmolLM2 would add time and little else."""
    return paths_of(request)


def paths_of(request):
    if request.param == "smollm2":
        return *request.getfixturevalue("smollm2_trio"), "The capital of France is"
    family = request.getfixturevalue(request.param)
    return family.base, family.tuned, family.reference, family.prompts[0]


@functools.lru_cache(maxsize=12)
def emulator_of(base, tuned, reference):
    return Emulator.from_files(base=base, tuned=tuned, reference=reference, n_ctx=64, n_threads=1)


@pytest.fixture(scope="module", autouse=True)
def closed_emulators():
    yield
    emulator_of.cache_clear()


def emulate(base, tuned, reference, prompt, weights, **options):
    """Tokens, log-probabilities and text of a greedy emulated reply."""
    emulator = emulator_of(base, tuned, reference)
    options = {"temperature": 0.0, "max_tokens": N, "weights": weights} | options
    steps = list(emulator.stream(prompt, **options))
    return (
        [step.token for step in steps],
        np.array([step.logprob for step in steps]),
        "".join(step.text for step in steps),
    )


def assert_is_the_model(path, prompt, reply):
    """Greedy tokens and their log-probabilities are those of one model in bare llama.cpp."""
    tokens, logprobs, _ = reply
    model = bare(path)
    ids = model.tokenize(prompt)
    expected = model.greedy(ids, N)
    if len(expected) < N:
        expected.append(model.eos)
    assert tokens == expected
    log_p = model.log_probabilities(ids, tokens)
    assert np.abs(log_p[np.arange(len(tokens)), tokens] - logprobs).max() < 1e-4


def test_alpha_zero_is_the_base(paths):
    base, tuned, reference, prompt = paths
    reply = emulate(base, tuned, reference, prompt, Weights.upscale(0.0))
    assert_is_the_model(base, prompt, reply)


def test_only_a_role_is_that_model(small_paths):
    base, tuned, reference, prompt = small_paths
    for role, path in (("base", base), ("tuned", tuned), ("reference", reference)):
        reply = emulate(base, tuned, reference, prompt, Weights.only(role))
        assert_is_the_model(path, prompt, reply)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.5])
def test_tuned_equal_to_reference_is_the_base(paths, alpha, folder):
    base, tuned, _, prompt = paths
    reply = emulate(base, tuned, twin(tuned, folder), prompt, Weights.upscale(alpha))
    assert_is_the_model(base, prompt, reply)


def test_base_equal_to_reference_is_the_tuned(paths):
    base, tuned, _, prompt = paths
    reply = emulate(base, tuned, base, prompt, Weights.upscale(1.0))
    assert_is_the_model(tuned, prompt, reply)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_base_equal_to_reference_is_the_tuned_for_any_beta(small_paths, beta):
    base, tuned, _, prompt = small_paths
    reply = emulate(base, tuned, base, prompt, Weights.amplify(beta))
    assert_is_the_model(tuned, prompt, reply)


def test_beta_one_is_alpha_one(small_paths):
    base, tuned, reference, prompt = small_paths
    alpha = emulate(base, tuned, reference, prompt, Weights.upscale(1.0))
    beta = emulate(base, tuned, reference, prompt, Weights.amplify(1.0))
    assert alpha[0] == beta[0]
    np.testing.assert_allclose(alpha[1], beta[1], rtol=0, atol=1e-4)
    assert alpha[2] == beta[2]


def test_mix_of_one_is_the_delta_alone(small_paths):
    base, tuned, reference, prompt = small_paths
    mix = Weights.interpolate({"tuned": 0.5}, alpha=2.0)
    mixed = emulate(base, tuned, reference, prompt, mix)
    alone = emulate(base, tuned, reference, prompt, Weights.upscale(1.0))
    assert mixed[0] == alone[0]
    np.testing.assert_allclose(mixed[1], alone[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("weights", [Weights.upscale(0.7), Weights.amplify(1.5)])
def test_log_probabilities_are_the_papers_sum_in_float64(small_paths, weights):
    """softmax of Σ c · logits in float64 from three bare models, for a seeded reply."""
    base, tuned, reference, prompt = small_paths
    tokens, logprobs, _ = emulate(base, tuned, reference, prompt, weights, temperature=0.9, seed=3)
    ends = {bare(path).eos for path in (base, tuned, reference)}
    coefficients = weights.coefficients({"tuned": 1.0}).values()
    total = 0.0
    for path, coefficient in zip((base, tuned, reference), coefficients, strict=True):
        model = bare(path)
        log_p = model.log_probabilities(model.tokenize(prompt), tokens)
        total = total + coefficient * log_p
    assert len(ends) == 1
    log_p = total - np.logaddexp.reduce(total, axis=-1, keepdims=True)
    np.testing.assert_allclose(logprobs, log_p[np.arange(len(tokens)), tokens], rtol=0, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_three_equal_models_give_the_same_text_at_any_alpha(small_paths, alpha, folder):
    """With one model in all roles nothing depends on α."""
    base, _, _, prompt = small_paths
    equal = twin(base, folder)
    for options in ({}, {"temperature": 1.0, "seed": 11, "top_k": 20}):
        alone = emulate(base, equal, base, prompt, Weights.only("base"), **options)
        reply = emulate(base, equal, base, prompt, Weights.upscale(alpha), **options)
        assert reply[0] == alone[0]
        assert reply[2] == alone[2]
