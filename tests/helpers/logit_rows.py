"""Rows of logits and what the combiner makes of them, for the tests of logits/."""

import numpy as np

from edge_eft.logits.combiner import Combiner, log_partition
from edge_eft.logits.weights import Weights

ONE = {"chat": 1.0}
TWO = {"help": 1.0, "safe": 0.5}
UPSCALE = Weights.upscale().coefficients(ONE)
ROLES = ("base", "tuned:chat", "reference:chat")


def combine(rows, coefficients, combiner=None, conservative=None):
    """Combined rows from read-only models' rows and used buffers."""
    rows = {role: np.atleast_2d(np.array(row, np.float32)) for role, row in rows.items()}
    for row in rows.values():
        row.setflags(write=False)
    first = next(iter(rows.values()))
    combiner = combiner or Combiner(first.shape[-1])
    out = np.full((len(first), combiner.n_vocab), np.nan, np.float32)
    scratch = np.full_like(out, np.nan)
    if conservative is None:
        got = combiner.combine(rows, coefficients, out=out, scratch=scratch)
    else:
        tuned = next(role for role in coefficients if role.startswith("tuned"))
        got = combiner.combine_conservative(
            rows, coefficients, tuned, conservative, out=out, scratch=scratch
        )
    assert got is out
    return out


def log_probabilities(rows, coefficients, combiner=None, conservative=None):
    out = combine(rows, coefficients, combiner, conservative)
    return out - log_partition(out, np.empty_like(out))[:, None]


def random_rows(seed, widths, n_rows=3):
    """role → logits of a model's usual size, each with an offset of its own."""
    rng = np.random.default_rng(seed)
    return {
        role: (rng.normal(0, 4, (n_rows, width)) + rng.normal(0, 10)).astype(np.float32)
        for role, width in widths.items()
    }


SMALL = {"base": [[1, 2, 3]], "tuned:chat": [[0, 4, -2]], "reference:chat": [[1, 1, -1]]}


# Two deltas of models of different widths, and which tokens end their replies.
WIDTHS = {
    "base": 300,
    "tuned:help": 308,
    "reference:help": 300,
    "tuned:safe": 304,
    "reference:safe": 320,
}
ENDS = {
    "base": np.array([2], np.int32),
    "tuned:help": np.array([3, 40, 305], np.int32),
    "reference:help": np.array([2], np.int32),
    "tuned:safe": np.array([302], np.int32),
    "reference:safe": np.array([2, 3], np.int32),
}


CHAT_WIDTHS = dict.fromkeys(ROLES, 500)
