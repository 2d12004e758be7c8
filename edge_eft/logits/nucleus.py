"""The likeliest tokens of a row: the k largest (top-k), or the fewest with a given mass (top-p).

Both the sampler and conservative decoding need them, over vocabularies of up to 262,000 tokens at
every step, so neither sorts or partitions a whole row. Ties always go to the lower token id.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GROUPS = 256


def largest(values: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Return the ids of the k largest finite values.

    Partitioning 152,000 numbers takes a millisecond. The k-th largest of the maxima of disjoint
    groups is a lower bound of the k-th largest number, and leaves few to partition.

    Args:
        values: (vocab,) floats, no NaN; −inf is never among the largest.
        k: at least 1.

    Returns:
        (≤ k,) int64 ids, ascending.
    """
    width = len(values) // _GROUPS
    if k < width:
        maxima = values[: _GROUPS * width].reshape(_GROUPS, width).max(axis=0)
        ids = np.flatnonzero(values >= np.partition(maxima, width - k)[width - k])
    else:
        ids = np.arange(len(values))
    left = values[ids]
    if k < len(ids):
        threshold = np.partition(left, len(ids) - k)[len(ids) - k]
        kept = left > threshold
        kept[np.flatnonzero(left == threshold)[: k - np.count_nonzero(kept)]] = True
        ids, left = ids[kept], left[kept]
    return ids[np.isfinite(left)]


def nucleus(log_p: NDArray[np.floating], top_p: float) -> NDArray[np.int64]:
    """Return the smallest set of tokens of probability `top_p` or more, likelier ones first.

    Args:
        log_p: (vocab,) normalised log-probabilities.
        top_p: in (0, 1].

    Returns:
        (n ≥ 1,) int64 ids, ascending; all tokens of finite log-probability if rounding keeps
        their sum below `top_p`.
    """
    if top_p >= 1.0:  # rounding could reach 1 before the last token
        return np.flatnonzero(np.isfinite(log_p))
    ids = largest(log_p, min(512, len(log_p)))
    if np.exp(log_p[ids].astype(np.float64)).sum() < top_p:
        ids = np.flatnonzero(np.isfinite(log_p))
    order = np.argsort(-log_p[ids], kind="stable")
    mass = np.cumsum(np.exp(log_p[ids[order]].astype(np.float64)))
    # Up to and including the token that reaches top_p.
    n = int(np.searchsorted(mass, top_p)) + 1
    return np.sort(ids[order[:n]])
