"""Context.copy: what one slot holds serves another, to the last bit."""

import numpy as np
import pytest
from helpers.context_tools import assert_healthy, fresh_logits, some_tokens

from edge_eft.backend import Context, Model
from edge_eft.errors import AbortedError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(
    scope="module", params=["tiny", "atlas", pytest.param("smollm2", marks=pytest.mark.slow)]
)
def model(request):
    if request.param == "smollm2":
        return request.getfixturevalue("smollm2")
    return Model(request.getfixturevalue(request.param).base)


@pytest.fixture
def context(model):
    context = Context(model, n_ctx=128, n_slots=3, n_outputs=6)
    yield context
    context.close()


def continued(context, model, sequence, tokens, n_decoded):
    """Whether a slot goes on as a new context does, decoding no more than is new."""
    before = context.decoded_tokens
    rows = context.advance({sequence: (tokens, 1)})[sequence]
    assert context.decoded_tokens - before == n_decoded
    assert np.array_equal(context.tokens(sequence), tokens)
    return np.array_equal(rows, fresh_logits(model, tokens))


@pytest.mark.parametrize("n", [1, 40, 69, 70])
def test_a_copied_prefix_is_gone_on_from_as_if_decoded(model, context, n):
    a = some_tokens(model, 70)
    context.advance({0: (a[:30], 1)})
    context.advance({0: (a, 1), 1: (some_tokens(model, 90, seed=1), 1)})
    context.copy(0, 1, n)
    assert np.array_equal(context.tokens(1), a[:n])
    assert np.array_equal(context.tokens(0), a)
    b = np.concatenate([a[:n], some_tokens(model, 9, seed=2)])
    assert continued(context, model, 1, b, 9)
    assert continued(context, model, 0, np.append(a, b[-1]), 1)


def test_source_and_copy_go_on_together(model, context):
    """The copy is made by the next decode, which must not move the source first."""
    a = some_tokens(model, 50)
    context.advance({0: (a, 1)})
    context.copy(0, 1, 50)
    context.copy(1, 2, 20)
    ends = [np.append(a[:n], some_tokens(model, 2, seed=n)) for n in (30, 50, 20)]
    rows = context.advance({i: (tokens, 2) for i, tokens in enumerate(ends)})
    rows = {i: row.copy() for i, row in rows.items()}
    for i, tokens in enumerate(ends):
        assert np.array_equal(rows[i], fresh_logits(model, tokens, 2))


def test_walks_of_copies_cuts_and_blocks_stay_exact(model, context):
    """Cells must not come to lie in another order than a new context has them in."""
    rng = np.random.default_rng(3)
    for seed in range(12):
        source, target = rng.permutation(3)[:2]
        held = context.tokens(source).copy()
        if len(held) > 1:
            n = int(rng.integers(1, len(held) + 1))
            context.copy(source, target, n)
            held = held[:n]
        new = some_tokens(model, int(rng.integers(2, 12)), seed)
        tokens = np.concatenate([held, new])[-110:] if len(held) < 100 else new
        keep_last = int(rng.integers(1, 3))
        rows = context.advance({int(target): (tokens, keep_last)})[int(target)]
        assert np.array_equal(rows, fresh_logits(model, tokens, keep_last))


def test_a_copy_before_an_aborted_decode_is_not_lost(model, context):
    a = some_tokens(model, 50)
    context.advance({0: (a, 1)})
    context.copy(0, 1, 50)
    context.abort()
    with pytest.raises(AbortedError):
        context.advance({1: (np.append(a, 300).astype(np.int32), 1)})
    context.resume()
    assert continued(context, model, 1, np.append(a, a[0]), 1)
    assert_healthy(context, model)
    assert_healthy(context, model, sequence=1)


def test_kept_is_what_can_be_gone_on_from(model, context):
    a = some_tokens(model, 20)
    context.advance({0: (a, 1)})
    assert context.kept(0, a) == context.kept(0, np.append(a, 300).astype(np.int32)) == 20
    assert context.kept(0, a[:7]) == 7
    assert context.kept(1, a) == 0
