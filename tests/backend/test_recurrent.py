"""Going back with recurrent layers: what is gone back to is what a new context has, or is refused.

llama.cpp itself does not refuse: it takes whatever an earlier decode left as a state.
"""

import numpy as np
import pytest
from helpers.context_tools import assert_healthy, fresh_logits, some_tokens
from helpers.tiny_hybrids import GOING_BACK, write_hybrid

from edge_eft.backend import Context, Model
from edge_eft.backend.library import L
from edge_eft.errors import AbortedError

N = 7


def hybrid(folder, architecture):
    return Model(write_hybrid(folder / f"{architecture}.gguf", 0, architecture))


@pytest.fixture(scope="module", params=GOING_BACK)
def model(request, folder):
    return hybrid(folder, request.param)


@pytest.fixture
def context(model):
    context = Context(model, n_ctx=128, n_slots=3, n_outputs=30, n_rs_seq=N)
    yield context
    context.close()


def turned(model, tokens, n):
    """The first `n` tokens, and one that did not follow them."""
    other = next(token for token in some_tokens(model, 9, seed=7) if token != tokens[n])
    return np.append(tokens[:n], other)


def goes_on(context, model, sequence, tokens, n_decoded, keep_last=1):
    """Whether a sequence goes on as in a new context, decoding no more than is said."""
    before = context.decoded_tokens
    rows = context.advance({sequence: (tokens, keep_last)})[sequence]
    assert context.decoded_tokens - before == n_decoded
    return np.array_equal(rows, fresh_logits(model, tokens, keep_last))


def test_a_block_gives_what_its_tokens_give_alone(model, context):
    tokens = some_tokens(model, 40)
    block = context.advance({0: (tokens, 10)})[0].copy()
    for n in range(31, 41):
        row = context.advance({1: (tokens[:n], 1)})[1]
        assert np.array_equal(row[0], block[n - 31])


@pytest.mark.parametrize("n_back", range(1, N + 1))
def test_a_block_is_gone_back_to_exactly(model, context, n_back):
    tokens = some_tokens(model, 40)
    context.advance({0: (tokens[:30], 1)})
    context.advance({0: (tokens, 10)})
    new = turned(model, tokens, 40 - n_back)
    assert context.kept(0, new) == 40 - n_back
    assert goes_on(context, model, 0, new, 1)
    assert context.decoded_anew == 0


@pytest.mark.parametrize(("n_block", "n_back"), [(1, 1), (2, 2), (4, 6), (12, N + 1)])
def test_what_was_not_kept_is_decoded_anew(model, context, n_block, n_back):
    """llama.cpp says yes to the first three, and gives logits of another text."""
    tokens = some_tokens(model, 40)
    context.advance({0: (tokens[: 40 - n_block], 1)})
    context.advance({0: (tokens, n_block)})
    new = turned(model, tokens, 40 - n_back)
    assert context.kept(0, new) == 0
    assert goes_on(context, model, 0, new, len(new))


def test_a_second_step_back_is_decoded_anew(model, context):
    tokens = some_tokens(model, 30)
    context.advance({0: (tokens, 8)})
    context.abort()
    with pytest.raises(AbortedError):  # before the decode, after the going back
        context.advance({0: (turned(model, tokens, 28), 1)})
    context.resume()
    assert goes_on(context, model, 0, turned(model, tokens, 26), 27)


def test_a_saved_state_is_gone_back_to_after_single_steps(model, context):
    tokens = some_tokens(model, 40)
    context.advance({0: (tokens[:30], 1)})
    context.save(0)
    for n in range(31, 41):
        context.advance({0: (tokens[:n], 1)})
    new = turned(model, tokens, 34)
    assert context.kept(0, new) == 30
    assert goes_on(context, model, 0, new, 5)
    assert goes_on(context, model, 0, turned(model, tokens, 31), 2), "and again"
    assert goes_on(context, model, 0, turned(model, tokens, 29), 30), "not before it"
    assert context.kept(0, tokens) == 0, "it was of another text"


def test_an_aborted_decode_spoils_nothing(model, context):
    tokens = [some_tokens(model, 60, seed) for seed in range(3)]
    for i in (1, 0, 2):
        context.advance({i: (tokens[i][:30], 8)})
    context.save(1)
    for sequences in ((1, 2), (1,), (0, 1)):  # the first would move the state of 0
        for n in (1, 20):
            nodes = iter(range(10**6))
            cut = L.ggml_abort_callback(lambda _, nodes=nodes: next(nodes) > 60)
            L.llama_set_abort_callback(context._context, cut, None)
            with pytest.raises(AbortedError):
                context.advance({i: (tokens[i][: 30 + n], 1) for i in sequences})
            L.llama_set_abort_callback(context._context, L.ggml_abort_callback(), None)
            for i in range(3):
                new = turned(model, tokens[i], 29)
                rows = context.advance({i: (new, 1)})[i]
                assert np.array_equal(rows, fresh_logits(model, new))
                context.advance({i: (tokens[i][:30], 8)})
    for i in range(3):
        assert_healthy(context, model, sequence=i)


def walk(context, model):
    """Blocks, steps and returns of slots in any order. Returns how many could go on from a cache.

    A decode of several moves states about.
    """
    rng = np.random.default_rng(3)
    n_far = 0
    for seed in range(120):
        chosen = rng.permutation(3)[: rng.integers(1, 4)]
        plain = rng.random() < 0.4
        targets = {}
        for i in map(int, chosen):
            held = context.tokens(i).copy()
            if len(held) and rng.random() < 0.3:
                context.save(i)
            if not plain and len(held) > 10 and rng.random() < 0.8:
                held = held[: len(held) - int(rng.integers(1, 10))]
            if len(held) > 100 or rng.random() < 0.05:
                held = held[:0]
            n_new = 1 if plain else int(rng.integers(1, 11))
            tokens = np.concatenate([held, some_tokens(model, n_new, seed * 3 + i)])
            targets[i] = (tokens, int(rng.integers(1, n_new + 1)))
            n_far += context.kept(i, tokens) == len(held) > 0
        rows = {i: row.copy() for i, row in context.advance(targets).items()}
        for i, (tokens, keep_last) in targets.items():
            assert np.array_equal(rows[i], fresh_logits(model, tokens, keep_last)), (seed, i)
    return n_far


def test_walks_of_blocks_steps_and_returns_stay_exact(model, context):
    assert walk(context, model) > 80


def test_this_llama_cpp_keeps_no_states_of_mamba_2(folder):
    """Granite 4 h gets plain steps. If this fails, add its architecture to `buffers._GO_BACK`."""
    model = hybrid(folder, "granitehybrid")
    context = Context(model, n_ctx=128, n_slots=3, n_outputs=30, n_rs_seq=N)
    assert (context.can_roll_back, context.max_rollback) == (False, 0)
    tokens = some_tokens(model, 30)
    context.advance({0: (tokens, 10)})
    assert context.kept(0, turned(model, tokens, 29)) == 0
    assert context.kept(0, np.append(tokens, tokens[0])) == 30
    walk(context, model)
    context.close()
