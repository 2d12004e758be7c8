"""Context.advance and what surrounds it, on real models: nothing lost, nothing stale, no crash.

Logits are compared bitwise: with Q4_1 or Q8_0 weights, a Q8_0 cache and flash attention a token's
logits do not depend on the batch in which it is decoded.
"""

import threading
import time

import llama_cpp
import numpy as np
import pytest
from helpers.context_tools import assert_healthy, fresh_logits, one_at_a_time, some_tokens

from edge_eft.backend import Context, Model
from edge_eft.errors import AbortedError, EngineError, RequestError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", params=["tiny", pytest.param("smollm2", marks=pytest.mark.slow)])
def model(request):
    if request.param == "smollm2":
        return request.getfixturevalue("smollm2")
    return Model(request.getfixturevalue("tiny").base)


# -- what advance keeps, removes and decodes --------------------------------------------------


def test_a_common_prefix_is_kept_and_the_rest_is_decoded(model):
    context = Context(model, n_ctx=64)
    a = some_tokens(model, 30)
    b = np.concatenate([a[:20], some_tokens(model, 5, seed=1)])
    context.advance({0: (a, 1)})
    assert context.decoded_tokens == 30
    rows = context.advance({0: (b, 1)})[0]
    assert context.decoded_tokens == 30 + 5
    assert np.array_equal(rows, fresh_logits(model, b))
    assert np.array_equal(context.tokens(0), b)


def test_a_shorter_target_is_rolled_back_to(model):
    context = Context(model, n_ctx=64)
    a = some_tokens(model, 30)
    context.advance({0: (a, 1)})
    rows = context.advance({0: (a[:11], 1)})[0]
    assert np.array_equal(rows, fresh_logits(model, a[:11]))
    assert len(context.tokens(0)) == 11
    assert context.decoded_tokens == 31


def test_the_last_token_is_decoded_again_if_everything_matches(model):
    context = Context(model, n_ctx=64, n_outputs=4)
    a = some_tokens(model, 30)
    first = context.advance({0: (a, 1)})[0].copy()
    assert np.array_equal(context.advance({0: (a, 1)})[0], first)
    assert context.decoded_tokens == 31
    block = context.advance({0: (a, 4)})[0]
    assert context.decoded_tokens == 35
    assert np.array_equal(block[-1], first[0])


def test_the_callers_array_is_copied(model):
    context = Context(model, n_ctx=64)
    a = some_tokens(model, 10)
    context.advance({0: (a, 1)})
    original, a[:] = a.copy(), some_tokens(model, 10, seed=3)
    assert np.array_equal(context.tokens(0), original)
    rows = context.advance({0: (a, 1)})[0]
    assert np.array_equal(rows, fresh_logits(model, a))


@pytest.mark.parametrize("keep_last", [2, 5, 16])
def test_a_block_gives_the_rows_of_tokens_decoded_alone(model, keep_last):
    a = some_tokens(model, 40)
    alone = one_at_a_time(model, a, keep_last)
    assert np.array_equal(fresh_logits(model, a, keep_last), alone)
    context = Context(model, n_ctx=64, n_outputs=keep_last)
    context.advance({0: (a[: 40 - keep_last], 1)})
    assert np.array_equal(context.advance({0: (a, keep_last)})[0], alone)


def test_a_whole_prompt_may_be_kept_row_by_row(tiny_model):
    """keep_last may be the whole target: no head is left to decode before it."""
    a = some_tokens(tiny_model, 12)
    assert np.array_equal(fresh_logits(tiny_model, a, 12), one_at_a_time(tiny_model, a, 12))


@pytest.mark.parametrize("n", [511, 512, 513, 527, 528, 529, 1024, 1100])
@pytest.mark.parametrize("keep_last", [1, 16])
def test_prompts_around_and_beyond_n_batch_give_the_same_logits(tiny_model, n, keep_last):
    a = some_tokens(tiny_model, n)
    context = Context(tiny_model, n_ctx=1100, n_outputs=16)
    assert context.n_batch == 512
    block = context.advance({0: (a, keep_last)})[0].copy()
    assert block.shape == (keep_last, tiny_model.n_vocab)
    assert context.decoded_tokens == n
    # The same by other cuts of the batch, and with the block continued from a kept prefix.
    other = Context(tiny_model, n_ctx=1100, n_outputs=16)
    for end in (*range(100, n - keep_last, 100), n):
        rows = other.advance({0: (a[:end], keep_last)})[0]
    assert np.array_equal(rows, block)


@pytest.mark.slow
def test_a_long_prompt_gives_the_same_logits_however_it_is_continued(smollm2):
    """Two threads, and more than the 257 positions from which other caches round differently."""
    a = some_tokens(smollm2, 300)
    context = Context(smollm2, n_ctx=512, n_threads=2, n_outputs=4)
    whole = context.advance({0: (a, 4)})[0].copy()
    context.advance({0: (a[:280], 1)})
    assert np.array_equal(context.advance({0: (a, 4)})[0], whole)
    assert context.decoded_tokens == 300 + 1 + 20


@pytest.mark.slow
def test_threads_do_not_change_logits(smollm2):
    """With a Q8_0 cache and flash attention a recipe gives one text on every machine's cores."""
    a = some_tokens(smollm2, 300)
    one, two = (Context(smollm2, n_ctx=512, n_threads=n, n_outputs=16) for n in (1, 2))
    for n, keep_last in ((5, 1), (200, 1), (201, 1), (216, 8), (300, 16)):
        target = {0: (a[:n], keep_last)}
        assert np.array_equal(one.advance(target)[0], two.advance(target)[0])


def test_random_walks_agree_with_new_contexts(tiny_model):
    """Extensions, rollbacks, replacements and blocks of three sequences, in any order.

    Bitwise, so that a seed's text does not depend on what other slots do. With a unified cache
    (kv_unified) it was not: cells that another slot gave back were refilled out of order, and
    attention sums in the order of cells (logits of SmolLM2 moved by up to 0.8).
    """
    rng = np.random.default_rng(5)
    context = Context(tiny_model, n_ctx=48, n_slots=3, n_outputs=12)
    held = [some_tokens(tiny_model, 3, seed) for seed in range(3)]
    for _ in range(60):
        targets = {}
        for sequence in rng.permutation(3)[: rng.integers(1, 4)]:
            old = held[sequence]
            kept = old[: rng.integers(0, len(old) + 1)]
            new = some_tokens(tiny_model, int(rng.integers(1, 20)), int(rng.integers(1 << 30)))
            tokens = np.concatenate([kept, new])[:48]
            held[sequence] = tokens
            targets[int(sequence)] = (tokens, int(rng.integers(1, min(len(tokens), 4) + 1)))
        rows = context.advance(targets)
        for sequence, (tokens, keep_last) in targets.items():
            assert np.array_equal(context.tokens(sequence), tokens)
            assert np.array_equal(rows[sequence], fresh_logits(tiny_model, tokens, keep_last))


def test_ragged_batches_give_each_sequence_what_it_gets_alone(model):
    context = Context(model, n_ctx=64, n_slots=3, n_outputs=8)
    prompts = [some_tokens(model, n, seed=n) for n in (40, 7, 23)]
    rows = context.advance({0: (prompts[0], 1)})
    assert np.array_equal(rows[0], fresh_logits(model, prompts[0]))
    # One token of the first, all of the second, all of the third with a block.
    longer = np.concatenate([prompts[0], some_tokens(model, 1, seed=5)])
    rows = context.advance({0: (longer, 1), 2: (prompts[2], 4), 1: (prompts[1], 1)})
    for sequence, (tokens, n) in enumerate([(longer, 1), (prompts[1], 1), (prompts[2], 4)]):
        assert np.array_equal(rows[sequence], fresh_logits(model, tokens, n))
        assert np.array_equal(context.tokens(sequence), tokens)
    assert context.decoded_tokens == 40 + 1 + 7 + 23


def test_ragged_prompts_beyond_n_batch_give_each_sequence_its_own(tiny_model):
    context = Context(tiny_model, n_ctx=600, n_slots=3, n_outputs=9)
    prompts = [some_tokens(tiny_model, n, seed=n) for n in (510, 598, 300)]
    rows = context.advance({i: (prompt, 3) for i, prompt in enumerate(prompts)})
    for i, prompt in enumerate(prompts):
        assert np.array_equal(rows[i], fresh_logits(tiny_model, prompt, 3))


def test_all_slots_can_be_full_and_one_token_more_is_refused(tiny_model):
    """n_ctx is per slot, and 100 is no multiple of llama.cpp's cell padding."""
    context = Context(tiny_model, n_ctx=100, n_slots=3, n_outputs=3)
    prompts = [some_tokens(tiny_model, 100, seed) for seed in range(3)]
    rows = context.advance({i: (prompt, 1) for i, prompt in enumerate(prompts)})
    assert [len(context.tokens(i)) for i in range(3)] == [100] * 3
    assert len(rows) == 3
    with pytest.raises(RequestError, match="101 tokens do not fit a context of 100"):
        context.advance({0: (some_tokens(tiny_model, 101), 1)})
    rows = context.advance({i: (prompt, 1) for i, prompt in enumerate(reversed(prompts))})
    assert len(rows) == 3


def test_advancing_no_target_decodes_nothing(tiny_model):
    context = Context(tiny_model, n_ctx=32)
    assert context.advance({}) == {}
    assert_healthy(context, tiny_model)


def test_more_rows_than_a_batch_holds_are_refused(tiny_model):
    """Sixteen rows for each of 40 slots are more than n_batch: refused, or given."""
    n_slots, keep_last = 40, 16
    context = Context(tiny_model, n_ctx=16, n_slots=n_slots, n_outputs=n_slots * keep_last)
    tokens = some_tokens(tiny_model, keep_last)
    try:
        rows = context.advance(dict.fromkeys(range(n_slots), (tokens, keep_last)))
        assert len(rows) == n_slots
    except (RequestError, EngineError):
        pass
    short = some_tokens(tiny_model, 9, 3)
    assert np.array_equal(context.advance({0: (short, 1)})[0], fresh_logits(tiny_model, short))


def test_an_engine_that_cannot_roll_back_decodes_anew(tiny_model, monkeypatch):
    """Recurrent models refuse to remove a part of a sequence; the result must be the same."""
    real = llama_cpp.llama_memory_seq_rm
    monkeypatch.setattr(
        llama_cpp,
        "llama_memory_seq_rm",
        lambda memory, s, p0, p1: real(memory, s, p0, p1) if p0 <= 0 else False,
    )
    context = Context(tiny_model, n_ctx=64, n_outputs=2)
    a = some_tokens(tiny_model, 30)
    b = np.concatenate([a[:20], some_tokens(tiny_model, 5, seed=1)])
    context.advance({0: (a, 1)})
    rows = context.advance({0: (b, 2)})[0]
    assert np.array_equal(rows, fresh_logits(tiny_model, b, 2))
    assert (context.decoded_tokens, context.decoded_anew) == (30 + 25, 20)


# -- interruptions -----------------------------------------------------------------------------


def test_abort_from_another_thread_stops_a_decode_until_resumed(smollm2):
    context = Context(smollm2, n_ctx=1024, n_threads=1)
    a = some_tokens(smollm2, 1000)
    context.advance({0: (a[:20], 1)})
    timer = threading.Timer(0.3, context.abort)
    timer.start()
    begun = time.perf_counter()
    with pytest.raises(AbortedError):
        context.advance({0: (a, 1)})
    assert time.perf_counter() - begun < 3.0  # the whole takes much longer
    timer.join()
    with pytest.raises(AbortedError):  # until it is taken back
        context.advance({0: (a[:20], 1)})
    context.resume()
    held = context.tokens(0)
    assert np.array_equal(held, a[: len(held)])
    assert_healthy(context, smollm2)


def test_abort_between_calls_leaves_other_sequences_alone(tiny_model):
    context = Context(tiny_model, n_ctx=64, n_slots=2, n_outputs=2)
    a, b = some_tokens(tiny_model, 20), some_tokens(tiny_model, 15, 1)
    context.advance({0: (a, 1), 1: (b, 1)})
    context.abort()
    with pytest.raises(AbortedError):
        context.advance({0: (a[:10], 1)})
    context.resume()
    before = context.decoded_tokens
    c = np.concatenate([b, some_tokens(tiny_model, 1, 2)])
    rows = context.advance({1: (c, 1)})[1]
    assert context.decoded_tokens == before + 1
    assert np.array_equal(rows, fresh_logits(tiny_model, c))
    assert_healthy(context, tiny_model)


def test_abort_is_looked_at_between_the_chunks_of_a_prompt(tiny_model, monkeypatch):
    """The GPU backends of llama.cpp never ask its abort callback."""
    context = Context(tiny_model, n_ctx=1600)
    a = some_tokens(tiny_model, 1500)
    real, calls = llama_cpp.llama_decode, []

    def decode(*arguments):
        calls.append(real(*arguments))
        context.abort()
        return calls[-1]

    monkeypatch.setattr(llama_cpp, "llama_decode", decode)
    with pytest.raises(AbortedError):
        context.advance({0: (a, 1)})
    monkeypatch.undo()
    context.resume()
    assert calls == [0], "the second chunk was not begun"
    assert np.array_equal(context.tokens(0), a[:512])
    assert_healthy(context, tiny_model)


NATIVE = ("llama_decode", "llama_memory_seq_rm", "llama_get_logits_ith")


def advance_thrice(context, targets):
    """So that what `advance` calls once is called three times."""
    for _ in range(3):
        context.advance(targets)


@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("function", NATIVE)
def test_an_exception_around_a_native_call_leaves_the_context_right(
    tiny_model, monkeypatch, function, error, nth, after
):
    """Ctrl-C arrives between any two bytecodes: native state and Python's notes must agree."""
    context = Context(tiny_model, n_ctx=1100, n_slots=2, n_outputs=4)
    a = some_tokens(tiny_model, 1100)
    context.advance({0: (a[:300], 1), 1: (a[:40], 1)})
    calls = 0
    real = getattr(llama_cpp, function)

    def interrupted(*args):
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            raise error
        result = real(*args)
        if calls == nth and after:
            raise error
        return result

    monkeypatch.setattr(llama_cpp, function, interrupted)
    b = np.concatenate([a[:200], some_tokens(tiny_model, 900, 7)])
    with pytest.raises(error):
        advance_thrice(context, {0: (b, 2), 1: (a[:20], 1)})
    monkeypatch.undo()
    for sequence, asked in ((0, (a, b)), (1, (a, a))):
        held = context.tokens(sequence)
        assert any(np.array_equal(held, tokens[: len(held)]) for tokens in asked)
    # What is said to be held must be there: continue from it.
    for sequence in (1, 0):
        longer = np.append(context.tokens(sequence)[:1000], some_tokens(tiny_model, 2, 8))
        rows = context.advance({sequence: (longer, 1)})[sequence]
        assert np.array_equal(rows, fresh_logits(tiny_model, longer))


@pytest.fixture(scope="module")
def long_logits(tiny_model):
    return fresh_logits(tiny_model, some_tokens(tiny_model, 1100))


@pytest.mark.parametrize("status", [1, 2, -1, -2, -3])
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_failing_llama_decode_is_an_error_and_loses_nothing(
    tiny_model, long_logits, monkeypatch, status, after, nth
):
    context = Context(tiny_model, n_ctx=1100, n_slots=2, n_outputs=2)
    a = some_tokens(tiny_model, 1100)
    context.advance({0: (a[:300], 1)})
    context.advance({1: (a[:40], 1)})
    real, calls = llama_cpp.llama_decode, 0

    def failing(*args):
        nonlocal calls
        calls += 1
        if calls == nth:
            if after:
                real(*args)
            return status
        return real(*args)

    monkeypatch.setattr(llama_cpp, "llama_decode", failing)
    with pytest.raises(AbortedError if status == 2 else EngineError) as caught:
        context.advance({0: (a, 1)})
    monkeypatch.undo()
    if status != 2:
        assert f"llama_decode returned {status}" in str(caught.value)
        assert "\n" not in str(caught.value)
    held = context.tokens(0)
    assert len(held) >= 300
    assert np.array_equal(held, a[: len(held)])
    before = context.decoded_tokens
    rows = context.advance({0: (a, 1)})[0]
    assert context.decoded_tokens - before == 1100 - len(held)
    assert np.array_equal(rows, long_logits)


def test_an_engine_that_gives_no_logits_is_an_error(tiny_model, monkeypatch):
    context = Context(tiny_model, n_ctx=32)
    monkeypatch.setattr(llama_cpp, "llama_get_logits_ith", lambda *_: None)
    with pytest.raises(EngineError, match="gave no logits"):
        context.advance({0: (some_tokens(tiny_model, 3), 1)})
    monkeypatch.undo()
    assert_healthy(context, tiny_model)
