"""Slots under pauses, failures and random comings and goings: each reply is what it is alone."""

import os

import numpy as np
import pytest
from helpers.emulator_tools import GREEDY, alone, open_emulator, run, tokens_of

from edge_eft import Request, Weights
from edge_eft.errors import EngineError, RequestError

pytestmark = pytest.mark.timeout(60)


# -- pauses ------------------------------------------------------------------------------------


def test_a_paused_request_keeps_its_slot_if_nobody_waits(tiny, draft):
    requests = [Request("the red", max_tokens=12, seed=seed, **draft) for seed in range(2)]
    expected = alone(tiny, requests)
    with open_emulator(tiny, n_slots=2) as emulator:
        ids = [emulator.submit(request) for request in requests]
        steps = emulator.step()
        held = emulator.contexts[0].context.tokens(0).copy()
        emulator.pause(ids[0])
        while not any(step.finish_reason for step in steps):
            new = emulator.step()
            assert ids[0] not in {step.request_id for step in new}
            steps += new
        assert np.array_equal(emulator.contexts[0].context.tokens(0), held)
        emulator.unpause(ids[0])
        for more in run(emulator).values():
            steps += more
    for i, reply in zip(ids, expected, strict=True):
        assert tokens_of([step for step in steps if step.request_id == i]) == tokens_of(reply)


def test_paused_requests_make_room_for_those_that_wait(tiny, draft):
    """Readers that stall must not hold up the others: here two hold both slots."""
    requests = [Request("the red", max_tokens=12, seed=seed, **draft) for seed in range(6)]
    expected = alone(tiny, requests)
    with open_emulator(tiny, n_slots=2) as emulator:
        ids = [emulator.submit(request) for request in requests]
        steps = emulator.step()
        for i in ids[:2]:
            emulator.pause(i)
        while len({step.request_id for step in steps if step.finish_reason}) < 4:
            new = emulator.step()
            assert new
            assert not {step.request_id for step in new} & set(ids[:2])
            steps += new
        assert not emulator.busy
        for i in ids[:2]:
            emulator.unpause(i)
        for more in run(emulator).values():
            steps += more
    for i, reply in zip(ids, expected, strict=True):
        assert tokens_of([step for step in steps if step.request_id == i]) == tokens_of(reply)


def test_a_prompt_that_is_half_scored_gives_its_slot_away_too(tiny):
    words = " ".join(["the red one is it a test of the in"] * 8)
    scored = Request(words, max_tokens=3, seed=1, prompt_logprobs=2)
    other = Request("it is " * 30, max_tokens=4)
    (expected,) = alone(tiny, [scored], n_ctx=256)
    with open_emulator(tiny, n_ctx=256) as emulator:
        first = emulator.submit(scored)
        assert emulator.step() == []  # a block of scores
        emulator.pause(first)
        second = emulator.submit(other)
        assert set(run(emulator)) == {second}
        emulator.unpause(first)
        steps = run(emulator)[first]
    assert tokens_of(steps) == tokens_of(expected)
    got, wanted = ([t.logprob for t in one[0].prompt_logprobs] for one in (steps, expected))
    assert got[1:] == pytest.approx(wanted[1:], abs=1e-5)


def test_with_all_paused_nothing_is_done(tiny):
    with open_emulator(tiny, n_slots=2) as emulator:
        ids = [emulator.submit(Request("the red", max_tokens=3)) for _ in range(3)]
        emulator.pause(ids[0])  # it waits yet, and holds nobody up
        assert {step.request_id for step in emulator.step()} == set(ids[1:])
        for i in ids[1:]:
            emulator.pause(i)
        assert not emulator.busy
        assert emulator.step() == []
        emulator.unpause(ids[0])
        assert emulator.busy
        assert {step.request_id for step in emulator.step()} == {ids[0]}
        for i in ids:
            emulator.cancel(i)
        with pytest.raises(RequestError, match="no request"):
            emulator.pause(ids[0])


def test_pending_steps_of_a_paused_request_stay(tiny):
    (expected,) = alone(tiny, [Request("the red", max_tokens=6, seed=1)])
    with open_emulator(tiny, n_slots=2) as emulator:
        request_id = emulator.submit(Request("the red", max_tokens=6, seed=1))
        next(stream := emulator.stream("it is", max_tokens=6))  # what the other gets is pending
        emulator.pause(request_id)
        stream.close()
        assert emulator.step() == []
        emulator.unpause(request_id)
        assert tokens_of(run(emulator)[request_id]) == tokens_of(expected)


@pytest.mark.timeout(10)
def test_a_reader_of_a_paused_request_is_told(tiny):
    """It would wait without end: nobody else can unpause it."""
    with open_emulator(tiny, n_slots=2) as emulator:
        stream = emulator.stream("the red", max_tokens=20)
        emulator.pause(next(stream).request_id)
        with pytest.raises(RequestError, match="is paused"):
            list(stream)
        request_id = emulator.submit(Request("the red", max_tokens=3))
        emulator.pause(request_id)
        with pytest.raises(RequestError, match="is paused"):
            list(emulator.collect([request_id]))
        assert not emulator.busy


# -- failures ----------------------------------------------------------------------------------


def test_the_error_of_one_request_names_it_and_that_of_all_does_not(tiny, monkeypatch):
    bad = Request("the red", max_tokens=8, logit_bias=dict.fromkeys(range(352), float("-inf")))
    with open_emulator(tiny, n_slots=2) as emulator:
        ids = [emulator.submit(request) for request in (Request("it is", max_tokens=3), bad)]
        with pytest.raises(EngineError) as caught:
            run(emulator)
        assert caught.value.request_id == ids[1]
        with monkeypatch.context() as patch:
            patch.setattr("llama_cpp.llama_decode", lambda *_: -3)
            with pytest.raises(EngineError) as caught:
                emulator.generate("the red one", max_tokens=3)
        assert caught.value.request_id is None


# -- comings and goings ------------------------------------------------------------------------

WORDS = ["the", "red", "one", "of", "it", "is", "a", "test"]


def random_requests(rng, n, drafts, max_tokens):
    """Greedy and seeded, of all weights; half begin alike, and some are longer than a chunk."""
    requests = []
    for seed in range(n):
        words = " ".join(rng.choice(WORDS, int(rng.integers(1, 25))))
        sampling = GREEDY if seed % 2 else {"temperature": 0.8, "top_k": 40, "seed": seed}
        requests.append(
            Request(
                ("the red one is it a test of the in " * 3 if rng.random() < 0.5 else "") + words,
                max_tokens=int(rng.integers(1, max_tokens)),
                weights=Weights.upscale(float(rng.choice([0.0, 0.5, 1.0]))),
                draft=drafts,
                **sampling,
            )
        )
    return requests


def walk(emulator, requests, others, rng):
    """The tokens of each request, while others join and are cancelled, and all pause at random."""
    waiting, ids, tokens, strangers, paused = list(requests), [], {}, [], set()
    while waiting or emulator.busy or paused:
        dice = rng.random()
        if waiting and dice < 0.3:
            ids.append(emulator.submit(waiting.pop(0)))
        elif dice < 0.4:
            strangers.append(emulator.submit(others[int(rng.integers(len(others)))]))
        elif strangers and dice < 0.55:
            paused.discard(gone := strangers.pop(int(rng.integers(len(strangers)))))
            emulator.cancel(gone)
        elif dice < 0.65 and (running := [s.id for s in emulator._scheduler]):
            emulator.pause(chosen := int(rng.choice(running)))
            paused.add(chosen)
        elif paused and dice < 0.8:
            emulator.unpause(chosen := paused.pop())
        if not waiting and not emulator.busy and paused:
            emulator.unpause(paused.pop())
        for step in emulator.step():
            tokens.setdefault(step.request_id, []).append(step.token)
            if step.finish_reason and step.request_id in strangers:
                strangers.remove(step.request_id)
        if not waiting and set(ids) == {i for i in ids if i not in emulator._scheduler._requests}:
            break
    for i in strangers:
        emulator.cancel(i)
    return [tokens.get(i) for i in ids]


def check_walk(family, drafts, n_ctx, n_requests, max_tokens):
    rng = np.random.default_rng(7)
    requests = random_requests(rng, n_requests, drafts, max_tokens)
    others = random_requests(rng, 8, drafts, max_tokens)
    with open_emulator(family, n_ctx=n_ctx) as emulator:
        expected = [tokens_of(emulator.stream(request)) for request in requests]
    with open_emulator(family, n_ctx=n_ctx, n_slots=4) as emulator:
        replies = walk(emulator, requests, others, rng)
    wrong = [i for i in range(n_requests) if replies[i] != expected[i]]
    assert not wrong, f"{len(wrong)} of {n_requests} differ: {wrong}"


@pytest.mark.parametrize("drafts", [0, "auto"])
def test_thirty_two_at_random_equal_one_after_the_other(family, drafts):
    check_walk(family, drafts, 256, 32, 30)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("drafts", [0, "auto"])
def test_some_of_smollm2_equal_one_after_the_other(smollm2_trio, drafts):
    n_requests = int(os.environ.get("EDGE_EFT_TEST_PROMPTS", "50")) // 5
    check_walk(smollm2_trio, drafts, 256, n_requests, 12)
