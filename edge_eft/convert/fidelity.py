"""What quantising did to the delta: figures from logits, and nothing but figures.

For every position of a text, p is the distribution that the unquantised pair gives, and q what the
quantised pair gives in its place:

    p = softmax(base + α(tuned − reference)),  q = softmax(base + α(tuned' − reference'))

Without a base the unquantised reference stands in for it, with α = 1, so that p is the tuned
model's own distribution. Arrays come in as (positions, vocab) float32, memory-mapped, and are read
in blocks; all sums are float64. This module knows nothing of models or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

_BLOCK_VALUES = 1 << 21  # logits of each model that are in memory at a time


@dataclass(frozen=True)
class Pair:
    """Logits of one pair on the same positions, each (positions, vocab) float32."""

    tuned: Rows
    reference: Rows


@dataclass(frozen=True)
class Fidelity:
    """How well a quantised pair reproduces the unquantised one.

    Attributes:
        kl_mean: mean over positions of KL(p ‖ q), in nats.
        kl_p99: its 99th percentile.
        top1_agreement: share of positions where p and q have the same most likely token.
        delta_mae: mean |delta' − delta| over positions and tokens, in logits.
        delta_correlation: Pearson correlation of delta' and delta over the same.
        error_correlation: Pearson correlation of the errors tuned' − tuned and
            reference' − reference: 1 means that both sides are off alike, which the delta
            cancels; 0 that their errors add up. 0 if one side has no error.
        positions: how many positions were measured.
    """

    kl_mean: float
    kl_p99: float
    top1_agreement: float
    delta_mae: float
    delta_correlation: float
    error_correlation: float
    positions: int


class _Correlation:
    """Pearson's correlation of two series that come in blocks."""

    def __init__(self) -> None:
        self._sums = np.zeros(6)  # n, Σx, Σy, Σx², Σy², Σxy

    def add(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        a, b = x.ravel(), y.ravel()
        self._sums += np.array([a.size, a.sum(), b.sum(), a @ a, b @ b, a @ b])

    def value(self, *, undefined: float) -> float:
        n, x, y, xx, yy, xy = self._sums
        scale = np.sqrt(max(n * xx - x * x, 0.0)) * np.sqrt(max(n * yy - y * y, 0.0))
        return float((n * xy - x * y) / scale) if scale > 0 else undefined


def measure(
    exact: Sequence[Pair], quantised: Sequence[Pair], base: Rows | None, alpha: float
) -> Fidelity:
    """Return the figures of quantised pairs, pooled over all of them (one per delta).

    Args:
        exact, quantised: the same pairs before and after.
        base: (positions, vocab) float32, or None if no base is given.
        alpha: strength of the delta; without a base it must be 1.
    """
    divergences: list[NDArray[np.float64]] = []
    agreeing = 0
    absolute = n_values = 0.0
    deltas, errors = _Correlation(), _Correlation()
    for before, after in zip(exact, quantised, strict=True):
        n_positions, n_vocab = before.tuned.shape
        step = max(1, _BLOCK_VALUES // n_vocab)
        for start in range(0, n_positions, step):
            block = slice(start, start + step)
            tuned, reference, tuned_q, reference_q = (
                rows[block].astype(np.float64)
                for rows in (before.tuned, before.reference, after.tuned, after.reference)
            )
            stand_in = reference if base is None else base[block].astype(np.float64)
            delta, delta_q = tuned - reference, tuned_q - reference_q
            log_p = _log_softmax(stand_in + alpha * delta)
            log_q = _log_softmax(stand_in + alpha * delta_q)
            divergences.append(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))
            agreeing += int(np.sum(log_p.argmax(axis=1) == log_q.argmax(axis=1)))
            absolute += float(np.abs(delta_q - delta).sum())
            n_values += delta.size
            deltas.add(delta, delta_q)
            errors.add(tuned_q - tuned, reference_q - reference)
    # Rounding can make the sum of a position that agrees fully negative by 1e-16.
    kl = np.maximum(np.concatenate(divergences), 0.0)
    return Fidelity(
        kl_mean=float(kl.mean()),
        kl_p99=float(np.quantile(kl, 0.99)),
        top1_agreement=agreeing / kl.size,
        delta_mae=absolute / n_values,
        delta_correlation=deltas.value(undefined=1.0 if absolute == 0 else 0.0),
        error_correlation=errors.value(undefined=0.0),
        positions=kl.size,
    )


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
