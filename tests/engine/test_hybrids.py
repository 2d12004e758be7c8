"""Models with recurrent layers: bounded drafts, slots and cached prompts change no reply."""

import itertools

import numpy as np
import pytest
from helpers.emulator_tools import (
    GREEDY,
    UNDRAFTED,
    alone,
    decoded,
    decoded_since,
    open_emulator,
    reference_reply,
    run,
    tokens_of,
)
from helpers.families import Family
from helpers.tiny_hybrids import GOING_BACK, write_hybrid

from edge_eft import Request, Weights
from edge_eft.files.buffers import N_RS_SEQ

CHOICES = [GREEDY, {"temperature": 0.7, "seed": 1}, {"temperature": 1.0, "seed": 2}]
PROMPT = "the red one is a test of the in and the out"


def trio(folder, name):
    paths = [write_hybrid(folder / f"{name}{i}.gguf", i, name) for i in range(3)]
    return Family(*paths, ("the red one", "It is", "a test of the in"))


@pytest.fixture(scope="module", params=GOING_BACK)
def hybrid(request, folder):
    return trio(folder, request.param)


@pytest.fixture(scope="module", params=["apart", "agreeing"])
def family(request, hybrid):
    """Drafts that are hardly ever accepted, and drafts that mostly are."""
    return hybrid if request.param == "apart" else hybrid._replace(tuned=hybrid.base)


def test_a_reply_is_the_sum_of_what_each_model_says_alone(hybrid):
    weights = Weights.upscale(0.5)
    with open_emulator(hybrid) as emulator:
        for prompt in hybrid.prompts:
            reply = emulator.generate(prompt, max_tokens=12, weights=weights, **GREEDY, **UNDRAFTED)
            assert reply.tokens == reference_reply(hybrid, prompt, [weights] * 12)


def test_drafts_of_every_length_give_the_same_tokens(family):
    lengths = (0, 1, 3, N_RS_SEQ, 15, "auto")
    options = {"max_tokens": 24, "weights": Weights.upscale(0.2)}
    with open_emulator(family) as emulator:
        for prompt, choice in itertools.product(family.prompts[:2], CHOICES):
            replies = [
                emulator.generate(prompt, draft=draft, **options, **choice) for draft in lengths
            ]
            assert len({tuple(reply.tokens) for reply in replies}) == 1, (prompt, choice)
        assert emulator.contexts.max_draft == N_RS_SEQ
        policy = emulator.drafter.policy
        if family.tuned == family.base:
            assert policy.accepted > policy.tested / 2
        else:
            assert policy.accepted < policy.tested / 2


def test_a_wrong_draft_costs_no_more_than_its_own_tokens(hybrid):
    """Before, every context decoded prompt and reply anew for each of them."""
    k, n_tokens = 4, 30
    with open_emulator(hybrid) as emulator:
        reply = emulator.generate(PROMPT, max_tokens=n_tokens, draft=k, seed=1)
        after = decoded(emulator)
        n = reply.prompt_tokens + n_tokens * (k + 1)
        assert after["base"] <= n
        assert after["tuned:tuned"] <= n + n_tokens, "the accepted drafts once more"
        assert all(runner.context.decoded_anew < n_tokens for runner in emulator.contexts), (
            "accepted drafts only"
        )


@pytest.mark.parametrize("draft", [0, 4, "auto"])
def test_slots_reply_as_each_request_alone(family, draft):
    requests = [
        Request(prompt, max_tokens=n, seed=n, draft=draft)
        for prompt, n in zip((*family.prompts, PROMPT), (24, 9, 17, 30), strict=True)
    ]
    expected = [tokens_of(reply) for reply in alone(family, requests)]
    with open_emulator(family, n_slots=3) as emulator:
        for _ in range(2):
            ids = [emulator.submit(request) for request in requests]
            replies = run(emulator)
            assert [tokens_of(replies[i]) for i in ids] == expected


def test_a_conversation_goes_on_from_its_cache(hybrid):
    with open_emulator(hybrid) as emulator:
        first = emulator.generate(PROMPT, max_tokens=10, draft=4, **GREEDY)
        prompt = [*emulator.contexts[0].encode(PROMPT), *first.tokens]
        before = decoded(emulator)
        second = emulator.generate([*prompt, prompt[-1]], max_tokens=5, draft=4, **GREEDY)
        assert second.cached_tokens >= first.prompt_tokens
        assert max(decoded_since(emulator, before).values()) < 40
    with open_emulator(hybrid) as emulator:
        fresh = emulator.generate([*prompt, prompt[-1]], max_tokens=5, **GREEDY, **UNDRAFTED)
    assert fresh.tokens == second.tokens


def test_slots_share_no_prompt(hybrid):
    """A state is of all tokens before it: half of it is nothing that could be copied."""
    prompt = " ".join([PROMPT] * 4)
    requests = [Request(prompt, max_tokens=6, seed=seed) for seed in range(2)]
    expected = [tokens_of(reply) for reply in alone(hybrid, requests)]
    with open_emulator(hybrid, n_slots=2) as emulator:
        ids = [emulator.submit(request) for request in requests]
        replies = dict(emulator.collect(ids))
        assert [replies[i].cached_tokens for i in ids] == [0, 0]
        assert [replies[i].tokens for i in ids] == expected


def test_scores_are_those_of_a_new_emulator(hybrid):
    with open_emulator(hybrid) as emulator:
        reply = emulator.generate(PROMPT, max_tokens=20, draft=4, seed=3)
        scores = emulator.score(PROMPT, reply.tokens[:7])
    with open_emulator(hybrid) as emulator:
        assert np.array_equal(scores, emulator.score(PROMPT, reply.tokens[:7]))


def test_what_cannot_go_back_is_stepped_plainly(folder):
    """A wrong draft would have the whole reply decoded anew, in every model."""
    granite, options = trio(folder, "granitehybrid"), {"max_tokens": 12, **GREEDY}
    weights = [Weights.upscale(0.5)] * 12
    with open_emulator(granite) as emulator:
        reply = emulator.generate(PROMPT, draft=4, weights=weights[0], **options)
        assert reply.tokens == reference_reply(granite, PROMPT, weights)
        assert all(step.accepted is None for step in reply.steps)
        assert set(decoded(emulator).values()) == {reply.prompt_tokens + 11}
