"""The likeliest tokens of a row: the k largest (top-k), or the fewest with a given mass (top-p).

Both the sampler and conservative decoding need them, over vocabularies of up to 262,000 tokens at
every step, so neither sorts or partitions a whole row. Ties always go to the lower token id.
"""

from __future__ import annotations

import itertools

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
    bound = _bound(values, k)
    ids = np.arange(len(values)) if bound is None else np.flatnonzero(values >= bound)
    left = values[ids]
    if k < len(ids):
        threshold = np.partition(left, len(ids) - k)[len(ids) - k]
        kept = left > threshold
        kept[np.flatnonzero(left == threshold)[: k - np.count_nonzero(kept)]] = True
        ids, left = ids[kept], left[kept]
    return ids[np.isfinite(left)]


def largest_of_rows(values: NDArray[np.floating], k: int) -> list[NDArray[np.int64]]:
    """Return the ids of the k largest finite values of each row, best first, ties by id.

    Args:
        values: (rows, vocab) floats, as of `largest`.
        k: at least 1.
    """
    n_rows, vocab = values.shape
    bound = _bound(values, k)
    if bound is None:
        k = min(k, vocab)
        bound = np.partition(values, vocab - k, axis=-1)[:, vocab - k]
    places = np.flatnonzero(values >= bound[:, None])
    found = values.ravel()[places]
    places, found = places[np.isfinite(found)], found[np.isfinite(found)]
    rows, ids = np.divmod(places, vocab)
    ids = ids[np.lexsort((ids, -found, rows))]  # the rows stay in their order
    begins = np.searchsorted(rows, np.arange(n_rows + 1)).tolist()
    return [ids[begin:end][:k] for begin, end in itertools.pairwise(begins)]


def _bound(values: NDArray[np.floating], k: int) -> NDArray[np.floating] | None:
    """Return (…) a lower bound of the k-th largest of (…, vocab) values; None if k is too many."""
    width = values.shape[-1] // _GROUPS
    if k >= width:
        return None
    groups = values[..., : _GROUPS * width].reshape(*values.shape[:-1], _GROUPS, width)
    bound: NDArray[np.floating] = np.partition(groups.max(axis=-2), width - k)[..., width - k]
    return bound


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
