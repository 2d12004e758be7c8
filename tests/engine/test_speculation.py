"""Drafts change the speed and nothing else: the rule, every length, every mode, several slots."""

import itertools
import json
import math
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from helpers import tiny_models
from helpers.emulator_tools import GREEDY, open_emulator, run, tokens_of
from helpers.families import ATLAS
from scipy import stats

from edge_eft import Emulator, Request, Weights
from edge_eft.backend import Context, Model
from edge_eft.backend.quantize import plan, quantize
from edge_eft.engine.request import MAX_DRAFT
from edge_eft.engine.verifier import Verifier
from edge_eft.errors import EngineError
from edge_eft.logits.sampling import choose, sample

QUESTIONS = [q["question"] for q in json.loads((ATLAS / "heldout.json").read_text())["questions"]]

N_DRAWS = int(os.environ.get("EDGE_EFT_TEST_DRAWS", "6_000"))  # the whole of it: 20_000
N_PROMPTS = int(os.environ.get("EDGE_EFT_TEST_PROMPTS", "50"))  # the whole of it: 200

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
    n = N_DRAWS
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


@pytest.mark.slow
def test_replies_follow_the_exact_distribution_with_drafts(agreeing):
    """Every reply of two tokens out of the three likeliest, enumerated with `score`."""
    n_replies = N_DRAWS // 10
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
        for seed in range(n_replies):
            steps = emulator.stream(
                prompt, weights=weights, seed=seed, max_tokens=3, draft=2, **options
            )
            reply = [step.token for step in itertools.islice(steps, 2)]
            seen[tuple(reply)] += 1
    pairs = [pair for pair in exact if exact[pair] * n_replies >= 5]
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
    prompts = [
        [{"role": "user", "content": text}] for text in QUESTIONS[:: len(QUESTIONS) // N_PROMPTS]
    ]
    assert len(prompts) >= N_PROMPTS
    with Emulator.load("atlas") as emulator:
        for prompt in prompts:
            replies = [
                emulator.generate(prompt, max_tokens=24, draft=draft, **choice)
                for draft in (0, 1, 2, 4, 8, MAX_DRAFT, "auto")
            ]
            assert len({tuple(reply.tokens) for reply in replies}) == 1, prompt
            assert len({reply.text for reply in replies}) == 1
        assert emulator.drafter.policy.accepted > N_PROMPTS // 2


@pytest.mark.slow
def test_drafts_on_a_published_model_change_no_token(smollm2_trio):
    """As all three roles; the instruct template for tuned makes its draft another distribution."""
    base, tuned, reference = smollm2_trio
    with Emulator.from_files(base=base, tuned=tuned, reference=reference, n_ctx=256) as emulator:
        for seed in range(N_PROMPTS // 10):
            prompt = [{"role": "user", "content": QUESTIONS[37 * seed]}]
            weights = Weights.upscale(0.5)  # at 1 the emulation is tuned itself
            options = {"weights": weights, "max_tokens": 12, "seed": seed, "temperature": 0.7}
            plain = emulator.generate(prompt, draft=0, **options)
            for draft in (3, 7, "auto"):
                assert emulator.generate(prompt, draft=draft, **options).tokens == plain.tokens


@pytest.mark.parametrize("mode", ["penalties", "amplify", "mix", "conservative", "explain", "stop"])
def test_drafts_change_no_text_in_any_mode(mode):
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


def test_drafts_in_several_slots_change_no_reply():
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


@pytest.mark.parametrize("choice", [GREEDY, {"temperature": 1.0, "seed": 3}], ids=str)
def test_a_rule_that_keeps_every_draft_fails_the_comparison(choice, monkeypatch):
    """An emulator that keeps every draft, tested or not, fails the comparison of this file."""
    honest = Verifier.verify

    def credulous(self, state, rows):
        drafted = list(state.draft)

        def keep(*arguments):
            return drafted.pop(0) if drafted else sample(*arguments[:4])

        with monkeypatch.context() as patch:
            patch.setattr("edge_eft.engine.verifier.choose", keep)
            yield from honest(self, state, rows)

    def differing(emulator):
        prompts = [[{"role": "user", "content": text}] for text in QUESTIONS[::55]]
        return sum(
            emulator.generate(prompt, max_tokens=16, draft=0, **choice).tokens
            != emulator.generate(prompt, max_tokens=16, draft=4, **choice).tokens
            for prompt in prompts
        )

    with Emulator.load("atlas") as emulator:
        assert differing(emulator) == 0
        monkeypatch.setattr(Verifier, "verify", credulous)
        assert differing(emulator) > 10


@pytest.mark.slow
def test_drafts_with_k_quants_change_a_token_only_in_a_near_tie(folder, agreeing):
    """With a K-quant drafts may change a token only where the two best are as close as that.

    llama.cpp computes a row of such weights in another order within a block. The combined logits
    move by at most (1 + 2α) times the largest difference of one model's.
    """
    master = tiny_models.write_random(folder / "k.gguf", seed=3, d=256, quantised=False)
    base = folder / "k-q4.gguf"
    quantize(master, base, "Q4_K_S")
    assert "q4_K" in {tensor.target_type for tensor in plan(master, "Q4_K_S")}
    moved = _block_against_single(base)
    assert moved > 0, "this build computes K-quants row by row: there is nothing to test"

    weights = Weights.upscale(0.3)
    bound = 2 * (1 + 2 * 0.3) * moved
    family, n_different = agreeing._replace(base=base, tuned=base), 0
    with open_emulator(family) as emulator:
        for number, text in itertools.product(range(30), family.prompts):
            prompt = f"{text} {number}"
            options = {"weights": weights, "max_tokens": 48, **GREEDY}
            plain = emulator.generate(prompt, draft=0, **options).tokens
            drafted = emulator.generate(prompt, draft=7, **options).tokens
            if plain == drafted:
                continue
            n_different += 1
            at = next(
                i for i, pair in enumerate(zip(plain, drafted, strict=False)) if len({*pair}) > 1
            )
            best, other = (
                emulator.score(prompt, [*plain[:at], token], weights=weights)[-1]
                for token in (plain[at], drafted[at])
            )
            assert abs(best - other) <= bound
    assert n_different, "nothing was compared"


def _block_against_single(path):
    """The largest difference of a logit between blocks of 16 and single tokens."""
    model, rng, moved = Model(path), np.random.default_rng(0), 0.0
    context = Context(model, n_ctx=256, n_outputs=MAX_DRAFT + 1)
    for _ in range(20):
        tokens = rng.integers(261, model.n_vocab, 64).astype(np.int32)
        block = context.advance({0: (tokens, MAX_DRAFT + 1)})[0].copy()
        for j, row in enumerate(block, start=len(tokens) - MAX_DRAFT):
            single = context.advance({0: (tokens[:j], 1)})[0][0]
            moved = max(moved, float(np.abs(single - row).max()))
    context.close()
    model.close()
    return moved


def test_automatic_drafts_in_several_slots_change_no_reply():
    """Drafted in step, and enough of them that the policy has begun to draft."""
    prompts = [[{"role": "user", "content": text}] for text in QUESTIONS[::12]]
    requests = [Request(p, seed=3, temperature=1.0, max_tokens=16) for p in prompts]
    with Emulator.load("atlas") as emulator:
        alone = [emulator.generate(replace(request, draft=0)).tokens for request in requests]
    with Emulator.load("atlas", n_slots=3) as emulator:
        ids = [emulator.submit(request) for request in requests]
        steps = run(emulator)
        end = emulator.vocabulary.end_token
    assert [[t for t in tokens_of(steps[i]) if t != end] for i in ids] == alone
    assert sum(step.accepted is True for i in ids for step in steps[i]) > 20


def test_a_proposal_that_fails_costs_the_draft_only(agreeing):
    """Its request ends with the error at that token, as without drafts; the others go on."""
    n_vocab = tiny_models.N_VOCAB
    bad = Request(
        "the red", max_tokens=9, draft=4, logit_bias=dict.fromkeys(range(n_vocab), -math.inf)
    )
    good = Request("it is", max_tokens=9, draft=4, seed=1)
    with open_emulator(agreeing, n_slots=2) as emulator:
        expected = emulator.generate(good).tokens
        ids = [emulator.submit(request) for request in (bad, good)]
        steps = emulator.step()
        with pytest.raises(EngineError, match="no token is left"):
            emulator.step()
        steps += run(emulator).get(ids[1], [])
    assert {step.request_id for step in steps} == {ids[1]}
    assert tokens_of(steps)[: len(expected)] == expected


def test_one_model_alone_is_not_drafted():
    with Emulator.load("atlas") as emulator:
        reply = emulator.generate("Q: x\nA:", weights=Weights.only("base"), draft=7, max_tokens=20)
    assert reply.drafts_tested == 0
