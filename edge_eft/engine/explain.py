"""What each model thought of a token: the view behind the combined distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..logits.combiner import Combiner, log_partition
from ..logits.nucleus import largest
from .reply import RoleView


def explain(
    rows: Mapping[str, NDArray[np.float32]],
    token: int,
    n: int,
    combiner: Combiner,
    piece: Callable[..., bytes],
) -> dict[str, RoleView]:
    """Return every role's own distribution at one position, over the common vocabulary.

    Args:
        rows: role → (1, n_vocab) float32 logits.
        token: the token that was chosen.
        n: how many of each role's likeliest tokens to list.
        combiner: merges the end tokens in each row as in the emulation.
        piece: token id → bytes; called with `special=True`, so that control tokens show.

    Returns:
        role → RoleView.
    """
    views = {}
    log_p = np.empty((1, combiner.n_vocab), np.float32)
    scratch = np.empty_like(log_p)
    for role in rows:
        combiner.combine(rows, {role: 1.0}, out=log_p, scratch=scratch)
        log_p -= log_partition(log_p, scratch)
        log_p += 0.0  # −0.0 is 0
        best = largest(log_p[0], min(n, combiner.n_vocab)).tolist()
        best.sort(key=lambda i: -log_p[0, i])
        top = [(i, piece(i, special=True).decode("utf-8", "replace")) for i in best]
        views[role] = RoleView(
            float(log_p[0, token]),
            tuple((i, text, float(log_p[0, i])) for i, text in top),
        )
    return views
