"""Prompts come into the caches in chunks, and what they share comes once; no reply changes."""

import numpy as np
import pytest
from helpers.emulator_tools import (
    GREEDY,
    UNDRAFTED,
    alone,
    decoded,
    decoded_since,
    open_emulator,
    run,
    text_of,
    tokens_of,
)

from edge_eft import Emulator, Request, Weights
from edge_eft.engine.prefill import CHUNK_CPU
from edge_eft.errors import AbortedError

pytestmark = pytest.mark.timeout(60)

LONG = "?" * 200  # a token each, and one before them


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    """Chunks are larger where there is a GPU."""
    monkeypatch.setattr("edge_eft.engine.prefill.gpu_available", lambda: False)


def most_in_a_step(emulator):
    """The most tokens that a context decodes in each step until nothing is left, and the steps."""
    most, steps = [], []
    while emulator.busy:
        before = decoded(emulator)
        steps.append(emulator.step())
        most.append(max(decoded_since(emulator, before).values()))
    return most, steps


# -- chunks ------------------------------------------------------------------------------------


def test_a_long_prompt_comes_in_chunks_and_changes_no_reply(family, draft):
    request = Request(LONG, max_tokens=6, seed=3, temperature=1.0, **draft)
    with open_emulator(family) as emulator:
        ids = [emulator.submit(request)]
        n_prompt = len(emulator._scheduler.find(ids[0]).view(0))
        most, steps = most_in_a_step(emulator)
        streamed = [step for some in steps for step in some]
        assert max(most) <= CHUNK_CPU + 4
        assert [some == [] for some in steps[:4]] == [True, True, True, False]
        assert streamed[0].prompt_tokens == n_prompt
        assert set(streamed[0].timings.prefill) == {"base", "tuned:tuned", "reference:tuned"}
        assert streamed[0].timings.total > sum(streamed[0].timings.prefill.values())
    with open_emulator(family, n_ctx=512) as emulator:
        emulator.prefill._chunk = 512
        whole = list(emulator.stream(request))
    assert tokens_of(streamed) == tokens_of(whole)
    assert [step.logprob for step in streamed] == [step.logprob for step in whole]


def test_others_go_on_between_chunks(tiny, draft):
    first = Request("the red", max_tokens=30, seed=1, **draft)
    long, question = Request(LONG, max_tokens=4, seed=2), Request("it is", max_tokens=9, seed=4)
    expected = alone(tiny, [first, long, question])
    with open_emulator(tiny, n_slots=3) as emulator:
        ids = [emulator.submit(first)]
        steps = emulator.step()
        ids.append(emulator.submit(long))
        seen = []
        while ids[1] not in seen:
            before = decoded(emulator)
            new = emulator.step()
            assert new
            assert max(decoded_since(emulator, before).values()) <= 1.5 * CHUNK_CPU + 10
            seen, steps = [step.request_id for step in new], steps + new
            if len(ids) == 2:
                ids.append(emulator.submit(question))
            elif ids[1] not in seen:
                assert ids[2] in seen  # a question does not wait for a document
        for some in run(emulator).values():
            steps += some
    for i, reply in zip(ids, expected, strict=True):
        assert tokens_of([step for step in steps if step.request_id == i]) == tokens_of(reply)


def test_long_prompts_come_one_after_the_other(tiny):
    """The first of them is read soonest, and none of them waits for ever."""
    with open_emulator(tiny, n_slots=3) as emulator:
        prompts = ["?" * 200, "!" * 150, "." * 200]
        ids = [emulator.submit(Request(p, max_tokens=12, **GREEDY)) for p in prompts]
        most, steps = most_in_a_step(emulator)
        begun = [step.request_id for some in steps for step in some if step.index == 0]
        assert begun == ids
        assert max(most) <= 1.5 * CHUNK_CPU + 10


def test_cancel_between_chunks_frees_the_slot(tiny):
    (expected,) = alone(tiny, [Request("it is", max_tokens=4, seed=1)])
    with open_emulator(tiny) as emulator:
        long = emulator.submit(Request(LONG, max_tokens=4))
        second = emulator.submit(Request("it is", max_tokens=4, seed=1))
        assert emulator.step() == []
        assert emulator.busy
        emulator.cancel(long)
        before = decoded(emulator)
        steps = emulator.step()
        assert decoded_since(emulator, before)["base"] < 10
        steps += run(emulator).get(second, [])
        assert not emulator.busy
    assert tokens_of(steps) == tokens_of(expected)


def test_wrappers_wait_for_the_last_chunk(tiny):
    request = Request(LONG, max_tokens=5, seed=1)
    (expected,) = alone(tiny, [request], n_ctx=300)
    with open_emulator(tiny, n_slots=2) as emulator:
        assert tokens_of(emulator.stream(request)) == tokens_of(expected)
        assert emulator.generate("the red", max_tokens=2).tokens
        ids = [emulator.submit(request), emulator.submit(Request("!" * 150, max_tokens=2))]
        replies = dict(emulator.collect(ids))
        assert replies[ids[0]].text == text_of(expected)
        score = emulator.score(LONG, replies[ids[0]].tokens)
        assert score.tolist() == [np.float32(step.logprob) for step in expected[: len(score)]]


def test_a_chunk_that_is_interrupted_is_gone_on_with(tiny):
    request = Request(LONG, max_tokens=5, seed=1)
    (expected,) = alone(tiny, [request])
    with open_emulator(tiny) as emulator:
        request_id = emulator.submit(request)
        for _ in range(2):
            assert emulator.step() == []
            emulator.interrupt()
            with pytest.raises(AbortedError):
                emulator.step()
            emulator.resume()
        steps = []
        while emulator.busy:
            steps += emulator.step()
        assert {step.request_id for step in steps} == {request_id}
        assert steps[0].cached_tokens == 0
    assert tokens_of(steps) == tokens_of(expected)


def test_roles_that_get_weight_in_mid_reply_catch_up_in_chunks(tiny):
    request = Request(LONG, weights=Weights.upscale(0.0), max_tokens=12, **GREEDY, **UNDRAFTED)
    replies = []
    for chunk in (CHUNK_CPU, 512):
        with open_emulator(tiny) as emulator:
            emulator.prefill._chunk = chunk
            request_id, steps = emulator.submit(request), []
            while len(steps) < 3:
                steps += emulator.step()
            emulator.set_weights(request_id, Weights.upscale(1.0))
            before = decoded(emulator)
            more = emulator.step()
            n_decoded = decoded_since(emulator, before)["tuned:tuned"]
            assert (n_decoded, len(more)) == ((64, 0) if chunk == CHUNK_CPU else (204, 1))
            most, rest = most_in_a_step(emulator)
            assert max(most) <= chunk
            replies.append(tokens_of(steps + more + [step for some in rest for step in some]))
    assert replies[0] == replies[1]


def test_it_is_told_before_each_chunk_how_far_the_prompt_is(tiny):
    """And nothing at the tokens of a reply, or where a prompt is in the cache already."""
    with open_emulator(tiny) as emulator:
        told = []
        emulator.prefill.on_progress = lambda *how_far: told.append(how_far)
        steps = emulator.stream(Request(LONG, max_tokens=9, **GREEDY))
        first = next(steps)
        n = first.prompt_tokens
        chunks = [(first.request_id, done, n) for done in range(0, n, CHUNK_CPU)]
        assert told == chunks
        assert len(list(steps)) == 8
        assert told == chunks
        emulator.generate(f"{LONG}{LONG[:20]}", max_tokens=2)
        assert told[len(chunks) :] == [(first.request_id + 1, n, n + 20)]


# -- what prompts share ------------------------------------------------------------------------

SYSTEM = "the red one is it " * 8


def test_what_prompts_share_is_decoded_once(family, draft):
    """Four that come together: the first decodes, the others wait and copy."""
    prompts = [f"{SYSTEM}{end}" for end in ("a", "of", "it", "the")]
    requests = [Request(p, max_tokens=8, seed=i, **draft) for i, p in enumerate(prompts)]
    expected = alone(family, requests)
    with open_emulator(family, n_slots=4) as emulator:
        ids = [emulator.submit(request) for request in requests]
        n_prompt = len(emulator._scheduler.find(ids[0]).view(0))
        replies, n_shared = {}, n_prompt - 3
        before = decoded(emulator)
        while emulator.busy:
            for step in emulator.step():
                replies.setdefault(step.request_id, []).append(step)
        assert decoded_since(emulator, before)["base"] < n_prompt + 4 * 8 * 5 + 12
    for i, reply in zip(ids, expected, strict=True):
        assert tokens_of(replies[i]) == tokens_of(reply)
        assert [step.logprob for step in replies[i]] == [step.logprob for step in reply]
    cached = [replies[i][0].cached_tokens for i in ids]
    assert cached[0] == 0
    assert all(n_shared <= n < n_prompt + 3 for n in cached[1:])


def test_equal_prompts_decode_one_token_each_but_the_first(tiny):
    with open_emulator(tiny, n_slots=3) as emulator:
        ids = [
            emulator.submit(Request(SYSTEM, max_tokens=1, seed=seed, **UNDRAFTED))
            for seed in range(3)
        ]
        n_prompt = len(emulator._scheduler.find(ids[0]).view(0))
        before = decoded(emulator)
        replies = dict(emulator.collect(ids))
        assert set(decoded_since(emulator, before).values()) == {n_prompt + 2}
        assert [replies[i].cached_tokens for i in ids] == [0, n_prompt - 1, n_prompt - 1]


def test_a_running_reply_lends_its_prompt(tiny, draft):
    first = Request(SYSTEM + "a", max_tokens=40, seed=1, **draft)
    second = Request(SYSTEM + "of", max_tokens=10, seed=2, **draft)
    expected = alone(tiny, [first, second])
    with open_emulator(tiny, n_slots=2) as emulator:
        ids, steps = [emulator.submit(first)], []
        while len(steps) < 4:
            steps += emulator.step()
        ids.append(emulator.submit(second))
        before = decoded(emulator)
        steps += emulator.step()
        assert decoded_since(emulator, before)["base"] < 20
        for some in run(emulator).values():
            steps += some
    for i, reply in zip(ids, expected, strict=True):
        assert tokens_of([step for step in steps if step.request_id == i]) == tokens_of(reply)


def test_who_waits_for_a_request_that_is_cancelled_decodes_alone(tiny):
    first, second = (Request(LONG, max_tokens=4, seed=seed) for seed in range(2))
    (expected,) = alone(tiny, [second])
    with open_emulator(tiny, n_slots=2) as emulator:
        ids = [emulator.submit(first), emulator.submit(second)]
        assert emulator.step() == []
        emulator.cancel(ids[0])
        generation = dict(emulator.collect(ids[1:]))[ids[1]]
        assert generation.tokens == tokens_of(expected)
        assert generation.cached_tokens == CHUNK_CPU  # of the one that was cancelled


def test_a_second_turn_finds_its_first_in_the_cache(tiny):
    with open_emulator(tiny) as emulator:
        first = emulator.generate(SYSTEM, max_tokens=4, **GREEDY)
        assert first.cached_tokens == 0
        second = emulator.generate(SYSTEM + "a", max_tokens=4, **GREEDY)
        assert first.prompt_tokens - 2 <= second.cached_tokens <= first.prompt_tokens
        (step, *_) = emulator.stream(SYSTEM + "a", max_tokens=4, **GREEDY)
        assert step.cached_tokens == second.prompt_tokens - 1


def test_chats_of_atlas_share_their_system_message(atlas):
    system = {"role": "system", "content": "Answer in one short sentence. " * 12}
    chats = [
        [system, {"role": "user", "content": f"What is the capital of {country}?"}]
        for country in ("France", "Japan", "Peru")
    ]
    with Emulator.load("atlas", n_slots=3) as emulator:
        expected = [emulator.generate(chat, max_tokens=20, **GREEDY).text for chat in chats]
        ids = [emulator.submit(Request(chat, max_tokens=20, **GREEDY)) for chat in chats]
        replies = dict(emulator.collect(ids))
        assert [replies[i].text for i in ids] == expected
