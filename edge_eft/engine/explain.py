"""What each model thought of a token: the view behind the combined distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ..logits.combiner import Combiner, log_partition
from ..logits.nucleus import largest_of_rows
from .logprobs import logprobs_of
from .reply import EMULATED, Candidate, RoleView, TokenLogprob


class Explainer:
    """Tells the roles' own distributions, over the common vocabulary.

    Args:
        combiner: merges the end tokens in each row as in the emulation.
        piece: token id → bytes; called with `special=True`, so that control tokens show.
    """

    def __init__(self, combiner: Combiner, piece: Callable[..., bytes]) -> None:
        self._combiner, self._piece = combiner, piece
        self._logits = self._scratch = np.empty((0, combiner.n_vocab), np.float32)

    def explain(
        self,
        rows: Mapping[str, NDArray[np.float32]],
        j: int,
        token: int,
        n: int,
        combined: tuple[NDArray[np.float32], np.float32],
        top: Sequence[TokenLogprob],
    ) -> tuple[dict[str, RoleView], tuple[Candidate, ...]]:
        """Return what every role thought at one position, and what was likely to any of them.

        Args:
            rows: role → (rows, n_vocab) float32 logits; one array for roles of one context.
            j: which of the rows.
            token: the token that was chosen.
            n: how many of each role's likeliest tokens to list.
            combined: (n_vocab,) float32 logits of the emulation, and their log-partition.
            top: the emulation's likeliest.

        Raises:
            EngineError: a row holds NaN or +inf, or excludes every token.
        """
        groups = self._combiner.alike(rows)
        logits = self._common(rows, groups, j)
        log_z = self._log_partition(rows, groups, j, logits)
        ranked = [best.tolist() for best in largest_of_rows(logits, n)]
        ids = list(dict.fromkeys([*(one.token for one in top), *chain.from_iterable(ranked)]))
        pieces = {i: self._piece(i, special=True) for i in ids}
        # One more column: the chosen token may be likely to nobody.
        log_p = logits[:, np.array([*ids, token])] - log_z[:, None]
        columns: dict[str, list[float]] = {EMULATED: logprobs_of(ids, *combined)}
        views = dict[str, RoleView]()
        for group, best, values in zip(groups, ranked, (log_p + 0.0).tolist(), strict=True):
            of = dict(zip(ids, values, strict=False))
            likeliest = tuple((i, pieces[i].decode("utf-8", "replace"), of[i]) for i in best)
            views |= dict.fromkeys(group, RoleView(values.pop(), likeliest))
            columns |= dict.fromkeys(group, values)
        candidates = [
            Candidate(i, pieces[i], dict(zip(columns, row, strict=True)))
            for i, *row in zip(ids, *columns.values(), strict=True)
        ]
        candidates.sort(key=lambda one: (-one.logprobs[EMULATED], one.token))
        return views, tuple(candidates)

    def _common(
        self, rows: Mapping[str, NDArray[np.float32]], groups: Sequence[list[str]], j: int
    ) -> NDArray[np.float32]:
        """Return (groups, n_vocab) logits, overwritten by the next call."""
        if len(self._logits) != len(groups):
            self._logits = np.empty((len(groups), self._combiner.n_vocab), np.float32)
            self._scratch = np.empty_like(self._logits)
        for (role, *_), row in zip(groups, self._logits, strict=True):
            row[:] = self._combiner.of(role, rows[role][j])
        self._logits[:, self._combiner.masked] = -np.inf
        return self._logits

    def _log_partition(
        self,
        rows: Mapping[str, NDArray[np.float32]],
        groups: Sequence[list[str]],
        j: int,
        logits: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return (groups,) float32."""
        with np.errstate(invalid="ignore"):
            log_z = log_partition(logits, self._scratch)
        for (role, *_), z in zip(groups, log_z, strict=True):
            if not np.isfinite(z):  # the combiner says what is wrong with it
                row, out = {role: rows[role][j : j + 1]}, self._scratch[:1]
                self._combiner.combine(row, {role: 1.0}, out=out, scratch=np.empty_like(out))
        return log_z
