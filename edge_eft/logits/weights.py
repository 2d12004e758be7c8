"""The papers' dials → one coefficient per role.

Every mode of the two papers is one weighted sum of logits, Σ c · s, with other coefficients
(arXiv 2310.12962 §3, arXiv 2401.08565 eq. 1); `combiner` forms the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError
from ..validate import checked_call, checked_init, did_you_mean, kind, number

BASE = "base"


@checked_init()
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
            raise RequestError(f"{self.role!r} alone takes no alpha, beta or mix")

    @classmethod
    @checked_call()
    def upscale(cls, alpha: float = 1.0) -> Weights:
        """base + α · Σ wᵢ (tunedᵢ − referenceᵢ), wᵢ from the recipe (EFT up-scaling)."""
        return cls(alpha=alpha)

    @classmethod
    @checked_call()
    def amplify(cls, beta: float, mix: Mapping[str, float] | None = None) -> Weights:
        """Σ wᵢ tunedᵢ + β · (base − Σ wᵢ referenceᵢ) (EFT, amplified up-scaling)."""
        number("beta", beta, 0.0)
        return cls(beta=beta, mix=mix)

    @classmethod
    @checked_call()
    def interpolate(cls, mix: Mapping[str, float], alpha: float = 1.0) -> Weights:
        """base + α · Σ mixᵢ (tunedᵢ − referenceᵢ); the mix is not normalised (EFT §3.3)."""
        kind("mix", mix, Mapping, "a mapping of deltas to weights")
        return cls(alpha=alpha, mix=mix)

    @classmethod
    @checked_call()
    def only(cls, role: str) -> Weights:
        """Weigh one model alone: "base", "tuned", "reference", or "tuned:NAME"."""
        kind("only", role, str, "the name of one role")
        return cls(role=role)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Weights:
        """Return what `to_dict` described. Raises RequestError for a key it does not know."""
        kind("weights", values, Mapping, "an object with alpha, beta, mix or only")
        known = ("alpha", "beta", "mix", "only")
        if unknown := [key for key in values if key not in known]:
            near = did_you_mean(unknown[0], known)
            raise RequestError(
                f"weights have an unknown key {unknown[0]!r}{near}; known: {', '.join(known)}"
            )
        return cls(
            alpha=values.get("alpha", 1.0),
            beta=values.get("beta"),
            mix=values.get("mix"),
            role=values.get("only"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: only what differs from `upscale(1.0)`."""
        mix = dict(self.mix) if self.mix is not None else None
        alpha = self.alpha if self.alpha != 1.0 else None
        values = {"alpha": alpha, "beta": self.beta, "mix": mix, "only": self.role}
        return {name: value for name, value in values.items() if value is not None}

    def coefficients(self, deltas: Mapping[str, float]) -> dict[str, float]:
        """Return one coefficient per role.

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
            known = ", ".join(deltas)
            raise RequestError(f"no delta is named {unknown[0]!r:.80}; there are: {known}")
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
        return {role: c + 0.0 for role, c in result.items()}  # −0.0 is 0

    def conservative_role(self, deltas: Mapping[str, float]) -> str:
        """Return the tuned role whose nucleus bounds conservative decoding.

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
    """Return the full name of a role: "tuned" stands for "tuned:NAME" where there is one delta.

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
