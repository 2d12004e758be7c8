"""Contexts to compare with: new ones, which have seen nothing else."""

import numpy as np

from edge_eft.backend import Context
from helpers import tiny_models


def some_tokens(model, n, seed=0):
    """Ordinary tokens; in the tiny vocabulary they begin behind the control tokens."""
    rng = np.random.default_rng(seed)
    return rng.integers(tiny_models.RESERVED + 1, model.n_vocab, n).astype(np.int32)


def fresh_logits(model, tokens, keep_last=1, **options):
    """What a new context gives for these tokens alone."""
    n_outputs = max(keep_last, options.pop("n_outputs", 1))
    context = Context(model, n_ctx=max(len(tokens), 32), n_outputs=n_outputs, **options)
    rows = context.advance({0: (tokens, keep_last)})[0].copy()
    context.close()
    return rows


def one_at_a_time(model, tokens, n):
    """(n, vocab): the logits after each of the last n tokens, each decoded alone."""
    context = Context(model, n_ctx=max(len(tokens), 32))
    rows = []
    for end in range(len(tokens) - n + 1, len(tokens) + 1):
        rows.append(context.advance({0: (tokens[:end], 1)})[0][0].copy())
    context.close()
    return np.array(rows)


def assert_healthy(context, model, sequence=0, seed=99):
    """The context gives the logits of a new one, whatever happened to it before."""
    for tokens in (some_tokens(model, 20, seed), some_tokens(model, 9, seed + 1)):
        rows = context.advance({sequence: (tokens, 1)})[sequence]
        assert np.array_equal(rows, fresh_logits(model, tokens))
        assert np.array_equal(context.tokens(sequence), tokens)
