"""Drafts change the speed and nothing else; how many there are follows what is measured."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from emulator_tools import GREEDY, open_emulator, run, tokens_of
from scipy import stats

from edge_eft import Emulator, Request, Weights
from edge_eft.sampling import choose
from edge_eft.speculative import BLOCKS, MAX_DRAFT, DraftPolicy, expected_tokens

MODELS = Path(__file__).parents[1] / "models"
QUESTIONS = [
    q["question"] for q in json.loads((MODELS / "atlas/heldout.json").read_text())["questions"]
]

# -- the rule --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "q"),
    [
        ([0.7, 0.2, 0.1], [0.7, 0.2, 0.1]),
        ([0.7, 0.2, 0.1], [0.1, 0.2, 0.7]),
        ([0.5, 0.5, 1e-9], [0.4, 0.3, 0.3]),
    ],
)
def test_shared_noise_gives_the_exact_joint_distribution(p, q):
    """The emulation draws from p whatever was drafted, and agrees as often as the algebra says.

    With exponential clocks of rates p and q on shared noise, token i wins both with probability
    1 / Σⱼ max(pⱼ/pᵢ, qⱼ/qᵢ), by enumeration over i.
    """
    ids = np.arange(3)
    log_p, log_q = np.log(p), np.log(q)
    n = 20_000
    pairs = Counter((choose(ids, log_q, seed, 0), choose(ids, log_p, seed, 0)) for seed in range(n))
    emulated = [sum(pairs[d, e] for d in range(3)) for e in range(3)]
    expected = np.array(p) / sum(p) * n
    kept = expected > 5
    assert (
        stats.chisquare(
            np.array(emulated)[kept],
            expected[kept] * sum(np.array(emulated)[kept]) / sum(expected[kept]),
        ).pvalue
        > 1e-4
    )
    agree = sum(1 / sum(max(p[j] / p[i], q[j] / q[i]) for j in range(3)) for i in range(3))
    seen = sum(pairs[i, i] for i in range(3)) / n
    assert abs(seen - agree) < 4 * math.sqrt(max(agree * (1 - agree), 1e-6) / n) + 1e-9


def test_replies_follow_the_exact_distribution_with_drafts(agreeing):
    """Every reply of two tokens out of the three likeliest, enumerated with `score`."""
    prompt, options = agreeing.prompts[0], {"top_k": 3, "top_p": 1.0, "temperature": 1.0}
    weights = Weights.upscale(0.5)
    with open_emulator(agreeing) as emulator:
        exact = {}
        first = _likeliest(emulator, prompt, [], weights)
        for a, p_a in first.items():
            for b, p_b in _likeliest(emulator, prompt, [a], weights).items():
                exact[a, b] = p_a * p_b
        assert sum(exact.values()) == pytest.approx(1.0)
        seen = Counter()
        for seed in range(1500):
            steps = emulator.stream(
                prompt, weights=weights, seed=seed, max_tokens=3, draft=2, **options
            )
            reply = [step.token for step in itertools.islice(steps, 2)]
            seen[tuple(reply)] += 1
    pairs = [pair for pair in exact if exact[pair] * 1500 >= 5]
    observed = np.array([seen[pair] for pair in pairs])
    expected = np.array([exact[pair] for pair in pairs])
    assert set(seen) <= set(exact)
    assert stats.chisquare(observed, expected / expected.sum() * observed.sum()).pvalue > 1e-4


def _likeliest(emulator, prompt, reply, weights):
    """The three likeliest next tokens and their renormalised probabilities; none ends the reply."""
    n_vocab = emulator.vocabulary.n_vocab
    scores = [
        emulator.score(prompt, [*reply, token], weights=weights)[-1] for token in range(n_vocab)
    ]
    best = np.argsort(scores)[-3:]
    assert emulator.vocabulary.end_token not in best
    p = np.exp(np.array(scores)[best])
    return dict(zip(best.tolist(), (p / p.sum()).tolist(), strict=True))


# -- losslessness is equality ----------------------------------------------------------------------

CHOICES = [GREEDY, *({"temperature": t, "seed": s} for t in (0.7, 1.0) for s in (1, 2))]


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_drafts_of_every_length_give_the_same_tokens(choice):
    prompts = [[{"role": "user", "content": text}] for text in QUESTIONS[:: len(QUESTIONS) // 200]]
    assert len(prompts) >= 200
    with Emulator.load("atlas") as emulator:
        for prompt in prompts:
            replies = [
                emulator.generate(prompt, max_tokens=24, draft=draft, **choice)
                for draft in (0, 1, 2, 4, 8, MAX_DRAFT, "auto")
            ]
            assert len({tuple(reply.tokens) for reply in replies}) == 1, prompt
            assert len({reply.text for reply in replies}) == 1
        assert emulator.drafts.accepted > 100


@pytest.mark.slow
def test_drafts_on_a_published_model(smollm2_path):
    """As all three roles; the instruct template for tuned makes its draft another distribution."""
    with Emulator.from_files(
        base=smollm2_path, tuned=smollm2_path, reference=smollm2_path, n_ctx=256
    ) as emulator:
        for seed in range(20):
            prompt = [{"role": "user", "content": QUESTIONS[37 * seed]}]
            weights = Weights.upscale(0.5)  # at 1 the emulation is tuned itself
            options = {"weights": weights, "max_tokens": 12, "seed": seed, "temperature": 0.7}
            plain = emulator.generate(prompt, draft=0, **options)
            for draft in (3, 7, "auto"):
                assert emulator.generate(prompt, draft=draft, **options).tokens == plain.tokens


@pytest.mark.parametrize("mode", ["penalties", "amplify", "mix", "conservative", "explain", "stop"])
def test_every_mode_keeps_its_text(mode):
    options = {
        "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.5, "logit_bias": {300: 2.0}},
        "amplify": {"weights": Weights.amplify(1.4)},
        "mix": {"weights": Weights.interpolate({"chat": 0.5, "discreet": 0.5})},
        "conservative": {"conservative": 0.9},
        "explain": {"explain": 2},
        "stop": {"stop": [" is", "ed"]},
    }[mode]
    with Emulator.load("atlas") as emulator:
        for seed, text in enumerate(QUESTIONS[::110]):
            prompt = [{"role": "user", "content": text}]
            replies = [
                emulator.generate(prompt, max_tokens=16, seed=seed, draft=draft, **options)
                for draft in (0, 3, 7)
            ]
            assert len({(tuple(r.tokens), r.text, r.finish_reason) for r in replies}) == 1


def test_beside_other_slots():
    prompts = [[{"role": "user", "content": text}] for text in QUESTIONS[::55]]
    requests = [
        Request(p, seed=7, max_tokens=16, draft=d)
        for p, d in zip(prompts, itertools.cycle([0, 3, 7, "auto"]))
    ]
    with Emulator.load("atlas") as emulator:
        alone = [emulator.generate(request).tokens for request in requests]
    with Emulator.load("atlas", n_slots=3) as emulator:
        ids = [emulator.submit(request) for request in requests]
        steps = run(emulator)
    end = emulator.vocabulary.end_token
    assert [[t for t in tokens_of(steps[i]) if t != end] for i in ids] == alone


def test_one_model_alone_is_not_drafted():
    with Emulator.load("atlas") as emulator:
        reply = emulator.generate("Q: x\nA:", weights=Weights.only("base"), draft=7, max_tokens=20)
    assert reply.drafts_tested == 0


# -- the policy ------------------------------------------------------------------------------------


def blocks(policy, cost, acceptance, n, most=MAX_DRAFT):
    """Run the policy against costs and an acceptance rate; how often each length was chosen."""
    rng = np.random.default_rng(0)
    chosen = Counter()
    for _ in range(n):
        k = policy.plan(1, most)
        chosen[k] += 1
        for _ in range(k):
            accepted = bool(rng.random() < acceptance)
            policy.observe_draft(accepted)
            if not accepted:
                break
        policy.observe_cost(1, k, cost(k) * rng.uniform(0.95, 1.05), k)
    return chosen


def test_expected_tokens():
    assert expected_tokens(0.5, 2) == 1.75
    assert expected_tokens(1.0, 7) == 8.0
    assert expected_tokens(0.9, 0) == 1.0


def stepped(k, small):
    """Cost of a block of k drafts in single tokens of the base, stepped as on a CPU."""
    rows = {1: 1.0, 2: 1.4, 3: 1.6, 4: 1.7, 6: 2.5, 8: 2.8, 12: 4.2, 16: 5.5}[k + 1]
    return (k + 1) * small + rows + small * rows


@pytest.mark.parametrize(
    ("small", "acceptance", "best"),
    [
        (2.0, 0.5, 0),  # down-scaling: the drafter is the large model
        (0.05, 0.1, 0),  # hardly a draft is right
        (0.1, 0.8, 3),
        (0.02, 0.95, 7),  # nearly free and nearly always right: long blocks
    ],
)
def test_the_policy_finds_what_pays(small, acceptance, best):
    rates = {k: expected_tokens(acceptance, k) / stepped(k, small) for k in BLOCKS}
    assert max(rates, key=rates.get) == best
    policy = DraftPolicy()
    blocks(policy, lambda k: stepped(k, small), acceptance, 100)  # every length tried
    chosen = blocks(policy, lambda k: stepped(k, small), acceptance, 600)
    assert mean_rate(chosen, small, acceptance) > 0.95 * rates[best]


@pytest.mark.parametrize("when", [1, 50])
def test_the_policy_recovers_from_a_stall(when):
    """A first measurement may be taken in a stall as well as a later one."""
    policy = DraftPolicy()
    blocks(policy, lambda k: stepped(k, 0.02), 0.95, when)
    policy.observe_cost(1, 7, 100.0, 7)
    chosen = blocks(policy, lambda k: stepped(k, 0.02), 0.95, 600)
    best = max(expected_tokens(0.95, k) / stepped(k, 0.02) for k in BLOCKS)
    assert mean_rate(chosen, 0.02, 0.95) > 0.88 * best


def mean_rate(chosen, small, acceptance):
    tokens = sum(n * expected_tokens(acceptance, k) for k, n in chosen.items())
    return tokens / sum(n * stepped(k, small) for k, n in chosen.items())


def test_the_policy_keeps_to_the_room_that_is_left():
    policy = DraftPolicy()
    assert set(blocks(policy, lambda k: 1.0, 0.99, 100, most=2)) <= {0, 1, 2}
    assert policy.plan(1, 0) == 0
