"""Log-probabilities as they are given out: of a token, and of the likeliest in its place.

Both are the same computation on the same row. So a token is the likeliest of its row exactly if its
number is that of the first in the list, which is how evaluations tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..logits.nucleus import largest
from .reply import TokenLogprob


def logprob_of(token: int, logits: NDArray[np.float32], log_z: np.float32) -> float:
    """Return a token's log-probability.

    Args:
        token: its place in the row.
        logits: (vocab,) float32, combined.
        log_z: log-partition of the row.
    """
    return float(logits[token]) - float(log_z) + 0.0  # −0.0 is 0


def logprobs_of(
    tokens: Sequence[int], logits: NDArray[np.float32], log_z: np.float32
) -> list[float]:
    """Return the log-probabilities of several tokens; arguments as of `logprob_of`."""
    values: list[float] = (logits[np.array(tokens)].astype(np.float64) - log_z + 0.0).tolist()
    return values


def likeliest(
    n: int, logits: NDArray[np.float32], log_z: np.float32, piece: Callable[..., bytes]
) -> tuple[TokenLogprob, ...]:
    """Return the n likeliest tokens of a row, best first, ties by id.

    Args:
        n: so many, or fewer if fewer are possible.
        logits, log_z: as of `logprob_of`.
        piece: token id → bytes; called with `special=True`, so that control tokens show.
    """
    if not n:
        return ()
    ids = largest(logits, min(n, len(logits)))
    best = ids[np.argsort(-logits[ids], kind="stable")].tolist()
    return tuple(
        TokenLogprob(token, piece(token, special=True), logprob_of(token, logits, log_z))
        for token in best
    )
