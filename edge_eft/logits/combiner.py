"""Emulated fine-tuning as arithmetic on logit rows.

One token of the emulation is drawn from

    softmax( base + α · (tuned − reference) )          arXiv 2310.12962 §3, arXiv 2401.08565 eq. 1

and every other mode of the two papers is the same weighted sum Σ c · s with other coefficients
(`weights`). Raw logits may be summed as they are: a constant that a model adds to its whole row
cancels in the softmax.

NumPy only. It knows nothing of contexts, tokens' texts or sampling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, NoTokenError
from .common import CommonRows
from .nucleus import nucleus


class Combiner(CommonRows):
    """Forms combined rows of logits, (rows, vocab) float32: one row per position of a block."""

    def combine(
        self,
        rows: Mapping[str, NDArray[np.float32]],
        coefficients: Mapping[str, float],
        *,
        out: NDArray[np.float32],
        scratch: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Write Σ coefficient · row into `out` (eq. 1).

        Args:
            rows: role → (rows, ≥ n_vocab) float32 logits. Rows of coefficient 0 are not read.
            coefficients: role → coefficient, as `Weights.coefficients` gives them.
            out: (rows, n_vocab) float32, overwritten.
            scratch: like `out`, overwritten.

        Returns:
            `out`. A token that is −inf in any row with a non-zero coefficient is −inf in it.

        Raises:
            EngineError: a row holds NaN or +inf; the message names the model.
            NoTokenError: no token is left, or the sum leaves float32.
        """
        total: NDArray[np.float32] | None = None
        sound = True
        with np.errstate(invalid="ignore", over="ignore"):
            for c, s in self.common(rows, coefficients):
                total = _plus(total, c, s, out, scratch)  # Σ c · s
                # A bad logit shows in a sum's maximum, but +inf that is subtracted in its row's.
                sound = sound and (c > 0 or math.isfinite(s.max()))
            if total is not None and total is not out:
                np.copyto(out, total)
            sound = sound and math.isfinite(out.max(axis=-1).sum())
            if not sound:
                self._explain_or_exclude(rows, coefficients, out)
        if len(self.masked):
            out[..., self.masked] = -np.inf
        if len(self.masked) or self._merged or not sound:
            _check_sum(out)
        return out

    def combine_conservative(
        self,
        rows: Mapping[str, NDArray[np.float32]],
        coefficients: Mapping[str, float],
        tuned: str,
        top_p: float,
        *,
        out: NDArray[np.float32],
        scratch: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Write the sum inside the tuned model's nucleus and the tuned model itself outside.

        s = Σ c · log p inside S, log p_tuned outside (EFT §4.3), where S is the smallest set of
        tokens to which `tuned` gives at least `top_p` of its own untempered probability (ties by
        token id) and every log p is normalised over the common vocabulary.

        Args, returns and raises as `combine`; `tuned` names the role that S is taken from.
        """
        total = np.zeros_like(out)
        for role, c in coefficients.items():
            if c == 0.0:
                continue
            log_p = self.combine(rows, {role: 1.0}, out=out, scratch=scratch)
            log_p -= log_partition(log_p, scratch)[..., None]
            with np.errstate(invalid="ignore", over="ignore"):
                total += np.where(np.isneginf(log_p), -np.inf, c * log_p)
        log_p_tuned = self.combine(rows, {tuned: 1.0}, out=out, scratch=scratch)
        log_p_tuned -= log_partition(log_p_tuned, scratch)[..., None]
        for row, mixed in zip(log_p_tuned, total, strict=True):
            inside = nucleus(row, top_p)
            row[inside] = mixed[inside]
        _check_sum(out)
        return out

    def _explain_or_exclude(
        self,
        rows: Mapping[str, NDArray[np.float32]],
        coefficients: Mapping[str, float],
        total: NDArray[np.float32],
    ) -> None:
        """Name the model that gave NaN or +inf; else make −inf of what −inf made NaN or +inf."""
        for role, c in coefficients.items():
            if c:
                _check_logits(role, rows[role][..., : self.n_vocab])
                if role in self._merged:
                    _check_logits(role, rows[role][..., self._merged[role]])
        for _, s in self.common(rows, coefficients):
            total[np.isneginf(s)] = -np.inf


def log_partition(logits: NDArray[np.float32], scratch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return log Σ exp over the last axis, stable; overwrites `scratch`.

    Args:
        logits: (..., vocab) float32; −inf allowed, not in a whole row.
        scratch: like `logits`.

    Returns:
        (...) float32.
    """
    top = logits.max(axis=-1, keepdims=True)
    np.subtract(logits, top, out=scratch)
    np.exp(scratch, out=scratch)
    return np.log(scratch.sum(axis=-1)) + top[..., 0]


def _plus(
    total: NDArray[np.float32] | None,
    c: float,
    row: NDArray[np.float32],
    out: NDArray[np.float32],
    scratch: NDArray[np.float32],
) -> NDArray[np.float32]:
    """total + c · row, in one pass where c is ±1; in `out`, unless it is the row itself."""
    if total is None:
        return row if c == 1.0 else np.multiply(row, c, out=out)
    if c == 1.0:
        return np.add(total, row, out=out)
    if c == -1.0:
        return np.subtract(total, row, out=out)
    return np.add(total, np.multiply(row, c, out=scratch), out=out)


def _check_logits(role: str, logits: NDArray[np.float32]) -> None:
    top = logits.max(axis=-1)  # NaN and +inf both show in it
    if not (np.isnan(top) | np.isposinf(top)).any():
        return
    token = int(np.argwhere(np.isnan(logits) | np.isposinf(logits))[0][-1])
    name = "NaN" if np.isnan(top).any() else "+inf"
    raise EngineError(
        f"the model in role {role!r} gave {name} as the logit of token {token}; its file may be "
        "damaged, or this backend computes it wrongly (try it with no layers on the GPU)"
    )


def _check_sum(total: NDArray[np.float32]) -> None:
    if not np.isfinite(total.max(axis=-1)).all():
        raise NoTokenError(
            "no token is left: each is excluded (−inf) by one model or another, or the weights are "
            "so large that the sum of logits exceeds float32"
        )
