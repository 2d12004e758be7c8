"""From the rows of a block to its tokens: combine, choose, go on while drafts are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from .combiner import Combiner, log_partition
from .draft_policy import DraftPolicy
from .explain import explain
from .live import Live
from .request import FinishReason, Step, Timings
from .sampling import sample
from .seats import Rows


class Chooser:
    """Chooses the tokens of live requests.

    Args:
        combiner: for all requests.
        deltas: the recipe's, name → weight.
        piece: token id → bytes.
        n_ctx: tokens per slot.
    """

    def __init__(
        self,
        combiner: Combiner,
        deltas: Mapping[str, float],
        piece: Callable[..., bytes],
        n_ctx: int,
    ) -> None:
        self._combiner, self._deltas, self._piece, self._n_ctx = combiner, deltas, piece, n_ctx
        self._logits = np.empty((1, combiner.n_vocab), np.float32)
        self._scratch = np.empty_like(self._logits)

    def combine(
        self, live: Live, rows: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], float]:
        """(1, vocab) combined logits, overwritten by the next call, and their log-partition."""
        out, scratch = self._logits, self._scratch
        if live.request.conservative is None:
            self._combiner.combine(rows, live.coefficients, out=out, scratch=scratch)
        else:
            self._combiner.combine_conservative(
                rows,
                live.coefficients,
                live.request.weights.conservative_role(self._deltas),
                live.request.conservative,
                out=out,
                scratch=scratch,
            )
        return out, float(log_partition(out, scratch)[0])

    def verify(
        self,
        live: Live,
        rows: Rows,
        seconds: Mapping[str, float],
        started: float,
        drafts: DraftPolicy,
    ) -> None:
        """Choose tokens for as long as they are the drafted ones, and the one that follows.

        Args:
            live: its steps become pending, its tokens part of the reply; its slot is taken from it
                if it ends.
            rows: role → one (1, n_vocab) row per draft and one for the token behind them.
            seconds: seat → time of the block's decodes, charged to its first token.
            started: when the step began, on `perf_counter`.
            drafts: is told which drafts were right.

        Raises:
            EngineError: a model gave NaN, or no token is left. What was chosen before is pending.
        """
        for j in range(len(live.draft) + 1):
            timings = Timings()
            if j == 0:
                (timings.decode if live.tokens else timings.prefill).update(seconds)
            proposal = live.proposals[j] if live.proposals else None
            # Behind the draft the drafter only told what it would have said; an end it said.
            draft = proposal.token if proposal and (j < len(live.draft) or proposal.ends) else None
            step = self._choose(
                live, {role: parts[j] for role, parts in rows.items()}, draft, timings
            )
            now = perf_counter()
            timings.total, started = now - started, now
            live.pending.append(step)
            if proposal:
                drafts.observe_draft(proposal.confidence, step.token == proposal.token)
            if step.finish_reason:
                live.slot = -1
            if step.finish_reason or not step.accepted:
                break

    def _choose(
        self,
        live: Live,
        rows: Mapping[str, NDArray[np.float32]],
        draft: int | None,
        timings: Timings,
    ) -> Step:
        """Combine → sample → text: one token of one request, and whether it is the draft."""
        index, request = len(live.tokens), live.request
        t0 = perf_counter()
        logits, log_z = self.combine(live, rows)
        t1 = perf_counter()
        token = int(sample(logits, [request], [index], [live.counts])[0])
        logprob = float(logits[0, token]) - log_z
        t2 = perf_counter()
        views = None
        if request.explain:
            views = explain(rows, token, request.explain, self._combiner, self._piece)
        t3 = perf_counter()
        text, finish_reason = self._take(live, token)
        t4 = perf_counter()
        timings.combine, timings.sample, timings.text = t1 - t0, t2 - t1, t4 - t3
        accepted = None if draft is None else token == draft
        return Step(live.id, index, token, text, logprob, timings, finish_reason, views, accepted)

    def _take(self, live: Live, token: int) -> tuple[str, FinishReason | None]:
        """Make the token part of the reply; text to show, and whether the reply ends."""
        if token == self._combiner.end_token:
            return live.text.flush(), "stop"
        full = live.room(self._n_ctx) <= 1
        live.take(token)
        text = live.text.push(token)
        if live.text.finished:
            return text, "stop"
        if full:
            return text + live.text.flush(), "length"
        return text, None
