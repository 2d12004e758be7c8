"""Emulated fine-tuning as arithmetic on logit rows.

One token of the emulation is drawn from

    softmax( base + α · (tuned − reference) )          arXiv 2310.12962 §3, arXiv 2401.08565 eq. 1

and every other mode of the two papers is the same weighted sum with other coefficients, so this
file is two things: `Weights`, which turns the papers' dials into one coefficient per model, and
`Combiner`, which forms the sum. Raw logits may be summed as they are: a constant that a model adds
to its whole row cancels in the softmax.

NumPy only. It knows nothing of contexts, tokens' texts or sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import number
from .errors import EngineError, RequestError
from .nucleus import nucleus

BASE = "base"


@dataclass(frozen=True)
class Weights:
    """How much of each model enters one generation.

    Make one with `upscale`, `amplify`, `interpolate` or `only`; `coefficients` gives the numbers.
    """

    alpha: float = 1.0
    beta: float | None = None
    mix: Mapping[str, float] | None = None
    role: str | None = None

    def __post_init__(self) -> None:
        # A negative strength would undo the tuning instead of applying it, which is how safety
        # tuning is stripped from a model ("emulated disalignment"): refused, not clamped.
        object.__setattr__(self, "alpha", number("alpha", self.alpha, 0.0))
        if self.beta is not None:
            object.__setattr__(self, "beta", number("beta", self.beta, 0.0))
            if self.alpha != 1.0:
                raise RequestError(f"beta {self.beta} and alpha {self.alpha} exclude each other")
        if self.mix is not None:
            if not isinstance(self.mix, Mapping) or not self.mix:
                raise RequestError(f"mix is {self.mix!r:.40}; give at least one name=weight")
            if unnamed := [name for name in self.mix if not isinstance(name, str)]:
                raise RequestError(f"mix names {unnamed[0]!r}; a delta's name is a string")
            mix = {name: number(f"the weight of {name!r}", w, 0.0) for name, w in self.mix.items()}
            object.__setattr__(self, "mix", mix)
        if self.role is not None and not isinstance(self.role, str):
            raise RequestError(f"only is {self.role!r}; it must name one role")
        if self.role is not None and (self.mix or self.beta is not None or self.alpha != 1.0):
            raise RequestError(f"only {self.role!r} takes no alpha, beta or mix beside it")

    @classmethod
    def upscale(cls, alpha: float = 1.0) -> Weights:
        """base + α · Σ wᵢ (tunedᵢ − referenceᵢ), wᵢ from the recipe (EFT up-scaling)."""
        return cls(alpha=alpha)

    @classmethod
    def amplify(cls, beta: float, mix: Mapping[str, float] | None = None) -> Weights:
        """Σ wᵢ tunedᵢ + β · (base − Σ wᵢ referenceᵢ) (EFT, amplified up-scaling)."""
        return cls(beta=beta, mix=mix)

    @classmethod
    def interpolate(cls, mix: Mapping[str, float], alpha: float = 1.0) -> Weights:
        """base + α · Σ mixᵢ (tunedᵢ − referenceᵢ); the mix is not normalised (EFT §3.3)."""
        return cls(alpha=alpha, mix=mix)

    @classmethod
    def only(cls, role: str) -> Weights:
        """One model by itself: "base", "tuned", "reference", or "tuned:NAME"."""
        return cls(role=role)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Weights:
        """The inverse of `to_dict`. Raises RequestError for a key it does not know."""
        known = {"alpha", "beta", "mix", "only"}
        if unknown := sorted(set(values) - known):
            raise RequestError(
                f"weights have an unknown key {unknown[0]!r}; known: {sorted(known)}"
            )
        return cls(
            alpha=values.get("alpha", 1.0),
            beta=values.get("beta"),
            mix=values.get("mix"),
            role=values.get("only"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: only what differs from `upscale(1.0)`."""
        mix = dict(self.mix) if self.mix is not None else None
        alpha = self.alpha if self.alpha != 1.0 else None
        values = {"alpha": alpha, "beta": self.beta, "mix": mix, "only": self.role}
        return {name: value for name, value in values.items() if value is not None}

    def coefficients(self, deltas: Mapping[str, float]) -> dict[str, float]:
        """One coefficient per role.

        Args:
            deltas: the recipe's deltas, name → weight wᵢ.

        Returns:
            role → coefficient, for "base" and every "tuned:NAME" and "reference:NAME".

        Raises:
            RequestError: the mix or `only` names what the recipe does not have.
        """
        result = {BASE: 0.0}
        for name in deltas:
            result |= {f"tuned:{name}": 0.0, f"reference:{name}": 0.0}
        if self.role is not None:
            result[resolve_role(self.role, deltas)] = 1.0
            return result
        weights = deltas if self.mix is None else dict.fromkeys(deltas, 0.0) | dict(self.mix)
        if unknown := sorted(set(weights) - set(deltas)):
            raise RequestError(f"no delta is named {unknown[0]!r}; there are: {', '.join(deltas)}")
        result[BASE] = 1.0 if self.beta is None else self.beta
        for name, weight in weights.items():
            if self.beta is None:
                result[f"tuned:{name}"] = self.alpha * weight
                result[f"reference:{name}"] = -self.alpha * weight
            else:
                result[f"tuned:{name}"] = weight
                result[f"reference:{name}"] = -self.beta * weight
        if not any(result.values()):
            raise RequestError(f"weights {self.to_dict()} leave no model to choose tokens by")
        return result

    def conservative_role(self, deltas: Mapping[str, float]) -> str:
        """The tuned role whose nucleus bounds conservative decoding.

        Raises:
            RequestError: the paper defines it for `upscale(1)` and `amplify` with one delta only.
        """
        active = {n: c for n, c in self.coefficients(deltas).items() if n != BASE and c > 0.0}
        if self.role is None and self.alpha == 1.0 and list(active.values()) == [1.0]:
            return next(iter(active))
        raise RequestError(
            "conservative decoding is defined for alpha 1 or a beta, with one delta of weight 1; "
            f"these weights are {self.to_dict() or {'alpha': 1.0}} over {dict(deltas)}"
        )


def resolve_role(role: str, deltas: Mapping[str, float]) -> str:
    """The full name of a role: "tuned" stands for "tuned:NAME" where there is one delta.

    With several deltas the short form means the only one of non-zero weight, if there is just one.

    Raises:
        RequestError: there is no such role, or the short form could mean several.
    """
    roles = [BASE, *(f"{side}:{name}" for name in deltas for side in ("tuned", "reference"))]
    if role in roles:
        return role
    if role in ("tuned", "reference"):
        active = [name for name, weight in deltas.items() if weight] or list(deltas)
        if len(active) == 1:
            return f"{role}:{active[0]}"
    raise RequestError(f"no role is named {role!r}; there are: {', '.join(roles)}")


def log_partition(logits: NDArray[np.float32], scratch: NDArray[np.float32]) -> NDArray[np.float32]:
    """log Σ exp over the last axis, stable; overwrites `scratch`.

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


@dataclass
class Combiner:
    """Forms combined rows of logits, (rows, vocab) float32: one row per slot or draft position.

    Attributes:
        n_vocab: common width; wider rows are cut to it (padded tails differ within a family).
        end_token: the id below `n_vocab` into which every role's ways to end a reply are merged,
            or None if the models have none.
        end_tokens: role → (n,) ids with which that role ends a reply, at any width. A base that
            never saw `<|im_end|>` gives it next to nothing, and no finite delta lifts that; so
            each role's end ids are merged by logsumexp before they are combined.
        masked: ids that get −inf: the end ids other than `end_token`, and ids that mean different
            things in different models.
    """

    n_vocab: int
    end_token: int | None = None
    end_tokens: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    masked: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))

    def __post_init__(self) -> None:
        # Where every role ends a reply with `end_token` alone there is nothing to merge.
        self._merges = self.end_token is not None and any(
            list(ids) != [self.end_token] for ids in self.end_tokens.values()
        )

    def combine(
        self,
        rows: Mapping[str, NDArray[np.float32]],
        coefficients: Mapping[str, float],
        *,
        out: NDArray[np.float32],
        scratch: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Σ coefficient · row, written into `out`.

        Args:
            rows: role → (rows, ≥ n_vocab) float32 logits. Rows of coefficient 0 are not read.
            coefficients: role → coefficient, as `Weights.coefficients` gives them.
            out: (rows, n_vocab) float32, overwritten.
            scratch: like `out`, overwritten.

        Returns:
            `out`. A token that is −inf in any row with a non-zero coefficient is −inf in it.

        Raises:
            EngineError: a row holds NaN or +inf (the message names the model), the sum leaves
                float32, or no token is left.
        """
        active = {role: c for role, c in coefficients.items() if c != 0.0}
        cut = {role: rows[role][..., : self.n_vocab] for role in active}
        with np.errstate(invalid="ignore", over="ignore"):
            _add_up(cut, active, out, scratch)
            # A bad logit shows in the sum's maximum, but +inf that was subtracted in its own row's.
            tops = [out.max(axis=-1), *(cut[r].max(axis=-1) for r, c in active.items() if c < 0)]
            sound = bool(np.isfinite(tops).all())
            if not sound:
                for role, row in cut.items():
                    _check_logits(role, row)
                # −inf with a negative coefficient became +inf, or NaN beside another −inf.
                for row in cut.values():
                    out[np.isneginf(row)] = -np.inf
            if self.end_token is not None and self._merges:
                ends = {role: self._end_logit(role, rows[role]) for role in active}
                excluded = np.any([np.isneginf(end) for end in ends.values()], axis=0)
                end = sum(active[role] * ends[role] for role in active)
                out[..., self.end_token] = np.where(excluded, -np.inf, end)
        if len(self.masked):
            out[..., self.masked] = -np.inf
        if self._merges or len(self.masked) or not sound:
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
        """The sum inside the tuned model's nucleus, the tuned model itself outside (EFT §4.3).

        s = Σ c · log p inside S, log p_tuned outside, where S is the smallest set of tokens to
        which `tuned` gives at least `top_p` of its own untempered probability (ties by token id)
        and every log p is normalised over the common vocabulary.

        Args and raises as `combine`; `tuned` names the role that S is taken from.
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

    def _end_logit(self, role: str, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows,) the logit of "the reply ends here" in one model."""
        ids = self.end_tokens.get(role)
        if ids is None or not len(ids):
            return row[..., self.end_token]
        _check_logits(role, row[..., ids])
        return np.logaddexp.reduce(row[..., ids], axis=-1)


def _add_up(
    rows: Mapping[str, NDArray[np.float32]],
    coefficients: Mapping[str, float],
    out: NDArray[np.float32],
    scratch: NDArray[np.float32],
) -> None:
    """Σ coefficient · row into `out`, in as few passes as there are additions."""
    (first, c), *others = coefficients.items()
    total = rows[first] if c == 1.0 else np.multiply(rows[first], c, out=out)
    for role, c in others:
        if abs(c) == 1.0:
            total = (np.add if c > 0 else np.subtract)(total, rows[role], out=out)
        else:
            total = np.add(total, np.multiply(rows[role], c, out=scratch), out=out)
    if total is not out:
        np.copyto(out, total)


def _check_logits(role: str, logits: NDArray[np.float32]) -> None:
    """EngineError, with the name of the model, where it gave NaN or +inf: max() shows both."""
    top = logits.max(axis=-1)
    if not (np.isnan(top) | np.isposinf(top)).any():
        return
    token = int(np.argwhere(np.isnan(logits) | np.isposinf(logits))[0][-1])
    name = "NaN" if np.isnan(top).any() else "+inf"
    raise EngineError(
        f"the model in role {role!r} gave {name} as the logit of token {token}; its file may be "
        "damaged, or this backend computes it wrongly (try it with no layers on the GPU)"
    )


def _check_sum(out: NDArray[np.float32]) -> None:
    if not np.isfinite(out.max(axis=-1)).all():
        raise EngineError(
            "no token is left: each is excluded (−inf) by one model or another, or the weights are "
            "so large that the sum of logits exceeds float32"
        )
