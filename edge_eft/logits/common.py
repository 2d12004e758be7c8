"""One role's logits in the vocabulary that all roles share: cut, and its ends merged.

The seam between models and arithmetic: what `CommonRows.common` gives can be added up id by id.
NumPy only; which ids mean what was settled by `vocabulary.reconcile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class CommonRows:
    """Rows of the common vocabulary.

    Attributes:
        n_vocab: common width; wider rows are cut to it (padded tails differ within a family).
        end_token: the id below `n_vocab` into which every role's ways to end a reply are merged,
            or None if the models have none.
        end_tokens: role → (n,) ids with which that role ends a reply, at any width. A base that
            never saw `<|im_end|>` gives it next to nothing, and no finite delta lifts that; so
            each role's end ids are merged by logsumexp before they are combined.
        masked: ids that get −inf in the sum: the end ids other than `end_token`, and ids that mean
            different things in different models.
    """

    n_vocab: int
    end_token: int | None = None
    end_tokens: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    masked: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))

    def __post_init__(self) -> None:
        # A role that ends a reply with `end_token` alone has nothing to merge.
        self._merged = {
            role: ids
            for role, ids in self.end_tokens.items()
            if self.end_token is not None and len(ids) and list(ids) != [self.end_token]
        }

    def common(
        self, rows: Mapping[str, NDArray[np.float32]], coefficients: Mapping[str, float]
    ) -> list[tuple[float, NDArray[np.float32]]]:
        """Return coefficient and common logits of every role that has one.

        Args:
            rows: role → (rows, ≥ n_vocab) float32 logits, not changed.
            coefficients: role → coefficient; where it is 0 the row is not read.

        Returns:
            (coefficient, (rows, n_vocab) float32): a view, or a copy where ends are merged.
        """
        return [(c, self.of(role, rows[role])) for role, c in coefficients.items() if c]

    def of(self, role: str, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a role's common logits.

        Args:
            rows: (…, ≥ n_vocab) float32 logits, not changed.

        Returns:
            (…, n_vocab) float32: a view, or a copy where ends are merged.
        """
        common = rows[..., : self.n_vocab]
        if role in self._merged:
            common = common.copy()
            ends = rows[..., self._merged[role]]
            common[..., self.end_token] = np.logaddexp.reduce(ends, axis=-1)
        return common

    def alike(self, rows: Mapping[str, NDArray[np.float32]]) -> list[list[str]]:
        """Return the roles, those together whose common logits are the same.

        Args:
            rows: role → logits; one array for roles of one context.
        """
        groups: dict[object, list[str]] = {}
        for role, row in rows.items():
            ends = self._merged.get(role)
            key = id(row), None if ends is None else ends.tobytes()
            groups.setdefault(key, []).append(role)
        return list(groups.values())
