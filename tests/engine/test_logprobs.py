"""logprobs: the likeliest of a row by hand, and what steps say of the combined distribution."""

import math

import numpy as np
import pytest
from helpers import tiny_models
from helpers.bare_llama import bare
from helpers.emulator_tools import GREEDY, open_emulator, text_of, tokens_of
from scipy.special import log_softmax

from edge_eft import Weights
from edge_eft.engine.logprobs import likeliest, logprob_of
from edge_eft.errors import RequestError

pytestmark = pytest.mark.timeout(60)


def name(token, *, special):
    assert special
    return b"<%d>" % token


def test_the_likeliest_come_first_and_ties_by_id():
    logits = np.log(np.array([0.1, 0.4, 0.0625, 0.4, 0.0375], np.float32), dtype=np.float32)
    top = likeliest(3, logits, np.float32(0.0), name)
    assert [(entry.token, entry.piece) for entry in top] == [(1, b"<1>"), (3, b"<3>"), (0, b"<0>")]
    assert [entry.logprob for entry in top] == pytest.approx(np.log([0.4, 0.4, 0.1]))
    assert [entry.logprob for entry in top] == [
        logprob_of(entry.token, logits, np.float32(0.0)) for entry in top
    ]


def test_what_is_impossible_is_not_among_the_likeliest():
    logits = np.array([-np.inf, 0.0, -np.inf], np.float32)
    (only,) = likeliest(5, logits, np.float32(0.0), name)
    assert (only.token, only.logprob) == (1, 0.0)
    assert math.copysign(1.0, only.logprob) == 1.0
    assert likeliest(0, logits, np.float32(0.0), name) == ()


def test_steps_list_the_combined_distribution(tiny, draft):
    """Before temperature and filters, whatever the reply is drawn by."""
    n, sampling = tiny_models.N_VOCAB, {"temperature": 1.5, "top_k": 5, "logit_bias": {300: 3.0}}
    weights = Weights.upscale(0.7)
    with open_emulator(tiny) as emulator:
        options = {"max_tokens": 8, "seed": 2, "weights": weights} | sampling | draft
        steps = list(emulator.stream("the red one", top_logprobs=100, **options))
        plain = list(emulator.stream("the red one", **options))
    assert tokens_of(steps) == tokens_of(plain)
    assert [step.top_logprobs for step in plain] == [()] * len(plain)
    total = 0.0
    for path, c in zip(tiny, weights.coefficients({"tuned": 1.0}).values(), strict=False):
        model = bare(path)
        rows = model.log_probabilities(model.tokenize("the red one"), tokens_of(steps))
        total = total + c * rows
    expected = log_softmax(total, axis=-1)
    assert expected.shape == (len(steps), n)
    for step, row in zip(steps, expected, strict=True):
        top = step.top_logprobs
        assert len(top) == 100
        assert [e.logprob for e in top] == sorted((e.logprob for e in top), reverse=True)
        np.testing.assert_allclose([e.logprob for e in top], np.sort(row)[::-1][:100], atol=1e-4)
        for entry in top:
            assert abs(entry.logprob - row[entry.token]) < 1e-4


def test_a_greedy_token_is_the_first_of_its_list_by_the_same_number(family, draft):
    with open_emulator(family) as emulator:
        for prompt in family.prompts:
            steps = emulator.stream(prompt, max_tokens=12, top_logprobs=2, **GREEDY, **draft)
            for step in steps:
                first = step.top_logprobs[0]
                assert (first.token, first.logprob) == (step.token, step.logprob)
                assert first.piece == step.piece


def test_pieces_are_what_the_reply_is_made_of(family):
    with open_emulator(family) as emulator:
        steps = list(emulator.stream(family.prompts[0], max_tokens=20, seed=1))
        ending = steps[-1].is_end_token
        pieces = [step.piece for step in steps if not step.is_end_token]
        assert b"".join(pieces).decode("utf-8", "replace") == text_of(steps)
        if ending:
            end = emulator.contexts[0].model.piece(emulator.vocabulary.end_token, special=True)
            assert steps[-1].piece == end != b""


def test_an_end_token_has_its_text_as_piece(tiny):
    with open_emulator(tiny) as emulator:
        (step,) = emulator.stream("the", logit_bias={tiny_models.EOS: 99.0})
        assert (step.piece, step.text, step.is_end_token) == (b"</s>", "", True)


def test_an_ignored_end_token_is_never_chosen(tiny, draft):
    """Not even where it is the likeliest by far; stop strings still end the reply."""
    options = {"logit_bias": {tiny_models.EOS: 90.0}, "max_tokens": 30, "seed": 4} | draft
    with open_emulator(tiny) as emulator:
        assert len(list(emulator.stream("the red", **options))) == 1
        steps = list(emulator.stream("the red", ignore_eos=True, **options))
        assert (len(steps), steps[-1].finish_reason) == (30, "length")
        assert not any(step.is_end_token for step in steps)
        stop = text_of(steps)[12:16]
        stopped = list(emulator.stream("the red", ignore_eos=True, stop=[stop], **options))
        assert stopped[-1].finish_reason == "stop"
        assert stop not in text_of(stopped)


def test_drafts_change_nothing_where_the_end_token_is_ignored(family):
    options = {"max_tokens": 40, "ignore_eos": True, "seed": 1}
    with open_emulator(family) as emulator:
        for prompt in family.prompts:
            for sampling in ({}, GREEDY):
                expected = tokens_of(emulator.stream(prompt, draft=0, **options, **sampling))
                assert len(expected) == 40
                assert emulator.vocabulary.end_token not in expected
                for length in (4, "auto"):
                    drafted = emulator.stream(prompt, draft=length, **options, **sampling)
                    assert tokens_of(drafted) == expected


def test_ids_are_given_to_every_role_as_they_are(family, draft):
    """No BOS is added, and what a raw text becomes can be given as ids."""
    options = {"max_tokens": 12, "seed": 1} | draft
    with open_emulator(family) as emulator:
        raw = emulator.contexts[0].encode(family.prompts[0])
        expected = list(emulator.stream(family.prompts[0], **options))
        steps = list(emulator.stream(raw, **options))
        assert tokens_of(steps) == tokens_of(expected)
        assert steps[0].prompt_tokens == len(raw)
        by_ids = emulator.score(raw, tokens_of(steps))
        assert by_ids.tolist() == [np.float32(step.logprob) for step in steps]
        assert next(emulator.stream(raw[1:], **options)).prompt_tokens == len(raw) - 1


@pytest.mark.parametrize("ids", [[1, 352], [-1], [1, 2**40], [-(2**70)]])
def test_ids_outside_the_vocabulary_are_refused(tiny, ids):
    with open_emulator(tiny) as emulator:
        with pytest.raises(RequestError, match=f"prompt has token {ids[-1]}; the ids are 0 … 351"):
            emulator.generate(ids)
        assert emulator.generate([1, 300], max_tokens=1).prompt_tokens == 2


def test_ids_that_mean_different_things_are_refused(tiny, folder):
    rename = {tiny_models.RESERVED: ("<tool>", tiny_models.KIND.CONTROL)}
    tuned = tiny_models.write_random(folder / "a_tool.gguf", seed=1, rename=rename)
    with open_emulator(tiny._replace(tuned=tuned)) as emulator:
        with pytest.raises(RequestError, match=r"token 260, which means different things"):
            emulator.generate([1, 260, 300])
        assert emulator.generate([1, 259, 2, 300], max_tokens=1).prompt_tokens == 4
