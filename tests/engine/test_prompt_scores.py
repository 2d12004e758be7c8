"""prompt_scores: how likely every token of a prompt is, beside requests that go on meanwhile."""

import json

import numpy as np
import pytest
from helpers import tiny_models
from helpers.bare_llama import bare
from helpers.emulator_tools import GREEDY, alone, decoded, decoded_since, open_emulator, tokens_of
from scipy.special import log_softmax

from edge_eft import Request, Weights
from edge_eft.engine.reply import Step
from edge_eft.errors import AbortedError, EngineError, RequestError

pytestmark = pytest.mark.timeout(60)

PROMPT = "the red one of the two is a test of it, and the green one is three and a blue one of five"


def first_step(emulator, prompt, n=0, **options):
    request = Request(prompt, prompt_logprobs=n, max_tokens=1, **options)
    (step,) = emulator.stream(request)
    return step


def scores_of(step):
    return [token.logprob for token in step.prompt_logprobs]


def finish(emulator, ids, n_max=500):
    """Steps until these requests have ended: request id → its steps, and the order of ids."""
    replies, order = {i: [] for i in ids}, []
    for _ in range(n_max):
        if all(steps and steps[-1].finish_reason for steps in replies.values()):
            return replies, order
        for step in emulator.step():
            replies[step.request_id].append(step)
            order.append(step.request_id)
    raise AssertionError(f"there is still work after {n_max} calls of step()")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": Weights.upscale(0.4)},
        {"weights": Weights.amplify(1.3)},
        {"weights": Weights.only("base")},
        {"conservative": 0.9},
    ],
    ids=["upscaled", "weaker", "amplified", "base", "conservative"],
)
def test_the_prompt_is_as_likely_as_score_says(family, options):
    """Of any prefix and the rest after it, as ids and as text."""
    with open_emulator(family) as emulator:
        ids = emulator.contexts[0].encode(f"{family.prompts[0]} {PROMPT} {PROMPT}")
        assert len(ids) > 40
        by_ids = first_step(emulator, ids, **options)
        assert [token.token for token in by_ids.prompt_logprobs] == ids
        scores = scores_of(by_ids)
        assert scores[0] is None
        for n in (1, 2, 15, 16, 17, 18, len(ids) - 1):
            expected = emulator.score(ids[:n], ids[n:], **options)
            np.testing.assert_allclose(scores[n:], expected, rtol=0, atol=1e-4)
        by_text = first_step(emulator, f"{family.prompts[0]} {PROMPT} {PROMPT}", **options)
        assert by_text.prompt_logprobs == by_ids.prompt_logprobs


@pytest.mark.slow
def test_smollm2s_prompt_is_as_likely_as_score_says(smollm2_trio):
    text = "The capital of France is Paris, and the capital of Japan is Tokyo. " * 3
    with open_emulator(smollm2_trio, n_threads=2) as emulator:
        ids = emulator.contexts[0].encode(text)
        step = first_step(emulator, text, n=3)
        for n in (1, 20):
            expected = emulator.score(ids[:n], ids[n:])
            np.testing.assert_allclose(scores_of(step)[n:], expected, rtol=0, atol=1e-4)
        assert b"".join(token.piece for token in step.prompt_logprobs).decode() == text
        assert step.logprob == pytest.approx(float(emulator.score(text, [step.token])[0]), abs=1e-4)


def test_scores_and_lists_are_those_of_the_bare_models(tiny):
    with open_emulator(tiny) as emulator:
        step = first_step(emulator, PROMPT, n=100)
    ids = [token.token for token in step.prompt_logprobs]
    assert ids == bare(tiny.base).tokenize(PROMPT)
    coefficients = Weights().coefficients({"tuned": 1.0}).values()
    rows = [bare(path).log_probabilities(ids[:1], ids[1:]) for path in tiny[:3]]
    expected = log_softmax(sum(c * row for c, row in zip(coefficients, rows, strict=True)), axis=-1)
    assert step.prompt_logprobs[0].top == ()
    for token, row in zip(step.prompt_logprobs[1:], expected, strict=True):
        assert abs(token.logprob - row[token.token]) < 1e-4
        assert len(token.top) == 100
        for entry in token.top:
            assert abs(entry.logprob - row[entry.token]) < 1e-4


def test_a_token_has_the_same_number_in_its_list_and_is_greedy_exactly_if_it_is_the_first(family):
    """What lm-eval compares: two floats, for equality."""
    with open_emulator(family) as emulator:
        prompt = emulator.contexts[0].encode(family.prompts[0])
        reply = emulator.generate(prompt, max_tokens=12, **GREEDY).tokens
        assert reply
        step = first_step(emulator, [*prompt, *reply], n=100)
        again = Step.from_dict(json.loads(json.dumps(step.to_dict(), allow_nan=False)))
    assert again == step
    for token in step.prompt_logprobs[1:]:
        inside = [entry.logprob for entry in token.top if entry.token == token.token]
        assert inside == [token.logprob] or token.logprob < token.top[-1].logprob
    for token in step.prompt_logprobs[len(prompt) :]:
        assert token.logprob == max(entry.logprob for entry in token.top)


def test_a_prompt_that_is_in_the_cache_is_scored_all_the_same(tiny):
    with open_emulator(tiny) as emulator:
        expected = first_step(emulator, PROMPT)
        n = expected.prompt_tokens
        emulator.generate(PROMPT, max_tokens=5)
        before = decoded(emulator)
        assert first_step(emulator, PROMPT).prompt_logprobs == expected.prompt_logprobs
        assert set(decoded_since(emulator, before).values()) == {n}


def test_what_follows_a_scored_prompt_is_what_follows_it_unscored(family, draft):
    request = Request(f"{PROMPT} {family.prompts[0]}", max_tokens=12, seed=1, **draft)
    scored = Request(**{**request.to_dict(), "weights": Weights(), "prompt_logprobs": 2})
    (expected,) = alone(family, [request])
    with open_emulator(family) as emulator:
        steps = list(emulator.stream(scored))
    assert tokens_of(steps) == tokens_of(expected)
    assert [step.logprob for step in steps] == [step.logprob for step in expected]
    assert [bool(step.prompt_logprobs) for step in steps] == [True] + [False] * (len(steps) - 1)
    assert steps[0].timings.total >= sum(steps[0].timings.prefill.values()) > 0
    assert steps[0].prompt_tokens == expected[0].prompt_tokens == len(steps[0].prompt_logprobs)


@pytest.mark.parametrize("n", [1, 2, 16, 17, 18, 32, 33, 34])
def test_prompts_of_any_length_are_scored_to_their_end(tiny, n):
    ids = [tiny_models.BOS, *range(300, 300 + n - 1)]
    with open_emulator(tiny, n_ctx=48) as emulator:
        step = first_step(emulator, ids)
        assert [token.token for token in step.prompt_logprobs] == ids
        assert all(np.isfinite(scores_of(step)[1:]))
        expected = emulator.score(ids[:1], ids[1:])
        np.testing.assert_allclose(scores_of(step)[1:], expected, rtol=0, atol=1e-4)


def test_a_prompt_that_fills_the_context_is_scored(tiny):
    ids = [tiny_models.BOS, *([300, 301, 302] * 99)[:254]]
    with open_emulator(tiny) as emulator:
        assert len(scores_of(first_step(emulator, ids))) == 255


def test_other_requests_go_on_meanwhile_and_say_what_they_say_alone(family, draft):
    """Two prompts are scored beside two replies, of which each block gives some tokens."""
    replies = [
        Request(prompt, max_tokens=30, seed=i, ignore_eos=True, **draft)
        for i, prompt in enumerate(family.prompts[:2])
    ]
    texts = [f"{PROMPT} {PROMPT}", f"{PROMPT} one {PROMPT} {PROMPT}"]
    scored = [Request(text, prompt_logprobs=1, max_tokens=3, **GREEDY) for text in texts]
    expected = alone(family, [*replies, *scored])
    with open_emulator(family, n_slots=4) as emulator:
        ids = [emulator.submit(request) for request in (*replies, *scored)]
        found, order = finish(emulator, ids)
    for i, steps in zip(ids, expected, strict=True):
        assert tokens_of(found[i]) == tokens_of(steps)
        assert found[i][0].prompt_logprobs == steps[0].prompt_logprobs
    assert order.index(ids[2]) > 4  # each block of a prompt let the others go on


def test_an_interrupt_costs_nothing_of_what_is_scored(tiny):
    (expected,) = alone(tiny, [Request(PROMPT, prompt_logprobs=2, max_tokens=2, seed=1)])
    with open_emulator(tiny) as emulator:
        i = emulator.submit(Request(PROMPT, prompt_logprobs=2, max_tokens=2, seed=1))
        emulator.step()
        for _ in range(2):
            emulator.interrupt()
            with pytest.raises(AbortedError):
                emulator.step()
            emulator.resume()
        found, _ = finish(emulator, [i])
    assert found[i][0].prompt_logprobs == expected[0].prompt_logprobs
    assert tokens_of(found[i]) == tokens_of(expected)


def test_a_request_that_is_cancelled_while_it_is_scored_frees_its_slot(tiny):
    with open_emulator(tiny) as emulator:
        i = emulator.submit(Request(PROMPT, prompt_logprobs=0))
        assert emulator.step() == []
        emulator.cancel(i)
        assert emulator.generate("the", max_tokens=2, seed=1).finish_reason == "length"


@pytest.mark.parametrize("n_before", [0, 1, 100])
def test_other_weights_before_the_first_token_score_the_prompt_anew(tiny, n_before):
    """Also where it is all scored, and the first token is not given out."""
    other = Weights.only("base")
    with open_emulator(tiny) as emulator:
        expected = first_step(emulator, PROMPT, weights=other, **GREEDY)
        i = emulator.submit(Request(PROMPT, prompt_logprobs=0, max_tokens=1, **GREEDY))
        for _ in range(n_before):
            if not emulator._scheduler.pending:
                emulator._run_block()
        emulator.set_weights(i, other)
        found, _ = finish(emulator, [i])
    assert found[i][0].prompt_logprobs == expected.prompt_logprobs
    assert found[i][0].token == expected.token


def test_a_bos_of_one_model_alone_leaves_the_first_word_without_a_number(tiny, folder):
    """Scored from there on, each model after its own beginning, as `score` has it."""
    without = tiny_models.write_random(folder / "without_bos.gguf", seed=1, add_bos=False)
    for family, head in (
        (tiny._replace(tuned=without), [tiny_models.BOS]),
        (tiny._replace(base=without), []),
    ):
        with open_emulator(family) as emulator:
            step = first_step(emulator, PROMPT)
            ids = [token.token for token in step.prompt_logprobs]
            assert ids[: len(head)] == head
            scores = scores_of(step)
            n_unscored = len(head) + 1
            assert scores[:n_unscored] == [None] * n_unscored
            assert emulator.contexts[0].encode("t") == ids[:n_unscored]
            expected = emulator.score("t", ids[n_unscored:])
            np.testing.assert_allclose(scores[n_unscored:], expected, rtol=0, atol=1e-4)
            by_ids = first_step(emulator, ids[len(head) :])  # the same for all, with no BOS
            assert scores_of(by_ids).count(None) == 1


def test_texts_that_the_models_cut_differently_are_refused(tiny, monkeypatch):
    with open_emulator(tiny) as emulator:
        encode = emulator.contexts[1].encode

        def cut_otherwise(*args):
            first, second, *others = encode(*args)
            return [first, second, 300, *others]

        monkeypatch.setattr(emulator.contexts[1], "encode", cut_otherwise)
        with pytest.raises(RequestError, match="cut this text into different tokens; give token"):
            emulator.submit(Request(PROMPT, prompt_logprobs=0))
        assert emulator.generate(PROMPT, max_tokens=1).finish_reason == "length"


def test_an_end_token_in_the_prompt_counts_as_the_end_of_the_reply(tiny):
    """As in `score`, whichever of the ways to end it is."""
    with open_emulator(tiny) as emulator:
        ids = [tiny_models.BOS, 300, 301, tiny_models.EOS, 302]
        scores = scores_of(first_step(emulator, ids))
        np.testing.assert_allclose(scores[1:], emulator.score(ids[:1], ids[1:]), atol=1e-4)


def test_a_model_that_gives_nan_fails_this_request_and_no_other(folder, tiny):
    path = tiny_models.write_random(folder / "nan2.gguf", seed=1, quantised=False, poison=np.nan)
    with open_emulator(tiny._replace(tuned=path), n_slots=2) as emulator:
        base = Request("the red", weights=Weights.only("base"), max_tokens=12, seed=1)
        (expected,) = alone(tiny, [base])
        ids = [emulator.submit(request) for request in (base, Request(PROMPT, prompt_logprobs=0))]
        steps, failures = [], []
        for _ in range(40):
            try:
                steps += emulator.step()
            except EngineError as error:
                failures.append(str(error))
        assert len(failures) == 1
        assert "tuned:tuned" in failures[0]
        assert {step.request_id for step in steps} == set(ids[:1])
        assert tokens_of(steps) == tokens_of(expected)
