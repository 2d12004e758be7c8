"""token_shifts: what the delta did to a token is told as the models have it."""

import numpy as np
import pytest
from helpers.bare_llama import bare
from helpers.emulator_tools import open_emulator

from edge_eft import Request, Weights
from edge_eft.evaluate.token_shifts import token_shifts


def test_both_log_probabilities_are_those_of_llama_cpp(tiny):
    request = Request("the red", weights=Weights.upscale(0.5), max_tokens=12, seed=1)
    with open_emulator(tiny) as emulator:
        done = emulator.generate(request)
        found = token_shifts(emulator, request, done.tokens)
    rows = []
    for path in tiny[:3]:
        model = bare(path)
        rows.append(model.log_probabilities(model.tokenize("the red"), done.tokens))
    base, tuned, reference = rows
    combined = base + 0.5 * (tuned - reference)
    combined -= np.logaddexp.reduce(combined, axis=-1, keepdims=True)
    at = np.arange(len(done.tokens)), done.tokens
    np.testing.assert_allclose([entry.base for entry in found], base[at], atol=1e-4)
    np.testing.assert_allclose([entry.emulated for entry in found], combined[at], atol=1e-4)
    shift = [entry.shift for entry in found]
    np.testing.assert_allclose(shift, combined[at] - base[at], atol=2e-4)
    assert "".join(entry.text for entry in found) == done.text


def test_a_character_of_several_tokens_stands_with_the_last(tiny):
    with open_emulator(tiny) as emulator:
        found = token_shifts(emulator, Request("the"), "a é\U0001f600")
        cut = token_shifts(emulator, Request("the"), emulator.contexts[0].model.tokenize("é")[:-1])
    assert "".join(entry.text for entry in found) == "a é\U0001f600"
    assert [entry.text for entry in found].count("") >= 1
    assert "".join(entry.text for entry in cut).strip() in ("\ufffd", "")


def test_conservative_decoding_is_of_the_emulation_alone(tiny):
    request = Request("the red", conservative=0.9, max_tokens=6, seed=1)
    with open_emulator(tiny) as emulator:
        done = emulator.generate(request)
        found = token_shifts(emulator, request, done.tokens)
        base = emulator.score("the red", done.tokens, weights=Weights.only("base"))
        emulated = emulator.score("the red", done.tokens, conservative=0.9)
    assert [entry.base for entry in found] == pytest.approx(base.tolist())
    assert [entry.emulated for entry in found] == pytest.approx(emulated.tolist())
